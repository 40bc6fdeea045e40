"""What a network sees of a picture: 36 pieces at their own resolution, and all of it, small.

Both are bytes of a fixed size, so that they cross between processes cheaply and batch together.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqmon.patches import GRID, Look
from vqmon.patches.scratch import Floats

PIECE = 40
"""Side of a piece, pixels: five coding blocks of 8, so that each holds whole ones."""

OVERVIEW = 96
"""Side of the overview, points; the picture's shape is squashed into a square."""


def pieces(look: Look) -> NDArray[np.uint8]:
    """(36, 40, 40) luma 0..255: the middle of each patch of the 6x6 grid, row by row.

    In pictures wider than 1280 pixels a third of them is at half resolution. Patches of tiny
    pictures, under 40 pixels a side, are mirrored at their ends.
    """
    side = look.native.shape[-1]
    take = min(PIECE, side)
    begin = (side - take) // 4 * 2
    inside = slice(begin, begin + take)
    grid = np.empty((GRID * GRID, take, take), np.float32)
    grid[~look.halved] = look.native[:, inside, inside]
    grid[look.halved] = look.reduced[:, inside, inside]
    if take < PIECE:
        ends = (0, PIECE - take)
        grid = np.pad(grid, ((0, 0), ends, ends), mode="symmetric")
    return _bytes(grid)


def overview(look: Look) -> NDArray[np.uint8]:
    """(3, 96, 96) Y, Cb, Cr of the whole picture without black bars: full range, BT.709,
    chroma around 128; averaged by area.
    """
    layers = np.stack([look.view, *look.chroma])
    layers[1:] += np.float32(128)
    return _bytes(_averaged(_averaged(layers, 1), 2))


def _averaged(layers: Floats, axis: int) -> Floats:
    """Means over 96 stretches of equal length along an axis, parts of samples included.

    By running sums, which take no BLAS: a matrix product of this size would wake its threads.
    """
    lines = np.moveaxis(layers, axis, 0)
    length = len(lines)
    sums = np.zeros((length + 1, *lines.shape[1:]), np.float32)
    np.cumsum(lines, axis=0, out=sums[1:])
    edges = np.arange(OVERVIEW + 1) * length / OVERVIEW
    whole = np.minimum(edges.astype(np.int64), length - 1)
    part = (edges - whole).astype(np.float32)[:, None, None]
    at_edges = sums[whole]
    at_edges += (sums[whole + 1] - at_edges) * part
    means = np.diff(at_edges, axis=0)
    means *= np.float32(OVERVIEW / length)
    return np.moveaxis(means, 0, axis)


def _bytes(values: Floats) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
