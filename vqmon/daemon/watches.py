"""What the supervisor remembers of each stream that is being watched."""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from vqmon.alerting import Rule
from vqmon.alerting.rules import QUALITY, WORST
from vqmon.daemon.coverage import Coverage
from vqmon.daemon.messages import Pictures, Standing, Watch
from vqmon.domain import Stream
from vqmon.settings import StreamSettings

LINES_KEPT = 10
OPENS_PER_SECOND = 25.0
LONGEST_DELAY = 10.0
VISIT_OPEN_SECONDS = 15.0
"""A visit may take this long to open its stream on top of its own length."""

VISIT_END_SECONDS = 15.0
"""After a visit was told to end: how long until it is over even without an answer."""

_generations = itertools.count(1)


@dataclass(slots=True)
class Watched:
    """One stream, all the time or for one visit.

    crew: the process that watches it. up_at, begun, left_at: `time.monotonic()`.
    """

    stream: Stream
    pictures: Pictures
    coverage: Coverage
    crew: str
    begun: float
    full_set_at: datetime | None = None
    visit_due: datetime | None = None
    generation: int = 0
    standing: Standing | None = None
    up_at: float | None = None
    left_at: float | None = None
    ended: bool = False
    coarser: int = 1
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES_KEPT))

    def order(self, place: int) -> Watch:
        """To begin anew, as the `place`-th of those that begin together."""
        self.generation = next(_generations)
        self.standing = None
        schedule = self.stream.schedule
        return Watch(
            self.stream,
            self.generation,
            self.pictures,
            delay=min(place / OPENS_PER_SECOND, LONGEST_DELAY),
            full_set_at=self.full_set_at,
            visit_seconds=schedule.seconds if schedule else None,
        )

    def stands(self, standing: Standing, clock: float) -> None:
        self.standing = standing
        if standing.state == "up" and self.up_at is None:
            self.up_at = clock

    @property
    def stands_as(self) -> str:
        """up, down, connecting or ended, for people."""
        if self.ended:
            return "ended"
        state = self.standing.state if self.standing else "connecting"
        return {"up": "up", "connecting": "connecting"}.get(state, "down")

    def visit_is_over(self, clock: float) -> bool:
        """Whether the time of the visit is up; most visits end by themselves before."""
        schedule = self.stream.schedule
        if schedule is None or self.left_at is not None:
            return False
        if self.up_at is not None:
            return clock > self.up_at + schedule.seconds + 2.0
        down = self.standing is not None and self.standing.state == "down"
        return clock > self.begun + schedule.seconds + (0.0 if down else VISIT_OPEN_SECONDS)

    def does_not_end(self, clock: float) -> bool:
        return self.left_at is not None and clock > self.left_at + VISIT_END_SECONDS


def pictures_of(settings: StreamSettings, rules: Iterable[Rule] = ()) -> Pictures:
    """rules: of the stream; what breaks one on quality is shown."""
    kept = settings.evidence
    below = tuple((it.on, it.limit) for it in rules if it.on in (QUALITY, WORST))
    return Pictures(kept.thumbnails, kept.frames, kept.hourly, kept.jpeg_quality, below)


def line_of(record: logging.LogRecord) -> str:
    """A log line for a later look back, on one line."""
    detail = getattr(record, "detail", "") or getattr(record, "reason", "")
    return f"{record.levelname.lower()} {record.getMessage()} {detail}".strip()
