"""Every second of a stream's watch belongs to one row: measured, or a row that says why not.

Measured segments come from the pipeline. While a stream is down, or its process is being
replaced, rows of the usual length come from here, at the usual cadence, so that availability is
a sum over rows. Pure: what time it is, is an argument.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from vqmon.daemon.messages import Standing
from vqmon.domain import DOWN_REASONS, Finding, Segment, Stream
from vqmon.explain import explain

SETTLE_SECONDS = 6.0
"""After a loss is noticed, the segment in progress may still come: it is being scored."""

LAG_SECONDS = 2.0
"""A row is given out so long after its end: a stream that came back is heard of by then."""

JOIN_SECONDS = 90.0
"""What lies further apart is not one stretch: the machine slept, or its clock was set."""

NO_SIGNAL_LIMIT = 1.0
"""Seconds without media that are no fault yet."""

NO_SIGNAL_STEPS = (3.0, 10.0, 30.0)
"""Seconds without media from which the severity is 3, 4 and 5; below it is 2."""

RESTARTED = "process_restarted"


@dataclass(slots=True)
class _Absence:
    """Nothing is measured since `since`, for `reason`; noticed at `noticed`.

    returned: when the stream was up again, while its first segment is not yet here.
    """

    reason: str
    since: datetime
    noticed: datetime
    detail: str = ""
    returned: datetime | None = None


@dataclass(slots=True)
class Coverage:
    """Up to when one stream has rows, and what the next row without a score would say.

    represents: for a visit, the seconds of its whole period that each second of it stands for;
        its rows carry the product as a fact.
    """

    stream: Stream
    represents: float | None = None
    until: datetime | None = None
    _position: float = 0.0
    _absence: _Absence | None = None

    def measured(self, segment: Segment) -> Iterator[Segment]:
        """A segment from the pipeline, behind a row for what is missing before it.

        It is moved back if it would overlap earlier rows.
        """
        if self._absence:
            yield from self._fill(segment.started_at)
            if self._absence.returned or self._absence.reason == RESTARTED:
                self._absence = None
        begin = segment.started_at
        if self.until and begin < self.until <= begin + timedelta(seconds=JOIN_SECONDS):
            segment = replace(segment, started_at=self.until)
        self.until = segment.started_at + timedelta(seconds=segment.seconds)
        self._position = segment.start + segment.seconds
        if self._absence:
            self._absence.since = max(self._absence.since, self.until)
        yield self._marked(segment)

    def interrupted(self, now: datetime) -> None:
        """We stopped looking, by a fault of our own."""
        if self._absence is None:
            self._absence = _Absence(RESTARTED, self._last_seen(now), now)

    def look(self, standing: Standing | None, now: datetime, clock: float) -> Iterator[Segment]:
        """Rows that are due, given how the watch stands. clock: `time.monotonic()` at `now`."""
        if standing is None:
            pass
        elif standing.state == "up":
            yield from self._returned(now - timedelta(seconds=clock - standing.since), now)
        elif standing.state == "down":
            yield from self._down(standing, now, now - timedelta(seconds=clock - standing.since))
        elif standing.state == "failed":
            self.interrupted(now)
        yield from self._due(now)

    def close(self, now: datetime) -> Iterator[Segment]:
        """The watch ends: what is missing up to now."""
        if self._absence:
            yield from self._fill(self._absence.returned or now)
            self._absence = None

    def missing(self, now: datetime, seconds: float, reason: str) -> Iterator[Segment]:
        """The last `seconds` as one row: nothing was ever seen of them."""
        began = now - timedelta(seconds=seconds)
        self._absence = _Absence(reason, began, now)
        yield self._row(began, seconds)
        self._absence = None

    def _returned(self, since: datetime, now: datetime) -> Iterator[Segment]:
        """Up again: the gap ends where the first segment begins, or, if none comes, here."""
        absence = self._absence
        if absence is None:
            return
        absence.returned = absence.returned or since
        patience = 2 * self.stream.segment_seconds + SETTLE_SECONDS
        if (now - absence.returned).total_seconds() > patience:
            yield from self._fill(absence.returned)
            self._absence = None

    def _down(self, standing: Standing, now: datetime, since: datetime) -> Iterator[Segment]:
        reason = standing.reason or "timeout_open"
        if self._absence and self._absence.reason == RESTARTED:
            yield from self._fill(since)
        if self._absence is None or self._absence.reason == RESTARTED:
            self._absence = _Absence(reason, self._last_seen(since), now)
        self._absence.reason, self._absence.detail = reason, standing.detail
        self._absence.returned = None

    def _last_seen(self, since: datetime) -> datetime:
        """When media ended: a loss is noticed only when a read has timed out."""
        near = self.until and since - self.until < timedelta(seconds=JOIN_SECONDS)
        return self.until if self.until and near else since

    def _due(self, now: datetime) -> Iterator[Segment]:
        """Whole rows whose time is over."""
        absence, length = self._absence, timedelta(seconds=self.stream.segment_seconds)
        if absence is None or now < absence.noticed + timedelta(seconds=SETTLE_SECONDS):
            return
        end = absence.returned or now - timedelta(seconds=LAG_SECONDS)
        while self._next() + length <= end:
            yield self._row(self._next(), self.stream.segment_seconds)

    def _fill(self, until: datetime) -> Iterator[Segment]:
        """Rows up to `until`, the last one as short as need be."""
        while (missing := (until - self._next()).total_seconds()) > 0.05:
            yield self._row(self._next(), min(missing, self.stream.segment_seconds))

    def _next(self) -> datetime:
        assert self._absence
        return max(self._absence.since, self.until) if self.until else self._absence.since

    def _row(self, started_at: datetime, seconds: float) -> Segment:
        """One row without a score; the position goes on with the wall clock."""
        assert self._absence
        if self.until:
            self._position += max(0.0, (started_at - self.until).total_seconds())
        self.until = started_at + timedelta(seconds=seconds)
        away = (self.until - self._absence.since).total_seconds()
        segment = no_score(
            self.stream,
            started_at,
            seconds,
            self._absence.reason,
            start=self._position,
            away=away,
            facts={"detail": self._absence.detail} if self._absence.detail else {},
        )
        self._position += seconds
        return self._marked(segment)

    def _marked(self, segment: Segment) -> Segment:
        if self.represents is None:
            return segment
        stands_for = round(segment.seconds * self.represents, 1)
        facts = {"visit": True, "represents_seconds": stands_for}
        return replace(segment, facts={**segment.facts, **facts})


def no_score(
    stream: Stream,
    started_at: datetime,
    seconds: float,
    reason: str,
    *,
    start: float = 0.0,
    away: float = 0.0,
    facts: Mapping[str, Any] | None = None,
) -> Segment:
    """A row that says why there is no score. away: seconds without media up to its end."""
    segment = Segment(
        stream=stream.name,
        started_at=started_at,
        start=round(start, 3),
        seconds=round(seconds, 3),
        findings=tuple(_no_signal(reason, away, round(start, 3), round(seconds, 3))),
        facts={"away_seconds": round(away, 1), **(facts or {})},
        no_score_reason=reason,
    )
    return replace(segment, explanation=explain(segment))


def _no_signal(reason: str, away: float, start: float, seconds: float) -> Iterator[Finding]:
    """The finding, when it is the stream's fault and lasts long enough to be one."""
    if reason in DOWN_REASONS and away >= NO_SIGNAL_LIMIT:
        severity = 2 + sum(away >= step for step in NO_SIGNAL_STEPS)
        yield Finding(
            "no_signal", severity, 1.0, round(away, 1), NO_SIGNAL_LIMIT, "s", None, start, seconds
        )
