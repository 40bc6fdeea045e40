"""A real GStreamer encoder changes its bitrate while it plays, and loses no picture."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

import vqmon_adaptive_encoding.gst_encoder as program
from vqmon.testing import EPOCH
from vqmon_adaptive_encoding.ladder import Level
from vqmon_adaptive_encoding.targets.gstreamer import GStreamer
from vqmon_adaptive_encoding.targets.request import Request, TargetFailed

SYSTEM_PYTHON = "/usr/bin/python3"
CHECK = (
    "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); "
    "assert Gst.ElementFactory.find('x264enc')"
)
LAUNCH = (
    "videotestsrc is-live=true pattern=snow ! video/x-raw,width=160,height=90,framerate=25/1 "
    "! x264enc name=encoder tune=zerolatency speed-preset=ultrafast key-int-max=25 "
    "! h264parse ! mpegtsmux ! fdsink fd=1"
)
LOW, HIGH = Level(5, 200), Level(7, 800)


@dataclass
class Playing:
    """The encoder's process and what it has sent so far."""

    process: subprocess.Popen[bytes]
    socket: Path
    media: bytearray = field(default_factory=bytearray)

    def read(self) -> None:
        assert self.process.stdout is not None
        while chunk := os.read(self.process.stdout.fileno(), 65536):
            self.media += chunk

    def wait_for(self, seconds: float) -> None:
        """Until so much media has come: the position of its last picture."""
        deadline = time.monotonic() + 60
        while not (times := packets(bytes(self.media))) or times[-1][0] < seconds:
            assert self.process.poll() is None, "the encoder ended"
            assert time.monotonic() < deadline, "the encoder sends nothing"
            time.sleep(0.3)


def packets(media: bytes) -> list[tuple[float, int]]:
    """Position (s, from the first) and size (bytes) of each picture, in order."""
    if len(media) < 20_000:
        return []
    with av.open(io.BytesIO(media), "r", format="mpegts") as container:
        found = [
            (float(p.pts * p.time_base), p.size)
            for p in container.demux(video=0)
            if p.pts is not None and p.time_base is not None
        ]
    return [(at - found[0][0], size) for at, size in found]


@contextmanager
def playing(*more: str) -> Iterator[Playing]:
    if (
        subprocess.run([SYSTEM_PYTHON, "-c", CHECK], capture_output=True, check=False).returncode
        != 0
    ):
        pytest.skip("python3-gi and gstreamer1.0-plugins-ugly (x264enc) are not installed")
    with tempfile.TemporaryDirectory() as folder:
        control = Path(folder, "encoder.sock")
        command = [SYSTEM_PYTHON, program.__file__, "--socket", control, "--bitrate", "200"]
        process = subprocess.Popen(
            [*map(str, command), "--launch", LAUNCH, *more], stdout=subprocess.PIPE
        )
        encoder = Playing(process, control)
        reader = threading.Thread(target=encoder.read, daemon=True)
        reader.start()
        try:
            yield encoder
        finally:
            process.terminate()
            process.wait(20)
            reader.join(10)


def request(level: Level) -> Request:
    return Request("d1", "news", "raise", level, LOW, "because", EPOCH)


def kbps(found: list[tuple[float, int]], start: float, end: float) -> float:
    return sum(size for at, size in found if start <= at < end) * 8 / 1000 / (end - start)


def test_the_bitrate_follows_a_request_while_the_stream_goes_on() -> None:
    """The point of the whole loop: more bits at once, and not one picture is missing."""
    with playing() as encoder:
        encoder.wait_for(3.0)
        asked_at = packets(bytes(encoder.media))[-1][0]
        GStreamer(encoder.socket).ask(request(HIGH))
        encoder.wait_for(asked_at + 3.5)
        mode = stat.S_IMODE(encoder.socket.stat().st_mode)
    found = packets(bytes(encoder.media))

    steps = [after - before for (before, _), (after, _) in pairwise(found)]
    assert encoder.process.returncode == 0
    assert kbps(found, 1.0, asked_at - 0.2) == pytest.approx(LOW.cap_kbps, rel=0.35)
    assert kbps(found, asked_at + 1.0, asked_at + 3.0) == pytest.approx(HIGH.cap_kbps, rel=0.35)
    assert max(steps) == pytest.approx(1 / 25, abs=0.005), "a picture is missing"
    assert mode == 0o600, "anyone could change the bitrate"


def test_an_encoder_that_is_gone_is_named() -> None:
    with pytest.raises(TargetFailed, match=r"nowhere\.sock: No such file"):
        GStreamer(Path("/nonexistent/nowhere.sock")).ask(request(HIGH))


class Element:
    """As much of a GStreamer element as the control needs; in bits per second."""

    def __init__(self) -> None:
        self.value = 0

    def set_property(self, name: str, value: int) -> None:
        assert name == "bitrate"
        self.value = value

    def get_property(self, name: str) -> int:
        assert name == "bitrate"
        return self.value


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (b'{"bitrate_kbps": 2500, "id": "d1"}\n', {"bitrate_kbps": 2500}),
        (b"{}\n", {"bitrate_kbps": 300}),
        (b"\n", {"bitrate_kbps": 300}),
        (b'{"bitrate_kbps": -1}\n', {"error": "bitrate_kbps is a whole number from 10 to 1000000"}),
        (b'{"bitrate_kbps": true}', {"error": "bitrate_kbps is a whole number from 10 to 1000000"}),
        (b'{"bitrate": 2500}', {"error": 'send {"bitrate_kbps": N} or {}'}),
        (b"[1]", {"error": 'send {"bitrate_kbps": N} or {}'}),
        (b"garbage \xff", {"error": 'send {"bitrate_kbps": N} or {}'}),
    ],
)
def test_the_control_answers_everything_and_obeys_what_makes_sense(
    line: bytes, answer: dict[str, Any]
) -> None:
    """Whoever connects by mistake must not stop a broadcast."""
    control = program.Control(Element(), "bitrate", 1)
    control.set_kbps(300)

    assert control.answer(line) == answer
