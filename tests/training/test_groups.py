"""Groups of pictures: what is ranked against what, and that a step is always the same step."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor

from trainer import groups
from trainer.groups import UNKNOWN, Groups, Mixture, Pictures


def pictures(opinions: int = 300, ladders: int = 20, seed: int = 0) -> Pictures:
    """Two datasets of two subsets each, and ladders of six rungs; the first feature is the row."""
    rng = np.random.default_rng(seed)
    n = opinions + 6 * ladders
    features = rng.normal(size=(n, 3, 5)).astype(np.float16)
    features[:, :, 0] = np.arange(n)[:, None]
    features[:, :, 1] = np.arange(3)
    levels = np.full((n, 8), UNKNOWN, np.int8)
    levels[opinions:] = 0
    levels[opinions:, 0] = np.tile(np.arange(6), ladders)
    steps = np.arange(opinions)
    none = np.full(6 * ladders, np.nan)
    return Pictures(
        features=features,
        mos=np.append(rng.uniform(0, 100, opinions), none).astype(np.float32),
        sigma=np.full(n, np.nan, np.float32),
        dataset=np.append(np.where(steps % 3, "one", "two"), ["made"] * 6 * ladders),
        subset=np.append(np.where(steps % 2, "a", "b"), ["made"] * 6 * ladders),
        split=np.where(np.arange(n) % 12 < 6, "train", "validation"),
        levels=levels,
        regions=np.full((n, 9), UNKNOWN, np.int8),
        ladder=np.append(np.full(opinions, UNKNOWN), np.repeat(np.arange(ladders), 6)),
        rung=np.append(np.zeros(opinions), np.tile(np.arange(6.0), ladders)).astype(np.float32),
    )


def parts(batch: dict[str, Tensor]) -> list[tuple[str, list[int]]]:
    """(kind as seen from the labels, rows) of each group."""
    found = []
    for number in range(int(batch["group"][-1]) + 1):
        mine = batch["group"] == number
        exact = bool(batch["order"][mine].isfinite().all())
        found.append(("ladder" if exact else "opinion", batch["row"][mine].tolist()))
    return found


def test_a_step_is_the_same_whenever_it_is_asked_for() -> None:
    """A resumed run must see what it would have seen."""
    made = Groups(pictures(), Mixture(), seed=1)
    first = made(7)
    made(8)

    again = Groups(pictures(), Mixture(), seed=1)(7)

    for name in first:
        assert torch.equal(first[name], again[name]) or first[name].isnan().any(), name
    assert torch.equal(first["features"], again["features"])
    assert not torch.equal(first["row"], Groups(pictures(), Mixture(), seed=2)(7)["row"])
    assert not torch.equal(made(8)["row"][:3], first["row"][:3])


def test_a_step_has_enough_pictures_in_groups_of_three_to_five() -> None:
    """With few pictures a step, score distributions collapse; see model notes in the README."""
    made = Groups(pictures(), Mixture(pictures=64), seed=1)

    for step in range(20):
        batch = made(step)
        sizes = torch.bincount(batch["group"])
        assert 64 <= len(batch["group"]) < 64 + 5
        assert 3 <= sizes.min() <= sizes.max() <= 5


def test_a_third_of_the_groups_is_of_each_kind() -> None:
    """Also where a step is a single group."""
    for wanted in (1, 64):
        made = Groups(pictures(), Mixture(pictures=wanted), seed=1)
        kinds = [kind for step in range(600 // wanted) for kind, _ in parts(made(step))]

        assert kinds.count("ladder") / len(kinds) == pytest.approx(1 / 3, abs=0.06)


def test_a_near_group_is_of_one_subset_and_like_opinions() -> None:
    """Else ordering only teaches which subset a picture is from."""
    p = pictures()
    made = Groups(p, Mixture(near=1, anywhere=0, ladder=0), seed=1)

    for step in range(20):
        for _, rows in parts(made(step)):
            assert len(set(rows)) == len(rows) >= 3
            assert len(set(zip(p.dataset[rows], p.subset[rows], strict=True))) == 1
            assert np.ptp(p.mos[rows]) <= 30
            assert any(np.abs(p.mos[rows] - p.mos[r]).max() <= 15 for r in rows)


def test_a_group_from_anywhere_is_of_one_dataset() -> None:
    """Opinions of different sets are not comparable."""
    p = pictures()
    made = Groups(p, Mixture(near=0, anywhere=1, ladder=0), seed=1)

    subsets = set()
    for step in range(20):
        for _, rows in parts(made(step)):
            assert len(set(rows)) == len(rows) >= 3
            assert len(set(p.dataset[rows])) == 1
            assert np.isfinite(p.mos[rows]).all()
            subsets.add(len(set(p.subset[rows])))
    assert subsets == {1, 2}


def test_a_ladder_is_one_photograph_with_an_exact_order_and_no_opinion() -> None:
    """Even where its photograph has one: strengths must never become absolute targets."""
    p = pictures()
    p = replace(p, mos=np.where(p.ladder >= 0, 50, p.mos).astype(np.float32))
    made = Groups(p, Mixture(near=0, anywhere=0, ladder=1), seed=1)

    for step in range(20):
        batch = made(step)
        assert batch["mos"].isnan().all()
        for _, rows in parts(batch):
            assert len(set(p.ladder[rows])) == 1
            assert len(set(p.rung[rows])) == len(rows)
        assert batch["order"].tolist() == (-p.rung[batch["row"]]).tolist()


def test_labels_and_features_are_those_of_their_rows() -> None:
    """One slip here and everything after it learns noise."""
    p = pictures()
    batch = Groups(p, Mixture(), seed=1)(0)
    rows = batch["row"].numpy()

    assert torch.equal(batch["features"][:, 0], torch.from_numpy(rows).float())
    assert set(batch["features"][:, 1].tolist()) == {0, 1, 2}  # all views are in use
    assert torch.equal(batch["levels"], torch.from_numpy(p.levels[rows]).long())
    told = batch["order"].isnan().numpy()
    assert np.array_equal(batch["mos"].numpy()[told], p.mos[rows[told]])
    assert batch["features"].dtype == torch.float32


def test_a_partner_is_another_picture_of_the_group() -> None:
    """Given as a distance, so that it stays true when groups are shared out."""
    batch = Groups(pictures(), Mixture(), seed=1)(0)
    rows = torch.arange(len(batch["group"]))

    partner = rows + batch["partner"]

    assert (partner != rows).all()
    assert torch.equal(batch["group"][partner], batch["group"])


@pytest.mark.parametrize(
    ("mixture", "kind"),
    [
        (Mixture(near=0, anywhere=0, ladder=1), "ladder"),
        (Mixture(near=1, anywhere=0, ladder=0, window=1e-6), "near"),
    ],
)
def test_a_kind_that_cannot_be_made_is_an_error(mixture: Mixture, kind: str) -> None:
    """Silently taking other groups would change the recipe."""
    with pytest.raises(ValueError, match=f"no {kind} group of 3 pictures can be made: set its"):
        Groups(pictures(ladders=0), mixture, seed=1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"smallest": 1},
        {"smallest": 5, "largest": 4},
        {"pictures": 0},
        {"near": -1.0},
        {"near": 0.0, "anywhere": 0.0, "ladder": 0.0},
    ],
)
def test_a_mixture_that_cannot_be_is_an_error(wrong: dict[str, Any]) -> None:
    """A group of one has nothing to be ranked against."""
    with pytest.raises(ValueError, match=r"groups of|must be"):
        Mixture(**wrong)


def test_pictures_come_back_as_saved(tmp_path: Path) -> None:
    """Half-precision features included: they are most of the file."""
    p = pictures()
    p.save(tmp_path / "cache" / "f.npz")

    found = groups.load(tmp_path / "cache" / "f.npz")

    for field in fields(Pictures):
        ours, theirs = getattr(p, field.name), getattr(found, field.name)
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs, equal_nan=ours.dtype.kind == "f")
    assert set(found.part("train").split) == {"train"}
    assert len(found.part("train")) + len(found.part("validation")) == len(p)


def test_pictures_that_cannot_be_true_are_errors(tmp_path: Path) -> None:
    """Every one of these once trained a model on nonsense somewhere."""
    p = pictures()
    broken = p.features.copy()
    broken[7, 0, 0] = math.inf
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"mos": p.mos / 100 + 100}, "mos spans"),
        ({"features": broken}, "features of 1 pictures are not finite, the first in row 7"),
        ({"levels": p.levels + np.int8(3)}, "levels hold"),
        ({"regions": p.regions - np.int8(3)}, "regions hold"),
        ({"sigma": p.sigma[:-1]}, "sigma has shape"),
        ({"features": p.features[:, 0]}, "features has shape"),
    ]
    for change, message in wrong:
        with pytest.raises(ValueError, match=message):
            replace(p, **change)

    with pytest.raises(ValueError, match=r"none\.npz holds no features to learn from"):
        groups.load(tmp_path / "none.npz")
    np.savez(tmp_path / "other.npz", mos=p.mos)
    with pytest.raises(ValueError, match=r"other\.npz holds no features to learn from"):
        groups.load(tmp_path / "other.npz")
