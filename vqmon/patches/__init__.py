"""The one path from decoded planes to what is measured: patches and a small view.

Everything downstream sees the same luma whatever the stream's range and matrix: full range
0..255 and the BT.709 coefficients, float32. A JPEG (full range, BT.601), a PNG and a lossless
H.264 file of one picture therefore measure alike. Nothing here converts a whole picture: cost
hardly grows with resolution.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Colour, Frame, Plane
from vqmon.patches.planes import (
    BLUE,
    LARGEST,
    RED,
    SMALLEST,
    Planes,
    check,
    chroma_scale,
    enlarged,
    full_range,
    luma_shift,
    paired,
    smoothed,
    subsampling,
    upright,
)
from vqmon.patches.scratch import Floats, scratch
from vqmon.patches.view import in_pixels, inside_bars, view

__all__ = [
    "BLUE",
    "LARGEST",
    "PATCH",
    "RED",
    "SMALLEST",
    "Floats",
    "Look",
    "full_range",
    "look",
    "quartered",
    "scratch",
]

GRID = 6
"""Patches a side: each of the nine cells has its own 2x2."""

PATCH = 64
"""Side of a patch in pixels, where the picture allows."""

HALVED_ABOVE = 1280
"""Wider pictures give a third of their patches at half resolution, where their detail is."""


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """Samples of one picture, upright and without black bars around it. The arrays are scratch
    memory: gone at the next look of the thread.

    native: (N, p, p) luma at the picture's own resolution, 0..255; p is 64 or, for small
        pictures, less; N is 36, or 24 in pictures wider than 1280.
    codes: (N, p, p) uint8, the same as stored, before range and matrix.
    corners: (N, 2) row and column of each native patch; even.
    cells: (N,) which of the nine cells a native patch lies in.
    half: (M, p / 2, p / 2) luma at half resolution.
    reduced: (36 - N, p, p) luma of the other patches of the grid, at half resolution.
    halved: (36,) which patches of the grid those are.
    view: (h, w) luma of the whole picture, averaged over square blocks.
    chroma: (2, h, w) Cb and Cr of the same, -128..127, BT.709 as the luma is.
    """

    native: Floats
    codes: Plane
    corners: NDArray[np.int64]
    cells: NDArray[np.int64]
    half: Floats
    reduced: Floats
    halved: NDArray[np.bool_]
    view: Floats
    chroma: Floats


def look(frame: Frame, rng: np.random.Generator | None = None) -> Look:
    """Take patches and view. Offsets are fixed and even, or drawn evenly from `rng`.

    Raises PictureUnsupported for PQ and HLG and for sides under 32 or over 16384 pixels.
    """
    check(frame)
    luma, chroma, factor = view(frame)
    inside = inside_bars(luma)
    planes = upright(frame, in_pixels(inside, factor, frame))
    side = min(PATCH, *(n // 4 * 4 for n in planes[0].shape))
    corners = _corners(planes[0].shape, side, rng)
    halved = _halved(planes[0].shape, side)
    native, codes, half_native = _native(planes, corners[~halved], side, frame.colour)
    reduced = _reduced(planes, corners[halved] - side // 2, side, frame.colour)
    half = _half(half_native, reduced)
    return Look(
        native=native,
        codes=codes,
        corners=corners[~halved],
        cells=_cell_of_patch()[~halved],
        half=half,
        reduced=reduced,
        halved=halved,
        view=luma[inside],
        chroma=chroma[:, *inside],
    )


def _corners(
    shape: tuple[int, ...], side: int, rng: np.random.Generator | None
) -> NDArray[np.int64]:
    """(36, 2) row and column, even: the middles of a 6x6 grid, or anywhere in its fields."""
    corners = np.empty((GRID, GRID, 2), np.int64)
    for axis, length in enumerate(shape):
        field = length / GRID
        places = (np.arange(GRID) + 0.5) * field - side / 2
        spread = np.broadcast_to(np.expand_dims(places, 1 - axis), (GRID, GRID))
        if rng is not None:
            room = max(field - side, 16) / 2
            spread = spread + rng.uniform(-room, room, (GRID, GRID))
        corners[..., axis] = np.clip(spread, 0, length - side) // 2 * 2
    return corners.reshape(-1, 2)


def _cell_of_patch() -> NDArray[np.int64]:
    third = np.arange(GRID) * 3 // GRID
    return np.asarray(third[:, None] * 3 + third[None, :], np.int64).reshape(-1)


def _halved(shape: tuple[int, ...], side: int) -> NDArray[np.bool_]:
    """(36,) which patches are taken at half resolution: at most two of a cell's four."""
    diagonal = np.add.outer(np.arange(GRID), np.arange(GRID)).reshape(-1) % 3 == 0
    large = max(shape) > HALVED_ABOVE and min(shape) >= 2 * side
    return np.asarray(diagonal & large)


def _native(
    planes: Planes, corners: NDArray[np.int64], side: int, colour: Colour
) -> tuple[Floats, Plane, Floats]:
    """Luma, what is stored, and luma at half resolution."""
    codes = scratch("codes", (len(corners), side, side), np.uint8)
    _cut(planes[0], corners, codes)
    native = scratch("native", codes.shape)
    scale, offset = full_range(colour)
    np.copyto(native, codes)
    native *= np.float32(scale)
    native += np.float32(offset)
    shifts = _luma_shifts(planes, corners, codes.shape, colour)
    if shifts is not None:
        native += enlarged(shifts, native.shape[1:])
    half = scratch("half native", (len(corners), side // 2, side // 2))
    _halve(codes, shifts, half, colour)
    return native, codes, half


def _cut(plane: Plane, corners: NDArray[np.int64], out: Plane) -> None:
    height, width = out.shape[1:]
    for patch, (y, x) in zip(out, corners.tolist(), strict=True):
        patch[:] = plane[y : y + height, x : x + width]


def _luma_shifts(
    planes: Planes, corners: NDArray[np.int64], shape: tuple[int, ...], colour: Colour
) -> Floats | None:
    """What chroma adds to the luma of each patch, at chroma resolution; None for BT.709."""
    if colour.matrix == "bt709":
        return None
    count, height, width = shape
    down, across = subsampling(planes)
    stored = scratch("chroma", (count, height // down, width // across), np.uint8)
    shifts = scratch("shifts", stored.shape)
    term = scratch("term", stored.shape)
    shifts[:] = 0
    for plane, weight in zip(planes[1:], luma_shift(colour), strict=True):
        _cut(plane, corners // (down, across), stored)
        np.subtract(stored, np.float32(128), out=term)
        term *= np.float32(weight * chroma_scale(colour))
        shifts += term
    return shifts


def _half(native: Floats, reduced: Floats) -> Floats:
    """Half resolution: every native patch reduced, and four quarters of each wider patch."""
    count, small, _ = native.shape
    half = scratch("half", (count + 4 * len(reduced), small, small))
    half[:count] = native
    if len(reduced):
        tiles = reduced.reshape(-1, 2, small, 2, small).swapaxes(2, 3)
        half[count:] = tiles.reshape(-1, small, small)
    return half


def _reduced(planes: Planes, corners: NDArray[np.int64], side: int, colour: Colour) -> Floats:
    """(n, side, side) luma of patches twice as wide, near these corners."""
    reduced = scratch("reduced", (len(corners), side, side))
    if not len(corners):
        return reduced
    room = np.array(planes[0].shape) - 2 * side
    corners = np.clip(corners, 0, room // 2 * 2)
    codes = scratch("wide codes", (len(corners), 2 * side, 2 * side), np.uint8)
    _cut(planes[0], corners, codes)
    _halve(codes, _luma_shifts(planes, corners, codes.shape, colour), reduced, colour)
    return reduced


def _halve(codes: Plane, shifts: Floats | None, out: Floats, colour: Colour) -> None:
    """Averages of 2x2 pixels, full range and BT.709."""
    sums = paired(codes)
    np.copyto(out, np.add(sums[:, ::2], sums[:, 1::2]))
    scale, offset = full_range(colour)
    out *= np.float32(scale / 4)
    out += np.float32(offset)
    if shifts is not None:
        out += _halved_shifts(shifts, out.shape)


def _halved_shifts(shifts: Floats, shape: tuple[int, ...]) -> Floats:
    """Enlarged chroma averaged over 2x2 pixels; of 4:2:0 that is chroma, a little smoothed."""
    if shifts.shape != shape:
        _, height, width = shape
        return quartered(enlarged(shifts, (2 * height, 2 * width)))
    return smoothed(smoothed(shifts, 1), 2)


def quartered(patches: Floats) -> Floats:
    """(N, h / 2, w / 2) averages of 2x2 pixels."""
    out = patches[:, ::2, ::2] + patches[:, ::2, 1::2]
    out += patches[:, 1::2, ::2]
    out += patches[:, 1::2, 1::2]
    out *= np.float32(0.25)
    return out
