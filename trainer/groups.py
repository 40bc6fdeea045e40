"""Pictures as features of a frozen backbone, and the groups of them that GRPO learns from.

A group is 3 to 5 pictures of one dataset that are ranked against each other:

    near      of one subset, opinions within 15 points: what tells them apart is quality, not
              which subset they are from
    anywhere  of one dataset, at random
    ladder    one photograph at several strengths of one damage: the order is exact, and there is
              no opinion, nor is one ever made up from the strength

Every batch is a function of (seed, step) alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vqmon.domain import CELLS, DEGRADATIONS

KINDS = ("near", "anywhere", "ladder")

UNKNOWN = -1
"""Label of a degradation, region or ladder that nobody knows, or that there is none of."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """n pictures; all arrays have n rows.

    features: (n, views, F) of the frozen backbone through several draws of patch offsets; view 0
        is the one of serving. Any float type.
    mos: 0..100, NaN without opinion; sigma: deviation between viewers, points, NaN where the
        set tells none.
    dataset, subset, split: names; split is "train", "validation" or "test".
    levels: (n, 8) int8 of vqmon.domain.DEGRADATIONS: 0 absent, 1..5, UNKNOWN.
    regions: (n, 9) int8 of vqmon.domain.CELLS: 0 intact, 1 damaged, UNKNOWN.
    ladder: number of the ladder that a picture is on, UNKNOWN for none; rung: rises with damage.
    """

    features: NDArray[np.floating[Any]]
    mos: NDArray[np.float32]
    sigma: NDArray[np.float32]
    dataset: NDArray[np.str_]
    subset: NDArray[np.str_]
    split: NDArray[np.str_]
    levels: NDArray[np.int8]
    regions: NDArray[np.int8]
    ladder: NDArray[np.int64]
    rung: NDArray[np.float32]

    def __post_init__(self) -> None:
        n = len(self.features)
        shapes = {"levels": (n, len(DEGRADATIONS)), "regions": (n, len(CELLS))}
        for field in fields(self):
            shape = getattr(self, field.name).shape
            if field.name == "features":
                right = len(shape) == 3 and min(shape) > 0
            else:
                right = shape == shapes.get(field.name, (n,))
            if not right:
                raise ValueError(f"{field.name} has shape {shape} for {n} pictures")
        self._check_values()

    def _check_values(self) -> None:
        broken = ~np.isfinite(self.features).all((1, 2))
        if broken.any():
            raise ValueError(
                f"features of {broken.sum()} pictures are not finite, the first in row "
                f"{broken.argmax()}: extract them again"
            )
        said = self.mos[np.isfinite(self.mos)]
        if said.size and (said.min() < 0 or said.max() > 100):
            raise ValueError(f"mos spans {said.min():g} to {said.max():g}; it must be 0 to 100")
        if not np.isin(self.levels, range(UNKNOWN, 6)).all():
            raise ValueError("levels hold something else than -1 to 5")
        if not np.isin(self.regions, (UNKNOWN, 0, 1)).all():
            raise ValueError("regions hold something else than -1, 0 and 1")

    def __len__(self) -> int:
        return len(self.features)

    def part(self, split: str) -> Pictures:
        """Those of one split; ValueError when there are none."""
        rows = np.flatnonzero(self.split == split)
        if not len(rows):
            raise ValueError(f"no picture of the split {split!r}: the features must hold some")
        return self.rows(rows)

    def rows(self, rows: NDArray[np.int64]) -> Pictures:
        return Pictures(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def save(self, path: Path) -> None:
        """One .npz file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part.npz")
        np.savez(unfinished, **{field.name: getattr(self, field.name) for field in fields(self)})
        unfinished.replace(path)


def load(path: Path) -> Pictures:
    """As saved. Raises ValueError naming file and what is wrong."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Pictures(**{field.name: stored[field.name] for field in fields(Pictures)})
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"{path} holds no features to learn from: {error}") from error


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a step is made of. near, anywhere, ladder: shares of the groups; any sum.

    pictures: a step has at least so many. smallest, largest: pictures of a group. window:
    points between the opinions of a near group and its first picture.
    """

    pictures: int = 64
    smallest: int = 3
    largest: int = 5
    near: float = 1.0
    anywhere: float = 1.0
    ladder: float = 1.0
    window: float = 15.0

    def __post_init__(self) -> None:
        if not 2 <= self.smallest <= self.largest:
            raise ValueError(
                f"groups of {self.smallest} to {self.largest} pictures: "
                "the least is 2, and `largest` must not be below `smallest`"
            )
        if self.pictures < 1 or self.window <= 0:
            raise ValueError("pictures and window must be positive")
        if min(self.shares) < 0 or sum(self.shares) <= 0:
            raise ValueError("near, anywhere and ladder must be shares, at least one above 0")

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(getattr(self, kind) for kind in KINDS)


class Groups:
    """step -> batch, as `trainer.grpo.train` and `trainer.rewards` want it."""

    def __init__(self, pictures: Pictures, mixture: Mixture, seed: int) -> None:
        """Raises ValueError when a kind of group is asked for and cannot be made."""
        self.pictures, self.mixture, self.seed = pictures, mixture, seed
        self._features = torch.from_numpy(np.ascontiguousarray(pictures.features))
        self._by_subset = _sorted_by_opinion(pictures)
        self._by_dataset = [
            rows
            for rows in _with_opinion(pictures, [pictures.dataset])
            if len(rows) >= mixture.smallest
        ]
        self._ladders = [r for r in _ladders(pictures) if len(r) >= mixture.smallest]
        self._anchors = self._near_anchors()
        possible = (len(self._anchors), sum(map(len, self._by_dataset)), len(self._ladders))
        for kind, share, count in zip(KINDS, mixture.shares, possible, strict=True):
            if share and not count:
                raise ValueError(
                    f"no {kind} group of {mixture.smallest} pictures can be made: "
                    f"set its share to 0, or add pictures"
                )

    def __call__(self, step: int) -> dict[str, Tensor]:
        rng = np.random.default_rng([self.seed, step])
        sizes = self._sizes(rng)
        kinds = self._kinds(len(sizes), rng)
        groups = [
            getattr(self, f"_{kind}")(size, rng) for kind, size in zip(kinds, sizes, strict=True)
        ]
        return self._batch(groups, kinds, rng)

    def _sizes(self, rng: np.random.Generator) -> list[int]:
        sizes: list[int] = []
        while sum(sizes) < self.mixture.pictures:
            sizes.append(int(rng.integers(self.mixture.smallest, self.mixture.largest + 1)))
        return sizes

    def _kinds(self, count: int, rng: np.random.Generator) -> list[str]:
        """Evenly spaced through the shares, so that every step has them within one group."""
        edges = np.cumsum(self.mixture.shares) / sum(self.mixture.shares)
        places = (rng.random() + np.arange(count)) / count
        return [KINDS[i] for i in rng.permutation(np.searchsorted(edges, places, side="right"))]

    def _near(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        subset, place = self._anchors[rng.integers(len(self._anchors))]
        rows = self._by_subset[subset]
        first, end = self._window(rows, place)
        others = np.delete(rows[first:end], place - first)
        chosen = rng.choice(others, min(size - 1, len(others)), replace=False)
        return np.append(chosen, rows[place])

    def _anywhere(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        sizes = np.array([len(rows) for rows in self._by_dataset])
        rows = self._by_dataset[rng.choice(len(sizes), p=sizes / sizes.sum())]
        return rng.choice(rows, min(size, len(rows)), replace=False)

    def _ladder(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        rows = self._ladders[rng.integers(len(self._ladders))]
        return rng.choice(rows, min(size, len(rows)), replace=False)

    def _near_anchors(self) -> list[tuple[int, int]]:
        """(subset, place in it) of the pictures that have enough others in their window."""
        anchors = []
        for subset, rows in enumerate(self._by_subset):
            for place in range(len(rows)):
                first, end = self._window(rows, place)
                if end - first >= self.mixture.smallest:
                    anchors.append((subset, place))
        return anchors

    def _window(self, rows: NDArray[np.int64], place: int) -> tuple[int, int]:
        opinions = self.pictures.mos[rows]
        middle, reach = opinions[place], self.mixture.window
        first = np.searchsorted(opinions, middle - reach, side="left")
        end = np.searchsorted(opinions, middle + reach, side="right")
        return int(first), int(end)

    def _batch(
        self, groups: Sequence[NDArray[np.int64]], kinds: Sequence[str], rng: np.random.Generator
    ) -> dict[str, Tensor]:
        p, rows = self.pictures, np.concatenate(groups)
        counts = [len(group) for group in groups]
        exact = np.repeat([kind == "ladder" for kind in kinds], counts)
        views = rng.integers(p.features.shape[1], size=len(rows))
        return {
            "features": self._features[rows, views].float(),
            "mos": _floats(np.where(exact, np.nan, p.mos[rows])),
            "sigma": _floats(p.sigma[rows]),
            "order": _floats(np.where(exact, -p.rung[rows], np.nan)),
            "levels": torch.from_numpy(p.levels[rows]).long(),
            "regions": torch.from_numpy(p.regions[rows]).long(),
            "group": torch.from_numpy(np.repeat(np.arange(len(groups)), counts)),
            "partner": torch.from_numpy(np.concatenate([_partners(count) for count in counts])),
            "row": torch.from_numpy(rows),
        }


def _partners(count: int) -> NDArray[np.int64]:
    """From each picture of a group to the next one, and from the last to the first."""
    return np.append(np.ones(count - 1, np.int64), 1 - count)


def _floats(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))


def _sorted_by_opinion(pictures: Pictures) -> list[NDArray[np.int64]]:
    """Rows with an opinion, of each subset of each dataset, worst first."""
    found = _with_opinion(pictures, [pictures.dataset, pictures.subset])
    return [rows[np.argsort(pictures.mos[rows], kind="stable")] for rows in found]


def _with_opinion(pictures: Pictures, by: Sequence[NDArray[np.str_]]) -> list[NDArray[np.int64]]:
    """Rows with an opinion, apart by the names in `by`."""
    members: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in np.flatnonzero(np.isfinite(pictures.mos)).tolist():
        members[tuple(str(names[row]) for names in by)].append(row)
    return [np.array(members[key]) for key in sorted(members)]


def _ladders(pictures: Pictures) -> list[NDArray[np.int64]]:
    members: dict[int, list[int]] = defaultdict(list)
    for row in np.flatnonzero(pictures.ladder != UNKNOWN).tolist():
        members[int(pictures.ladder[row])].append(row)
    return [np.array(members[number]) for number in sorted(members)]
