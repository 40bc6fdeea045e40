"""A frame as a player shows it: for eyes, and for models that look at whole pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqmon.domain import Colour, Frame, Plane

if TYPE_CHECKING:
    import PIL.Image

MOST_STRETCHED = 4.0
"""A sample aspect beyond this (or under its inverse) is a mistake of the stream; ignored."""


def shown(frame: Frame, *, reduce: int = 1) -> PIL.Image.Image:
    """The picture as a player shows it: RGB, square pixels, turned.

    reduce: blocks of so many pixels a side are averaged into one first.
    """
    import PIL.Image

    luma, *chroma = (_averaged(plane, reduce) for plane in frame.planes)
    planes = [luma, *(it.resize(luma.size, PIL.Image.Resampling.BILINEAR) for it in chroma)]
    picture = PIL.Image.merge("RGB", planes).convert("RGB", rgb_matrix(frame.colour))
    stretch = frame.sample_aspect
    if abs(stretch - 1) > 0.005 and 1 / MOST_STRETCHED <= stretch <= MOST_STRETCHED:
        size = max(1, round(picture.width * stretch)), picture.height
        picture = picture.resize(size, PIL.Image.Resampling.BICUBIC)
    return picture.rotate(-frame.rotation, expand=True) if frame.rotation else picture


def rgb_matrix(colour: Colour) -> tuple[float, ...]:
    """The 3x4 matrix, row by row, from Y'CbCr 0..255 to R'G'B' 0..255.

    ITU-R BT.601, BT.709 and BT.2020 give Kr and Kb; then R = Y + 2(1 - Kr) Cr and
    B = Y + 2(1 - Kb) Cb, and G follows from Y = Kr R + (1 - Kr - Kb) G + Kb B.
    """
    weights = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
    kr, kb = weights[colour.matrix]
    kg = 1 - kr - kb
    luma, chroma, black = (1.0, 1.0, 0) if colour.full_range else (255 / 219, 255 / 224, 16)
    red, blue = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    rows = ((0.0, red), (-kb / kg * blue, -kr / kg * red), (blue, 0.0))
    return tuple(value for u, v in rows for value in (luma, u, v, -luma * black - 128 * (u + v)))


def _averaged(plane: Plane, reduce: int) -> PIL.Image.Image:
    import PIL.Image

    picture = PIL.Image.fromarray(plane)
    return picture.reduce(reduce) if reduce > 1 else picture
