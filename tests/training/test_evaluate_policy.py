"""A model that writes on the same tables as one that only scores."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")
pytest.importorskip("matplotlib")

import torch
from PIL import Image

from tests import tiny_writer
from trainer import evaluate
from trainer.asking import Asked
from trainer.evaluation import classes, contests, footnote, opinions
from trainer.evaluation.asking import UNREAD, AskingJudge, answer_table
from trainer.evaluation.shelf import Shelf
from trainer.extract import made_up
from vqmon.domain import DEGRADATIONS, Assessment, Finding
from vqmon.errors import ScorerUnavailable

torch.set_num_threads(1)

SERVER = Path(__file__).parents[1] / "answering_server.py"


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (opinions, contests):
        monkeypatch.setattr(module, "RESAMPLES", 20)


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clean ones in their published layout, and a set of twelve with opinions."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    places = ("CID22/CID22-512/training/t0.png", "CID22/CID22-512/validation/v0.png", "kodak/k.png")
    for place in places:
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made_up(rng, 48, 64)).save(file)
    lines = ["path,mos"]
    for i in range(12):
        Image.fromarray(made_up(rng, 48, 64)).save(root / f"{i}.png")
        lines.append(f"{i}.png,{5 + 8 * i}")
    (root / "set.csv").write_text("\n".join(lines) + "\n")
    return root


class Stub:
    """Says what it is told to: per call "blur", "clean", "mumbles" or "away"."""

    inputs = ("picture",)
    model = "stub@1"

    def __init__(self) -> None:
        self.asked, self.manner = 0, ["blur", "clean", "mumbles"]

    def write(self) -> None: ...

    def assess(self, pictures: Any) -> list[Assessment]:
        manner = self.manner[self.asked % len(self.manner)]
        self.asked += 1
        if manner == "away":
            return [_silent("scorer_unavailable", "(it does not answer)")]
        if manner == "mumbles":
            return [_silent("scorer_failed", "(There is no score: it has no <answer>.)")]
        levels = np.zeros((8, 6))
        levels[[DEGRADATIONS.index(name) for name in ("blur", "noise")], 0] = 1.0
        found: tuple[Finding, ...] = ()
        if manner == "blur":
            levels[DEGRADATIONS.index("blur")] = np.eye(6)[3]
            found = (Finding("blur", 3, 0.9, 3.0, 1.0, region=("top", "left")),)
        outputs = {"levels": tuple(levels.ravel().tolist()), "rating": (3.5,), "lost": (0.01,)}
        return [Assessment(0.0, 62.5, 4.0, found, outputs, "stub@1")]


def _silent(reason: str, why: str) -> Assessment:
    return Assessment(0.0, None, None, model="stub@1", no_score_reason=reason, explanation=why)


def judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: Stub) -> AskingJudge:
    monkeypatch.setattr("trainer.asking.load_scorer", lambda *_, **__: stub)
    return AskingJudge(Asked("writer:stub"), tmp_path)


def test_answers_become_verdicts(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A named fault is present, an unnamed one of those asked about is absent, and an answer that
    nobody can read is neither a score nor clean.
    """
    asking = judge(tmp_path, monkeypatch, Stub())
    shelf, source = Shelf(tmp_path, 0), photographs / "kodak" / "k.png"

    verdicts = asking.of(shelf.kept("five", [source], footnote.shots))

    blur, banding = DEGRADATIONS.index("blur"), DEGRADATIONS.index("banding")
    assert verdicts.quality[:2].tolist() == [62.5, 62.5]
    assert np.isnan(verdicts.quality[2])
    assert verdicts.strongest[:3].tolist() == ["blur", "clean", UNREAD]
    assert verdicts.severity[:3, blur].tolist() == [3, 0, 0]
    assert verdicts.presence[:3, blur].tolist() == [1, 0, 0]
    assert verdicts.presence[1, banding] == 0
    said = classes.answers(verdicts, classes.FIVE, np.zeros(len(verdicts), int)).said
    assert said[2] == classes.OTHER


def test_unreadable_answers_are_counted(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third here, whichever tables looked at them."""
    asking = judge(tmp_path, monkeypatch, Stub())
    shelf, source = Shelf(tmp_path, 0), photographs / "kodak" / "k.png"
    for _ in range(2):
        asking.of(shelf.kept("five", [source], footnote.shots))

    table = answer_table(asking)

    rows = {row.figure: row for row in table.rows}
    assert rows["scores that could not be read"].n == 51
    assert rows["scores that could not be read"].value == pytest.approx(1 / 3)
    assert rows["scores that could not be read"].verdict == "miss"
    assert rows["classes that could not be read"].value == pytest.approx(1 / 3)
    assert rows["scores by the written number alone"].value == 0
    assert table.details["why there is no score"] == {"it has no <answer>": 17}


def test_a_run_that_was_interrupted_asks_nothing_twice(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model went away in the middle; a line was cut off; then all is asked that is missing."""
    stub = Stub()
    stub.manner = ["blur"] * 20 + ["away"]
    asking = judge(tmp_path, monkeypatch, stub)
    shelf, source = Shelf(tmp_path, 0), photographs / "kodak" / "k.png"
    with pytest.raises(ScorerUnavailable, match="run again"):
        asking.of(shelf.kept("five", [source], footnote.shots))
    (file,) = asking.folder.rglob("*.jsonl")
    assert len(file.read_text().splitlines()) == 20
    with file.open("a") as opened:
        opened.write('{"seconds": 1')
    stub.manner, stub.asked = ["clean"], 0

    verdicts = asking.of(shelf.kept("five", [source], footnote.shots))

    assert stub.asked == 31
    assert (verdicts.strongest == "blur").sum() == 20
    judge(tmp_path, monkeypatch, stub).of(shelf.kept("five", [source], footnote.shots))
    assert stub.asked == 31


def test_a_local_writer_fills_the_tables(photographs: Path, tmp_path: Path) -> None:
    """Real classes, a tiny checkpoint; the table of answers stands beside those of the figures."""
    given = ["--policy", "writer", "--model", str(tiny_writer.school()), "--quick"]
    given += ["--clean", str(photographs), "--set", f"csv={photographs / 'set.csv'}"]
    given += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path), "--processes", "0"]

    assert evaluate.main([*given, "--tables", "clean,cross,speed,answers"]) == 0

    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(stored["tables"]) == ["clean", "cross", "answers"]  # speed: of prepared inputs
    assert stored["model"].startswith("tiny@")
    rows = {row["figure"]: row for row in stored["tables"]["answers"]["rows"]}
    assert rows["scores that could not be read"]["n"] == 13  # one clean photograph, twelve judged
    assert 0 <= rows["scores that could not be read"]["value"] < 1
    assert "could not be read" in (tmp_path / "out" / "evaluation.md").read_text()


@pytest.mark.parametrize(("mood", "unreadable"), [("well", 0.0), ("rambles", 1.0)])
def test_a_server_fills_the_tables(
    photographs: Path, tmp_path: Path, mood: str, unreadable: float
) -> None:
    """A real process; one that only rambles gets no figure, and the share says why."""
    given = ["--policy", "remote", "--quick", "--clean", str(photographs)]
    given += ["--set", f"csv={photographs / 'set.csv'}", "--processes", "0"]
    given += ["--out", str(tmp_path / "out"), "--cache", str(tmp_path)]

    with serving(tmp_path, mood) as url:
        assert evaluate.main([*given, "--model", url, "--tables", "clean,cross,answers"]) == 0

    tables = json.loads((tmp_path / "out" / "evaluation.json").read_text())["tables"]
    rows = {row["figure"]: row["value"] for row in tables["answers"]["rows"]}
    assert rows["scores that could not be read"] == unreadable
    assert rows["classes that could not be read"] == unreadable
    accused = tables["clean"]["rows"][0]["value"]
    assert accused == 1 - unreadable  # it calls everything dark
    assert bool(tables["cross"]["rows"]) == (mood == "well")


def test_what_cannot_be_had_is_named(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any picture is made."""
    given = ["--clean", str(photographs), "--out", str(tmp_path), "--cache", str(tmp_path)]

    assert evaluate.main([*given, "--policy", "writer", "--model", str(tmp_path)]) == 2

    assert "no checkpoint" in capsys.readouterr().err


@contextmanager
def serving(folder: Path, mood: str) -> Iterator[str]:
    (folder / "mood").write_text(mood)
    command = [sys.executable, str(SERVER), str(folder / "mood"), str(folder / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.terminate()
