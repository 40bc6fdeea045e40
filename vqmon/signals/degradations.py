"""Degradations of single pictures become findings of a segment."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median_low

from vqmon.domain import CELLS, Finding

SAMPLES_KEPT = 1024

SHARE = 1 / 3
"""A degradation belongs to the segment when at least this share of its pictures shows it ..."""

IN_A_ROW = 2
"""... or this many pictures in a row."""

LONGEST_STAND = 30.0
"""A picture speaks for no more than this when the next one is later still, seconds."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One sampled picture and what is wrong with it."""

    position: float
    findings: tuple[Finding, ...]


class Degradations:
    """Merges what the model, or `measures.findings`, says of each sampled picture.

    Severity is the median of the pictures that show it, value the worst of them (with its
    limit), confidence and cost their mean. Region: the cells of more than half of them; the whole
    picture when half of them, or more, name no region. It lasts from the first picture that
    shows it until the last one stops standing.
    """

    def __init__(self) -> None:
        self._samples: deque[Sample] = deque(maxlen=SAMPLES_KEPT)

    def picture(self, position: float, findings: Sequence[Finding]) -> None:
        self._samples.append(Sample(position, tuple(findings)))

    def findings(self, start: float, end: float) -> list[Finding]:
        samples = [s for s in self._samples if start <= s.position < end]
        names = sorted({f.name for s in samples for f in s.findings})
        return [_merge(name, samples, end) for name in names if _belongs(name, samples)]

    def recent(self, name: str, since: float) -> float | None:
        """Share of the pictures since a position that show it; None when there are none."""
        samples = [s for s in self._samples if s.position >= since]
        return sum(_shows(s, name) for s in samples) / len(samples) if samples else None

    def forget(self, before: float) -> None:
        while self._samples and self._samples[0].position < before:
            self._samples.popleft()


def _shows(sample: Sample, name: str) -> bool:
    return any(f.name == name for f in sample.findings)


def _belongs(name: str, samples: Sequence[Sample]) -> bool:
    shown = [_shows(s, name) for s in samples]
    in_a_row = any(a and b for a, b in pairwise(shown))
    return sum(shown) >= SHARE * len(shown) or in_a_row


def _merge(name: str, samples: Sequence[Sample], end: float) -> Finding:
    shown = [(i, f) for i, s in enumerate(samples) for f in s.findings if f.name == name]
    each = [f for _, f in shown]
    first, last = shown[0][0], shown[-1][0]
    start = samples[first].position
    until = samples[last + 1].position if last + 1 < len(samples) else end
    until = min(until, samples[last].position + LONGEST_STAND)
    worst = max(each, key=_badness)
    return replace(
        worst,
        severity=median_low(f.severity for f in each),
        confidence=round(sum(f.confidence for f in each) / len(each), 2),
        region=_common_region(each),
        cost=_mean_cost(each),
        start=start,
        seconds=until - start,
    )


def _mean_cost(findings: Sequence[Finding]) -> float | None:
    """Points of quality; None when no picture states any."""
    stated = [f.cost for f in findings if f.cost is not None]
    return round(sum(stated) / len(stated), 1) if stated else None


def _badness(finding: Finding) -> tuple[int, float]:
    """Severity first; then how far the value lies beyond its limit, whichever way is worse."""
    if finding.value is None or finding.limit is None:
        return finding.severity, 0.0
    return finding.severity, abs(finding.value - finding.limit)


def _common_region(findings: Sequence[Finding]) -> tuple[str, ...] | None:
    whole = sum(f.region is None for f in findings)
    if 2 * whole >= len(findings):
        return None
    counts = Counter(cell for f in findings for cell in f.region or ())
    common = tuple(cell for cell in CELLS if 2 * counts[cell] > len(findings))
    return common or None
