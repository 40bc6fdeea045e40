"""What a network sees of a picture: 36 pieces at their own resolution, and all of it, small.

Both are bytes of a fixed size, so that they cross between processes cheaply and batch together.
"""

from __future__ import annotations

from functools import lru_cache

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
    """Means over 96 stretches of equal length along an axis, parts of samples included."""
    lines = np.ascontiguousarray(np.moveaxis(layers, axis, 0))
    places, weights = _stretches(len(lines))
    means = lines[places[0]]
    means *= weights[0]
    for place, weight in zip(places[1:], weights[1:], strict=True):
        part = lines[place]
        part *= weight
        means += part
    return np.moveaxis(means, 0, axis)


@lru_cache(maxsize=64)
def _stretches(length: int) -> tuple[NDArray[np.intp], Floats]:
    """(k, 96) samples of each stretch and (k, 96, 1, 1) their shares; k as few as will do."""
    edges = np.arange(OVERVIEW + 1) * length / OVERVIEW
    first, last = np.floor(edges[:-1]).astype(np.intp), np.ceil(edges[1:]).astype(np.intp)
    places = first + np.arange((last - first).max())[:, None]
    shares = np.minimum(places + 1, edges[1:]) - np.maximum(places, edges[:-1])
    shares = np.maximum(shares, 0) * OVERVIEW / length
    return np.minimum(places, length - 1), shares.astype(np.float32)[..., None, None]


def _bytes(values: Floats) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(values), 0, 255), np.uint8)
