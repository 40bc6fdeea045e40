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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from vqmon.demo.stage import Act, on_air, programme
from vqmon.demo.studio import HEIGHT, RATE, WIDTH, Aim, Studio
from vqmon.sources.impairments import IMPAIRMENTS, Planes
from vqmon.sources.scene import make_scene

GOOD, STARVED = Aim(19, 1800), Aim(19, 110)
BLUR_LEVEL = 4
LOST_SHARE = 0.02
TS_PACKET = 188
TABLES = frozenset({0x0000, 0x0011, 0x1000})
"""Packet identifiers of programme tables, which are repeated and never lost here."""

WAITING_CHUNKS = 2_000
"""A viewer further behind than this is cut off."""


def main() -> None:
    """Serve until standard input ends. The one argument is the length of the programme."""
    acts = programme(float(sys.argv[1]))
    channel = Channel()
    port = serve(viewing(channel))
    threading.Thread(target=_play, args=(channel, acts), daemon=True).start()
    print(port, flush=True)
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


def serve(handler: type[BaseHTTPRequestHandler], port: int = 0) -> int:
    """Answer on loopback until the program ends; the port, any that is free for 0."""
    server = ThreadingHTTPServer(("127.0.0.1", port), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return int(server.server_address[1])


def viewing(channel: Channel) -> type[BaseHTTPRequestHandler]:
    """Answers each viewer with what is on air from now on."""

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
        wire = Wire(channel)
        studio = Studio(wire, GOOD)
        began = time.monotonic()
        number = 0
        while True:
            position = number / RATE
            time.sleep(max(0.0, began + position - time.monotonic()))
            staged = {act.name: act for act in on_air(acts, position, position + 1e-6)}
            shown = staged["freeze"].start if "freeze" in staged else position
            wire.losing = "packet_loss" in staged
            studio.aim = STARVED if "bitrate_collapse" in staged else GOOD
            studio.show(number, _damaged(scene.render(shown), staged))
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


if __name__ == "__main__":
    main()
