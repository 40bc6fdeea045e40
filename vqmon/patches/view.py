"""A small view of the whole picture, and the bars that it shows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Frame, Plane
from vqmon.patches.planes import Bars, chroma_scale, chroma_turn, full_range, luma_shift, paired
from vqmon.patches.scratch import Floats, scratch

_SIDE = 144
"""The view has about 144 x 144 points, in the shape of the picture (1080p: 192 x 108)."""

_ROWS_READ = 4
"""Rows read of each block of the view; the others would only average the same detail again."""


def view(frame: Frame) -> tuple[Floats, Floats, int]:
    """(h, w) luma and (2, h, w) chroma averaged over blocks, upright; and the blocks' side."""
    area = frame.width * frame.height
    factor = max(1, round(area**0.5 / (2 * _SIDE))) * 2
    scale, offset = full_range(frame.colour)
    luma = _averaged(frame.planes[0], factor, factor, "view")
    luma *= np.float32(scale)
    luma += np.float32(offset)
    chroma = _chroma(frame, luma.shape, factor)
    if frame.colour.matrix != "bt709":
        of_cb, of_cr = luma_shift(frame.colour)
        luma += np.float32(of_cb) * chroma[0]
        luma += np.float32(of_cr) * chroma[1]
        chroma = np.tensordot(chroma_turn(frame.colour), chroma, 1)
    turns = -(frame.rotation // 90)
    return np.rot90(luma, turns), np.rot90(chroma, turns, axes=(1, 2)), factor


def _chroma(frame: Frame, shape: tuple[int, ...], factor: int) -> Floats:
    """(2, h, w) in the stream's own matrix, full range."""
    height, width = shape
    chroma = scratch("view chroma", (2, height, width))
    for plane, to in zip(frame.planes[1:], chroma, strict=True):
        stored = _chroma_averaged(plane, frame.planes[0].shape, factor)
        np.subtract(stored[:height, :width], np.float32(128), out=to)
    chroma *= np.float32(chroma_scale(frame.colour))
    return chroma


def _chroma_averaged(plane: Plane, luma: tuple[int, ...], factor: int) -> Floats:
    """Over the same blocks as luma; 4:1:1 and the like, which are rare, as half of it first."""
    steps = [round(n / m) for n, m in zip(luma, plane.shape, strict=True)]
    for axis in (0, 1):
        while steps[axis] > 2:
            plane, steps[axis] = np.repeat(plane, 2, axis=axis), steps[axis] // 2
    return _averaged(plane, factor // steps[0], factor // steps[1], "view plane")


def _averaged(plane: Plane, down: int, across: int, name: str) -> Floats:
    """Mean over blocks of `down` x `across` pixels; of tall blocks four rows speak for all.

    In whole numbers until the end: half the memory, and numpy mixes types slowly.
    """
    height, width = plane.shape[0] // down, plane.shape[1] // across
    blocks = plane[: height * down, : width * across].reshape(height, down, width * across)
    count = min(down, _ROWS_READ)
    lines = [blocks[:, (2 * i + 1) * down // (2 * count)] for i in range(count)]
    taken = _added(lines, paired_up=across % 2 == 0)
    pieces = taken.reshape(height, width, -1)
    sums = scratch("sums", (height, width), np.uint16 if across <= _NARROW else np.uint32)
    np.copyto(sums, pieces[:, :, 0])
    for column in range(1, pieces.shape[2]):
        sums += pieces[:, :, column]
    means = scratch(name, (height, width))
    np.copyto(means, sums)
    means *= np.float32(1 / (count * across))
    return means


def _added(lines: list[Plane], *, paired_up: bool) -> NDArray[np.uint16]:
    """The sum of some lines of each block, of each two neighbours where their number is even."""
    first, *others = lines
    shape = first.shape[0], first.shape[1] // (2 if paired_up else 1)
    total = scratch("lines", shape, np.uint16)
    np.copyto(total, paired(np.ascontiguousarray(first)) if paired_up else first)
    for line in others:
        total += paired(np.ascontiguousarray(line)) if paired_up else line.astype(np.uint16)
    return total


_NARROW = 65535 // (255 * _ROWS_READ)
"""Columns whose sum fits into 16 bits."""


_BAR_PEAK, _BAR_MEAN = 14.0, 6.0
"""Full-range luma that a row or column of a bar may have, brightest point and mean."""

_LEAST_LEFT = 0.4
"""Of each side. A picture that is mostly black has no bars: it is dark."""


def inside_bars(luma: Floats) -> Bars:
    """Rows and columns of a view inside the black bars of letterbox and pillarbox."""
    rows, columns = (_shown(luma, axis) for axis in (1, 0))
    left = (
        (part.stop - part.start) / n for part, n in zip((rows, columns), luma.shape, strict=True)
    )
    if min(left) < _LEAST_LEFT:
        return slice(0, luma.shape[0]), slice(0, luma.shape[1])
    return rows, columns


def _shown(luma: Floats, across: int) -> slice:
    lines = luma.shape[1 - across]
    if not _bar(luma.take((0, -1), axis=1 - across), across).any():
        return slice(0, lines)
    shown = np.flatnonzero(~_bar(luma, across))
    return slice(int(shown[0]), int(shown[-1]) + 1) if len(shown) else slice(0, 0)


def _bar(luma: Floats, across: int) -> NDArray[np.bool_]:
    return np.asarray((luma.max(axis=across) < _BAR_PEAK) & (luma.mean(axis=across) < _BAR_MEAN))


def in_pixels(inside: Bars, factor: int, frame: Frame) -> Bars:
    """The same of the picture, in steps of 8 pixels so that coding grids and chroma stay put;
    what the view's blocks left over at the far ends counts as shown when their neighbours do.
    """
    size = (frame.height, frame.width) if frame.rotation % 180 == 0 else (frame.width, frame.height)
    rows, columns = (
        slice(
            -(-part.start * factor // 8) * 8,
            n if part.stop == n // factor else part.stop * factor // 8 * 8,
        )
        for part, n in zip(inside, size, strict=True)
    )
    return rows, columns
