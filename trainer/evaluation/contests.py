"""One way of training against another, and training without a subset; on the same pictures.

Predictions come as arrays (seeds, n), so that any model, shipped or not, can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer import evaluate
from trainer.evaluation.tables import NO_GOAL, Goal, Row, Table

Values = NDArray[np.floating]
Agreement = Callable[[Values, Values], float]

AGAINST = Goal(-0.005, 0.0)
"""Of the lower end of the interval of the difference in SRCC."""

WITHOUT = Goal(0.55, 0.62)
RESAMPLES = 1000
SEED = 11


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean over seeds of a's figure minus b's, its 95 % interval, and each seed's own."""

    value: float
    low: float
    high: float
    by_seed: tuple[float, ...]


def difference(
    a: Values,
    b: Values,
    opinion: Values,
    *,
    measure: Agreement = evaluate.srcc,
) -> Difference:
    """a, b: (seeds, n) predictions of the same pictures by two ways of training.

    Pictures are drawn anew, the same for both (paired), and so are the seeds, pair by pair: what
    is asked is whether the way is better, not whether these networks are. Raises ValueError when
    the shapes differ.
    """
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    if a.shape != b.shape or a.shape[1] != len(opinion):
        raise ValueError(f"predictions {a.shape} and {b.shape} of {len(opinion)} pictures")
    by_seed = [measure(x, opinion) - measure(y, opinion) for x, y in zip(a, b, strict=True)]
    drawn = _drawn(a, b, opinion, measure, np.random.default_rng(SEED))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Difference(float(np.mean(by_seed)), float(low), float(high), tuple(by_seed))


def contest_table(
    predictions: Mapping[str, Values], opinion: Values, subset: NDArray[np.str_]
) -> Table:
    """The first of `predictions`, each (seeds, n), against every other one."""
    table = Table("contests", "Ways of training against each other, BIQ2021 test split")
    for name, rows in predictions.items():
        agree = [evaluate.srcc(row, opinion) for row in np.atleast_2d(rows)]
        table.rows.append(
            Row(f"SRCC of {name}, mean over seeds", float(np.mean(agree)), len(agree))
        )
        table.details[f"SRCC of {name} by seed"] = agree
        inside = [_within(row, opinion, subset) for row in np.atleast_2d(rows)]
        table.details[f"SRCC of {name} within subsets, mean of three, by seed"] = inside
    first, *others = predictions
    for other in others:
        found = difference(predictions[first], predictions[other], opinion)
        what = f"SRCC of {first} minus {other}"
        interval = (found.low, found.high)
        n = len(found.by_seed)
        table.rows.append(Row(what, found.value, n, NO_GOAL, interval, digits=4))
        table.rows.append(Row(f"{what}, lower end of 95 %", found.low, n, AGAINST, digits=4))
        table.details[f"{what}, by seed"] = list(found.by_seed)
    table.notes.append("n counts seeds. Paired bootstrap over pictures and seeds.")
    return table


def leave_out_table(
    predictions: Mapping[str, Values],
    opinion: Values,
    subset: NDArray[np.str_],
    other: Mapping[str, Values] | None = None,
    names: tuple[str, str] = ("this", "the other"),
) -> Table:
    """Trained without a subset, judged on that subset's part of the test split.

    predictions: by subset, (seeds, n) of all test pictures; of each only the subset's are read.
    other: the same of another way of training, to be compared with; names: of the two.
    """
    table = Table("leave-out", "Trained without a subset, judged on it: SRCC")
    figures = []
    for name, rows in predictions.items():
        inside = subset == name
        seeds = [evaluate.srcc(row[inside], opinion[inside]) for row in np.atleast_2d(rows)]
        figures.append(float(np.mean(seeds)))
        low, high = _srcc_interval(np.atleast_2d(rows)[:, inside], opinion[inside])
        table.rows.append(
            Row(f"without {name}", figures[-1], int(inside.sum()), NO_GOAL, (low, high))
        )
    mean = float(np.mean(figures))
    table.rows.insert(0, Row("mean of the subsets left out", mean, len(figures), WITHOUT))
    if other:
        found = mean_difference(predictions, other, opinion, subset)
        what = f"mean, {names[0]} minus {names[1]}"
        interval = (found.low, found.high)
        table.rows.append(Row(what, found.value, len(found.by_seed), NO_GOAL, interval, digits=4))
        goal = Goal(-0.005, 0.0)
        table.rows.append(
            Row(f"{what}, lower end of 95 %", found.low, len(found.by_seed), goal, digits=4)
        )
        table.details[f"{what}, by seed"] = list(found.by_seed)
    return table


def mean_difference(
    a: Mapping[str, Values],
    b: Mapping[str, Values],
    opinion: Values,
    subset: NDArray[np.str_],
) -> Difference:
    """As `difference`, of the mean over the subsets left out; pictures drawn within each."""
    parts = [
        (
            np.atleast_2d(a[name])[:, subset == name],
            np.atleast_2d(b[name])[:, subset == name],
            opinion[subset == name],
        )
        for name in a
    ]
    by_seed = np.mean(
        [
            [evaluate.srcc(x, said) - evaluate.srcc(y, said) for x, y in zip(one, two, strict=True)]
            for one, two, said in parts
        ],
        axis=0,
    )
    rng = np.random.default_rng(SEED)
    drawn = np.mean([_drawn(*part, evaluate.srcc, rng) for part in parts], axis=0)
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return Difference(float(np.mean(by_seed)), float(low), float(high), tuple(by_seed.tolist()))


def read_predictions(places: Sequence[Path], judged: Callable[[Path], Values]) -> Values:
    """(seeds, n): a `.npy` file holds one prediction a test picture in the table's order (or
    several rows of them); everything else is a model folder, which `judged` scores with.
    """
    rows = [
        np.atleast_2d(np.load(place)) if place.suffix == ".npy" else judged(place)[None]
        for place in places
    ]
    return np.concatenate(rows)


def _drawn(
    a: Values, b: Values, opinion: Values, measure: Agreement, rng: np.random.Generator
) -> Values:
    """(RESAMPLES,) differences, each of pictures and seeds drawn anew."""
    seeds, n = a.shape
    found = []
    for _ in range(RESAMPLES):
        rows = rng.integers(0, n, n)
        chosen: list[int] = rng.integers(0, seeds, size=(seeds,)).tolist()
        each = {
            s: measure(a[s, rows], opinion[rows]) - measure(b[s, rows], opinion[rows])
            for s in set(chosen)
        }
        found.append(float(np.mean([each[s] for s in chosen])))
    return np.array(found)


def _srcc_interval(rows: Values, opinion: Values) -> tuple[float, float]:
    rng, n = np.random.default_rng(SEED), len(opinion)
    drawn = []
    for _ in range(RESAMPLES):
        some = rng.integers(0, n, n)
        row = rows[int(rng.integers(len(rows)))]
        drawn.append(evaluate.srcc(row[some], opinion[some]))
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _within(predicted: Values, opinion: Values, subset: NDArray[np.str_]) -> float:
    names = np.unique(subset)
    return float(
        np.mean([evaluate.srcc(predicted[subset == it], opinion[subset == it]) for it in names])
    )
