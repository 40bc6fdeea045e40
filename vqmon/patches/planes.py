"""Stored planes: range, matrix, subsampling, fields, turning, and the bars around a picture."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Colour, Frame, Plane
from vqmon.errors import PictureUnsupported
from vqmon.patches.scratch import Floats, scratch

Planes = tuple[Plane, Plane, Plane]

SMALLEST, LARGEST = 32, 16384
"""Sides of a picture that can be measured, pixels."""

_LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
"""Kr and Kb of each matrix: the parts of red and blue in luma; green has the rest."""

RED, BLUE = _LUMA["bt709"]
"""Kr and Kb of the luma and chroma that everything is brought to."""


Bars = tuple[slice, slice]
"""Rows and columns of a picture inside its black bars."""


def check(frame: Frame) -> None:
    if frame.colour.transfer != "sdr":
        raise PictureUnsupported(
            f"the picture is {frame.colour.transfer.upper()} (high dynamic range), which cannot be"
            " scored; watch an SDR rendition of this stream instead"
        )
    if min(frame.width, frame.height) < SMALLEST:
        raise PictureUnsupported(
            f"the picture is {frame.width}x{frame.height}; at least {SMALLEST} pixels a side"
            " are needed to score it"
        )
    if max(frame.width, frame.height) > LARGEST:
        raise PictureUnsupported(
            f"the picture is {frame.width}x{frame.height}; at most {LARGEST} pixels a side"
            " can be scored, scale it down first"
        )


def upright(frame: Frame, inside: Bars) -> Planes:
    """Planes as a viewer sees them, without bars; of interlaced pictures one field, so that
    combing is not taken for detail.
    """
    luma, cb, cr = (np.rot90(plane, -(frame.rotation // 90)) for plane in frame.planes)
    down, across = subsampling((luma, cb, cr))
    rows, columns = inside
    less = (
        slice(rows.start // down, -(-rows.stop // down)),
        slice(columns.start // across, -(-columns.stop // across)),
    )
    luma, cb, cr = luma[inside], cb[less], cr[less]
    if frame.interlaced and not frame.rotation and luma.shape[0] >= 2 * SMALLEST:
        luma, cb, cr = luma[::2], cb[::2], cr[::2]
    return luma, cb, cr


def full_range(colour: Colour) -> tuple[float, float]:
    """Scale and offset that bring stored luma to 0..255."""
    return (1.0, 0.0) if colour.full_range else (255 / 219, -16 * 255 / 219)


def luma_shift(colour: Colour) -> tuple[float, float]:
    """What Cb and Cr (full range) add to luma so that it becomes BT.709 luma."""
    red, blue = _LUMA[colour.matrix]
    green = 1 - red - blue
    red709, blue709 = _LUMA["bt709"]
    green709 = 1 - red709 - blue709
    of_cb = -green709 * 2 * blue * (1 - blue) / green + blue709 * 2 * (1 - blue)
    of_cr = red709 * 2 * (1 - red) - green709 * 2 * red * (1 - red) / green
    return of_cb, of_cr


@cache
def chroma_turn(colour: Colour) -> Floats:
    """(2, 2) from Cb and Cr of a matrix to those of BT.709; the colour itself stays."""
    red, blue = _LUMA[colour.matrix]
    red709, blue709 = _LUMA["bt709"]
    of_cb, of_cr = luma_shift(colour)
    to_blue = np.array([2 * (1 - blue) - of_cb, -of_cr]) / (2 * (1 - blue709))
    to_red = np.array([-of_cb, 2 * (1 - red) - of_cr]) / (2 * (1 - red709))
    return np.stack([to_blue, to_red]).astype(np.float32)


def chroma_scale(colour: Colour) -> float:
    """What brings stored chroma, less 128, to full range."""
    return 1.0 if colour.full_range else 255 / 224


def subsampling(planes: Planes) -> tuple[int, int]:
    """Luma pixels per chroma pixel, down and across: 1, 2 or 4."""
    luma, chroma = planes[0].shape, planes[1].shape
    return round(luma[0] / chroma[0]), round(luma[1] / chroma[1])


def paired(codes: Plane) -> NDArray[np.uint16]:
    """(..., n / 2) sums of each two neighbours of (..., n) stored values; n even, contiguous.

    Added as the two bytes of a word, whose order does not matter to a sum: in whole numbers, as
    numpy is slow where it mixes types or skips elements.
    """
    words = codes.view(np.uint16)
    sums = scratch("paired", words.shape, np.uint16)
    np.bitwise_and(words, 255, out=sums)
    sums += np.right_shift(words, 8, out=scratch("second of pairs", words.shape, np.uint16))
    return sums


def enlarged(chroma: Floats, shape: tuple[int, ...]) -> Floats:
    """Chroma at luma resolution, linear between samples: the one upsampling of vqmon."""
    while chroma.shape[1] < shape[0]:
        chroma = _doubled(chroma)
    while chroma.shape[2] < shape[1]:
        chroma = _doubled(chroma.swapaxes(1, 2)).swapaxes(1, 2)
    return chroma


def _doubled(chroma: Floats) -> Floats:
    """(N, 2 h, w): samples centred, ends held."""
    count, height, width = chroma.shape
    out = np.empty((count, height, 2, width), np.float32)
    out[:] = chroma[:, :, None] * np.float32(0.75)
    quarter = chroma * np.float32(0.25)
    out[:, 1:, 0] += quarter[:, :-1]
    out[:, :-1, 1] += quarter[:, 1:]
    out[:, 0, 0] += quarter[:, 0]
    out[:, -1, 1] += quarter[:, -1]
    return out.reshape(count, 2 * height, width)


def smoothed(chroma: Floats, axis: int) -> Floats:
    """What `enlarged` and averaging over each two of its samples along an axis make of chroma."""
    out = chroma * np.float32(0.75)
    eighth = chroma * np.float32(0.125)
    to, add = out.swapaxes(0, axis), eighth.swapaxes(0, axis)
    to[1:] += add[:-1]
    to[:-1] += add[1:]
    to[0] += add[0]
    to[-1] += add[-1]
    return out
