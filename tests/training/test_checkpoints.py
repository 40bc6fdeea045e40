"""Checkpoints: whole or not there, and loading one runs no code."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch

from trainer import checkpoints
from trainer.checkpoints import CheckpointUnreadable


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    """Tensors to the bit, plain values as they are."""
    weights, state = torch.rand(5, dtype=torch.float64), {"step": 3, "best": -1.5}
    path = tmp_path / "new" / "a.pt"

    checkpoints.save(path, {"weights": weights, "state": state})

    found = checkpoints.load(path)
    assert torch.equal(found["weights"], weights)
    assert found["state"] == state
    assert set(found) == {"weights", "state"}


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path: Path) -> None:
    """A full disk at step 40,000 must not cost the checkpoint of step 37,500."""
    path = tmp_path / "a.pt"
    checkpoints.save(path, {"step": 1})

    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoints.save(path, {"step": 2, "broken": (i for i in range(3))})

    assert checkpoints.load(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.pt"]


def test_loading_runs_no_code(tmp_path: Path) -> None:
    """Checkpoints are handed around; a pickle may hold any program."""
    path = tmp_path / "a.pt"
    torch.save({"format": 1, "program": Path("x")}, path)

    with pytest.raises(CheckpointUnreadable, match=r"a\.pt is damaged or no checkpoint"):
        checkpoints.load(path)


def test_what_cannot_be_read_is_named_with_a_remedy(tmp_path: Path) -> None:
    """Missing, cut short, foreign and of another format are told apart."""
    with pytest.raises(CheckpointUnreadable, match=r"none\.pt does not exist"):
        checkpoints.load(tmp_path / "none.pt")

    whole = tmp_path / "whole.pt"
    checkpoints.save(whole, {"weights": torch.rand(1000)})
    cut = tmp_path / "cut.pt"
    cut.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(CheckpointUnreadable, match=r"cut\.pt is damaged"):
        checkpoints.load(cut)

    text = tmp_path / "text.pt"
    text.write_text("not a checkpoint")
    with pytest.raises(CheckpointUnreadable, match=r"text\.pt is damaged or no checkpoint"):
        checkpoints.load(text)

    other = tmp_path / "other.pt"
    torch.save({"format": 99}, other)
    with pytest.raises(CheckpointUnreadable, match=r"no checkpoint of format 1"):
        checkpoints.load(other)


def test_a_card_says_where_a_checkpoint_came_from(tmp_path: Path) -> None:
    """Data, code, seed and figures: without them a figure cannot be repeated."""
    data = tmp_path / "features.npz"
    data.write_bytes(b"features")

    checkpoints.write_card(
        tmp_path / "card.json", seed=7, data={"features": data}, validation={"srcc": 0.7}
    )

    card = json.loads((tmp_path / "card.json").read_text())
    assert card["seed"] == 7
    assert card["data"]["features"] == {
        "file": "features.npz",
        "bytes": 8,
        "sha256": hashlib.sha256(b"features").hexdigest(),
    }
    assert card["validation"] == {"srcc": 0.7}
    assert card["torch"] == torch.__version__
    assert card["made_at"].endswith("+00:00")
    assert "commit" in card


def test_a_figure_that_could_not_be_told_does_not_cost_the_card(tmp_path: Path) -> None:
    """A correlation of two pictures is NaN, which JSON cannot hold."""
    checkpoints.write_card(
        tmp_path / "card.json", seed=7, data={}, validation={"ss01": math.nan, "all": [0.7]}
    )

    card = json.loads((tmp_path / "card.json").read_text())
    assert card["validation"] == {"ss01": None, "all": [0.7]}


def test_the_commit_says_whether_the_checkout_was_edited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure from edited code cannot be found again by its commit alone."""
    answers = {"rev-parse": "abc", "status": " M trainer/grpo.py"}
    monkeypatch.setattr(checkpoints, "_git", lambda _folder, verb, *_: answers[verb])
    assert checkpoints.commit() == "abc+changes"

    answers["status"] = ""
    assert checkpoints.commit() == "abc"

    def missing(*_: object) -> str:
        raise FileNotFoundError("git")

    monkeypatch.setattr(checkpoints, "_git", missing)
    assert checkpoints.commit() is None
