"""Decoded pictures as FFmpeg hands them out become `Frame` planes, without a copy where possible.

8-bit planar Y'CbCr is viewed in place; 9 to 16 bits are rounded to 8; all else (NV12, packed,
RGB, palette) goes through one converter per source. A view keeps its picture's memory alive.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from vqmon.domain import Colour, Plane

Planes = tuple[Plane, Plane, Plane]

SIDE_LIMIT = 16384
PIXEL_LIMIT = 144_000_000
"""Beyond these a picture is refused (decompression bombs)."""

_RGB, _BT709, _BT2020_NCL, _BT2020_CL = 0, 1, 9, 10
_BT601 = frozenset({4, 5, 6})  # FCC, BT.470BG, SMPTE 170M
_UNSPECIFIED = frozenset({2, 3})
_FULL = 2
_PQ, _HLG = 16, 18
_SWS_BT601, _SWS_FULL = 5, 2


class PictureReader:
    """Reads the planes and the colour of one source's pictures."""

    def __init__(self) -> None:
        self._converter = VideoReformatter()
        self._grey: Plane = np.empty((0, 0), np.uint8)

    def read(self, picture: av.VideoFrame) -> tuple[Planes, Colour, int]:
        """Planes, colour and native bits per sample."""
        layout = _layout(picture.format.name)
        colour = _colour(
            picture.format.name,
            int(picture.colorspace),
            int(picture.color_range),
            int(picture.color_trc),
            picture.height,
        )
        if layout.kind == "convert":
            picture = self._convert(picture, layout)
            layout = _layout(picture.format.name)
        if layout.kind == "deep":
            return self._deep(picture, layout.bits), colour, layout.bits
        return self._views(picture), colour, 8

    def _convert(self, picture: av.VideoFrame, layout: _Layout) -> av.VideoFrame:
        if not layout.rgb:
            return self._converter.reformat(picture, format=layout.target, threads=1)
        return self._converter.reformat(
            picture,
            format=layout.target,
            dst_colorspace=_SWS_BT601,
            dst_color_range=_SWS_FULL,
            threads=1,
        )

    def _views(self, picture: av.VideoFrame) -> Planes:
        planes = picture.planes
        luma = view(planes[0])
        if len(planes) < 3:
            grey = self._neutral(luma)
            return luma, grey, grey
        return luma, view(planes[1]), view(planes[2])

    def _deep(self, picture: av.VideoFrame, bits: int) -> Planes:
        planes = picture.planes
        luma = rounded(view(planes[0], np.uint16), bits)
        if len(planes) < 3:
            grey = self._neutral(luma)
            return luma, grey, grey
        u, v = (rounded(view(plane, np.uint16), bits) for plane in planes[1:3])
        return luma, u, v

    def _neutral(self, luma: Plane) -> Plane:
        """4:2:0 chroma of a picture without colour; shared by all pictures of its size."""
        shape = ((luma.shape[0] + 1) // 2, (luma.shape[1] + 1) // 2)
        if self._grey.shape != shape:
            self._grey = np.full(shape, 128, np.uint8)
            self._grey.flags.writeable = False
        return self._grey


def view(plane: Any, dtype: type[np.uint8 | np.uint16] = np.uint8) -> NDArray[Any]:
    """A plane as a read-only array (height, width), line padding cut off, top line first."""
    flat = np.frombuffer(plane, dtype)
    lines = flat.reshape(plane.height, -1)[:, : plane.width]
    lines = lines[::-1] if plane.line_size < 0 else lines
    lines.flags.writeable = False  # the decoder may still predict from it
    return lines


def rounded(samples: NDArray[np.uint16], bits: int) -> Plane:
    """9..16-bit samples to 8 bits, half up."""
    shift = bits - 8
    wide = samples + np.uint16(1 << (shift - 1)) if bits < 16 else samples | np.uint16(0)
    if bits == 16:
        np.minimum(wide, np.uint16(0xFF7F), out=wide)
        wide += np.uint16(0x80)
    wide >>= np.uint16(shift)
    np.minimum(wide, np.uint16(255), out=wide)
    return wide.astype(np.uint8)


def too_large(width: int, height: int) -> bool:
    return max(width, height) > SIDE_LIMIT or width * height > PIXEL_LIMIT


class _Layout:
    """How a pixel format is read. kind: "view", "deep" (more than 8 bits) or "convert"."""

    __slots__ = ("bits", "kind", "rgb", "target")

    def __init__(self, name: str) -> None:
        format_ = av.VideoFormat(name, 64, 64)
        parts = [c for c in format_.components if not c.is_alpha]
        self.bits = max(c.bits for c in parts)
        self.rgb = format_.is_rgb or format_.has_palette
        self.target = "yuv420p"
        self.kind: Literal["view", "deep", "convert"] = "convert"
        planar = len({c.plane for c in parts}) == len(parts) in (1, 3) and not self.rgb
        packed_alpha = len(format_.components) != len({c.plane for c in format_.components})
        if planar and not packed_alpha and name.endswith(_plain_endings(self.bits)):
            self.kind = "view" if self.bits == 8 else "deep"
        elif self.bits > 8 and not self.rgb:
            self.target = (
                f"yuv4{20 if len(parts) < 3 else _subsampling(parts)}p{_depth(self.bits)}le"
            )
        elif len(parts) == 3 and not self.rgb:
            self.target = f"yuv4{_subsampling(parts)}p"


@lru_cache(maxsize=64)
def _layout(name: str) -> _Layout:
    return _Layout(name)


def _plain_endings(bits: int) -> tuple[str, ...]:
    """Names of formats whose samples lie in whole bytes, in this machine's byte order."""
    return ("p", "gray", "gray8") if bits == 8 else ("le",)


def _subsampling(parts: list[Any]) -> int:
    luma, chroma = parts[0], parts[1]
    if chroma.height < luma.height:
        return 20
    return 22 if chroma.width < luma.width else 44


def _depth(bits: int) -> int:
    return next(depth for depth in (10, 12, 16) if bits <= depth)


@lru_cache(maxsize=64)
def _colour(name: str, space: int, range_: int, transfer: int, height: int) -> Colour:
    """From the picture's tags; where these are silent, what the field takes for granted."""
    curve: Literal["sdr", "pq", "hlg"] = {_PQ: "pq", _HLG: "hlg"}.get(transfer, "sdr")  # type: ignore[assignment]
    if _layout(name).rgb:
        return Colour(full_range=True, matrix="bt601", transfer=curve)
    jpeg = name.startswith("yuvj")
    grey = name.startswith(("gray", "ya8", "ya16", "mono"))
    return Colour(
        full_range=jpeg or range_ == _FULL or (grey and range_ == 0),
        matrix=_matrix(space, height, jpeg=jpeg),
        transfer=curve,
    )


def _matrix(space: int, height: int, *, jpeg: bool) -> Literal["bt601", "bt709", "bt2020"]:
    if space in (_BT2020_NCL, _BT2020_CL):
        return "bt2020"
    if space in _BT601:
        return "bt601"
    if space in _UNSPECIFIED and (jpeg or height < 720):
        return "bt601"
    return "bt709"
