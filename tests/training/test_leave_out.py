"""Heads that never saw a subset, judged on it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("scipy")

import torch

from trainer import leave_out
from trainer.datasets import Sample
from trainer.evaluation import contests
from trainer.groups import UNKNOWN, Pictures
from trainer.leave_out import NOTHING, Judged, judge, without
from trainer.supervised import Course, learn

torch.set_num_threads(1)

SUBSETS = ("ss01", "ss02", "ss03")
BRIEF = Course(steps=4, look_every=4)
F = 6


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "RESAMPLES", 20)


def known(count: int = 90, seed: int = 0) -> Pictures:
    """Opinions along the first feature, in three subsets of the same kind; and some ladders."""
    rng = np.random.default_rng(seed)
    made, n = 60, count + 60
    x = rng.normal(size=(n, 2, F))
    rung = np.tile(np.arange(6.0), 10)
    x[count:, :, 0] -= rung[:, None]
    levels = np.full((n, 8), UNKNOWN, np.int8)
    levels[count:] = 0
    levels[count:, 0] = rung
    mos = np.append(np.clip(50 + 20 * x[:count, 0, 0], 0, 100), np.full(made, np.nan))
    return Pictures(
        features=x.astype(np.float16),
        mos=mos.astype(np.float32),
        sigma=np.full(n, np.nan, np.float32),
        dataset=np.array(["BIQ2021"] * count + ["synthetic"] * made),
        subset=np.array(list(SUBSETS) * (count // 3) + ["synthetic"] * made),
        split=np.array((["train"] * 6 + ["validation"] * 3) * (count // 9) + ["train"] * made),
        levels=levels,
        regions=np.full((n, 9), UNKNOWN, np.int8),
        ladder=np.append(np.full(count, UNKNOWN), np.repeat(np.arange(10), 6)),
        rung=np.append(np.zeros(count), rung).astype(np.float32),
    )


def samples(count: int = 60) -> list[Sample]:
    rng = np.random.default_rng(5)
    return [
        Sample(Path(f"{i}.jpg"), float(rng.uniform(10, 90)), SUBSETS[i % 3], "test")
        for i in range(count)
    ]


def test_what_is_left_out_is_not_among_what_is_learned_from() -> None:
    """Neither to learn from nor to choose by; made pictures stay."""
    left = without(known(), "ss02")

    assert set(left.subset) == {"ss01", "ss03", "synthetic"}
    assert set(left.part("validation").subset) == {"ss01", "ss03"}


def test_each_subset_is_judged_by_heads_that_never_saw_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the same heads trained on everything stand beside them."""
    seen: list[set[str]] = []

    def watched(heads, pictures, course, **more):  # type: ignore[no-untyped-def]
        seen.append(set(pictures.subset) & set(SUBSETS))
        return learn(heads, pictures, course, **more)

    monkeypatch.setattr(leave_out, "learn", watched)
    test = Judged.of(samples(), np.random.default_rng(1).normal(size=(60, 1, F)))

    table = judge(known(), test, BRIEF, [1], tmp_path)

    assert seen == [set(SUBSETS) - {name} for name in SUBSETS] + [set(SUBSETS)]
    figures = {row.figure: row for row in table.rows}
    each = [figures[f"without {name}"].value for name in SUBSETS]
    assert figures["mean of the subsets left out"].value == pytest.approx(np.mean(each))
    assert figures["without ss01"].n == 20
    assert any("upper bound" in note for note in table.notes)
    assert {file.name for file in tmp_path.glob("*.npy")} == {
        f"{name}-1.npy" for name in (*SUBSETS, NOTHING)
    }


def test_a_run_that_was_interrupted_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four sets of heads take minutes each."""
    test = Judged.of(samples(), np.random.default_rng(1).normal(size=(60, 1, F)))
    before = judge(known(), test, BRIEF, [1], tmp_path)
    monkeypatch.delattr(leave_out, "learn")

    assert judge(known(), test, BRIEF, [1], tmp_path).as_json() == before.as_json()


def test_the_command_writes_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From features on disk to a table in JSON."""
    monkeypatch.setattr(leave_out, "biq2021", lambda _: samples())
    known().save(tmp_path / "features.npz")
    np.save(tmp_path / "test.npy", np.random.default_rng(1).normal(size=(60, 1, F)))
    given = ["--features", str(tmp_path / "features.npz"), "--biq", "none"]
    given += ["--out", str(tmp_path / "out"), "--steps", "4"]

    assert leave_out.main([*given, "--test-features", str(tmp_path / "test.npy")]) == 0
    stored = json.loads((tmp_path / "out" / "leave-out.json").read_text())
    assert stored["rows"][0]["figure"] == "mean of the subsets left out"
    assert stored["seeds"] == [1]


def test_features_of_other_pictures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows that do not belong together would give a figure all the same."""
    monkeypatch.setattr(leave_out, "biq2021", lambda _: samples())
    known().save(tmp_path / "features.npz")
    np.save(tmp_path / "test.npy", np.zeros((7, 1, F)))
    given = ["--features", str(tmp_path / "features.npz"), "--biq", "none", "--out", str(tmp_path)]

    assert leave_out.main([*given, "--test-features", str(tmp_path / "test.npy")]) == 2
    assert "7 pictures for a test split of 60" in capsys.readouterr().err

    assert leave_out.main(given) == 2
    assert "name --network and --views" in capsys.readouterr().err
