"""Counts what arrives, and closes an interval about every second of media."""

from __future__ import annotations

import time
from datetime import datetime

from vqmon.domain import AudioLevel, Packet, Traffic

INTERVAL_SECONDS = 1.0
WAITING_SECONDS = 2.0
"""An interval ends after this long even when less than a second of media came."""


class Meter:
    """The interval in progress."""

    def __init__(self, position: float, clock: float, complaints: int) -> None:
        self._position = position
        self._clock = clock
        self._cpu = time.thread_time()
        self._complaints = complaints
        self._clear()

    def _clear(self) -> None:
        self.bytes = 0
        self.packets: list[Packet] = []
        self.corrupt = 0
        self.late = 0

    def due(self, position: float, clock: float) -> bool:
        return (
            position - self._position >= INTERVAL_SECONDS or clock - self._clock >= WAITING_SECONDS
        )

    def close(
        self,
        position: float,
        clock: float,
        captured_at: datetime,
        complaints: int,
        audio: AudioLevel | None,
        *,
        live: bool,
    ) -> Traffic:
        """The interval that ends at `position`; the next one begins there.

        complaints: what FFmpeg complained about so far, in all.
        """
        cpu = time.thread_time()
        seconds = max(0.0, position - self._position)
        traffic = Traffic(
            position=position,
            seconds=seconds,
            wall_seconds=clock - self._clock if live else seconds,
            captured_at=captured_at,
            bytes=self.bytes,
            packets=tuple(self.packets),
            corrupt_packets=self.corrupt,
            decode_errors=complaints - self._complaints,
            late_frames=self.late,
            cpu_seconds=max(0.0, cpu - self._cpu),
            audio=audio,
        )
        self._position, self._clock, self._cpu = position, clock, cpu
        self._complaints = complaints
        self._clear()
        return traffic
