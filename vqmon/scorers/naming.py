"""From a model's probabilities to findings: what is wrong, how badly, where, at what cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import CELLS, DEGRADATIONS, Finding

LEVELS, REGIONS = "levels", "regions"
"""Outputs that findings are made of: (8, 6) absent and level 1..5 of each of DEGRADATIONS, and
(9,) damage of each of CELLS."""

MOST_CELLS = 6
"""A finding in more cells than this is of the whole picture."""


@dataclass(frozen=True, slots=True)
class Naming:
    """What a card says of its model's findings.

    thresholds: probability of presence, by degradation, from which it is a finding.
    region_threshold: probability from which a cell is named.
    costs: points that level 1 to 5 takes off the score, by degradation: medians over pictures
        whose undamaged original the model scored too.
    """

    thresholds: Mapping[str, float]
    region_threshold: float
    costs: Mapping[str, Sequence[float]]

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> Naming:
        """From the card's `findings`; raises KeyError, TypeError or ValueError when it is unfit."""
        costs = {name: tuple(map(float, facts["costs"][name])) for name in DEGRADATIONS}
        if any(len(each) != 5 for each in costs.values()):
            raise ValueError("a degradation has five costs, for level 1 to 5")
        return cls(
            {name: float(facts["thresholds"][name]) for name in DEGRADATIONS},
            float(facts["region_threshold"]),
            costs,
        )

    def findings(
        self, levels: NDArray[Any], regions: NDArray[Any] | None, position: float
    ) -> tuple[Finding, ...]:
        """levels: (8, 6) probabilities; regions: (9,) or None. Worst first.

        severity is the likeliest level, value the expected one (if it is there at all), and the
        limit 1, where severity begins.
        """
        region = self._region(regions)
        found = list(self._each(np.asarray(levels, np.float64), region, position))
        return tuple(sorted(found, key=lambda it: (-it.severity, -it.confidence)))

    def _each(
        self, levels: NDArray[np.float64], region: tuple[str, ...] | None, position: float
    ) -> Iterator[Finding]:
        for name, row in zip(DEGRADATIONS, levels, strict=True):
            present = float(1 - row[0])
            if present < self.thresholds[name]:
                continue
            expected = float(row[1:] @ np.arange(1, 6) / max(present, 1e-9))
            yield Finding(
                name=name,
                severity=1 + int(row[1:].argmax()),
                confidence=round(min(1.0, present), 3),
                value=round(min(5.0, max(1.0, expected)), 2),
                limit=1.0,
                unit="of 5",
                region=region,
                start=position,
                cost=round(float(np.interp(expected, range(6), (0.0, *self.costs[name]))), 1),
            )

    def _region(self, regions: NDArray[Any] | None) -> tuple[str, ...] | None:
        if regions is None:
            return None
        shown = np.ravel(regions) >= self.region_threshold
        cells = tuple(cell for cell, flag in zip(CELLS, shown, strict=True) if flag)
        return cells if 0 < len(cells) <= MOST_CELLS else None
