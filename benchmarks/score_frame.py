"""Decoded planes in memory -> Assessment on one core: measures, preprocessing, model, findings.

Median of 200 frames after warm-up, one thread, a really encoded moving scene.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from benchmarks.figure import Figure
from benchmarks.material import clip

LIMITS = {"1080p": ((1920, 1080), 20.0), "2160p": ((3840, 2160), 25.0)}
FRAMES = 200


def figures() -> list[Figure]:
    return [
        Figure(f"one frame scored, {name}", f"{took:.1f} ms", f"<= {limit:.0f} ms", took <= limit)
        for name, (_, limit) in LIMITS.items()
        for took in [_child(name)]
    ]


def _child(name: str) -> float:
    """In a process of its own, on one core, as an ingest process runs."""
    command = ["taskset", "--cpu-list", "0", sys.executable, "-m", "benchmarks.score_frame", name]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    return float(subprocess.run(command, check=True, capture_output=True, env=env).stdout)


def median_ms(size: tuple[int, int]) -> float:
    from vqmon.domain import Frame, Stream
    from vqmon.measures import findings
    from vqmon.preprocess import prepare
    from vqmon.scorers import load_scorer
    from vqmon.sources import open_source

    scorer = load_scorer()
    path = clip(4, size, kilobits=5000 if size[0] < 3000 else 16000)
    with open_source(Stream("clip", str(path))).open() as media:
        frames = [item for item in media if isinstance(item, Frame)][:20]
    times = []
    for number in range(FRAMES + 20):
        frame = frames[number % len(frames)]
        begun = time.perf_counter()
        prepared = prepare(frame)
        findings(frame, prepared.measures)
        scorer.assess([prepared])
        times.append(1000 * (time.perf_counter() - begun))
    return statistics.median(times[20:])


if __name__ == "__main__":
    print(median_ms(LIMITS[sys.argv[1]][0]))
