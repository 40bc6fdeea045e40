"""``vqmon-enhance`` on real clips, judged by the shipped model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests import spoiled
from tests.media import write_clip
from vqmon_enhancement.cli import run


def scene(noise: float = 0.0) -> Any:
    """Soft shapes that pan slowly, with as much noise as a poor sensor."""
    still = np.asarray(spoiled.photograph(320, 192).crop((0, 0, 320, 180)))
    rng = np.random.default_rng(5)

    def picture(index: int) -> Any:
        moved = np.roll(still, 2 * index, axis=1).astype(float)
        grain = rng.normal(0, noise, moved.shape) if noise else 0
        return np.clip(moved + grain, 0, 255).astype(np.uint8)

    return picture


def shot(path: Path, *, noise: float = 0.0, **options: str) -> Path:
    return write_clip(path, 1.2, picture=scene(noise), options=options)


def decided(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.parametrize(
    ("noise", "crf"), [(0.0, "45"), (20.0, "12")], ids=["badly coded", "noisy"]
)
def test_a_bad_clip_is_enhanced_or_honestly_refused(
    noise: float, crf: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the model thinks, file, decision and words must agree."""
    source = shot(tmp_path / "a.mp4", noise=noise, crf=crf)
    original = source.read_bytes()

    code = run([str(source), "--steps", "2", "--json"])

    told = decided(capsys)
    enhanced = tmp_path / "a.enhanced.mp4"
    assert code == 0
    assert source.read_bytes() == original
    assert json.loads((tmp_path / "a.enhanced.json").read_text()) == told
    assert enhanced.exists() == told["preferred"] == (told["kept"] is not None)
    assert told["reason"].startswith(
        "The enhanced one is preferred" if told["preferred"] else "The original stays"
    )
    assert len(told["trials"]) <= 2


def test_a_clip_whose_faults_are_not_grave_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is tried on it, so that nothing can be found to please the model."""
    source = shot(tmp_path / "a.mp4", crf="20")

    code = run([str(source), "--min-severity", "5", "--json"])

    told = decided(capsys)
    assert code == 0
    assert told["trials"] == []
    assert told["kept"] is None
    assert "nothing is wrong" in told["reason"]


def test_what_is_worse_is_kept_only_when_asked_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = shot(tmp_path / "a.mp4", noise=20.0, crf="12")

    code = run([str(source), "--steps", "1", "--min-gain", "50", "--keep-all", "--json"])

    told = decided(capsys)
    assert code == 0
    assert not told["preferred"]
    if told["recipe"]:  # some recipe gained on the pieces
        assert Path(told["kept"]).exists()
        assert told["reason"].startswith("The original stays")


def test_a_broken_file_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spoiled.letter(tmp_path / "letter.mp4")
    shot(tmp_path / "a.mp4", noise=20.0, crf="12")

    code = run([str(tmp_path / "letter.mp4"), str(tmp_path / "a.mp4"), "--steps", "1", "--json"])

    first, second = (json.loads(it) for it in capsys.readouterr().out.splitlines())
    assert code == 1
    assert "letter.mp4" in first["error"]
    assert second["source"].endswith("a.mp4")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.mp4", "--budget", "soon"],
        ["a.mp4", "b.mp4", "--output", "one.mp4"],
        ["a.mp4", "--output", "picture.gif"],
        ["a.mp4", "--output", "/nowhere/at/all.mp4"],
    ],
)
def test_wrong_usage_is_told_apart_from_failure(arguments: list[str]) -> None:
    assert run(arguments) == 2


def test_the_original_is_never_the_output(tmp_path: Path) -> None:
    source = shot(tmp_path / "a.mp4", crf="30")

    assert run([str(source), "--output", str(source)]) == 2


def test_a_missing_file_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["no-such.mp4"]) == 1
    assert "no-such.mp4" in capsys.readouterr().err
