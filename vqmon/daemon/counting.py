"""What passes while a stream is watched, counted where it passes: in its ingest process.

    source ─▶ Counting.over ─▶ pipeline
                  └▶ Counts ─▶ Standing, in every beat ─▶ supervisor ─▶ metrics

An ingest process that dies takes at most the last second of its counts along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from vqmon.domain import Depth, Event, Frame, Media, Traffic
from vqmon.ports import Source, everything


@dataclass(frozen=True, slots=True)
class Counts:
    """Sums since one watch began.

    late_frames: pictures left undecoded because vqmon was behind. reconnects: by the reason for
    which the connection had been lost. last_frame_at: seconds since 1970 (UTC), None before the
    first decoded picture.
    """

    bytes: int = 0
    corrupt_packets: int = 0
    timestamp_jumps: int = 0
    late_frames: int = 0
    reconnects: Mapping[str, int] = field(default_factory=dict)
    last_frame_at: float | None = None


class Counting:
    """Counts for one watch, over all sources that it opens. Written by the thread that watches;
    `counts` may be read by any.
    """

    def __init__(self) -> None:
        self._bytes = self._corrupt = self._jumps = self._late = 0
        self._reconnects: dict[str, int] = {}
        self._last_frame_at: float | None = None
        self._was_up = False
        self._lost: str | None = None

    def over(self, source: Source) -> Source:
        """The same source; what it yields is counted."""
        return _Counted(source, self._count)

    def lost(self, reason: str) -> None:
        """The watch broke off; what comes next, comes over another connection."""
        if self._was_up:
            self._lost = self._lost or reason

    @property
    def counts(self) -> Counts:
        return Counts(
            self._bytes,
            self._corrupt,
            self._jumps,
            self._late,
            dict(self._reconnects),
            self._last_frame_at,
        )

    def _count(self, item: Media) -> None:
        match item:
            case Frame():
                self._last_frame_at = item.captured_at.timestamp()
            case Traffic():
                self._bytes += item.bytes
                self._corrupt += item.corrupt_packets
                self._late += item.late_frames
            case Event():
                self._note(item)

    def _note(self, event: Event) -> None:
        if event.kind == "timestamp_jump":
            self._jumps += 1
        elif event.kind == "lost":
            self.lost(event.reason or "timeout_read")
        elif event.kind in ("opened", "reconnected"):
            self._connected()

    def _connected(self) -> None:
        if self._lost:
            self._reconnects[self._lost] = self._reconnects.get(self._lost, 0) + 1
        self._was_up, self._lost = True, None


class _Counted:
    """A source whose media pass by `count`."""

    def __init__(self, source: Source, count: Callable[[Media], None]) -> None:
        self._source = source
        self._count = count

    @property
    def live(self) -> bool:
        return self._source.live

    def open(
        self, depth: Callable[[], Depth] = everything
    ) -> AbstractContextManager[Iterator[Media]]:
        return self._opened(depth)

    def stop(self) -> None:
        self._source.stop()

    @contextmanager
    def _opened(self, depth: Callable[[], Depth]) -> Iterator[Iterator[Media]]:
        with self._source.open(depth) as media:
            yield self._passing(media)

    def _passing(self, media: Iterator[Media]) -> Iterator[Media]:
        for item in media:
            self._count(item)
            yield item
