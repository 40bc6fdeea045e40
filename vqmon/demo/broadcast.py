"""A live channel on loopback: encoded, multiplexed and served over HTTP in its own process.

    scene ─▶ staged damage ─▶ x264 + AAC ─▶ MPEG-TS ─▶ packets lost on purpose ─▶ HTTP

`vqmon demo` starts it as a program. It prints its port, waits for the first viewer, plays the
programme in real time, goes on clean after it, and ends when its standard input does, so that it
never outlives whoever started it.
"""

from __future__ import annotations

import os
import queue
import random
import sys
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import av
import numpy as np

from vqmon.demo.stage import Act, on_air, programme
from vqmon.sources.impairments import IMPAIRMENTS, Planes
from vqmon.sources.scene import make_scene

WIDTH, HEIGHT, RATE, GOP = 640, 360, 25, 50
GOOD_KBPS, STARVED_KBPS = 1800, 110
BLUR_LEVEL = 4
LOST_SHARE = 0.02
AUDIO_RATE = 48_000
TS_PACKET = 188
TABLES = frozenset({0x0000, 0x0011, 0x1000})
"""Packet identifiers of programme tables, which are repeated and never lost here."""

WAITING_CHUNKS = 2_000
"""A viewer further behind than this is cut off."""


def main() -> None:
    """Serve until standard input ends. The one argument is the length of the programme."""
    acts = programme(float(sys.argv[1]))
    channel = Channel()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(channel))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    threading.Thread(target=_play, args=(channel, acts), daemon=True).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()
    os._exit(0)


class Channel:
    """Hands what the multiplexer writes to every viewer."""

    def __init__(self) -> None:
        self.first_viewer = threading.Event()
        self._viewers: set[queue.Queue[bytes | None]] = set()
        self._lock = threading.Lock()

    def join(self) -> queue.Queue[bytes | None]:
        viewer: queue.Queue[bytes | None] = queue.Queue(WAITING_CHUNKS)
        with self._lock:
            self._viewers.add(viewer)
        self.first_viewer.set()
        return viewer

    def leave(self, viewer: queue.Queue[bytes | None]) -> None:
        with self._lock:
            self._viewers.discard(viewer)

    def send(self, chunk: bytes) -> None:
        with self._lock:
            viewers = list(self._viewers)
        for viewer in viewers:
            try:
                viewer.put_nowait(chunk)
            except queue.Full:
                self.leave(viewer)


class Wire:
    """A file for the multiplexer that passes whole transport packets on, or loses them."""

    def __init__(self, channel: Channel, seed: int = 1) -> None:
        self.losing = False
        self._channel = channel
        self._rest = b""
        self._random = random.Random(seed)

    def write(self, data: bytes) -> int:
        whole = self._rest + bytes(data)
        size = len(whole) // TS_PACKET * TS_PACKET
        self._rest = whole[size:]
        kept = b"".join(p for p in _packets(whole[:size]) if not self._lost(p))
        if kept:
            self._channel.send(kept)
        return len(data)

    def _lost(self, packet: bytes) -> bool:
        identifier = (packet[1] & 0x1F) << 8 | packet[2]
        return self.losing and identifier not in TABLES and self._random.random() < LOST_SHARE


def _packets(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), TS_PACKET):
        yield data[start : start + TS_PACKET]


def _handler(channel: Channel) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/mp2t")
            self.send_header("Connection", "close")
            self.end_headers()
            viewer = channel.join()
            try:
                while chunk := viewer.get():
                    self.wfile.write(chunk)
            except OSError:
                pass  # the viewer left
            finally:
                channel.leave(viewer)

        def log_message(self, *_: object) -> None:
            """Say nothing: standard error is for failures."""

    return Handler


def _play(channel: Channel, acts: tuple[Act, ...]) -> None:
    """The programme in real time, from the moment the first viewer joins."""
    try:
        scene = make_scene(WIDTH, HEIGHT)
        channel.first_viewer.wait()
        studio = _Studio(Wire(channel))
        began = time.monotonic()
        number = 0
        while True:
            position = number / RATE
            time.sleep(max(0.0, began + position - time.monotonic()))
            staged = {act.name: act for act in on_air(acts, position, position + 1e-6)}
            shown = staged["freeze"].start if "freeze" in staged else position
            studio.show(number, _damaged(scene.render(shown), staged), staged)
            number += 1
    except BaseException as error:
        # A thread's end would leave viewers hanging: end the program, and say why.
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


def _damaged(planes: Planes, staged: dict[str, Act]) -> Planes:
    rng = np.random.default_rng(1)
    for name in staged.keys() & {"blur", "black"}:
        planes = IMPAIRMENTS[name](planes, BLUR_LEVEL, rng)
    return planes


class _Studio:
    """Encoders and multiplexer. A change of bitrate is a new encoder, as when one restarts."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        options = {"flush_packets": "1", "mpegts_flags": "resend_headers"}
        self._output: Any = av.open(wire, "w", format="mpegts", options=options)
        self._kbps = GOOD_KBPS
        self._video = self._output.add_stream("libx264", rate=RATE)
        _configure(self._video.codec_context, self._kbps)
        self._audio = self._output.add_stream("aac", rate=AUDIO_RATE)
        self._audio.codec_context.layout = "mono"
        self._audio.codec_context.bit_rate = 96_000
        self._encoder: Any = self._video.codec_context
        self._sound = _Speech(AUDIO_RATE)

    def show(self, number: int, planes: Planes, staged: dict[str, Act]) -> None:
        """One picture and the sound that goes with it."""
        self._wire.losing = "packet_loss" in staged
        if number % GOP == 0:
            self._choose(STARVED_KBPS if "bitrate_collapse" in staged else GOOD_KBPS)
        frame = _frame(planes, number)
        for packet in self._encoder.encode(frame):
            packet.stream = self._video
            self._output.mux(packet)
        for sound in self._sound.until((number + 1) / RATE):
            self._output.mux(self._audio.encode(sound))

    def _choose(self, kbps: int) -> None:
        """At the beginning of a GOP; nothing is waiting in the old one, which looks at no future."""
        if kbps != self._kbps:
            self._kbps = kbps
            self._encoder = av.CodecContext.create("libx264", "w")
            _configure(self._encoder, kbps)


def _configure(encoder: Any, kbps: int) -> None:
    """Constant quality up to a rate that must not be passed, as a live encoder does."""
    encoder.width, encoder.height, encoder.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, RATE), Fraction(RATE)
    encoder.gop_size, encoder.max_b_frames, encoder.thread_count = GOP, 0, 1
    encoder.color_range, encoder.colorspace = 1, 1
    encoder.color_primaries, encoder.color_trc = 1, 1
    encoder.options = {
        "preset": "veryfast",
        "tune": "zerolatency",
        "crf": "19",
        "maxrate": f"{kbps}k",
        "bufsize": f"{kbps}k",
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


if __name__ == "__main__":
    main()
