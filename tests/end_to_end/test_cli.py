"""The program as it is started by people and scripts: a process with pipes and signals."""

from __future__ import annotations

import csv
import json
import os
import pty
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.media import write_clip
from vqmon.domain import NO_SCORE_REASONS, Segment
from vqmon.store import open_store

VQMON = [sys.executable, "-m", "vqmon"]
ENVIRON = {k: v for k, v in os.environ.items() if not k.startswith("VQMON_")}


def vqmon(*arguments: str, folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*VQMON, *arguments],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=folder,
        env=ENVIRON | {"PYTHONPATH": os.pathsep.join(sys.path)} | more,
    )


def test_help_comes_at_once(tmp_path: Path) -> None:
    """Under 0.3 s: nobody waits for a machine-learning runtime to read a help text."""
    took = []
    for _ in range(5):
        began = time.perf_counter()
        assert vqmon("--help", folder=tmp_path).returncode == 0
        took.append(time.perf_counter() - began)

    assert min(took) < 0.3


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What people hand to `score`: a clip, a picture, and what is neither."""
    folder = tmp_path_factory.mktemp("media")
    write_clip(folder / "clip.mp4", 12)
    pixels = np.random.default_rng(1).integers(0, 255, (96, 128, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "still.png")
    (folder / "letter.mp4").write_text("Dear Sir or Madam,\n" * 50)
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    write_clip(folder / "sound.mp4", 2, video=False)
    return folder


FILES = (
    "clip.mp4",
    "letter.mp4",
    "empty.mp4",
    "missing.mp4",
    "folder.mp4",
    "sound.mp4",
    "still.png",
)
SCORED = {"clip.mp4", "still.png"}


def test_score_prints_one_object_for_each_file(media: Path) -> None:
    """The shape that scripts rely on, with the shipped model, bad files among good ones."""
    done = vqmon("score", *FILES, "--json", folder=media)

    told = json.loads(done.stdout)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert [it["source"] for it in told] == list(FILES)
    for it in told:
        assert set(it) == {
            "source",
            "quality",
            "uncertainty",
            "model",
            "findings",
            "explanation",
            "segments",
            "no_score_reason",
        }
        assert isinstance(it["explanation"], str)
        assert it["explanation"]
        assert (it["quality"] is not None) is (it["source"] in SCORED)
        assert (it["no_score_reason"] is None) is (it["source"] in SCORED)
        assert it["no_score_reason"] in {None, *NO_SCORE_REASONS}
        for found in it["findings"]:
            assert found["severity"] in range(1, 6)
            assert 0 <= found["confidence"] <= 1
    clip = told[0]
    assert 0 <= clip["quality"] <= 100
    assert "@" in clip["model"]
    assert [round(it["seconds"]) for it in clip["segments"]] == [10, 2]
    weights = [it["seconds"] for it in clip["segments"]]
    qualities = [it["quality"] for it in clip["segments"]]
    assert clip["quality"] == pytest.approx(np.average(qualities, weights=weights), abs=0.02)


def test_the_same_file_scores_the_same_every_time(media: Path) -> None:
    """A score that wanders cannot be alarmed on."""
    runs = [vqmon("score", "clip.mp4", "--json", folder=media).stdout for _ in range(2)]

    assert json.loads(runs[0])[0]["quality"] is not None
    assert runs[0] == runs[1]


def test_score_prints_csv_that_programs_can_read(media: Path) -> None:
    """One row for each file, numbers and reasons apart."""
    done = vqmon("score", *FILES, "--csv", folder=media)

    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert done.returncode == 1
    assert [it["source"] for it in rows] == list(FILES)
    assert all(bool(it["quality"]) is not bool(it["no_score_reason"]) for it in rows)


def test_probe_without_anything_shows_a_sample(tmp_path: Path) -> None:
    """The first command that a newcomer types; it finds the damage put into the sample."""
    done = vqmon("probe", "--json", folder=tmp_path)

    told = json.loads(done.stdout)
    assert done.returncode == 0
    assert 0 <= told["quality"] <= 100
    assert {"freeze", "noise"} <= {it["name"] for it in told["findings"]}
    assert not list(tmp_path.iterdir())


def test_compare_prints_which_is_better_and_why(media: Path) -> None:
    """Exit code 0 whichever wins: the answer is the result. Noise is worse than a clean clip."""
    done = vqmon("compare", "still.png", "clip.mp4", "--json", folder=media)
    again = vqmon("compare", "clip.mp4", "still.png", folder=media)

    told = json.loads(done.stdout)
    assert done.returncode == again.returncode == 0
    assert set(told) == {
        "better",
        "margin",
        "probability",
        "spread",
        "same_content",
        "reason",
        "looked",
        "a",
        "b",
    }
    assert told["looked"] is None
    assert told["same_content"] is False
    assert told["margin"] == pytest.approx(told["a"]["quality"] - told["b"]["quality"], abs=0.011)
    assert told["a"]["source"] == "still.png"
    assert told["a"]["model"] == told["b"]["model"]
    assert "Conclusion: " in told["reason"]
    assert "Conclusion: " in again.stdout


def test_compare_finds_stored_segments_by_the_beginning_of_their_ids(tmp_path: Path) -> None:
    """As they are copied from a report, beside a file, with the configured database."""
    (tmp_path / "vqmon.yaml").write_text("streams: {news: {url: a.mp4}}\n")
    write_clip(tmp_path / "clip.mp4", 2)
    scored = json.loads(vqmon("score", "clip.mp4", "--json", folder=tmp_path).stdout)[0]
    good, poor, other = (
        Segment(
            "news",
            datetime(2026, 3, 1, 12, minute, tzinfo=UTC),
            0.0,
            10.0,
            quality=quality,
            uncertainty=8.0,
            model=model,
            id=id_ * 8,
        )
        for minute, quality, model, id_ in (
            (0, 80.0, scored["model"], "ab01"),
            (1, 30.0, scored["model"], "cd02"),
            (2, 30.0, "other@1", "ef03"),
        )
    )
    (tmp_path / "vqmon-data").mkdir()
    with open_store(f"sqlite:///{tmp_path / 'vqmon-data' / 'vqmon.db'}") as store:
        store.add([good, poor, other])

    both = vqmon("compare", "ab", "cd02", "--json", folder=tmp_path)
    mixed = vqmon("compare", "ab", "clip.mp4", "--json", folder=tmp_path)
    refused = vqmon("compare", "ef", "clip.mp4", folder=tmp_path)
    nothing = vqmon("compare", "00ff", "clip.mp4", folder=tmp_path)
    misused = vqmon("compare", "ab", folder=tmp_path)

    assert json.loads(both.stdout)["better"] == "a"
    assert json.loads(both.stdout)["a"]["segment"] == good.id
    assert json.loads(mixed.stdout)["b"]["segment"] is None
    assert refused.returncode == nothing.returncode == 1
    assert "--model with the folder of other@1" in refused.stderr
    assert "00ff: neither a file nor" in nothing.stderr
    assert misused.returncode == 2
    assert "Traceback" not in refused.stderr + nothing.stderr


def test_a_reader_that_leaves_early_causes_no_traceback(media: Path) -> None:
    """`vqmon score … | head -1` is everyday use."""
    command = f"{sys.executable} -m vqmon score {'missing.mp4 ' * 3000} --csv | head -1"

    done = subprocess.run(
        ["/bin/bash", "-o", "pipefail", "-c", command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=media,
        env=ENVIRON | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )

    assert done.returncode == 141
    assert done.stdout.startswith("source,")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


def test_a_full_disk_behind_the_output_is_told_once(tmp_path: Path) -> None:
    """`vqmon … > file` on a full disk: one line, no second complaint from Python."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*VQMON, "config", "schema"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            cwd=tmp_path,
            env=ENVIRON | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )

    assert done.returncode == 1
    assert done.stderr == "error: output: No space left on device\n"


def test_ctrl_c_ends_the_look_with_one_line(tmp_path: Path) -> None:
    """No traceback of thirty lines, and quickly."""
    process = subprocess.Popen(
        [*VQMON, "probe", "synthetic:?live=1", "--duration", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=ENVIRON | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    time.sleep(4)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=20)

    assert process.returncode == 130
    assert told.strip() == "interrupted"
    assert time.monotonic() - began < 5


def test_the_progress_bar_stays_off_the_results(media: Path) -> None:
    """On a terminal the bar is on standard error and the array on standard output is whole."""
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [*VQMON, "score", "clip.mp4", "still.png", "--json"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        cwd=media,
        env=ENVIRON | {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"},
    )
    os.close(theirs)
    out, _ = process.communicate(timeout=60)
    seen = os.read(terminal, 65536).decode(errors="replace")
    os.close(terminal)

    assert len(json.loads(out)) == 2
    assert "of 2 files" in seen


def test_a_program_on_the_path_becomes_a_command(tmp_path: Path) -> None:
    """Its arguments, output and exit code are its own."""
    program = tmp_path / "vqmon-hello"
    program.write_text('#!/bin/sh\necho "$# $2"; exit 7\n')
    program.chmod(0o755)

    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = vqmon("hello", "--loud", "a b", folder=tmp_path, PATH=path)

    assert (done.stdout, done.returncode) == ("2 a b\n", 7)


def test_a_bad_configuration_is_told_whole_with_exit_code_2(tmp_path: Path) -> None:
    """All mistakes, one a line, nothing else."""
    (tmp_path / "vqmon.yaml").write_text("scorer: {threads: no}\nstreams: {a: {ulr: x}}\n")

    done = vqmon("run", folder=tmp_path)

    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: vqmon.yaml:1:19: scorer.threads: 'no': must be a whole number",
        "vqmon.yaml:2:11: streams.a.url: is required: Where the stream is; a path for a file.",
        "vqmon.yaml:2:15: streams.a.ulr: is not a setting; did you mean 'url'?",
    ]


def test_doctor_examines_with_the_real_model(tmp_path: Path) -> None:
    """What it prints fits this machine, where the other tests pass too."""
    done = vqmon("doctor", "--json", folder=tmp_path)

    checks = {it["name"]: it for it in json.loads(done.stdout)}
    assert checks["model"]["status"] in {"ok", "warn"}
    assert "@" in checks["model"]["found"]
    assert checks["onnx runtime"]["status"] == "ok"
    assert all(it["remedy"] for it in checks.values() if it["status"] == "fail")
