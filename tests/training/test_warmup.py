"""The supervised start: each loss says what it should, and a run can be stopped and gone on with."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from trainer import checkpoints, warmup
from trainer.policies.lite import lite
from trainer.views import Views
from trainer.warmup import (
    Opinions,
    Options,
    Student,
    Synthetic,
    ladder_loss,
    level_loss,
    load_network,
    opinion_losses,
    region_loss,
    train,
)
from vqmon.measures import MEASURES

torch.set_num_threads(1)
BINS = torch.linspace(0, 100, 21)


def certain(place: torch.Tensor, outcomes: int) -> torch.Tensor:
    """Logits that are sure of these outcomes."""
    return 30 * torch.nn.functional.one_hot(place, outcomes).float()


def test_what_is_right_costs_least() -> None:
    """Opinions: the score of a sure and right answer beats that of a wrong one in every part."""
    said = torch.tensor([10.0, 90, 50, 30, 70, 20])
    right = opinion_losses(certain((said / 5).long(), 21), said, BINS)
    wrong = opinion_losses(certain((said.flip(0) / 5).long(), 21), said, BINS)

    assert all(right[name] < wrong[name] for name in right)
    assert right["close"] == pytest.approx(0, abs=1e-3)
    assert right["correlation"] == pytest.approx(0, abs=1e-4)


def test_unknown_levels_and_cells_teach_nothing() -> None:
    """Masked is not negative: a picture may have what nobody labelled."""
    truth = torch.full((4, 8), -1)
    logits = torch.randn(4, 8, 6, requires_grad=True)
    regions = torch.randn(4, 9, 2, requires_grad=True)

    (level_loss(logits, truth) + region_loss(regions, torch.full((4, 9), -1))).backward()  # type: ignore[no-untyped-call]

    assert logits.grad is not None
    assert regions.grad is not None
    assert logits.grad.abs().max() == 0
    assert regions.grad.abs().max() == 0


def test_a_neighbouring_level_is_less_wrong_than_a_distant_one() -> None:
    """Severity is ordered."""
    truth = torch.full((1, 8), 3)
    near, far = (
        level_loss(torch.log_softmax(8.0 * torch.eye(6)[k], 0).expand(1, 8, 6), truth)
        for k in (4, 1)
    )

    assert near < far


def test_only_rungs_of_one_ladder_are_compared() -> None:
    """Photographs differ; damage of one photograph is ordered."""
    ladder, rung = torch.tensor([5, 5, 6, -1]), torch.tensor([0, 1, 0, 0])
    quality = torch.tensor([80.0, 60, 10, 20], requires_grad=True)

    loss = ladder_loss(quality, ladder, rung)
    loss.backward()  # type: ignore[no-untyped-call]

    assert quality.grad is not None
    assert (quality.grad[2:] == 0).all()
    assert quality.grad[0] < 0 < quality.grad[1]
    assert ladder_loss(quality.detach().flip(0), ladder.flip(0), rung.flip(0)) == pytest.approx(
        float(loss)
    )


def made(count: int = 24, seed: int = 0) -> SimpleNamespace:
    """Noise with labels, four ladders of six."""
    rng = np.random.default_rng(seed)
    rung = np.tile(np.arange(6), count // 6)
    levels = np.zeros((count, 8), np.int8)
    levels[:, 0] = rung
    return SimpleNamespace(
        patches=rng.integers(0, 255, (count, 2, 36, 40, 40), dtype=np.uint8),
        view=rng.integers(0, 255, (count, 2, 3, 96, 96), dtype=np.uint8),
        measures=rng.standard_normal((count, 2, len(MEASURES))).astype(np.float32),
        levels=levels,
        regions=np.zeros((count, 9), np.int8),
        index=np.where(rung, math.nan, 100).astype(np.float32),
        ladder=np.repeat(np.arange(count // 6), 6).astype(np.int32),
        rung=rung.astype(np.int32),
        split=(np.repeat(np.arange(count // 6), 6) == 0).astype(np.uint8),
        kinds=("blur:gaussian",) * count,
    )


def judged(count: int = 120, seed: int = 0) -> Opinions:
    rng = np.random.default_rng(seed)
    views = Views(
        rng.integers(0, 255, (count, 2, 36, 40, 40), dtype=np.uint8),
        rng.integers(0, 255, (count, 3, 96, 96), dtype=np.uint8),
        rng.standard_normal((count, 2, len(MEASURES))).astype(np.float32),
        rng.random((count, 256)) < 0.5,
    )
    subset = np.array(["ss01", "ss02"])[np.arange(count) % 2]
    return Opinions(views, rng.uniform(0, 100, count).astype(np.float32), subset)


def test_a_batch_holds_both_halves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every loss of the recipe is there, and finite."""
    monkeypatch.setattr(warmup, "DAMAGED", 12)
    torch.manual_seed(0)

    losses = warmup._losses(
        Student(lite()), judged(), Synthetic(made(), 0), np.random.default_rng(1)
    )

    assert set(losses) == set(warmup.WEIGHTS) - {"taught"}  # only with targets
    assert all(torch.isfinite(value) for value in losses.values())


def test_ladders_are_drawn_whole() -> None:
    """A rung without its ladder would teach no order."""
    part = Synthetic(made(), 0)

    rows = part.draw(np.random.default_rng(0), 12)

    assert len(rows) == 12
    assert (part.held.split[rows] == 0).all()
    assert sorted(part.held.rung[rows[:6]].tolist()) == list(range(6))


def test_what_was_made_most_often_does_not_crowd_out_the_rest() -> None:
    """Nine ladders of darkness to one of blur are drawn three to one."""
    held = made(60)
    held.split[:] = 0
    held.kinds = ("blur:gaussian",) * 6 + ("underexposed:gamma",) * 54

    rows = Synthetic(held, 0).draw(np.random.default_rng(0), 6000)

    assert (rows < 6).mean() == pytest.approx(1 / 4, abs=0.03)


def test_a_stopped_run_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training takes an hour on two cores; machines are switched off."""
    monkeypatch.setattr(warmup, "OPINIONS", 4)
    monkeypatch.setattr(warmup, "DAMAGED", 4)
    student, data = Student(lite()), (judged(40), judged(20, 1))
    options = Options(steps=2, look_every=1)
    train(student, data, tmp_path / "none", tmp_path, options)

    train(Student(lite()), data, tmp_path / "none", tmp_path, Options(steps=3, look_every=1))

    assert checkpoints.load(tmp_path / "last.pt")["step"] == 3
    again = load_network(tmp_path / "best.pt")
    assert again(*(torch.from_numpy(it) for it in _inputs(data[1])))[0].shape == (20, 21)


def _inputs(part: Opinions) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    v = part.views
    return v.patches[:, 0], v.view, v.measures[:, 0]
