"""How long `vqmon --help` takes: median of nine runs of the whole process."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.figure import Figure

LIMIT = 0.3


def figures() -> list[Figure]:
    command = [str(Path(sys.executable).with_name("vqmon")), "--help"]
    times = []
    for _ in range(9):
        begun = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - begun)
    median = statistics.median(times)
    return [Figure("vqmon --help", f"{median:.2f} s", f"< {LIMIT} s", median < LIMIT)]
