"""Stretches of time in which something was wrong, cut at segment borders."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from vqmon.domain import Finding
from vqmon.signals.limits import SCALES, Scale

KEPT = 256
"""Spans remembered per fault; a segment that holds more is faulty from end to end anyway."""


@dataclass(slots=True)
class Span:
    """[start, end) in positions; end is None while it goes on. worst: the worst value in it."""

    start: float
    end: float | None
    worst: float


@dataclass(frozen=True, slots=True)
class Cut:
    """The part of a span inside a segment.

    so_far: how long the whole span has lasted where the cut ends, seconds.
    """

    start: float
    seconds: float
    so_far: float
    worst: float


class Track:
    """One fault over time.

    least: spans shorter than this (as a whole, not per segment) are not reported.
    join: spans closer than this are one.
    larger_is_worse: how `worst` is kept.
    """

    def __init__(
        self, *, least: float = 0.0, join: float = 0.0, larger_is_worse: bool = True
    ) -> None:
        self.least = least
        self.join = join
        self._worse = max if larger_is_worse else min
        self._spans: deque[Span] = deque(maxlen=KEPT)

    @property
    def on(self) -> bool:
        """Whether the fault goes on."""
        return bool(self._spans) and self._spans[-1].end is None

    @property
    def since(self) -> float | None:
        """Where the fault that goes on began."""
        return self._spans[-1].start if self.on else None

    def begin(self, position: float, value: float = 0.0) -> None:
        """The fault is there from `position` on; or still is, and as bad as `value`."""
        last = self._spans[-1] if self._spans else None
        if last is None or (last.end is not None and position > last.end + self.join):
            self._spans.append(Span(position, None, value))
            return
        last.end = None
        last.worst = self._worse(last.worst, value)

    def finish(self, position: float) -> None:
        """The fault ended at `position`, if there was one."""
        if self.on:
            last = self._spans[-1]
            last.end = max(last.start, position)

    def mark(self, start: float, end: float, value: float = 0.0) -> None:
        """The fault was there during [start, end)."""
        before = self._spans[-1].end if self._spans else None
        self.begin(start, value)
        last = self._spans[-1]
        last.end = max(start, end, start if before is None else before)

    def withdraw(self) -> None:
        """The fault that goes on turned out to be none."""
        if self.on:
            self._spans.pop()

    def cuts(self, start: float, end: float) -> Iterator[Cut]:
        """The parts inside [start, end) of all spans that lasted long enough."""
        for span in self._spans:
            last = end if span.end is None else span.end
            if last - span.start < self.least or not _meets(span.start, last, start, end):
                continue
            low, high = max(span.start, start), min(last, end)
            yield Cut(low, max(0.0, high - low), max(0.0, high - span.start), span.worst)

    def forget(self, before: float) -> None:
        """Drop what ended earlier than any segment that will be asked for, joins included."""
        while self._spans:
            end = self._spans[0].end
            if end is None or end + self.join >= before:
                return
            self._spans.popleft()

    def __len__(self) -> int:
        return len(self._spans)


def found(
    name: str,
    cut: Cut,
    value: float,
    confidence: float,
    *,
    scale: Scale | None = None,
    digits: int = 2,
) -> Finding:
    """The finding of a cut; severity and limit come from the table."""
    scale, value = scale or SCALES[name], round(value, digits)
    return Finding(
        name,
        scale.severity(value),
        round(min(1.0, max(0.0, confidence)), 2),
        value,
        scale.limit,
        scale.unit,
        start=cut.start,
        seconds=round(cut.seconds, 6),
    )


def _meets(start: float, last: float, low: float, high: float) -> bool:
    """An instant belongs to the segment that holds its position; a stretch to all it touches."""
    if start == last:
        return low <= start < high
    return start < high and last > low
