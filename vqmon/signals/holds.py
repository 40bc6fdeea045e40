"""Holds: single pictures that stand too long while everything around them moves.

Film in video and drawn animation repeat pictures as a rule; so a hold is told only when it is
far longer than the stream's usual ones.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from vqmon.signals.limits import SCALES
from vqmon.signals.spans import Track

HOLD_PAIR_SECONDS = 5.0
HOLD_ALONE = 0.5
"""A hold this long is stutter by itself, a shorter one when another came within 5 s."""

HOLD_TIMES = 3.0
"""And only from this many times the stream's usual holds on: low frame rates are no fault."""


class Holds:
    """Told by `stillness` of every picture how long it stood; read `track`."""

    def __init__(self) -> None:
        self.track = Track(join=2.0)
        self._usual: deque[float] = deque(maxlen=64)
        self._short: tuple[float, float] | None = None

    def usual(self, seconds: float) -> None:
        """A picture was followed by a different one after this long."""
        self._usual.append(seconds)

    def held(self, start: float, end: float) -> None:
        """The picture of `start` was repeated until `end`."""
        seconds = end - start
        allowed = max(SCALES["stutter"].limit, HOLD_TIMES * self._often())
        self._usual.append(seconds)
        if seconds <= allowed:
            return
        before, self._short = self._short, (start, end)
        if before is not None and start - before[1] <= HOLD_PAIR_SECONDS:
            self.track.mark(*before, before[1] - before[0])
            self.track.mark(start, end, seconds)
        elif seconds >= HOLD_ALONE:
            self.track.mark(start, end, seconds)

    def _often(self) -> float:
        """What one hold in ten exceeds, seconds."""
        return float(np.quantile(np.array(self._usual), 0.9)) if self._usual else 0.0
