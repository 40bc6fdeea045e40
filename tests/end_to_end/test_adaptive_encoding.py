"""The whole loop with a real encoder: a starved stream, a request, a better picture, a verdict.

The encoder is GStreamer's x264enc over UDP; the daemon is killed without mercy in between.
"""

from __future__ import annotations

import json
import signal
import socket
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from tests.daemons import Daemon
from vqmon.domain import Decision
from vqmon.errors import StoreError
from vqmon.sources.scene import make_scene
from vqmon.store import open_store
from vqmon_adaptive_encoding import gst_encoder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(700)]

SYSTEM_PYTHON = "/usr/bin/python3"
CHECK = (
    "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); "
    "assert all(map(Gst.ElementFactory.find, ('x264enc', 'avdec_h264', 'mpegtsmux')))"
)
WIDTH, HEIGHT, RATE, SECONDS = 640, 360, 25, 16
STARVED, FED = 110, 900
LAUNCH = (
    "multifilesrc location={clip} loop=true ! tsparse set-timestamps=true ! tsdemux ! h264parse "
    "! avdec_h264 ! videoconvert ! video/x-raw,format=I420 ! identity sync=true "
    "! x264enc name=encoder tune=zerolatency speed-preset=superfast key-int-max=25 "
    "! h264parse config-interval=1 ! mpegtsmux alignment=7 ! udpsink host=127.0.0.1 port={port}"
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A landscape, coded so well that only the encoder under test can spoil it."""
    path = tmp_path_factory.mktemp("clip") / "landscape.ts"
    scene = make_scene(WIDTH, HEIGHT)
    with av.open(str(path), "w") as container:
        options = {"crf": "14", "preset": "ultrafast", "tune": "zerolatency"}
        stream: Any = container.add_stream("libx264", rate=RATE, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(RATE * SECONDS):
            planes = np.concatenate([p.ravel() for p in scene.render(number / RATE)])
            picture = planes.reshape(HEIGHT * 3 // 2, WIDTH)
            frame = av.VideoFrame.from_ndarray(picture, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@contextmanager
def broadcasting(clip: Path, control: Path) -> Iterator[int]:
    """The encoder, starved, on a UDP port of its own."""
    found = subprocess.run([SYSTEM_PYTHON, "-c", CHECK], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("python3-gi and GStreamer's plugins (ugly, bad, libav) are not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = [SYSTEM_PYTHON, gst_encoder.__file__, "--socket", control, "--bitrate", STARVED]
    launch = LAUNCH.format(clip=clip, port=port)
    process = subprocess.Popen([*map(str, command), "--launch", launch])
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def pretending(control: Path) -> Iterator[None]:
    """A control that says yes and does nothing."""

    class Yes(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            asked = json.loads(self.rfile.readline())
            self.wfile.write(json.dumps({"bitrate_kbps": asked["bitrate_kbps"]}).encode() + b"\n")

    with socketserver.ThreadingUnixStreamServer(str(control), Yes) as server:
        threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
        yield
        server.shutdown()


@contextmanager
def watching(folder: Path, port: int, control: Path) -> Iterator[Daemon]:
    plugin = {
        "mode": "act",
        "rules": {"sustained": "4s", "settle": "4s", "cooldown": "60s"},
        "streams": {
            "news": {
                "target": {"type": "gstreamer", "socket": str(control)},
                "ladder": [
                    {"quality": 3, "cap_kbps": STARVED},
                    {"quality": 7, "cap_kbps": FED},
                ],
                "cap_kbps": 4000,
            }
        },
    }
    daemon = Daemon(
        folder,
        streams={"news": {"url": f"udp://127.0.0.1:{port}", "segment": "2s"}},
        plugins={"adaptive_encoding": plugin},
    )
    try:
        yield daemon
    finally:
        daemon.close()


def decisions(daemon: Daemon) -> list[Decision]:
    try:
        url = f"sqlite:///{daemon.folder}/data/vqmon.db"
        with open_store(url, migrate=False) as store:
            return store.decisions("adaptive_encoding", "news")
    except StoreError:
        return []  # not made yet


def kinds(daemon: Daemon) -> list[str]:
    return [d.kind for d in decisions(daemon) if d.kind != "wait"]


def test_a_request_helps_and_is_kept_although_the_daemon_was_killed(
    clip: Path, tmp_path: Path
) -> None:
    control = tmp_path / "encoder.sock"
    with broadcasting(clip, control) as port, watching(tmp_path, port, control) as daemon:
        daemon.start()
        daemon.wait_for(lambda: "asked" in kinds(daemon), 240)
        assert daemon.process is not None
        daemon.process.send_signal(signal.SIGKILL)
        daemon.process.wait(10)

        daemon.start()
        daemon.wait_for(lambda: {"keep", "roll_back"} & set(kinds(daemon)), 240)

        made = decisions(daemon)
        assert kinds(daemon)[:3] == ["raise", "asked", "keep"], made
        assert "compression" in made[0].reason
        better = daemon.scored()[-1]
        assert better.facts["bitrate_kbps"] > 3 * STARVED
        assert better.quality is not None
        assert better.quality > (daemon.scored()[0].quality or 100)


def test_an_encoder_that_does_not_listen_is_taken_back(clip: Path, tmp_path: Path) -> None:
    liar = tmp_path / "liar.sock"
    with (
        broadcasting(clip, tmp_path / "encoder.sock") as port,
        pretending(liar),
        watching(tmp_path, port, liar) as daemon,
    ):
        daemon.start()
        daemon.wait_for(lambda: "restored" in kinds(daemon), 300)

        made = decisions(daemon)
        assert kinds(daemon)[:4] == ["raise", "asked", "roll_back", "restored"], made
        assert "nothing improved" in made[2].reason
        assert "the encoder did not follow" in made[2].reason
