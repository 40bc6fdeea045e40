"""Whether pictures show the same content, however they were coded, scaled or exposed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Frame, Segment

Bits = NDArray[np.bool_]

LIKE = 70.0
"""Hashes of one scene differ in at most so many bits. In rate ladders of seven real clips 98 % of
the pictures had a counterpart within 59; of different clips none came nearer than 94.
"""

SIDE = 256
"""Pixels of the shorter side that are looked at; more change nothing but the time it takes."""

KEPT = 256
"""Hashes kept of one side: an hour has thousands of pictures, and a few hundred tell."""


def dhash(luma: NDArray[np.generic]) -> Bits:
    """(h, w) luma -> 256 bits: of a 16 x 17 reduction, whether brightness rises to the right.

    Survives scaling, recompression and small changes of exposure.
    """
    small = _reduced(luma, 16, 17)
    bits: Bits = (small[:, 1:] > small[:, :-1]).reshape(-1)
    return bits


def distances(a: Sequence[Bits] | Bits, b: Sequence[Bits] | Bits) -> NDArray[np.float32]:
    """(len(a), len(b)): in how many of their 256 bits two hashes differ."""
    left, right = np.asarray(a, np.float32), np.asarray(b, np.float32)
    apart: NDArray[np.float32] = left.sum(1)[:, None] + right.sum(1)[None] - 2 * left @ right.T
    return apart


def counterparts(a: Sequence[Bits], b: Sequence[Bits]) -> tuple[int, int] | None:
    """(n, of): how many pictures of the side with fewer have a near one on the other side.

    None when a side has no picture.
    """
    if not len(a) or not len(b):
        return None
    apart = distances(a, b)
    nearest = apart.min(1) if len(a) <= len(b) else apart.min(0)
    return int((nearest <= LIKE).sum()), len(nearest)


class Glimpses:
    """Hashes of the scored pictures, gathered on their way; see `vqmon.ports.Evidence`."""

    def __init__(self) -> None:
        self.hashes: list[Bits] = []

    def offer(self, frame: Frame, quality: float | None) -> None:  # noqa: ARG002  the port's
        if len(self.hashes) < KEPT:
            self.hashes.append(upright_hash(frame.planes[0], frame.rotation))

    def close(self, segment: Segment) -> Segment:
        return segment


def upright_hash(luma: NDArray[np.generic], rotation: int = 0) -> Bits:
    """Of a picture as it is shown; rotation: degrees clockwise, a multiple of 90."""
    stride = max(1, min(luma.shape) // SIDE)
    return dhash(np.rot90(luma[::stride, ::stride], -rotation // 90))


def _reduced(luma: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.float64]:
    """Means over a grid, by differences of the summed-area table."""
    table = np.zeros((luma.shape[0] + 1, luma.shape[1] + 1))
    table[1:, 1:] = np.asarray(luma, np.float64).cumsum(0).cumsum(1)
    y = np.linspace(0, luma.shape[0], rows + 1).round().astype(int)
    x = np.linspace(0, luma.shape[1], columns + 1).round().astype(int)
    sums = np.diff(np.diff(table[np.ix_(y, x)], axis=0), axis=1)
    areas = np.outer(np.diff(y), np.diff(x))
    return np.asarray(sums / areas)
