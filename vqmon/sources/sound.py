"""Decoded sound of one source, gathered into blocks of about a second and measured."""

from __future__ import annotations

from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vqmon import audio
from vqmon.domain import AudioLevel
from vqmon.sources.complaints import Complaints

BLOCK_SECONDS = 1.0
_KEPT = 10


class Ear:
    """Decodes the sound packets of one connection. `take` hands out what was heard.

    codec: the name of what it decodes.
    """

    def __init__(self, context: av.AudioCodecContext, complaints: Complaints) -> None:
        self.use(context)
        self._complaints = complaints
        self._pieces: list[NDArray[np.float32]] = []
        self._samples = 0
        self._rate = 0
        self._channels: tuple[str, ...] = ()
        self._levels: list[AudioLevel] = []

    def use(self, context: av.AudioCodecContext) -> None:
        """Go on with another decoder; what was heard so far stays."""
        context.thread_count = 1
        self._context = context
        self.codec = str(context.codec.canonical_name)

    def feed(self, packet: av.Packet[Any], position: float) -> None:
        """Decode a packet that stands at `position` (s)."""
        with self._complaints:
            try:
                frames = self._context.decode(packet)
            except (av.FFmpegError, MemoryError) as error:
                self._complaints.add(str(error))
                return
        for frame in frames:
            self._gather(frame)
        if self._samples >= BLOCK_SECONDS * self._rate > 0:
            self._measure(position)

    @property
    def heard(self) -> bool:
        """Whether a block waits to be taken."""
        return bool(self._levels)

    def take(self) -> AudioLevel | None:
        """The oldest block not handed out yet."""
        return self._levels.pop(0) if self._levels else None

    def finish(self, position: float) -> None:
        """Measure what is left, when it is enough to mean something."""
        if self._samples >= 0.2 * self._rate > 0:
            self._measure(position)

    def _gather(self, frame: av.AudioFrame) -> None:
        if not frame.samples or not frame.sample_rate:
            return
        channels = tuple(channel.name for channel in frame.layout.channels)
        if (frame.sample_rate, channels) != (self._rate, self._channels):
            self._pieces, self._samples = [], 0
            self._rate, self._channels = frame.sample_rate, channels
        self._pieces.append(waveform(frame))
        self._samples += frame.samples

    def _measure(self, position: float) -> None:
        block = np.concatenate(self._pieces, axis=1)
        start = max(0.0, position - block.shape[1] / self._rate)
        self._levels = self._levels[-_KEPT:]
        self._levels.append(audio.level(block, self._rate, start, self._channels))
        self._pieces, self._samples = [], 0


def waveform(frame: av.AudioFrame) -> NDArray[np.float32]:
    """(channels, samples), full scale 1.0, whatever the decoder's sample format."""
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    if samples.dtype.kind == "i":
        scale = 2.0 ** (8 * samples.dtype.itemsize - 1)
        return (samples / scale).astype(np.float32)
    return samples.astype(np.float32, copy=False)
