"""What is usual for one stream: how much its pictures change at the very least."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

from vqmon.signals.changes import Change

PAIRS_KEPT = 256
PAIRS_NEEDED = 24
PAIRS_TELLING = 96
REFRESH_EVERY = 16

BUSY_MEAN, BUSY_MEDIAN = 0.2, 0.05
"""Low tenths of change from which on a stream is moving everywhere all the time."""

STILL_MEAN = 0.02
"""A pair of pictures that differs less than this (of 255) is still in any stream ..."""

STILL_SHARE = 0.3
"""... or less than this share of the stream's own low tenth: so much do encoders refine in a
stopped picture of a stream that was moving."""

CUT_MEAN, CUT_MOVED, CUT_TIMES = 10.0, 0.8, 3.0
"""At an edit, nearly all blocks change at once, by much more than is usual."""

QUIET_PAIRS = 7500
"""Pairs (five minutes at 25 a second) for which a stream that was quiet once is not busy: an
empty corridor between two crowds is no freeze."""

KEYS_KEPT = 256
KEYS_NEEDED = 2


class Baseline:
    """Low tenths over the last dense pairs of pictures and the last pairs of keyframes."""

    def __init__(self) -> None:
        self._pairs: deque[tuple[float, float]] = deque(maxlen=PAIRS_KEPT)
        self._keys: deque[float] = deque(maxlen=KEYS_KEPT)
        self._low = (0.0, 0.0)
        self._usual = 0.0
        self._unread = 0
        self._quiet_for = 0

    def add(self, pairs: Iterable[Change]) -> None:
        """Changes between neighbouring pictures that were not frozen."""
        for pair in pairs:
            self._pairs.append((pair.mean, pair.median))
            self._unread += 1
            self._quiet_for = max(0, self._quiet_for - 1)
        if self._unread >= REFRESH_EVERY or len(self._pairs) == PAIRS_NEEDED:
            low, usual = np.quantile(np.array(self._pairs), (0.1, 0.5), axis=0)
            self._low, self._usual = (float(low[0]), float(low[1])), float(usual[0])
            self._unread = 0
            if len(self._pairs) >= PAIRS_TELLING and not self._moving():
                self._quiet_for = QUIET_PAIRS

    def add_key(self, mean: float) -> None:
        """A change from one keyframe to the next that was not frozen."""
        self._keys.append(mean)

    @property
    def busy(self) -> bool | None:
        """Whether all of the picture moves all the time; None when too little was seen."""
        if len(self._pairs) < PAIRS_NEEDED:
            return None
        return self._moving() and not self._quiet_for

    def moves(self, pair: Change | None) -> bool:
        """Whether a pair shows as much motion as this stream does at the least."""
        return pair is None or (pair.mean >= self._low[0] and pair.median >= self._low[1])

    def cuts(self, pair: Change | None) -> bool:
        """Whether a pair looks like an edit."""
        if pair is None:
            return True
        all_over = pair.mean >= CUT_MEAN and pair.moved >= CUT_MOVED
        return all_over and pair.mean >= CUT_TIMES * self._usual

    @property
    def still(self) -> float:
        """Mean change up to which a pair counts as still."""
        return max(STILL_MEAN, STILL_SHARE * self._low[0]) if self.busy else STILL_MEAN

    @property
    def floor(self) -> float | None:
        """What keyframes differ by at the least; None when too few were seen."""
        if len(self._keys) < KEYS_NEEDED:
            return None
        return float(np.quantile(np.array(self._keys), 0.1))

    def _moving(self) -> bool:
        return self._low[0] >= BUSY_MEAN and self._low[1] >= BUSY_MEDIAN
