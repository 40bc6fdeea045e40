"""When a lost source is tried again, and how it stands meanwhile."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal

STEPS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds before each further attempt; the last one repeats."""

JITTER = 0.2
"""Share by which a delay varies, so that a thousand streams do not come back at once."""

HEALTHY_SECONDS = 60.0
"""After this long without a failure the steps begin anew."""

SLOW_LANE_SECONDS = 300.0
"""Delay where trying again soon is useless: credentials, address, codec."""


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """How a source stands; replaced as a whole, so any thread may read it.

    reason: one of DOWN_REASONS while the source is not up. detail: free text, no credentials.
    since, last_packet_monotonic: `time.monotonic()`; the latter None before the first packet.
    reconnects: connections after the first one.
    read_timeout: seconds after which a silent connection is given up.
    """

    state: Literal["connecting", "up", "down", "stopped"] = "connecting"
    reason: str | None = None
    detail: str = ""
    since: float = 0.0
    reconnects: int = 0
    last_packet_monotonic: float | None = None
    read_timeout: float = 10.0


class Backoff:
    """The delay before the next attempt, seconds."""

    def __init__(
        self, steps: tuple[float, ...] = STEPS, slow_lane: float = SLOW_LANE_SECONDS
    ) -> None:
        self._steps = steps
        self._slow_lane = slow_lane
        self._failures = 0

    def failed(self, *, healthy_for: float, useless: bool) -> float:
        """Delay after a failure; `healthy_for`: seconds that media had flowed before."""
        if healthy_for >= HEALTHY_SECONDS:
            self._failures = 0
        step = self._steps[min(self._failures, len(self._steps) - 1)]
        self._failures += 1
        delay = self._slow_lane if useless else step
        return delay * random.uniform(1 - JITTER, 1 + JITTER)
