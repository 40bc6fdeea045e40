"""Perceptrons that name degradations: what must hold of them, and of the file they are kept in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from numpy.typing import NDArray

from trainer import checkpoints, levels
from trainer.levels import MeasuredLevels, Recipe
from vqmon.domain import DEGRADATIONS
from vqmon.measures import MEASURES

torch.set_num_threads(1)

QUICK = Recipe(members=2, hidden=32, passes=60, batch=64, dropout=0.0)


def lessons(seed: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """The first measure is the level of blur; of noise nothing is known, all else is absent."""
    rng = np.random.default_rng(seed)
    truth = np.zeros((600, len(DEGRADATIONS)), np.int8)
    truth[:, 0] = rng.integers(0, 6, 600)
    truth[:, 1] = -1
    measures = np.zeros((600, 2, len(MEASURES)), np.float32)
    measures[..., 1:5] = rng.standard_normal((600, 2, 4))
    measures[:, :, 0] = 10 * truth[:, :1] + rng.normal(0, 0.5, (600, 2))
    return measures, truth


@pytest.fixture(scope="module")
def network() -> MeasuredLevels:
    return levels.learn(*lessons(0), QUICK)


def test_it_learns_what_is_known(network: MeasuredLevels) -> None:
    """The level where it was told, absence where it was told; the unknown teaches neither."""
    measures, truth = lessons(1)
    with torch.no_grad():
        given = network(torch.from_numpy(measures[:, 0])).numpy()

    assert given.shape == (600, len(DEGRADATIONS), 6)
    assert np.allclose(given.sum(-1), 1, atol=1e-5)
    assert (given[:, 0].argmax(-1) == truth[:, 0]).mean() > 0.9
    assert given[:, 2, 0].mean() > 0.95
    assert given[:, 1].max(-1).mean() < 0.6


def test_beyond_the_training_range_nothing_changes(network: MeasuredLevels) -> None:
    """A measure that nobody has seen must not make up a degradation."""
    measures = torch.from_numpy(lessons(2)[0][:50, 0])
    low, high = network.low, network.high

    with torch.no_grad():
        far, edge = network(measures * 1000), network((measures * 1000).clamp(low, high))

    assert torch.equal(far, edge)


def test_it_is_kept_and_read_back(network: MeasuredLevels, tmp_path: Path) -> None:
    measures = torch.from_numpy(lessons(3)[0][:20, 0])
    levels.save(tmp_path / "levels.pt", network, QUICK)

    again = levels.load(tmp_path / "levels.pt")

    assert torch.equal(again(measures), network(measures))
    checkpoints.save(tmp_path / "other.pt", {"network": {}})
    with pytest.raises(checkpoints.CheckpointUnreadable, match="learn them again"):
        levels.load(tmp_path / "other.pt")


def test_the_program_learns_from_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the parts as they are made, to a file that the release reads; told on unseen contents."""
    measures, truth = lessons(4)
    split = (np.arange(600) % 3 == 0).astype(np.uint8)
    truth[::6] = 0
    truth[1::2, 2:] = 3
    np.savez(
        tmp_path / "part-1-000000.npz",
        measures=measures, levels=truth, split=split, rung=np.zeros(600, np.int8),
    )  # fmt: skip
    quick = Recipe(hidden=8, passes=1)
    monkeypatch.setattr(levels, "Recipe", lambda **given: replace(quick, **given))

    asked = ["--synthetic", str(tmp_path), "--out", str(tmp_path / "levels.pt")]
    assert levels.main(asked) == 0

    assert levels.load(tmp_path / "levels.pt").layers[0].shape[-1] == 8
    told = capsys.readouterr().out
    assert "blur: found" in told
    assert "noise: no pictures" in told
