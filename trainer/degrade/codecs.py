"""Real codecs: what a decoder gives of a picture or of the frames of a clip."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from PIL import Image

from trainer.degrade.pixels import Picture


@dataclass(frozen=True, slots=True)
class Encoder:
    """A video codec. rates: its rate parameter at strength 0 to 5, best picture first.

    fixed: options that do not depend on the rate, cheap rather than thorough.
    """

    codec: str
    parameter: str
    rates: tuple[float, float, float, float, float, float]
    fixed: Mapping[str, str]

    def options(self, rate: float, interval: int) -> dict[str, str]:
        """interval: frames from keyframe to keyframe."""
        given = {self.parameter: str(round(rate)), "g": str(interval), **self.fixed}
        return given | ({"qmax": str(round(rate))} if self.parameter == "qmin" else {})


ENCODERS: Mapping[str, Encoder] = {
    "h264": Encoder("libx264", "crf", (18, 29, 34, 39, 44, 50), {"preset": "veryfast"}),
    "hevc": Encoder(
        "libx265",
        "crf",
        (17, 29, 34, 39, 44, 50),
        {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        "crf",
        (15, 36, 44, 51, 57, 63),
        {"deadline": "realtime", "cpu-used": "8", "b": "0", "lag-in-frames": "0"},
    ),
    "av1": Encoder(
        "libsvtav1", "crf", (15, 38, 46, 53, 58, 63), {"preset": "12", "svtav1-params": "lp=1"}
    ),
    "mpeg2": Encoder("mpeg2video", "qmin", (2, 6, 10, 15, 21, 31), {}),
}


def through_jpeg(picture: Picture, quality: int) -> Picture:
    """Pillow encodes (the quality scale people know), PyAV decodes (as in serving)."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling="4:2:0")
    file.seek(0)
    with av.open(file, "r") as container:
        frame = next(container.decode(video=0))
        return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)


def through_h264(pictures: Sequence[Picture], crf: int) -> list[Picture]:
    """What a decoder gives of the clip after x264 at this rate factor."""
    return through_codec(pictures, "h264", crf)


def through_codec(
    pictures: Sequence[Picture], name: str, rate: float, interval: int = 250
) -> list[Picture]:
    """The whole clip after one of ENCODERS; odd sides lose their last row or column."""
    return [shown(frame) for frame in decoded(encoded(yuv(pictures), name, rate, interval), name)]


def yuv(pictures: Sequence[Picture]) -> list[av.VideoFrame]:
    """Frames 4:2:0 as encoders take them; made once for a whole ladder."""
    height, width = (n // 2 * 2 for n in pictures[0].shape[:2])
    frames = []
    for place, picture in enumerate(pictures):
        whole = np.ascontiguousarray(picture[:height, :width])
        frame = av.VideoFrame.from_ndarray(whole, format="rgb24").reformat(format="yuv420p")
        frame.pts, frame.time_base = place, Fraction(1, 25)
        frames.append(frame)
    return frames


def encoded(
    frames: Sequence[av.VideoFrame],
    name: str,
    rate: float,
    interval: int = 250,
    extra: Mapping[str, str] | None = None,
) -> list[bytes]:
    """Packets in decoding order, parameter sets inside the stream."""
    encoder = ENCODERS[name]
    context: Any = av.CodecContext.create(encoder.codec, "w")
    context.width, context.height = frames[0].width, frames[0].height
    context.pix_fmt, context.time_base = "yuv420p", Fraction(1, 25)
    context.framerate = Fraction(25, 1)
    context.thread_count = 1
    context.options = encoder.options(rate, interval) | dict(extra or {})
    packets = []
    with ordinary_priority():
        for frame in frames:
            frame.pict_type = 0
            packets += [bytes(packet) for packet in context.encode(frame)]
        packets += [bytes(packet) for packet in context.encode(None)]
    return packets


@contextmanager
def ordinary_priority() -> Iterator[None]:
    """SVT-AV1 makes the thread that calls it a real-time one where it may, as root: everything
    else on the machine then starves, and children inherit it. Put back what was before.
    """
    policy, priority = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, priority)


def decoded(packets: Sequence[bytes], name: str) -> list[av.VideoFrame]:
    """Frames in the order in which they are shown; damaged ones are given out as they are."""
    decoders = {"mpeg2": "mpeg2video", "av1": "libdav1d"}
    context: Any = av.CodecContext.create(decoders.get(name, name), "r")
    context.thread_count = 1
    context.flags |= Flags.output_corrupt
    frames = []
    for data in (*packets, None):
        packet = av.Packet(data) if data is not None else None
        try:
            frames += context.decode(packet)
        except av.error.InvalidDataError:
            continue
    return frames


def shown(frame: av.VideoFrame) -> Picture:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
