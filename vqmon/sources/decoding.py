"""One stream's pictures, decoded as far as asked: keyframes, reference frames or all.

    depth KEYFRAMES   key ──decode──drain──flush      others are not even sent
    depth REFERENCE   the decoder drops what no other picture needs
    depth ALL         everything

Decoding between keyframes can begin only at one (or, when an H.26x or MPEG stream has none,
anywhere: its pictures mend themselves by intra refresh).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import av
import numpy as np
from av.sidedata.encparams import VideoEncParams, VideoEncParamsType
from av.sidedata.sidedata import SideDataContainer

from vqmon.domain import Depth
from vqmon.sources.complaints import Complaints

KEYLESS_SECONDS = 10.0
"""Without a keyframe for this long, decoding begins anywhere, where the codec can mend itself."""

MENDING = frozenset({"h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "h263"})
"""Codecs with intra refresh. Begun between keyframes, VP8 and its kind only complain."""

MENDING_SECONDS = 4.0
"""Pictures are withheld this long after such a beginning: a refresh wave takes 1 to 2 s."""

KEY_SPACING_SECONDS = 0.4
"""At depth KEYFRAMES closer ones are left out: in all-intra streams every picture is a key."""

_OUTPUT_CORRUPT = 1 << 3
_BLOCK = np.dtype([("x", "i4"), ("y", "i4"), ("w", "i4"), ("h", "i4"), ("delta_qp", "i4")])
_WAITING_LIMIT = 128
_INTERLACED = (2, 3, 4, 5)  # AVFieldOrder; 1 is progressive


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture, its position (s; None when nothing tells), how many before it were left out,
    and whether parts are missing.
    """

    picture: av.VideoFrame
    position: float | None
    skipped: int
    corrupt: bool


class PictureDecoder:
    """Decodes the video packets of one codec, in decode order. codec: its name."""

    def __init__(self, context: av.VideoCodecContext, complaints: Complaints) -> None:
        context.thread_count = 1
        context.thread_type = "SLICE"
        context.flags |= _OUTPUT_CORRUPT  # a viewer sees them too
        options = {"max_pixels": "144000000"}
        if context.name == "h264":
            options["export_side_data"] = "venc_params"
        context.options = options
        self.codec = str(context.codec.canonical_name)
        self._context = context
        self._complaints = complaints
        self._one_by_one = context.codec.intra_only and not context.codec.delay
        self._depth = Depth.KEYFRAMES
        self._running = False
        self._in_fields = context.name == "h264" and context.field_order in _INTERLACED
        self._first_field = False
        self._last_key: float | None = None
        self._began: float | None = None
        self._keyless = False
        self._mending_until = 0.0
        self._left_out = 0
        self._waiting: list[tuple[int, float]] = []

    def feed(
        self, packet: av.Packet[Any], position: float, depth: Depth, *, late: bool = False
    ) -> list[Decoded]:
        """Decode a packet whose picture belongs at `position`; `late` leaves it out.

        Gives the pictures that came out, in the order in which they are shown.
        """
        if self._began is None:
            self._began = position
        if late:
            return self._leave_out(stop=True)
        if depth != self._depth:
            given = self._change(depth)
            return given + self.feed(packet, position, depth)
        if depth == Depth.KEYFRAMES:
            return self._key_only(packet, position)
        if not self._running and not self._may_begin(packet, position):
            return self._leave_out()
        if packet.is_keyframe:
            self._last_key = position
            self._keyless = False
        return self._send(packet, position)

    def drain(self) -> list[Decoded]:
        """Give what the decoder still holds; it is then ready for another beginning."""
        with self._complaints:
            pictures = self._decode(None) if self._context.is_open else []
            self._context.flush_buffers()
        given = self._given(pictures)
        self._left_out += len(self._waiting)
        self._waiting.clear()
        self._running = self._first_field = False
        return given

    @property
    def waits_for_key(self) -> bool:
        """Whether packets are left out until the next keyframe."""
        return not self._running

    def _change(self, depth: Depth) -> list[Decoded]:
        given = self.drain() if depth == Depth.KEYFRAMES and self._running else []
        self._depth = depth
        self._context.skip_frame = "NONREF" if depth == Depth.REFERENCE else "DEFAULT"
        return given

    def _key_only(self, packet: av.Packet[Any], position: float) -> list[Decoded]:
        if self._first_field:
            return self._second_field(packet, position)
        near = self._last_key is not None and (0 <= position - self._last_key < KEY_SPACING_SECONDS)
        if not packet.is_keyframe or near:
            return self._leave_out()
        self._last_key = position
        given = self._send(packet, position)
        if self._in_fields:
            self._first_field = True
            return given
        return given + self.drain()

    def _second_field(self, packet: av.Packet[Any], position: float) -> list[Decoded]:
        """H.264 may put the two fields of a picture into two packets, and only sending both
        shows; when two pictures come out, this stream does not, and is asked no more.
        """
        given = self._send(packet, position) + self.drain()
        self._in_fields = len(given) < 2
        return given

    def _may_begin(self, packet: av.Packet[Any], position: float) -> bool:
        since = max(self._last_key or 0.0, self._began or 0.0)
        mends = self.codec in MENDING and position - since >= KEYLESS_SECONDS
        if not packet.is_keyframe and not mends:
            return False
        self._keyless = not packet.is_keyframe
        self._mending_until = position + MENDING_SECONDS if self._keyless else 0.0
        self._running = True
        return True

    def _leave_out(self, *, stop: bool = False) -> list[Decoded]:
        given = self.drain() if stop and self._running else []
        self._left_out += 1
        return given

    def _send(self, packet: av.Packet[Any], position: float) -> list[Decoded]:
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is not None:
            self._waiting.append((stamp, position))
            if len(self._waiting) > _WAITING_LIMIT:
                self._waiting.pop(0)
                self._left_out += 1
        complained = self._complaints.count
        with self._complaints:
            pictures = self._decode(packet)
        # A cut-off JPEG comes out as if it were whole, grey from some line on.
        damaged = self._one_by_one and self._complaints.count > complained
        return self._given(pictures, damaged=damaged)

    def _decode(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        try:
            return list(self._context.decode(packet))
        except (av.FFmpegError, MemoryError) as error:
            self._complaints.add(str(error))
            return []

    def _given(self, pictures: list[av.VideoFrame], *, damaged: bool = False) -> list[Decoded]:
        given = []
        for picture in pictures:
            position = self._place(picture)
            if picture.is_corrupt and (position or 0.0) < self._mending_until:
                self._left_out += 1
                continue
            # Without a keyframe the decoder never calls a picture whole, however good it is.
            corrupt = damaged or (picture.is_corrupt and not self._keyless)
            given.append(Decoded(picture, position, self._left_out, corrupt))
            self._left_out = 0
        return given

    def _place(self, picture: av.VideoFrame) -> float | None:
        """The position that its packet had; earlier ones still waiting never came out."""
        stamp = picture.pts if picture.pts is not None else picture.dts
        self._waiting.sort(key=lambda item: item[1])
        for index, (awaited, position) in enumerate(self._waiting):
            if awaited == stamp:
                self._left_out += index
                del self._waiting[: index + 1]
                return position
        return None


def quantiser(picture: av.VideoFrame) -> float | None:
    """Mean QP 0..51 over the macroblocks; of H.264 pictures only, None where the decoder tells none.

    PyAV 18.1 frees the metadata of side data, such as the colour profile of a photograph, which
    FFmpeg frees once more: reading it crashes the process, so nobody may ask for other pictures.
    `picture.side_data` would make a cycle that keeps each picture's memory until the garbage
    collector comes by: 300 MB a stream.
    """
    try:
        found = SideDataContainer(picture)  # type: ignore[call-arg]  # missing in the stubs
    except ValueError:  # side data newer than PyAV's list, such as the EXIF of a photograph
        return None
    for data in found:
        if isinstance(data, VideoEncParams) and data.codec_type == VideoEncParamsType.H264:
            return _mean_qp(data)
    return None


def _mean_qp(params: VideoEncParams) -> float:
    count = params.nb_blocks
    if not count or params.block_size != _BLOCK.itemsize:
        return float(params.qp)
    blocks = np.frombuffer(cast("bytes", params), _BLOCK, count, params.blocks_offset)
    return float(params.qp + blocks["delta_qp"].mean())
