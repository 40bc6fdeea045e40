"""What a report consists of. All seconds are of wall-clock time; times are UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from vqmon.domain import Alert, Asked, Decision, Segment
from vqmon.report.episodes import Episode


@dataclass(frozen=True, slots=True)
class Totals:
    """Seconds: watched (covered by segments), up (media arrived), scored."""

    watched_seconds: float = 0.0
    up_seconds: float = 0.0
    scored_seconds: float = 0.0
    segments: int = 0

    @property
    def availability(self) -> float | None:
        """Share of the watched time in which media arrived, 0..1."""
        return self.up_seconds / self.watched_seconds if self.watched_seconds else None


@dataclass(frozen=True, slots=True)
class Quality:
    """Of the scored time, 0..100. p5: 95 % of the time was better. worst: the worst frame.

    histogram: seconds in ten bins of ten points.
    """

    mean: float
    median: float
    p5: float
    worst: float
    histogram: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Point:
    """One step of the plot. up: share of `seconds` in which media arrived."""

    starts_at: datetime
    seconds: float
    quality: float | None
    worst: float | None
    up: float


@dataclass(frozen=True, slots=True)
class Band:
    """A stretch of the plot in which a fault was present for `share` of the time.

    severity: 1..5, None where only a summary is left.
    """

    name: str
    starts_at: datetime
    seconds: float
    severity: int | None
    share: float = 1.0


@dataclass(frozen=True, slots=True)
class Fault:
    """All episodes of one fault of one stream.

    seconds: exact. episodes, severity (worst), longest (seconds): of the segments that were
    read; `complete` says whether these were all.
    """

    name: str
    seconds: float
    episodes: int
    severity: int | None
    longest: float | None
    complete: bool = True


@dataclass(frozen=True, slots=True)
class StreamReport:
    """One stream in the period. timeline, bands: for the plot. no_score: seconds by reason.

    alerts: that fired in the period, the newest first. decisions: of plugins, the oldest first.
    asked: what the writer was asked about the worst segments, by segment. disagreements: where it
    and the scorer differ, the newest first.
    """

    name: str
    totals: Totals
    quality: Quality | None
    timeline: tuple[Point, ...]
    bands: tuple[Band, ...]
    faults: tuple[Fault, ...]
    episodes: tuple[Episode, ...]
    worst: tuple[Segment, ...]
    no_score: Mapping[str, float]
    models: tuple[str, ...]
    last: Segment | None
    alerts: tuple[Alert, ...] = ()
    decisions: tuple[Decision, ...] = ()
    asked: Mapping[str, Asked] = field(default_factory=dict)
    disagreements: tuple[Asked, ...] = ()

    @property
    def viewed_quality(self) -> float:
        """Mean quality with time down counted as 0: what the order of streams goes by."""
        if self.quality is None:
            return 0.0
        scored = self.totals.scored_seconds
        down = self.totals.watched_seconds - self.totals.up_seconds
        return self.quality.mean * scored / (scored + down)


@dataclass(frozen=True, slots=True)
class Report:
    """streams: worst first. by_segment: False when read from roll-ups.

    notes: what a reader must know about how complete this is.
    """

    since: datetime
    until: datetime
    made_at: datetime
    streams: tuple[StreamReport, ...]
    totals: Totals
    quality: Quality | None
    by_segment: bool
    notes: tuple[str, ...] = ()
    known_streams: tuple[str, ...] = ()
    evidence_folder: Path | None = field(default=None, compare=False)

    @property
    def seconds(self) -> float:
        return (self.until - self.since).total_seconds()
