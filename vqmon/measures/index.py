"""A number made from several measures, as `trainer.calibrate_measures` fitted it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Protocol


class Named(Protocol):
    def __getitem__(self, name: str, /) -> float: ...


@dataclass(frozen=True, slots=True)
class Term:
    """slope * x + square * x^2 of one measure x, clipped to the range seen in training."""

    name: str
    low: float
    high: float
    slope: float
    square: float

    def of(self, measures: Named) -> float:
        x = min(max(measures[self.name], self.low), self.high)
        return (self.slope + self.square * x) * x


@dataclass(frozen=True, slots=True)
class Index:
    """constant + sum of terms. steps: of an ordinal index, where level 1, 2, ... become likelier
    than not; empty for others.
    """

    constant: float
    terms: tuple[Term, ...]
    steps: tuple[float, ...]

    def of(self, measures: Named) -> float:
        return self.constant + sum(term.of(measures) for term in self.terms)

    def level(self, measures: Named) -> float:
        """0 or more; 1.0 where level 1 begins, 2.0 where level 2 does, and so on, linear
        between; below 1 it falls to 0 over as much as lies between the first two steps.
        """
        value, steps = self.of(measures), self.steps
        width = max(steps[1] - steps[0], 0.5)
        if value < steps[0]:
            return max(0.0, 1 + (value - steps[0]) / width)
        for i, (low, high) in enumerate(pairwise(steps), 1):
            if value < high:
                return i + (value - low) / (high - low)
        return len(steps) + min(1.0, (value - steps[-1]) / width)

    def probability(self, measures: Named) -> float:
        """That the level is at least 1."""
        return 1 / (1 + exp(min(40.0, self.steps[0] - self.of(measures))))
