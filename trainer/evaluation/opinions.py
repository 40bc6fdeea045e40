"""Against people: BIQ2021's published test split, and any other set that has a reader.

The test split is for these figures only; nothing is chosen by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

import trainer.views
from trainer import datasets, evaluate
from trainer.datasets import Sample, dhash, near_duplicates
from trainer.evaluation.asis import photographs_as_they_are
from trainer.evaluation.judging import Judge, Verdicts
from trainer.evaluation.shelf import Kept, Shelf
from trainer.evaluation.tables import Goal, Row, Table
from trainer.extract import read_picture
from vqmon.domain import DEGRADATIONS

Values = NDArray[np.floating]
RESAMPLES = 1000
SEED = 2021
SUBSETS = ("ss01", "ss02", "ss03")
LEAST = 10
"""Scored pictures below which agreement means nothing."""

GOALS = {
    "plcc": Goal(0.790, 0.810),
    "srcc": Goal(0.740, 0.792),
    "within": Goal(0.63, 0.70),
    "far": Goal(0.92, 0.95),
    "near": Goal(0.77, 0.80),
    "coverage": Goal(must_range=(0.75, 0.85), aim_range=(0.78, 0.82)),
}


@dataclass(frozen=True, slots=True)
class Judged:
    """A set with opinions, and what a model says of it; pictures without a score are left out
    and counted.
    """

    samples: list[Sample]
    verdicts: Verdicts
    hashes: NDArray[np.bool_]

    @property
    def scored(self) -> NDArray[np.bool_]:
        return np.isfinite(self.verdicts.quality)

    @property
    def said(self) -> Values:
        return np.array([sample.quality for sample in self.samples])

    @property
    def subset(self) -> NDArray[np.str_]:
        return np.array([sample.subset for sample in self.samples])


def judged(judge: Judge, shelf: Shelf, name: str, samples: Sequence[Sample]) -> Judged:
    paths = [sample.path for sample in samples]
    verdicts = judge.of(shelf.kept(name, paths, photographs_as_they_are))
    return Judged(list(samples), verdicts, verdicts.numbers > 0)


def biq_judged(judge: Judge, shelf: Shelf, test: list[Sample], views: Path | None) -> Judged:
    """The official test split, from what `trainer.views` has prepared where its folder is given."""
    if views is None:
        return judged(judge, shelf, "biq2021", test)
    seen = trainer.views.views([it.path for it in test], views / "test", draws=1)
    none = np.zeros((len(test), len(DEGRADATIONS)))
    kept = Kept(
        [{"name": it.path.name} for it in test],
        {"patches": seen.patches[:, 0], "view": seen.view, "measures": seen.measures[:, 0]},
        none.astype(np.int8),
        none.astype(np.float32),
        seen.hashes.astype(np.float64),
    )
    return Judged(test, judge.of([kept]), seen.hashes)


def biq_table(
    judge: Judge,
    shelf: Shelf,
    root: Path,
    *,
    limit: int | None = None,
    views: Path | None = None,
) -> Table:
    """Rows on the official test split. limit: at most so many test pictures, for a quick look."""
    samples = datasets.biq2021(root)
    test = _some([it for it in samples if it.split == "test"], limit)
    found = biq_judged(judge, shelf, test, views if limit is None else None)
    trained = [it.path for it in samples if it.split == "train"] if limit is None else []
    seen_before = _seen_before(found, _hashes(shelf, trained, views))
    table = Table("opinions", "BIQ2021, official test split (raw predictions)")
    if found.scored.sum() < LEAST:
        table.notes = [_too_few(found)]
        return table
    table.rows = _agreement_rows(found, seen_before, known=limit is None)
    table.rows += _pair_rows(found)
    table.rows.append(_coverage_row(found))
    table.notes = [
        f"{int((~found.scored).sum())} of {len(found.samples)} pictures got no score.",
    ]
    table.notes.append(
        "Pairs: any two test pictures, by the distance of their mean opinions in standard "
        "deviations of the test opinions."
    )
    table.details = {
        "within subsets": {name: _within(found, name) for name in SUBSETS},
        "predicted": [round(float(q), 3) for q in found.verdicts.quality],
        "uncertainty": [round(float(u), 3) for u in found.verdicts.uncertainty],
        "opinion": found.said.tolist(),
        "subset": found.subset.tolist(),
        "has a near-duplicate in train": seen_before.tolist(),
    }
    return table


def cross_table(
    judge: Judge, shelf: Shelf, sets: Mapping[str, Path], *, limit: int | None = None
) -> Table:
    """PLCC and SRCC on every set given, on its test split where it has one."""
    table = Table("cross", "Other sets of opinions (raw predictions)")
    for name, place in sets.items():
        reader: Callable[[Path], list[Sample]] = datasets.READERS[name]
        samples = reader(place)
        test = [it for it in samples if it.split == "test"] or samples
        found = judged(judge, shelf, name, _some(test, limit))
        rows = found.scored
        if rows.sum() < LEAST:
            table.notes.append(f"{name}: {_too_few(found)}")
            continue
        figures = evaluate.agreement(
            found.verdicts.quality[rows], found.said[rows], _rng(), RESAMPLES
        )
        table.rows += [
            Row(f"{name}: {figure.upper()}", it.value, int(rows.sum()), interval=(it.low, it.high))
            for figure, it in figures.items()
        ]
        table.notes.append(f"{name}: {int((~rows).sum())} of {len(rows)} pictures got no score.")
    return table


def pair_shares(
    predicted: Values, opinion: Values, low: float, high: float, resamples: int | None = None
) -> tuple[float, tuple[float, float], int]:
    """Share of pairs put in order among those `low` up to `high` apart (high left out), its
    interval over pictures, and how many pairs there are.
    """
    apart = opinion[:, None] - opinion[None]
    inside = ((apart >= low) & (apart < high) & (apart > 0)).astype(np.float32)
    right = inside * (predicted[:, None] > predicted[None])
    n, rng = len(opinion), _rng()
    shares = []
    for _ in range(resamples or RESAMPLES):
        weight = np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float32)
        pairs = float(weight @ inside @ weight)
        shares.append(float(weight @ right @ weight) / pairs if pairs else np.nan)
    count = int(inside.sum())
    interval = _interval(shares)
    return (float(right.sum()) / count if count else float("nan")), interval, count


def mean_within(
    predicted: Values, opinion: Values, subset: NDArray[np.str_], resamples: int | None = None
) -> tuple[float, tuple[float, float]]:
    """SRCC within each subset, their mean, pictures drawn anew within each."""
    rng, groups = _rng(), [np.flatnonzero(subset == name) for name in np.unique(subset)]

    def mean(rows: Sequence[NDArray[np.int64]]) -> float:
        return float(np.mean([evaluate.srcc(predicted[it], opinion[it]) for it in rows]))

    drawn = [
        mean([rng.choice(rows, len(rows)) for rows in groups])
        for _ in range(resamples or RESAMPLES)
    ]
    return mean(groups), _interval(drawn)


def _agreement_rows(found: Judged, seen_before: NDArray[np.bool_], *, known: bool) -> list[Row]:
    scored = found.scored
    rows = _rows_over(found, scored, "", goals=True)
    if known:
        rows += _rows_over(found, scored & ~seen_before, "without near-duplicates of train: ")
    value, interval = mean_within(
        found.verdicts.quality[scored], found.said[scored], found.subset[scored]
    )
    n, goal = int(scored.sum()), GOALS["within"]
    rows.append(Row("SRCC within ss01, ss02, ss03, mean of the three", value, n, goal, interval))
    for name in SUBSETS:
        inside = scored & (found.subset == name)
        rows += [
            row
            for row in _rows_over(found, inside, f"within {name}: ")
            if row.figure.endswith("SRCC")
        ]
    return rows


def _rows_over(
    found: Judged, rows: NDArray[np.bool_], before: str, *, goals: bool = False
) -> list[Row]:
    figures = evaluate.agreement(found.verdicts.quality[rows], found.said[rows], _rng(), RESAMPLES)
    nothing = Goal()
    return [
        Row(
            before + name.upper(),
            it.value,
            int(rows.sum()),
            GOALS.get(name, nothing) if goals else nothing,
            (it.low, it.high),
        )
        for name, it in figures.items()
    ]


def _pair_rows(found: Judged) -> list[Row]:
    rows = found.scored
    quality, said = found.verdicts.quality[rows], found.said[rows]
    one = float(said.std())
    far = pair_shares(quality, said, one, np.inf)
    near = pair_shares(quality, said, one / 2, one)
    return [
        Row("pairs ≥ 1 MOS sd apart, in order", far[0], far[2], GOALS["far"], far[1]),
        Row("pairs 0.5 to 1 MOS sd apart, in order", near[0], near[2], GOALS["near"], near[1]),
    ]


def _coverage_row(found: Judged) -> Row:
    rows = found.scored & np.isfinite(found.verdicts.uncertainty)
    if not rows.any():  # a model that states none
        return Row("coverage of the nominal 80 % interval", float("nan"), 0)
    reach = stats.norm.ppf(0.9) * found.verdicts.uncertainty[rows]
    inside = np.abs(found.verdicts.quality[rows] - found.said[rows]) <= reach
    rng, n = _rng(), len(inside)
    drawn = [float(inside[rng.integers(0, n, n)].mean()) for _ in range(RESAMPLES)]
    return Row(
        "coverage of the nominal 80 % interval",
        float(inside.mean()),
        n,
        GOALS["coverage"],
        _interval(drawn),
    )


def _within(found: Judged, name: str) -> dict[str, float]:
    rows = found.scored & (found.subset == name)
    quality, said = found.verdicts.quality[rows], found.said[rows]
    return {k: f(quality, said) for k, f in evaluate.MEASURES_OF_AGREEMENT.items()}


def _too_few(found: Judged) -> str:
    return (
        f"Only {int(found.scored.sum())} of {len(found.samples)} pictures got a score: no figure."
    )


def _seen_before(found: Judged, trained: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Test pictures with a near-duplicate among the pictures of train, validation included."""
    seen = np.zeros(len(found.samples), bool)
    if len(trained):
        seen[np.unique(near_duplicates(found.hashes, trained)[:, 0])] = True
    return seen


def _hashes(shelf: Shelf, paths: Sequence[Path], views: Path | None) -> NDArray[np.bool_]:
    """(n, 256) of pictures that are not judged."""
    if not paths:
        return np.zeros((0, 256), bool)
    parts = sorted((views / "train").glob("[0-9]*-*.npz")) if views else []
    if parts:
        hashes = np.concatenate([np.load(part)["hashes"] for part in parts])
        if len(hashes) == len(paths):
            return hashes
    file = shelf.folder / f"hashes-{len(paths)}-{paths[0].stem}.npy"
    if not file.is_file():
        print(f"hashing {len(paths)} training pictures", flush=True)
        rows = [dhash(read_picture(path).planes[0].astype(np.float64)) for path in paths]
        shelf.folder.mkdir(parents=True, exist_ok=True)
        np.save(file, np.stack(rows))
    return np.asarray(np.load(file), bool)


def _some(samples: list[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` of them, evenly spread."""
    if limit is None or len(samples) <= limit:
        return samples
    return [samples[i] for i in np.linspace(0, len(samples) - 1, limit).astype(int)]


def _interval(drawn: Sequence[float]) -> tuple[float, float]:
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _rng() -> np.random.Generator:
    return np.random.default_rng(SEED)
