"""What passed, second by second and picture by picture, kept for the segment in progress.

Sums and shares of a segment come from here: bit rate, frame rate, loss, damage, lateness.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from vqmon.domain import AudioLevel, Frame, Traffic

SECONDS_KEPT = 1024
PICTURES_KEPT = 8192


@dataclass(frozen=True, slots=True)
class Second:
    """One `Traffic`, summed up. start: the position it is counted at."""

    start: float
    seconds: float
    wall_seconds: float
    bytes: int
    video_bytes: int
    packets: int
    keys: int
    corrupt: int
    errors: int
    late: int
    audio: AudioLevel | None

    @property
    def end(self) -> float:
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Picture:
    """One decoded frame. luma: mean 0..255."""

    position: float
    corrupt: bool
    luma: float
    qp: float | None


class Ledger:
    """A ring of seconds and pictures.

    Traffic is known when its second is over, so the one that straddles a segment border comes
    after the segment was closed: it is counted in the next one, never lost.
    """

    def __init__(self) -> None:
        self.seconds: deque[Second] = deque(maxlen=SECONDS_KEPT)
        self.pictures: deque[Picture] = deque(maxlen=PICTURES_KEPT)
        self._closed_until = float("-inf")

    def traffic(self, traffic: Traffic) -> None:
        packets = traffic.packets
        self.seconds.append(
            Second(
                start=max(traffic.position - traffic.seconds, self._closed_until),
                seconds=traffic.seconds,
                wall_seconds=traffic.wall_seconds,
                bytes=traffic.bytes,
                video_bytes=sum(p.size for p in packets),
                packets=len(packets),
                keys=sum(p.key for p in packets),
                corrupt=max(traffic.corrupt_packets, sum(p.corrupt for p in packets)),
                errors=traffic.decode_errors,
                late=traffic.late_frames,
                audio=traffic.audio,
            )
        )

    def picture(self, frame: Frame, luma: float) -> None:
        self.pictures.append(Picture(frame.position, frame.corrupt, luma, frame.qp))

    def close(self, start: float, end: float) -> None:
        """A segment is being reported: forget what ended before it began."""
        self._closed_until = max(self._closed_until, end)
        while self.seconds and self.seconds[0].end <= start:
            self.seconds.popleft()
        while len(self.pictures) > 1 and self.pictures[1].position <= start:
            self.pictures.popleft()

    def seconds_in(self, start: float, end: float) -> list[Second]:
        """Those counted in this segment: each is counted once, wherever borders lie."""
        return [s for s in self.seconds if start <= s.start < end]

    def seconds_touching(self, start: float, end: float) -> list[Second]:
        """Those of which a part lies in this segment."""
        return [s for s in self.seconds if s.start < end and s.end > start]

    def pictures_in(self, start: float, end: float) -> list[Picture]:
        return [p for p in self.pictures if start <= p.position < end]

    def pictures_shown(self, start: float, end: float) -> list[Picture]:
        """Those in the segment and the one that still stands when it begins."""
        before = [p for p in self.pictures if p.position < start][-1:]
        return before + self.pictures_in(start, end)


def percent(part: float, whole: float) -> float:
    """0 to 100; 0 of nothing is 0."""
    return min(100.0, 100.0 * part / whole) if whole > 0 else 0.0


def mean(values: Sequence[float]) -> float | None:
    """None for nothing."""
    return sum(values) / len(values) if values else None
