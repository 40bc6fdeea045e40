"""Why ffmpeg only gets proposals: no command reaches its encoder while it runs."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time

import pytest

pytestmark = pytest.mark.slow

COMMAND = (
    "-hide_banner -nostats -re -f lavfi -i testsrc2=s=160x90:r=25,noise=alls=40:allf=t "
    "-c:v libx264 -preset ultrafast -tune zerolatency -b:v 200k -maxrate 200k -bufsize 100k "
    "-f mpegts pipe:1"
)
COMMANDS = (b"call -1 b 800k\n", b"call -1 bitrate 800k\n", b"clibx264 -1 b 800k\n")
NOT_IMPLEMENTED = b"ret:-38"


def test_no_command_of_ffmpeg_changes_the_bitrate_of_a_running_encoder() -> None:
    """If this ever fails, ffmpeg has learned it and deserves a target of its own."""
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("ffmpeg is not installed")
    process = subprocess.Popen(
        [ffmpeg, *COMMAND.split()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    arrived, said = [0], bytearray()

    def count() -> None:
        while chunk := process.stdout.read1(65536):  # type: ignore[union-attr]
            arrived[0] += len(chunk)

    def listen() -> None:
        while chunk := process.stderr.read1(65536):  # type: ignore[union-attr]
            said.extend(chunk)

    readers = [threading.Thread(target=count), threading.Thread(target=listen)]
    for reader in readers:
        reader.start()
    try:
        before = _kbps(arrived)
        for command in COMMANDS:
            process.stdin.write(command)
            process.stdin.flush()
            time.sleep(1)
        after = _kbps(arrived)
    finally:
        process.kill()
        process.wait(10)
        for reader in readers:
            reader.join(10)

    assert said.count(NOT_IMPLEMENTED) == len(COMMANDS)
    assert after < 1.5 * before


def _kbps(arrived: list[int]) -> float:
    """Over five seconds, after one to get going."""
    time.sleep(1)
    start, began = arrived[0], time.monotonic()
    time.sleep(5)
    return (arrived[0] - start) * 8 / 1000 / (time.monotonic() - began)
