"""The numbers of a report.

A short period is read segment by segment. A long one (more than SEGMENTS_READ rows) is read from
the hourly roll-ups, and only segments with faults and those of the worst hours are looked at, so
that a month of fifty streams takes seconds; the report says which of both it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import reduce
from itertools import accumulate, groupby
from pathlib import Path

from vqmon.domain import Rollup, Segment
from vqmon.ports import ReportStore, SegmentStore
from vqmon.report.contents import Band, Fault, Point, Quality, Report, StreamReport, Totals
from vqmon.report.episodes import Episode, episodes
from vqmon.summing import BINS, merged, summed, up

SEGMENTS_READ = 40_000
"""A period with more segments than this is read from roll-ups. About 50 µs each."""

FAULT_SEGMENTS_READ = 20_000
"""Of a long period: segments with faults, shared among the streams."""

DISAGREEMENTS_READ = 1_000

WORST_HOURS = 2
"""Of a long period: hours per stream that are searched for the worst moments."""

WORST_SEGMENTS, LEAST_WORST = 6, 3
STANDS_OUT = 5.0
"""Points below the median from which a segment without a fault is worth showing."""

WORST_APART = 96
"""Worst moments are at least this fraction of the period apart: a quarter of an hour of a day."""

POINTS = 288
"""Points of a plot at most: five minutes each for a day."""

STEPS = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds that a point may stand for; longer ones are whole hours."""


def build(
    store: ReportStore,
    since: datetime,
    until: datetime,
    stream: str | None = None,
    evidence_folder: Path | None = None,
    *,
    segments_read: int = SEGMENTS_READ,
) -> Report:
    """The report of [since, until), for all streams or one.

    evidence_folder: where the paths of pictures begin; without it the report shows none.
    An empty database or period gives a report that says so. Raises ValueError when a time has
    no zone or the period is empty, StoreError when the store cannot be read.
    """
    since, until = _period(since, until)
    hours = _hours(store, since, until, stream)
    by_segment = sum(r.segments for r in hours) <= segments_read
    if by_segment:
        found = store.segments(stream, since, until)
        sums = summed(found, (3600,))
        span = (until - since).total_seconds()
        streams = [_by_segment(some, _of(sums, name), span) for name, some in _by_stream(found)]
        quality = _quality_of_segments(found, sums)
    else:
        since, until = _whole_hours(since, until)
        hours = _hours(store, since, until, stream)
        names = sorted({r.stream for r in hours})
        history = _History(store, since, until, max(60, FAULT_SEGMENTS_READ // max(1, len(names))))
        streams = [_by_hour(history, _of(hours, name)) for name in names]
        sums, quality = hours, _quality_of_rollups(hours)
    alerts = store.alerts(stream, since, until)
    decisions = [it for it in store.decisions(None, stream, since) if it.at < until]
    differing = store.questions(stream, since, until, differing=True, limit=DISAGREEMENTS_READ)
    streams = [
        replace(
            s,
            alerts=tuple(it for it in alerts if it.stream == s.name),
            decisions=tuple(it for it in decisions if it.stream == s.name),
            asked=store.opinions(it.id for it in s.worst),
            disagreements=tuple(it for it in differing if it.question.stream == s.name),
        )
        for s in streams
    ]
    return Report(
        since=since,
        until=until,
        made_at=datetime.now(UTC),
        streams=tuple(sorted(streams, key=lambda s: (s.viewed_quality, s.name))),
        totals=_totals(sums),
        quality=quality,
        by_segment=by_segment,
        notes=_notes(streams, by_segment=by_segment),
        known_streams=tuple(store.streams()),
        evidence_folder=evidence_folder,
    )


def _period(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    if since.tzinfo is None or until.tzinfo is None:
        raise ValueError("times of a report need a time zone; use datetime.now(UTC)")
    if since >= until:
        raise ValueError(f"the period ends ({until}) before it begins ({since})")
    return since.astimezone(UTC), until.astimezone(UTC)


def _whole_hours(since: datetime, until: datetime) -> tuple[datetime, datetime]:
    begin, end = (t.replace(minute=0, second=0, microsecond=0) for t in (since, until))
    return begin, end if end == until else end + timedelta(hours=1)


def _hours(
    store: SegmentStore, since: datetime, until: datetime, stream: str | None
) -> list[Rollup]:
    begin, end = _whole_hours(since, until)
    return store.rollups(3600, stream, begin, end)


def _by_stream(segments: Iterable[Segment]) -> list[tuple[str, list[Segment]]]:
    by_stream: dict[str, list[Segment]] = {}
    for segment in segments:
        by_stream.setdefault(segment.stream, []).append(segment)
    return sorted(by_stream.items())


def _of(sums: Iterable[Rollup], stream: str) -> list[Rollup]:
    return [r for r in sums if r.stream == stream]


def _notes(streams: Sequence[StreamReport], *, by_segment: bool) -> tuple[str, ...]:
    notes = []
    if not by_segment:
        notes.append(
            "This period is long: figures come from hourly summaries, percentiles from ten-point "
            "bins. Ask for a shorter period or a single stream to see every segment."
        )
    if any(not fault.complete for s in streams for fault in s.faults):
        notes.append(
            "Counts marked + are of the segments that are still kept or were read; "
            "durations are complete."
        )
    return tuple(notes)


# From segments.


def _by_segment(segments: Sequence[Segment], sums: Sequence[Rollup], span: float) -> StreamReport:
    """sums: the hourly roll-ups of exactly these segments. span: seconds of the period."""
    found = episodes(segments)
    seconds = reduce(merged, sums).fault_seconds
    return StreamReport(
        name=segments[0].stream,
        totals=_totals(sums),
        quality=_quality_of_segments(segments, sums),
        timeline=_timeline(segments),
        bands=tuple(_band(episode) for episode in found),
        faults=_faults(seconds, found, complete=frozenset(seconds)),
        episodes=tuple(found),
        worst=_worst_apart(segments, span / WORST_APART),
        no_score=_unscored(segments),
        models=_models(segments),
        last=segments[-1],
    )


def _quality_of_segments(segments: Sequence[Segment], sums: Sequence[Rollup]) -> Quality | None:
    """As from roll-ups, but percentiles are exact."""
    quality = _quality_of_rollups(sums)
    if quality is None:
        return None
    scored = sorted((s.quality, s.seconds) for s in segments if s.quality is not None)
    return replace(quality, median=_weighted(scored, 0.5), p5=_weighted(scored, 0.05))


def _weighted(scored: Sequence[tuple[float, float]], part: float) -> float:
    """The quality below which `part` of the time lies; `scored` is sorted by quality."""
    reached = list(accumulate(seconds for _, seconds in scored))
    target = part * reached[-1]
    return next(q for (q, _), r in zip(scored, reached, strict=True) if r >= target)


def _timeline(segments: Sequence[Segment]) -> tuple[Point, ...]:
    """A point per segment while these are few, else per step."""
    if len(segments) <= POINTS:
        return tuple(
            Point(s.started_at, s.seconds, s.quality, s.quality_worst, float(up(s)))
            for s in segments
        )
    span = segments[-1].started_at - segments[0].started_at
    step = _step(span.total_seconds())
    finest = min(step, 3600)
    return _points(_steps(summed(segments, (finest,)), step), step)


def _step(seconds: float) -> int:
    for step in STEPS:
        if seconds / step <= POINTS:
            return step
    return 3600 * -(-int(seconds) // (3600 * POINTS))


def _steps(sums: Iterable[Rollup], step: int) -> list[Rollup]:
    """Roll-ups added up to `step` seconds each; ordered by start."""

    def slot(rollup: Rollup) -> int:
        return int(rollup.starts_at.timestamp()) // step

    return [reduce(merged, same) for _, same in groupby(sums, key=slot)]


def _points(sums: Iterable[Rollup], step: int) -> tuple[Point, ...]:
    return tuple(
        Point(
            r.starts_at,
            float(step),
            r.quality,
            r.quality_worst,
            r.up_seconds / r.watched_seconds if r.watched_seconds else 0.0,
        )
        for r in sums
    )


def _band(episode: Episode) -> Band:
    span = (episode.ends_at - episode.starts_at).total_seconds()
    return Band(episode.name, episode.starts_at, span, episode.severity)


def _faults(
    seconds: Mapping[str, float], found: Sequence[Episode], complete: frozenset[str]
) -> tuple[Fault, ...]:
    """Worst first: by severity, then by duration."""
    by_name: dict[str, list[Episode]] = {name: [] for name in seconds}
    for episode in found:
        by_name.setdefault(episode.name, []).append(episode)
    faults = [
        Fault(
            name=name,
            seconds=seconds.get(name, 0.0),
            episodes=len(some),
            severity=max((e.severity for e in some), default=None),
            longest=max((e.seconds for e in some), default=None),
            complete=name in complete,
        )
        for name, some in by_name.items()
    ]
    return tuple(sorted(faults, key=lambda f: (-(f.severity or 0), -f.seconds, f.name)))


def _worst_apart(segments: Iterable[Segment], apart: float) -> tuple[Segment, ...]:
    """The worst segments, `apart` seconds or more: neighbours tell the same story.

    After the first few only those that stand out: with a fault, or clearly below the median.
    """
    scored = sorted((s.quality, s.started_at, s.id, s) for s in segments if s.quality is not None)
    chosen: list[Segment] = []
    for quality, started_at, _, segment in scored:
        ordinary = not segment.findings and quality > scored[len(scored) // 2][0] - STANDS_OUT
        near = timedelta(seconds=max(apart, 2 * segment.seconds))
        if all(abs(started_at - other.started_at) >= near for other in chosen):
            chosen += [segment] if len(chosen) < LEAST_WORST or not ordinary else []
        if len(chosen) == WORST_SEGMENTS:
            break
    return tuple(chosen)


def _unscored(segments: Iterable[Segment]) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for s in segments:
        if s.quality is None:
            reason = s.no_score_reason or "no_frames"
            seconds[reason] = seconds.get(reason, 0.0) + s.seconds
    return dict(sorted(seconds.items(), key=lambda item: -item[1]))


def _models(segments: Iterable[Segment]) -> tuple[str, ...]:
    return tuple(sorted({s.model for s in segments if s.model and s.scored}))


# From roll-ups.


@dataclass(frozen=True, slots=True)
class _History:
    """Where segments of a long period are looked up. limit: of one stream's faults."""

    store: SegmentStore
    since: datetime
    until: datetime
    limit: int


def _by_hour(history: _History, hours: Sequence[Rollup]) -> StreamReport:
    whole = reduce(merged, hours)
    faulty, complete = _faulty(history, whole)
    seen = {s.id: s for s in [*faulty, *_worst_hours(history.store, hours)]}.values()
    found = episodes(faulty)
    last = history.store.last(whole.stream)
    seconds = (history.until - history.since).total_seconds()
    step = max(3600, _step(seconds))
    return StreamReport(
        name=whole.stream,
        totals=_totals(hours),
        quality=_quality_of_rollups(hours),
        timeline=_points(_steps(hours, step), step),
        bands=_hourly_bands(hours, step),
        faults=_faults(whole.fault_seconds, found, complete),
        episodes=tuple(found),
        worst=_worst_apart(seen, seconds / WORST_APART),
        no_score={},
        models=_models([*seen, *([last] if last else [])]),
        last=last,
    )


def _faulty(history: _History, whole: Rollup) -> tuple[list[Segment], frozenset[str]]:
    """Segments with faults, and the names of those faults of which none was left out."""
    found: dict[str, Segment] = {}
    complete = set()
    for name, seconds in whole.fault_seconds.items():
        some = history.store.segments(
            whole.stream,
            history.since,
            history.until,
            finding=name,
            limit=history.limit // len(whole.fault_seconds) + 1,
        )
        if sum(r.fault_seconds.get(name, 0.0) for r in summed(some, (3600,))) >= 0.99 * seconds:
            complete.add(name)
        found |= {s.id: s for s in some}
    return sorted(found.values(), key=lambda s: s.started_at), frozenset(complete)


def _worst_hours(store: SegmentStore, hours: Sequence[Rollup]) -> list[Segment]:
    scored = [r for r in hours if r.quality_worst is not None and r.quality is not None]
    worst = sorted(scored, key=lambda r: (r.quality_worst or 0.0, r.quality or 0.0))[:WORST_HOURS]
    hour = timedelta(hours=1)
    return [
        segment
        for rollup in worst
        for segment in store.segments(
            rollup.stream,
            rollup.starts_at,
            rollup.starts_at + hour,
            worst_first=True,
            limit=4 * WORST_SEGMENTS,
        )
    ]


def _hourly_bands(hours: Sequence[Rollup], step: int) -> tuple[Band, ...]:
    return tuple(
        Band(name, r.starts_at, float(step), None, min(1.0, seconds / max(1.0, r.watched_seconds)))
        for r in _steps(hours, step)
        for name, seconds in r.fault_seconds.items()
    )


def _totals(sums: Iterable[Rollup]) -> Totals:
    sums = list(sums)
    return Totals(
        watched_seconds=sum(r.watched_seconds for r in sums),
        up_seconds=sum(r.up_seconds for r in sums),
        scored_seconds=sum(r.scored_seconds for r in sums),
        segments=sum(r.segments for r in sums),
    )


def _quality_of_rollups(sums: Sequence[Rollup]) -> Quality | None:
    scored = sum(r.scored_seconds for r in sums)
    if not scored:
        return None
    histogram = tuple(sum(column) for column in zip(*(r.histogram for r in sums), strict=True))
    return Quality(
        mean=sum(r.quality_sum for r in sums) / scored,
        median=_in_bins(histogram, 0.5),
        p5=_in_bins(histogram, 0.05),
        worst=min(r.quality_worst for r in sums if r.quality_worst is not None),
        histogram=histogram,
    )


def _in_bins(histogram: Sequence[float], part: float) -> float:
    """A percentile from bins, as if the time in each were spread evenly over it."""
    target = part * sum(histogram)
    width = 100 / BINS
    reached = 0.0
    for number, seconds in enumerate(histogram):
        if seconds and reached + seconds >= target:
            return width * (number + (target - reached) / seconds)
        reached += seconds
    return 100.0
