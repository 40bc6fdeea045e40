"""Measures become findings: what is wrong with a picture, how badly, where, on what evidence.

| finding | value | limit | 2 / 3 / 4 / 5 | measured as |
|---|---|---|---|---|
| blur | pixels | 1.25 | 1.6 / 2.2 / 3 / 3.9 | sigma of a Gaussian that would leave the sharpest \
tenth of the patches as they are; above 720 lines times the root of lines / 720 |
| noise | levels of 255 | 5 | 8 / 13 / 21 / 33 | deviation in the quietest blocks |
| compression | of 100 | 20 | 40 / 60 / 80 / 100 | grid, dead and flat blocks, lost texture |
| banding | per mille | 0.7 | 1.5 / 3 / 6 / 12 | points at steps of 3 to 16 between flat runs |
| underexposed | luma | < 150 | 128 / 94 / 66 / 46 | the brightest thousandth, or, with something \
like a logo in the picture, the brightest twentieth: < 70, 56 / 44 / 32 / 20 |
| overexposed | % | 14 | 25 / 38 / 52 / 68 | points where luma or a colour has reached its end |
| upscaled | times | 1.6 | 1.9 / 2.6 / 3.6 / 5.5 | by how much the detail was enlarged |

The limits and what they let through and catch: `trainer/calibrate_measures.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import exp, sqrt
from typing import TYPE_CHECKING

import numpy as np

from vqmon.domain import CELLS, Finding, Frame
from vqmon.measures.calibrated import INDEXES
from vqmon.measures.index import Index

if TYPE_CHECKING:
    from vqmon.measures import Measures


@dataclass(frozen=True, slots=True)
class Scale:
    """steps: values at which severity 1 to 5 begin; falling where low values are bad."""

    unit: str
    steps: tuple[float, float, float, float, float]

    @property
    def falling(self) -> bool:
        return self.steps[0] > self.steps[-1]

    @property
    def limit(self) -> float:
        return self.steps[0]

    def severity(self, value: float) -> int:
        """0 for none."""
        return sum(value < s if self.falling else value > s for s in self.steps)

    def times(self, factor: float) -> Scale:
        a, b, c, d, e = (round(step * factor, 2) for step in self.steps)
        return Scale(self.unit, (a, b, c, d, e))


BLUR = Scale("px", (1.25, 1.6, 2.2, 3.0, 3.9))
NOISE = Scale("levels", (5, 8, 13, 21, 33))
COMPRESSION = Scale("of 100", (20, 40, 60, 80, 100))
BANDING = Scale("per mille", (0.7, 1.5, 3, 6, 12))
PEAK = Scale("luma", (150, 128, 94, 66, 46))
TWENTIETH = Scale("luma", (70, 56, 44, 32, 20))
CLIPPED = Scale("%", (14, 25, 38, 52, 68))
UPSCALED = Scale("times", (1.6, 1.9, 2.6, 3.6, 5.5))

ENLARGED_FROM = -0.6
"""How far the index of enlargement may lie below its second step (twofold) for the picture to be
called upscaled rather than blurred.
"""

BLUR_LINES = 720
"""Taller pictures may be softer: they are shown larger, and watched from further away."""

GRID_SHOWN = 0.3
"""Grid excess from which on a cell shows it."""

BRIGHT_CELL, DARK_CELL = 215.0, 40.0
MOST_CELLS = 6
"""A finding in more cells than this is of the whole picture."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A finding without its place in time. severity 0: none."""

    name: str
    value: float
    scale: Scale
    confidence: float
    region: tuple[str, ...] | None = None

    @property
    def severity(self) -> int:
        return self.scale.severity(self.value)


def findings(frame: Frame, measures: Measures) -> list[Finding]:
    """What is wrong with one picture, worst first; `start` and `seconds` are the frame's."""
    shown = judge(measures, short_side=min(frame.width, frame.height), qp=frame.qp)
    return [
        Finding(
            name=verdict.name,
            severity=verdict.severity,
            confidence=round(verdict.confidence, 2),
            value=round(verdict.value, 2),
            limit=verdict.scale.limit,
            unit=verdict.scale.unit,
            region=verdict.region,
            start=frame.position,
            seconds=frame.seconds,
        )
        for verdict in shown
    ]


def judge(
    measures: Measures,
    *,
    short_side: int,
    qp: float | None,
    indexes: Mapping[str, Index] = INDEXES,
) -> list[Verdict]:
    """Verdicts of severity 1 or more, worst first."""
    found = [
        _softness(measures, short_side, indexes),
        _noise(measures),
        _compression(measures, qp, indexes["compression"]),
        *_exposure(measures),
    ]
    found = [verdict for verdict in found if verdict.severity]
    if all(verdict.name != "compression" for verdict in found):
        found += [verdict for verdict in _banding(measures) if verdict.severity]
    return sorted(found, key=lambda verdict: -verdict.severity)


def _softness(measures: Measures, short_side: int, indexes: Mapping[str, Index]) -> Verdict:
    """Blurred or enlarged: one softness, two names."""
    enlargement = indexes["enlargement"]
    doubt = enlargement.steps[1] + ENLARGED_FROM - enlargement.of(measures)
    factor = exp(indexes["enlarged_by"].of(measures))
    if doubt < 0 and UPSCALED.severity(factor):
        return Verdict("upscaled", factor, UPSCALED, 1 - 0.5 * exp(doubt))
    scale = BLUR.times(sqrt(max(1.0, short_side / BLUR_LINES)))
    sigma = exp(indexes["softness"].of(measures))
    region = _cells(measures.cells["blur"] > scale.limit)
    return Verdict("blur", sigma, scale, _beyond(sigma, scale), region)


def _noise(measures: Measures) -> Verdict:
    value = measures["noise"]
    region = _cells(measures.cells["noise"] > NOISE.limit)
    return Verdict("noise", value, NOISE, _beyond(value, NOISE), region)


def _compression(measures: Measures, qp: float | None, index: Index) -> Verdict:
    """The quantiser, where it is known, moves the verdict by up to half a level."""
    level = index.level(measures)
    if qp is not None:
        level += min(0.5, max(-0.3, (qp - 33) / 15))
    probability = index.probability(measures)
    grid = measures.cells["blockiness"] > GRID_SHOWN
    return Verdict(
        "compression", 20 * max(0.0, level), COMPRESSION, max(0.5, probability), _cells(grid)
    )


def _banding(measures: Measures) -> Iterator[Verdict]:
    """Not asked where coding is found: flat blocks have such edges too."""
    value = 1000 * (exp(measures["block_bands"]) - 1e-4)
    yield Verdict("banding", value, BANDING, _beyond(value, BANDING))


def _exposure(measures: Measures) -> Iterator[Verdict]:
    dark = _cells(measures.cells["luma"] < DARK_CELL)
    peak, twentieth = measures["luma_peak"], measures["luma_p95"]
    if PEAK.severity(peak) >= TWENTIETH.severity(twentieth):
        yield Verdict("underexposed", peak, PEAK, _beyond(peak, PEAK), dark)
    else:
        confidence = _beyond(twentieth, TWENTIETH)
        yield Verdict("underexposed", twentieth, TWENTIETH, confidence, dark)
    value = 100 * (measures["clipped_bright"] + measures["clipped_colour"])
    if not _drawn(measures):
        bright = _cells(measures.cells["luma"] > BRIGHT_CELL)
        yield Verdict("overexposed", value, CLIPPED, _beyond(value, CLIPPED), bright)


def _drawn(measures: Measures) -> bool:
    """White ground under charts and letters is no overexposure: thin dark things lie all over it,
    or what is not white is as flat as it.
    """
    clipped = measures["clipped_bright"]
    letters = clipped > 0.6 and measures["clipped_patches"] < 1.6 * clipped - 1.0
    return letters or measures["block_drawn"] > 0.55


def _beyond(value: float, scale: Scale) -> float:
    """Confidence: a half at the limit, near 1 at twice it."""
    ratio = scale.limit / max(value, 1e-6) if scale.falling else value / scale.limit
    return 1 - 0.5 * exp(-3 * max(0.0, ratio - 1))


def _cells(shown: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> tuple[str, ...] | None:
    flags = shown.reshape(-1).tolist()
    cells = tuple(cell for cell, flag in zip(CELLS, flags, strict=True) if flag)
    return cells if 0 < len(cells) <= MOST_CELLS else None
