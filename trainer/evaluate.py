"""How well predictions agree with people: PLCC, SRCC, KRCC, RMSE with bootstrap intervals.

Raw predictions, no fitted logistic between: the product reports these numbers as they are.

    python -m trainer.evaluate --model FOLDER --biq DIR --clean DIR [--clips DIR] --out DIR

judges a model folder by everything that a release must reach (`trainer.evaluation`) and writes
`evaluation.json`, `evaluation.md` and figures to the folder of `--out`. A model that writes stands
in the same tables, with how many of its answers could not be read:

    python -m trainer.evaluate --policy writer --model CHECKPOINT --device cuda ...
    python -m trainer.evaluate --policy remote --model http://HOST:8000/v1#NAME ... --quick
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from vqmon.errors import VqmonError

Values = NDArray[np.floating]


def plcc(predicted: Values, opinion: Values) -> float:
    """Pearson's linear correlation."""
    return float(stats.pearsonr(predicted, opinion).statistic)


def srcc(predicted: Values, opinion: Values) -> float:
    """Spearman's rank correlation; ties share their mean rank."""
    return float(stats.spearmanr(predicted, opinion).statistic)


def krcc(predicted: Values, opinion: Values) -> float:
    """Kendall's tau-b."""
    return float(stats.kendalltau(predicted, opinion).statistic)


def rmse(predicted: Values, opinion: Values) -> float:
    """Root mean square error, points of 100."""
    return float(np.sqrt(np.mean((np.asarray(predicted) - np.asarray(opinion)) ** 2)))


MEASURES_OF_AGREEMENT: Mapping[str, Callable[[Values, Values], float]] = {
    "plcc": plcc,
    "srcc": srcc,
    "krcc": krcc,
    "rmse": rmse,
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % bootstrap interval over pictures."""

    value: float
    low: float
    high: float

    def rounded(self) -> dict[str, float]:
        return {
            "value": round(self.value, 4),
            "low": round(self.low, 4),
            "high": round(self.high, 4),
        }


def agreement(
    predicted: Values, opinion: Values, rng: np.random.Generator, resamples: int = 1000
) -> dict[str, Figure]:
    """All four figures, on the same resamples; at least three pictures."""
    predicted, opinion = np.asarray(predicted), np.asarray(opinion)
    n = len(predicted)
    draws = [rng.integers(0, n, n) for _ in range(resamples)]
    return {
        name: _figure(measure, predicted, opinion, draws)
        for name, measure in MEASURES_OF_AGREEMENT.items()
    }


def _figure(
    measure: Callable[[Values, Values], float],
    predicted: Values,
    opinion: Values,
    draws: Sequence[NDArray[np.int64]],
) -> Figure:
    spread = [measure(predicted[i], opinion[i]) for i in draws]
    low, high = np.nanpercentile(spread, [2.5, 97.5])
    return Figure(measure(predicted, opinion), float(low), float(high))


def coverage(
    predicted: Values, uncertainty: Values, opinion: Values, nominal: float = 0.8
) -> float:
    """Share of opinions inside the central normal interval that should hold `nominal`."""
    reach = stats.norm.ppf(0.5 + nominal / 2) * np.asarray(uncertainty)
    return float(np.mean(np.abs(np.asarray(predicted) - np.asarray(opinion)) <= reach))


def ordered(ladders: Iterable[Values]) -> float:
    """Share of neighbouring rungs, least damage first, whose scores strictly fall."""
    steps = np.concatenate([np.diff(np.asarray(ladder)) for ladder in ladders])
    return float(np.mean(steps < 0))


def pair_accuracy(
    predicted: Values, opinion: Values, edges: Sequence[float] = (0, 5, 10, 20, 40, 100)
) -> dict[str, float]:
    """Share of picture pairs put in the order of their opinions, by distance of opinion."""
    predicted, opinion = np.asarray(predicted), np.asarray(opinion)
    i, j = np.triu_indices(len(predicted), 1)
    apart, said = opinion[i] - opinion[j], predicted[i] - predicted[j]
    right = np.sign(apart) == np.sign(said)
    shares = {}
    for low, high in pairwise(edges):
        inside = (np.abs(apart) > low) & (np.abs(apart) <= high)
        if inside.any():
            shares[f"{low:g}-{high:g}"] = float(right[inside].mean())
    return shares


def main(arguments: Sequence[str] | None = None) -> int:
    from trainer.evaluation.running import options, run

    try:
        run(options(arguments))
    except VqmonError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
