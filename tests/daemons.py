"""A daemon in a process of its own, for tests that treat it as an operator does."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from vqmon.domain import Segment
from vqmon.errors import StoreError
from vqmon.store import open_store

MOVING = "synthetic:?live=1&size=96x64&fps=5&gop=0.5&audio=0&seed={}"
"""A stream that costs next to nothing, so that many fit beside other tests."""

LOADED = {"stream_overloaded", "stream_keeps_up_again", "supervisor_stood_still"}
"""What a daemon may say of a machine that other tests keep busy."""


class Daemon:
    """`vqmon run` in a process of its own, with its configuration, log and database."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.file = folder / "vqmon.yaml"
        self.log_path = folder / "log"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.setblocking(False)
        self.said: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        whole = {
            "data_dir": str(self.folder / "data"),
            "http": "127.0.0.1:0",
            "logging": {"format": "json"},
            "defaults": {"segment": "1s", "sampling": {"every": "500ms"}},
        }
        # In one step: the daemon may look at any moment.
        unfinished = self.file.with_suffix(".new")
        unfinished.write_text(yaml.safe_dump(whole | settings))
        unfinished.replace(self.file)

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "vqmon", "run", "-c", str(self.file), *arguments],
                stdout=log,
                stderr=log,
                env=self._environment(),
            )
        return self.process

    def _environment(self) -> dict[str, str]:
        """Ours without settings: those of whoever runs the tests are not part of them."""
        kept = {name: it for name, it in os.environ.items() if not name.startswith("VQMON_")}
        return kept | {"NOTIFY_SOCKET": str(self.folder / "notify")}

    def started(self, *arguments: str) -> Daemon:
        self.start(*arguments)
        self.wait_for(lambda: self.heard("READY=1"), 40)
        return self

    # -- what can be seen from outside

    def heard(self, message: str) -> bool:
        while True:
            try:
                self.said += self.notify.recv(4096).decode().splitlines()
            except BlockingIOError:
                return message in self.said

    def events(self, name: str | None = None) -> list[dict[str, Any]]:
        lines = [json.loads(it) for it in self.log_path.read_text().splitlines() if it[:1] == "{"]
        return [it for it in lines if name is None or it["event"] == name]

    def rows(self, stream: str | None = None) -> list[Segment]:
        try:
            with open_store(f"sqlite:///{self.folder}/data/vqmon.db", migrate=False) as store:
                return store.segments(stream)
        except StoreError:
            return []  # not made yet

    def scored(self, stream: str | None = None) -> list[Segment]:
        return [row for row in self.rows(stream) if row.scored]

    def family(self) -> list[psutil.Process]:
        assert self.process
        return psutil.Process(self.process.pid).children(recursive=True)

    def processes(self, kind: str) -> list[psutil.Process]:
        """Children by the name that they gave themselves: vqmon-ingest-1, vqmon-scoring."""
        found = []
        for process in self.family():
            with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
                comm = Path(f"/proc/{process.pid}/comm").read_text().strip()
                if comm.startswith(f"vqmon-{kind}"):
                    found.append(process)
        return sorted(found, key=lambda it: it.pid)

    def wait_for(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if condition():
                return
            if self.process is None or self.process.poll() is not None:
                pytest.fail(f"ended meanwhile; the log:\n{self.log_path.read_text()[-4000:]}")
            time.sleep(0.05)
        pytest.fail(f"not within {seconds} s; the log:\n{self.log_path.read_text()[-4000:]}")

    def stop(self, seconds: float = 15.0) -> int:
        """SIGTERM; the exit code."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process and self.process.poll() is None:
            family = self.family()
            self.process.kill()
            self.process.wait()
            psutil.wait_procs(family, 6)
        self.notify.close()


def moving(*names: str, **settings: Any) -> dict[str, Any]:
    return {name: {"url": MOVING.format(place)} | settings for place, name in enumerate(names)}


def assert_tiled(rows: Sequence[Segment], gap: float = 0.0) -> None:
    """Rows follow each other without overlap, and without holes longer than `gap` seconds."""
    for one, other in pairwise(rows):
        missing = other.started_at - one.started_at - timedelta(seconds=one.seconds)
        assert -0.002 < missing.total_seconds() <= gap + 0.05, (one, other)


def end_of(row: Segment) -> datetime:
    return row.started_at + timedelta(seconds=row.seconds)


def still_running(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """After waiting for so long; what only waits for its parent to look does not run."""
    _, left = psutil.wait_procs(processes, seconds)
    return [it for it in left if it.is_running() and it.status() != psutil.STATUS_ZOMBIE]
