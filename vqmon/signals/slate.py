"""Slate: a drawn picture that stays, while packets flow.

Bars, "we'll be right back", a logo. The rule: for 30 s nothing changed but at most a clock's
worth of blocks, the rest came back almost exactly, and the picture looks drawn (flat areas and
few shades, see `changes.drawn`). A filmed picture that stays is a freeze instead; keyframes
alone suffice to tell, because they come back the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqmon.signals.changes import BLOCKS, Change, Grid, blocks, drawn
from vqmon.signals.limits import SCALES
from vqmon.signals.spans import Track

CHANGED = 1.5
CLOCK_SHARE = 0.05
"""Of the blocks: a clock in a corner, seconds running, takes 1 to 4 %."""

MOVING_SHARE = 0.25
"""Of the blocks: more than this from one picture to the next, and nobody need look further."""

REST = 0.4
"""Mean change that encoders make to the rest of a drawn picture; sensor noise makes more."""


class Slate:
    """Feed decoded pictures in order; read `track`."""

    def __init__(self) -> None:
        self.track = Track(least=SCALES["slate"].limit)
        self._reference: Grid | None = None
        self._since = 0.0
        self._drawn: bool | None = None
        self._changed: NDArray[np.bool_] = np.zeros(BLOCKS, bool)

    def picture(self, position: float, samples: Grid, *, moving: bool) -> None:
        """moving: it surely differs from the picture before by more than a clock."""
        if moving or not self._unchanged(samples):
            self.interrupt(position)
            self._reference, self._since = samples, position
            self._drawn = None
            self._changed = np.zeros(BLOCKS, bool)
        elif not self.track.on and position - self._since >= self.track.least:
            self._drawn = drawn(samples) if self._drawn is None else self._drawn
            if self._drawn:
                self.track.begin(self._since)

    def interrupt(self, position: float) -> None:
        """The picture is gone, black, or a frozen one."""
        self.track.finish(position)
        self._reference = None

    def _unchanged(self, samples: Grid) -> bool:
        each = None if self._reference is None else blocks(self._reference, samples)
        if each is None:
            return False
        changed = self._changed | (each > CHANGED)
        if changed.mean() > CLOCK_SHARE or float(each[~changed].mean()) > REST:
            return False
        self._changed = changed
        return True


def moving(pair: Change | None) -> bool:
    """Whether a picture differs from the one before by more than any clock."""
    return pair is not None and pair.moved > MOVING_SHARE
