"""Live encoders into one multiplexer: x264 and AAC to MPEG-TS, whose bitrate changes without a gap.

x264 cannot be told another rate through PyAV while it runs (the setter of `bit_rate` does
nothing once it is open). So a change opens a new encoder where a group of pictures begins, and
goes on with the same timestamps into the same multiplexer: whoever watches sees a keyframe that
was due anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np

from vqmon.sources.impairments import Planes

WIDTH, HEIGHT, RATE, GOP = 640, 360, 25, 50
AUDIO_RATE = 48_000
AUDIO_KBPS = 96


class Sink(Protocol):
    """Where the multiplexer writes to."""

    def write(self, data: bytes, /) -> int: ...


@dataclass(frozen=True, slots=True)
class Aim:
    """What the picture encoder aims at: crf, x264's constant rate factor (0 best, 51 worst),
    unless that would take more than cap_kbps.
    """

    crf: float
    cap_kbps: int


class Studio:
    """Encoders and multiplexer. Set `aim` at any time; the next group of pictures follows it."""

    def __init__(self, sink: Sink, aim: Aim) -> None:
        options = {"flush_packets": "1", "mpegts_flags": "resend_headers"}
        self.aim = self._kept = aim
        self._output: Any = av.open(sink, "w", format="mpegts", options=options)
        self._video = self._output.add_stream("libx264", rate=RATE)
        _configure(self._video.codec_context, aim)
        self._encoder: Any = self._video.codec_context
        self._audio = self._output.add_stream("aac", rate=AUDIO_RATE)
        self._audio.codec_context.layout = "mono"
        self._audio.codec_context.bit_rate = AUDIO_KBPS * 1000
        self._sound = _Speech(AUDIO_RATE)

    def show(self, number: int, planes: Planes) -> None:
        """Picture `number`, counted from 0, and the sound that goes with it."""
        if number % GOP == 0:
            self._follow()
        self._mux(self._encoder.encode(_frame(planes, number)))
        for sound in self._sound.until((number + 1) / RATE):
            self._output.mux(self._audio.encode(sound))

    def _follow(self) -> None:
        """A new encoder when another aim is wanted; what the old one still held comes first."""
        wanted = self.aim
        if wanted == self._kept:
            return
        self._mux(self._encoder.encode(None))
        self._encoder = av.CodecContext.create("libx264", "w")
        _configure(self._encoder, wanted)
        self._kept = wanted

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            packet.stream = self._video
            self._output.mux(packet)


def _configure(encoder: Any, aim: Aim) -> None:
    """Constant quality up to a rate that must not be passed, as a live encoder does.

    The level stands in the stream's header: it is the same for every rate, so that no decoder
    has to begin anew.
    """
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.gop_size, encoder.max_b_frames, encoder.thread_count = GOP, 0, 1
    encoder.color_range, encoder.colorspace = 1, 1
    encoder.color_primaries, encoder.color_trc = 1, 1
    encoder.options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "level": "3.1",
        "crf": f"{aim.crf:g}",
        "maxrate": f"{aim.cap_kbps}k",
        "bufsize": f"{aim.cap_kbps}k",
    }


def _frame(planes: Planes, number: int) -> Any:
    frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
    for target, plane in zip(frame.planes, planes, strict=True):
        padded = np.zeros((target.height, target.line_size), np.uint8)
        padded[:, : plane.shape[1]] = plane
        target.update(padded.tobytes())
    frame.pts, frame.time_base = number, Fraction(1, RATE)
    frame.color_range, frame.colorspace = 1, 1
    return frame


class _Speech:
    """Sound with the rhythm of speech: noise through two moving resonances, three bursts a second,
    at about the loudness that broadcasters agreed on (EBU R 128).
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._random = np.random.default_rng(1)
        self._made = 0

    def until(self, seconds: float) -> Iterator[Any]:
        """Audio frames of 1024 samples that begin before `seconds`."""
        while self._made / self._rate < seconds:
            frame = av.AudioFrame.from_ndarray(self._samples(1024)[None, :], "fltp", "mono")
            frame.sample_rate, frame.pts = self._rate, self._made
            frame.time_base = Fraction(1, self._rate)
            self._made += 1024
            yield frame

    def _samples(self, count: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        time_ = (self._made + np.arange(count)) / self._rate
        syllable = np.clip(np.sin(2 * np.pi * 3.1 * time_) + 0.4, 0, None) / 1.4
        pitch = 2 * np.pi * (130 + 18 * np.sin(0.9 * time_)) * time_
        voice = sum(np.sin(k * pitch) / k for k in range(1, 9))
        breath = self._random.standard_normal(count)
        mixed = syllable * (0.13 * voice + 0.02 * breath) + 0.002 * breath
        return mixed.astype(np.float32)
