"""Memory per open 1080p stream, and whether 500 open/close cycles leave anything behind."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.figure import Figure
from benchmarks.material import clip

STREAMS = 8
CYCLES = 500
LIMIT_MB = 35.0
GROWTH_MB = 10.0


def figures() -> list[Figure]:
    per_stream, growth = (float(_child(name)) for name in ("open", "cycles"))
    return [
        Figure(
            "memory per open 1080p stream",
            f"{per_stream:.0f} MB",
            f"<= {LIMIT_MB:.0f} MB",
            per_stream <= LIMIT_MB,
        ),
        Figure(
            f"growth over the last 400 of {CYCLES} open/close cycles",
            f"{growth:.1f} MB",
            f"<= {GROWTH_MB:.0f} MB",
            growth <= GROWTH_MB,
        ),
    ]


def _child(what: str) -> str:
    """Each measurement in a fresh process, so that neither sees the other's leftovers."""
    command = [sys.executable, "-m", "benchmarks.stream_memory", what]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _resident() -> float:
    gc.collect()
    return float(psutil.Process().memory_info().rss) / 1e6


def per_stream() -> float:
    """Resident growth from one open stream to STREAMS + 1, per stream."""
    from vqmon.scorers import load_scorer

    path, scorer = clip(60), load_scorer()  # one for all, as the daemon's scoring process has
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        threads = [threading.Thread(target=_watch, args=(path, folder, 0, scorer), daemon=True)]
        threads[0].start()
        time.sleep(8)
        before = _resident()
        for number in range(1, STREAMS + 1):
            threads.append(
                threading.Thread(target=_watch, args=(path, folder, number, scorer), daemon=True)
            )
            threads[-1].start()
        peak = 0.0
        for _ in range(24):
            time.sleep(0.5)
            peak = max(peak, _resident())
    return (peak - before) / STREAMS


def _watch(path: Path, folder: str, number: int, scorer: Any) -> None:
    """One stream as the daemon watches it, evidence included, over and over."""
    from vqmon.domain import Stream
    from vqmon.evidence import EvidenceKeeper
    from vqmon.pipeline import monitor
    from vqmon.sources import open_source

    stream = Stream(f"s{number}", str(path))
    while True:
        keeper = EvidenceKeeper(Path(folder), stream.name)
        for _ in monitor(stream, open_source(stream), scorer, evidence=keeper):
            time.sleep(0.2)


def growth() -> float:
    from vqmon.domain import Stream
    from vqmon.sources import open_source

    stream = Stream("s", str(clip(4)))
    after_100 = 0.0
    for cycle in range(CYCLES):
        with open_source(stream).open() as media:
            for _, _item in zip(range(20), media, strict=False):
                pass
        if cycle == 99:
            after_100 = _resident()
    return _resident() - after_100


if __name__ == "__main__":
    print(per_stream() if sys.argv[1] == "open" else growth())
