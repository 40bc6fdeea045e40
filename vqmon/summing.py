"""Segments become roll-ups: the sums per minute and per hour that long reports read.

A segment that crosses a border is shared between both sides in proportion, so that sums over
roll-ups equal sums over segments. Adding is all there is: `merged` of two roll-ups of the same
stream and period is the roll-up of both their segments.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from vqmon.domain import DOWN_REASONS, Rollup, Segment

PERIODS = (60, 3600)
"""Lengths of roll-ups, seconds; each divides the hour."""

BINS = 10
"""Bins of the quality histogram, ten points each; 100 belongs to the last."""

NOT_UP = frozenset(DOWN_REASONS) | {"process_restarted", "visit_missed"}
"""Reasons for no score with which nothing arrived, or nobody can know whether anything did."""

LONGEST_SECONDS = 31 * 86_400.0
"""A longer segment is a mistake; shared out by the minute it would stop everything else."""

Span = tuple[float, float]
"""From and to, seconds after the segment's beginning."""


def summed(segments: Iterable[Segment], periods: Iterable[int] = PERIODS) -> list[Rollup]:
    """The roll-ups of these segments alone, by period, start and stream.

    Raises ValueError for a segment that `checked` refuses.
    """
    sums: dict[tuple[int, datetime, str], Rollup] = {}
    wanted = tuple(periods)
    for segment in map(checked, segments):
        for period in wanted:
            for share in _shares(segment, period):
                key = (period, share.starts_at, share.stream)
                sums[key] = merged(sums[key], share) if key in sums else share
    return [sums[key] for key in sorted(sums)]


def merged(one: Rollup, other: Rollup) -> Rollup:
    """The sum of two roll-ups. Stream, start and period are those of the first, so a report
    may add up any stretch of time.
    """
    names = [*one.fault_seconds, *(n for n in other.fault_seconds if n not in one.fault_seconds)]
    worst = [q for q in (one.quality_worst, other.quality_worst) if q is not None]
    return replace(
        one,
        watched_seconds=one.watched_seconds + other.watched_seconds,
        up_seconds=one.up_seconds + other.up_seconds,
        scored_seconds=one.scored_seconds + other.scored_seconds,
        quality_sum=one.quality_sum + other.quality_sum,
        quality_worst=min(worst, default=None),
        histogram=tuple(a + b for a, b in zip(one.histogram, other.histogram, strict=True)),
        fault_seconds={
            n: one.fault_seconds.get(n, 0.0) + other.fault_seconds.get(n, 0.0) for n in names
        },
        segments=one.segments + other.segments,
    )


def up(segment: Segment) -> bool:
    """Whether media arrived.

    A scored segment is up, and so is one without a score whose reason lies in the picture or in
    vqmon (no_video, black, overload, ...). It is not up when its reason is one of DOWN_REASONS,
    nor when nobody looked: process_restarted, visit_missed.
    """
    return segment.scored or segment.no_score_reason not in NOT_UP


def checked(segment: Segment) -> Segment:
    """The segment itself, fit to be stored; its time is UTC.

    Raises ValueError for what no store can keep or add up: a time without a zone, a length that
    is negative, not finite or over LONGEST_SECONDS, a quality outside 0..100, a name with NUL.
    """
    what = f"segment {segment.id} of {segment.stream!r}"
    if not segment.id or not segment.stream:
        raise ValueError(f"{what}: a segment needs an id and the name of its stream")
    if not (_storable(segment.id) and _storable(segment.stream)):
        raise ValueError(f"{what}: its id or the name of its stream cannot be stored as text")
    if not 0 <= segment.seconds <= LONGEST_SECONDS:
        raise ValueError(f"{what} lasts {segment.seconds} s, not 0 to {LONGEST_SECONDS:.0f}")
    for name in ("quality", "quality_worst"):
        value = getattr(segment, name)
        if value is not None and not 0 <= value <= 100:
            raise ValueError(f"{what}: {name} is {value}, not 0 to 100")
    return replace(segment, started_at=utc(segment.started_at, what))


def utc(moment: datetime, what: str = "the time") -> datetime:
    """The same moment in UTC. Raises ValueError when it has no time zone."""
    if moment.tzinfo is None or moment.utcoffset() is None:
        raise ValueError(
            f"{what}: {moment.isoformat()} has no time zone; use datetime.now(UTC) or add +00:00"
        )
    return moment.astimezone(UTC)


def fault_spans(segment: Segment) -> dict[str, list[Span]]:
    """When each finding's name holds, overlaps joined, so that no second counts twice.

    A finding that sticks out of its segment is moved inside; its length stays.
    """
    spans: dict[str, list[Span]] = {}
    for finding in segment.findings:
        seconds = min(_positive(finding.seconds), segment.seconds)
        begin = min(_positive(finding.start - segment.start), segment.seconds - seconds)
        spans.setdefault(finding.name, []).append((begin, begin + seconds))
    return {name: _joined(found) for name, found in spans.items()}


def _shares(segment: Segment, period: int) -> Iterator[Rollup]:
    faults = fault_spans(segment)
    for starts_at, begin, end in _pieces(segment, period):
        seconds = end - begin
        scored = seconds if segment.quality is not None else 0.0
        quality = segment.quality or 0.0
        yield Rollup(
            stream=segment.stream,
            starts_at=starts_at,
            period=period,
            watched_seconds=seconds,
            up_seconds=seconds if up(segment) else 0.0,
            scored_seconds=scored,
            quality_sum=quality * scored,
            quality_worst=_worst(segment),
            histogram=_histogram(segment.quality, scored),
            fault_seconds=_faults_within(faults, begin, end),
            segments=int(begin == 0.0),
        )


def _pieces(segment: Segment, period: int) -> Iterator[tuple[datetime, float, float]]:
    """The periods that a segment meets: their start, and from and to, seconds into the segment."""
    length = timedelta(seconds=period)
    into = (segment.started_at.minute * 60 + segment.started_at.second) % period
    starts_at = segment.started_at - timedelta(
        seconds=into, microseconds=segment.started_at.microsecond
    )
    begin = 0.0
    while True:
        border = (starts_at + length - segment.started_at).total_seconds()
        yield starts_at, begin, min(border, segment.seconds)
        if border >= segment.seconds:
            return
        begin, starts_at = border, starts_at + length


def _worst(segment: Segment) -> float | None:
    return segment.quality if segment.quality_worst is None else segment.quality_worst


def _histogram(quality: float | None, seconds: float) -> tuple[float, ...]:
    place = None if quality is None else min(int(quality / (100 / BINS)), BINS - 1)
    return tuple(seconds if index == place else 0.0 for index in range(BINS))


def _faults_within(faults: dict[str, list[Span]], begin: float, end: float) -> dict[str, float]:
    seconds = {
        name: sum(max(0.0, min(to, end) - max(since, begin)) for since, to in spans)
        for name, spans in faults.items()
    }
    return {name: value for name, value in seconds.items() if value > 0}


def _joined(spans: list[Span]) -> list[Span]:
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def _positive(seconds: float) -> float:
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0


def _storable(name: str) -> bool:
    """Neither NUL, which PostgreSQL refuses, nor what is left of undecodable input."""
    return "\0" not in name and name == name.encode("utf-8", "ignore").decode()
