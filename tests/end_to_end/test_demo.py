"""`vqmon demo`: the first thing that anybody runs must work, be honest, and leave nothing behind."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import psutil
import pytest

from vqmon.demo import on_air

PROGRAM = [sys.executable, "-m", "vqmon"]

TOO_BUSY = "This machine was too busy to look closely"
"""On a machine that does other things faults may be missed; then, and only then, this is said."""


@pytest.fixture
def demonstration(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A running demo of half a minute."""
    process = started(tmp_path, "31s")
    yield process
    if process.poll() is None:
        process.kill()
        process.wait()


def started(folder: Path, duration: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*PROGRAM, "demo", "--duration", duration, "--folder", str(folder / "demo")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Its children, theirs, and the broadcaster, which has a session of its own."""
    return psutil.Process(process.pid).children(recursive=True)


def survivors(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def test_half_a_minute_ends_with_a_report_and_an_honest_summary(
    demonstration: subprocess.Popen[str], tmp_path: Path
) -> None:
    """The main job on the embedded default, exactly as a newcomer runs it."""
    out, errors = demonstration.communicate(timeout=100)

    assert demonstration.returncode == 0, errors
    assert "Traceback" not in errors
    path = Path(re.findall(r"^Report: (.+)$", out, re.MULTILINE)[0])
    assert path.is_absolute()
    assert path == tmp_path / "demo" / "report.html"
    html = path.read_text()
    assert "bitrate collapse" in html
    assert "data:image/jpeg;base64," in html
    assert len(re.findall(r"^ *\d+-\d+ s +quality", out, re.MULTILINE)) >= 5
    told = "Found 2 of 2 staged faults: bitrate collapse, blur."
    assert told in out or TOO_BUSY in out


def test_ctrl_c_ends_it_cleanly_and_nothing_lives_on(
    demonstration: subprocess.Popen[str], tmp_path: Path
) -> None:
    """A demonstration that leaves a server and decoders running is a nuisance."""
    assert demonstration.stdout is not None
    for line in demonstration.stdout:
        if "quality" in line:
            break
    processes = family(demonstration)

    demonstration.send_signal(signal.SIGINT)
    _, errors = demonstration.communicate(timeout=30)

    assert len(processes) >= 3
    assert survivors(processes, 5) == []
    assert "Traceback" not in errors
    assert (tmp_path / "demo" / "report.html").exists()


def test_the_channel_ends_with_whoever_started_it(tmp_path: Path) -> None:
    """Even when that one is killed and can clean nothing up."""
    process = started(tmp_path, "30s")
    deadline = time.monotonic() + 30
    while len(family(process)) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    processes = family(process)

    process.kill()
    process.communicate()

    assert processes
    assert survivors(processes, 6) == []


def test_the_channel_is_a_real_stream_with_sound(tmp_path: Path) -> None:
    """What is watched went through an encoder, a multiplexer, a socket and a decoder."""
    with (
        on_air(20, tmp_path / "log") as url,
        av.open(url, timeout=20) as container,
    ):
        video, audio = container.streams.video[0], container.streams.audio[0]
        pictures = sounds = 0
        for frame in container.decode(video, audio):
            pictures += isinstance(frame, av.VideoFrame)
            sounds += isinstance(frame, av.AudioFrame)
            if pictures >= 60:
                break

    assert (video.codec.name, video.width, video.height) == ("h264", 640, 360)
    assert audio.codec.name == "aac"
    assert sounds > 40


def test_the_channel_says_why_it_cannot_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine with another FFmpeg may have no H.264 encoder."""
    monkeypatch.setattr("vqmon.demo.sys.executable", "/bin/false")

    with (
        pytest.raises(Exception, match="could not be started"),
        on_air(20, tmp_path / "log"),
    ):
        pass

    assert threading.active_count() < 20


@pytest.mark.slow
def test_the_whole_minute_finds_every_staged_fault(tmp_path: Path) -> None:
    """What `make demo` promises: each fault is seen, and little else is claimed."""
    process = started(tmp_path, "60s")

    out, errors = process.communicate(timeout=150)

    assert process.returncode == 0, errors
    assert "Found 5 of 5 staged faults" in out or TOO_BUSY in out
    assert "not staged" not in out or TOO_BUSY in out
    report = subprocess.run(
        [*PROGRAM, "report", "--format", "json", "-c", str(_config(tmp_path))],
        capture_output=True,
        text=True,
        check=True,
    )
    [stream] = json.loads(report.stdout)["streams"]
    found = {fault["name"] for fault in stream["faults"]}
    assert found >= {"freeze", "black", "blur"} or "overload" in found


def _config(folder: Path) -> Path:
    path = folder / "vqmon.yaml"
    path.write_text(
        f"data_dir: {folder / 'demo'}\nstreams: {{demo: {{url: 'udp://127.0.0.1:1'}}}}\n"
    )
    return path
