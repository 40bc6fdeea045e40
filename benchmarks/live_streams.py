"""How many live 1080p streams one core watches, with everything on.

The whole daemon (supervisor, scoring, ingest) is pinned to one core and watches 25 live
1080p25 H.264 streams of 5 Mb/s, sent over loopback by a process on another core: a score for
every 2 s keyframe, sound decoded, QP, signals, thumbnails, store. The second figure has a tenth
of the streams decoded in full all the time and scored twice a second, as in a burst that never
ends. The figure is streams / (processor seconds / wall seconds) over the steady part of the run;
it counts only when no frame was late and nearly every keyframe was scored.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.figure import Figure
from benchmarks.material import clip

STREAMS = 25
SECONDS = 80
SETTLE = 30.0
TICK = 0.04
LAST_CORE = (os.cpu_count() or 1) - 1


@dataclass(frozen=True)
class Run:
    cores: float
    scored: float
    late: int


def figures() -> list[Figure]:
    return [
        _figure("live 1080p streams per core, keyframes", in_burst=0),
        _figure("live 1080p streams per core, a tenth in burst", in_burst=STREAMS // 10),
    ]


def _figure(name: str, *, in_burst: int) -> Figure:
    run = measure(STREAMS, in_burst)
    streams = STREAMS / run.cores
    healthy = run.late == 0 and run.scored > 0.95
    measured = f"{streams:.0f} ({run.scored:.0%} scored, {run.late} late)"
    return Figure(name, measured, ">= 25", healthy and streams >= 25)


def measure(streams: int, in_burst: int) -> Run:
    material = clip(SECONDS)
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        sender = subprocess.Popen(
            [
                *_pinned(LAST_CORE),
                sys.executable,
                "-m",
                "benchmarks.live_streams",
                "--send",
                str(port),
                str(material),
            ],
        )
        config = Path(folder) / "vqmon.yaml"
        config.write_text(_config(folder, port, streams, in_burst))
        daemon = subprocess.Popen(
            [*_pinned(0), str(Path(sys.executable).with_name("vqmon")), "run", "-c", str(config)],
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(SETTLE)
            before, since = _cpu(daemon.pid), time.monotonic()
            time.sleep(SECONDS - SETTLE - 10)
            cores = (_cpu(daemon.pid) - before) / (time.monotonic() - since)
        finally:
            daemon.terminate()
            daemon.wait(30)
            sender.terminate()
            sender.wait()
        return _judge(Path(folder), cores)


def _judge(folder: Path, cores: float) -> Run:
    from vqmon.store import open_store

    store = open_store(f"sqlite:///{folder}/vqmon.db")
    full = [s for s in store.segments() if s.seconds >= 9.9 and s.start > SETTLE / 2]
    expected = sum(s.seconds / 2 for s in full)
    scored = sum(min(s.frames_scored, s.seconds / 2) for s in full)
    late = sum(int(s.facts.get("late_frames", 0)) for s in full)
    store.close()
    return Run(cores, scored / max(1.0, expected), late)


def _pinned(core: int) -> list[str]:
    """Command prefix that keeps a process and its children on one core."""
    return ["taskset", "--cpu-list", str(core)]


def _cpu(pid: int) -> float:
    """Processor seconds of a process and all that it started."""
    total = 0.0
    root = psutil.Process(pid)
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def _config(folder: str, port: int, streams: int, in_burst: int) -> str:
    lines = [f"data_dir: {folder}", f"database: sqlite:///{folder}/vqmon.db", "streams:"]
    for number in range(streams):
        lines += [f"  s{number:02}:", f"    url: http://127.0.0.1:{port}/{number}.ts"]
        if number < in_burst:
            lines.append("    sampling: {mode: every, every: 500ms}")
    return "\n".join(lines) + "\n"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def send(port: int, path: Path) -> None:
    """Serve the file over HTTP at its own pace to every client that connects."""
    data, seconds = path.read_bytes(), SECONDS
    server = socket.create_server(("127.0.0.1", port), backlog=100)
    while True:
        client, _ = server.accept()
        threading.Thread(target=_play, args=(client, data, seconds), daemon=True).start()


def _play(client: socket.socket, data: bytes, seconds: int) -> None:
    with client, suppress(OSError):
        client.recv(65536)
        client.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: video/mp2t\r\nConnection: close\r\n\r\n")
        begun, sent = time.monotonic(), 0
        while sent < len(data):
            due = int(len(data) * min(1.0, (time.monotonic() - begun) / seconds))
            client.sendall(data[sent:due])
            sent = due
            time.sleep(TICK)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--send", nargs=2)
    port, path = parser.parse_args().send
    send(int(port), Path(path))
