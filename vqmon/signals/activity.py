"""What the sizes of packets between keyframes say about motion, without decoding any.

A still source costs an encoder next to nothing between keyframes. That alone proves no freeze
(a night camera does the same), but it tells when motion stopped, and where to look closer.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from vqmon.domain import Packet, Traffic

PACKETS_KEPT = 1024
BIG = 0.25
"""A packet is big from this share of the usual size on."""

TINY = 0.1
"""Motion has collapsed when the packets' median is below this share of the usual size ..."""

LEAST_SECONDS = 0.6
LEAST_PACKETS = 6
"""... over this long."""

NEW_NORMAL_SECONDS = 120.0
"""Collapsed for longer than this is what the stream is like now."""


class Activity:
    """Sizes of the last non-key packets against the stream's usual ones."""

    def __init__(self) -> None:
        self._packets: deque[tuple[float, int]] = deque(maxlen=PACKETS_KEPT)
        self._usual = 0.0
        self._collapsed_at: float | None = None

    @property
    def collapsed(self) -> bool:
        """Whether motion has stopped, as far as packets tell."""
        return self._collapsed_at is not None

    def traffic(self, traffic: Traffic) -> None:
        for packet in traffic.packets:
            self._add(packet)
        self._judge(traffic.position)

    def restart(self) -> None:
        """Another connection or format: sizes before do not compare."""
        self._packets.clear()
        self._usual = 0.0
        self._collapsed_at = None

    def stopped(self, after: float, until: float) -> float | None:
        """Where in (after, until] the packets ceased to be big; None when they did not."""
        big = [p for p, size in self._packets if p <= until and self._is_big(size)]
        small = [p for p, size in self._packets if p <= until and not self._is_big(size)]
        last_big = big[-1] if big else after
        rest = [p for p in small if p > max(last_big, after)]
        return rest[0] if rest and rest[-1] - rest[0] >= LEAST_SECONDS / 2 else None

    def resumed(self, after: float, until: float) -> float | None:
        """The first big packet in (after, until]."""
        for position, size in self._packets:
            if after < position <= until and self._is_big(size):
                return position
        return None

    def _add(self, packet: Packet) -> None:
        if not packet.key:
            self._packets.append((packet.position, packet.size))

    def _is_big(self, size: int) -> bool:
        return size >= BIG * self._usual

    def _judge(self, now: float) -> None:
        recent = [s for p, s in self._packets if p > now - LEAST_SECONDS - 1.0]
        enough = len(recent) >= LEAST_PACKETS and self._usual > 0
        if enough and float(np.median(recent[-LEAST_PACKETS * 4 :])) < TINY * self._usual:
            self._collapsed_at = now if self._collapsed_at is None else self._collapsed_at
        else:
            self._collapsed_at = None
        lasting = self._collapsed_at is None or now - self._collapsed_at > NEW_NORMAL_SECONDS
        if lasting and self._packets:
            self._usual = float(np.median([s for _, s in self._packets]))
