"""What the supervisor and its processes say to each other, over one pipe for each process.

    supervisor ─▶ ingest     Watch · Leave · Allow · Finish
    ingest ─▶ supervisor     Beat · Closed · Ended · Said
    scoring ─▶ supervisor    Failed · Said
    supervisor ─▶ delivery   Take · Finish
    delivery ─▶ supervisor   Alive · Sent · Said
    supervisor ─▶ writer     Finish
    writer ─▶ supervisor     Alive · Troubled · Said
    reader ─▶ supervisor     Gone (the pipe of a process ended)

A stream is watched under a *generation*: a number that grows with every new start, so that what
an earlier watch of the same name still says can be told apart.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from vqmon.daemon.counting import Counts
from vqmon.domain import Segment, Stream


@dataclass(frozen=True, slots=True)
class Pictures:
    """Which pictures are kept of a stream; as in `vqmon.settings.EvidenceSettings`.

    below: ("quality" or "quality_worst", limit): what an alert may be raised about is shown.
    """

    thumbnails: bool = True
    frames: int = 4
    hourly: bool = True
    jpeg_quality: int = 95
    below: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Watch:
    """Begin to watch. delay: seconds to wait first, so that not all streams open at once.

    full_set_at: when the last full set of pictures was kept. visit_seconds: end after so much
    media; None watches until told to leave.
    """

    stream: Stream
    generation: int
    pictures: Pictures = Pictures()
    delay: float = 0.0
    full_set_at: datetime | None = None
    visit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Leave:
    """Stop watching; what was measured of the segment in progress still comes."""

    name: str


@dataclass(frozen=True, slots=True)
class Allow:
    """Whether pictures and packets may be written."""

    evidence: bool


@dataclass(frozen=True, slots=True)
class Finish:
    """Leave all streams and end, at the latest after `patience` seconds."""

    patience: float


@dataclass(frozen=True, slots=True)
class Standing:
    """How one watch stands. Times are `time.monotonic()`, which all processes share.

    state: as in `vqmon.sources.SourceStatus`, with "failed" for a watch that broke by a fault
        of vqmon and will be tried again. reason: one of DOWN_REASONS, or None.
    counts: what has passed since the watch began.
    """

    name: str
    generation: int
    state: Literal["connecting", "up", "down", "stopped", "failed"]
    reason: str | None = None
    detail: str = ""
    since: float = 0.0
    reconnects: int = 0
    last_packet: float | None = None
    read_timeout: float = 10.0
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Beat:
    """Said every second. resident_bytes, cpu_seconds: of the process, since its start.

    lingering: seconds for which the slowest watch has failed to end after `Leave`.
    """

    resident_bytes: int
    cpu_seconds: float
    lingering: float
    standings: tuple[Standing, ...]


@dataclass(frozen=True, slots=True)
class Closed:
    """A finished segment."""

    generation: int
    segment: Segment


@dataclass(frozen=True, slots=True)
class Ended:
    """A watch is over: it was left, its visit was complete, or its source came to a good end.

    counts: what has passed, in all.
    """

    name: str
    generation: int
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Said:
    """A log line. stream: whose thread said it, as far as it is known."""

    record: logging.LogRecord
    stream: str | None


@dataclass(frozen=True, slots=True)
class Failed:
    """The process cannot do its work and ends; text: why, for people."""

    text: str


@dataclass(frozen=True, slots=True)
class Alive:
    """The process works as it should."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of messages since the process began: how many by (target, outcome).

    outcome: delivered · failed (an attempt; it is tried again) · given_up (a dead letter).
    """

    counts: Mapping[tuple[str, str], int]


@dataclass(frozen=True, slots=True)
class Troubled:
    """The process cannot do its work at present; text: why, for people, empty when it can again."""

    text: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The other end of a process's pipe is closed: it has ended, or is about to."""
