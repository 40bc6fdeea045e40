"""What a large model says of pictures, kept as lessons for a small one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests import tiny_writer
from trainer import distil
from trainer.distil import TargetsUnusable
from trainer.extract import made_up
from trainer.groups import UNKNOWN
from vqmon.domain import DEGRADATIONS


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three pictures, and a file that only looks like one."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        picture = made_up(np.random.default_rng(number), 56, 56)
        Image.fromarray(picture).save(folder / f"{number}.png")
    (folder / "3.png").write_text("no picture")
    return folder


def asked(teacher: str, pictures: Path, out: Path) -> int:
    return distil.main(["--teacher", teacher, "--pictures", str(pictures), "--out", str(out)])


def test_a_writer_teaches_scores_and_what_it_names(pictures: Path, tmp_path: Path) -> None:
    """Real classes, a tiny checkpoint; what it was not asked about is unknown, not absent, and an
    answer that nobody can read is no lesson.
    """
    out = tmp_path / "targets.jsonl"

    assert asked(f"writer:{tiny_writer.school()}", pictures, out) == 0

    *found, broken = distil.read(out)
    scored = [it for it in found if it.scored]  # a tiny model is not always readable
    assert scored
    assert all(0 <= (it.quality or -1) <= 100 for it in scored)
    unasked = [DEGRADATIONS.index(name) for name in ("banding", "upscaled", "corrupted")]
    assert all(it.levels[place] == UNKNOWN for it in scored for place in unasked)
    assert any(level > 0 for it in scored for level in it.levels)
    assert not broken.scored
    assert "3.png" in broken.message


def test_an_interrupted_run_goes_on_and_asks_nothing_twice(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also behind a line that was cut off in the middle."""
    out = tmp_path / "targets.jsonl"
    assert asked("lite", pictures, out) == 0
    whole = out.read_text()
    out.write_text("".join(whole.splitlines(keepends=True)[:2]) + '{"path": "cut')
    capsys.readouterr()

    assert asked("lite", pictures, out) == 0

    assert out.read_text() == whole
    assert "2 asked now" in capsys.readouterr().out


def test_lessons_of_two_teachers_are_not_mixed(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Their scales differ."""
    out = tmp_path / "targets.jsonl"
    assert asked("lite", pictures, out) == 0

    assert asked("measures", pictures, out) == 2

    assert "name another --out" in capsys.readouterr().err


def test_targets_become_lessons_of_the_network(pictures: Path, tmp_path: Path) -> None:
    """Pictures as the network reads them, beside what was said; a changed picture is refused."""
    out = tmp_path / "targets.jsonl"
    assert asked("lite", pictures, out) == 0

    taught = distil.taught(out, draws=2, processes=1)

    assert len(taught) == 3
    assert taught.lessons.quality.tolist() == pytest.approx(
        [it.quality for it in distil.read(out) if it.scored]
    )
    Image.fromarray(made_up(np.random.default_rng(9), 72, 72)).save(pictures / "0.png")
    with pytest.raises(TargetsUnusable, match="has changed"):
        distil.taught(out, draws=2, processes=1)
