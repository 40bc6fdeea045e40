"""What one picture costs: decoded planes in memory to assessment, on one thread."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.evaluation.judging import Judge
from trainer.evaluation.shelf import Kept
from trainer.evaluation.tables import Goal, Row, Table
from trainer.extract import VIDEO_COLOUR, frame_of
from vqmon.domain import Frame
from vqmon.preprocess import prepare

HEIGHTS = {1080: Goal(12, 6, low=True), 2160: Goal(14, 7, low=True)}
WIDTHS = {1080: 1920, 2160: 3840}
FRAMES, WARM_UP, PICTURES = 200, 20, 4
FOLDER_SIZE = Goal(25, 10, low=True)
PARITY = Goal(0.01, low=True)


def speed_table(judge: Judge, photographs: Sequence[Path], *, frames: int = FRAMES) -> Table:
    """photographs: some large ones, enlarged to each size.

    Wall time is what was asked for; on a machine that does other work beside, the processor time
    of the same frames says more.
    """
    table = Table("speed", "Cost of one picture, batch 1, one thread")
    for height, goal in HEIGHTS.items():
        shown = [_frame(path, height) for path in photographs[:PICTURES]]
        wall, processor = timed(judge, shown, frames)
        each = float(np.median(wall)), float(np.median(processor))
        quartiles = tuple(float(it) for it in np.percentile(wall, [25, 75]))
        table.rows.append(Row(f"{height}p, ms, median wall time", each[0], frames, goal, digits=2))
        table.rows.append(
            Row(f"{height}p, ms, median processor time", each[1], frames, goal, digits=2)
        )
        table.details[f"{height}p, wall ms, quartiles"] = quartiles
        table.details[f"{height}p, ms of preparing alone"] = _preparing(shown, frames // 4)
    size = sum(it.stat().st_size for it in judge.folder.rglob("*") if it.is_file()) / 1e6
    table.rows.append(Row("model folder, MB", size, 1, FOLDER_SIZE, digits=2))
    load = " ".join(f"{it:.1f}" for it in os.getloadavg())
    table.notes.append(f"Load of the machine meanwhile: {load}, on {os.cpu_count()} cores.")
    table.details["load"] = list(os.getloadavg())
    return table


def add_parity(table: Table, judge: Judge, kept: Kept) -> None:
    """Largest difference between pictures scored alone and in one batch."""
    pictures = kept.pictures()
    together = judge.scorer.assess(pictures)
    alone = [judge.scorer.assess([picture])[0] for picture in pictures]
    apart = [
        abs(a.quality - b.quality)
        for a, b in zip(together, alone, strict=True)
        if a.quality is not None and b.quality is not None
    ]
    what = "largest difference alone or in a batch, points"
    table.rows.append(Row(what, max(apart, default=0.0), len(apart), PARITY, digits=5))


def timed(
    judge: Judge, shown: Sequence[Frame], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(count,) wall and processor milliseconds of each of `count` frames, in turn, warm."""
    wall, processor = [], []
    for i in range(WARM_UP + count):
        frame = shown[i % len(shown)]
        begun, used = time.perf_counter(), time.process_time()
        judge.scorer.assess([prepare(frame)])
        wall.append(1000 * (time.perf_counter() - begun))
        processor.append(1000 * (time.process_time() - used))
    return np.array(wall[WARM_UP:]), np.array(processor[WARM_UP:])


def _preparing(shown: Sequence[Frame], count: int) -> float:
    """Median wall milliseconds of preparing without the network."""
    spent = []
    for i in range(max(4, count)):
        begun = time.perf_counter()
        prepare(shown[i % len(shown)])
        spent.append(1000 * (time.perf_counter() - begun))
    return float(np.median(spent))


def _frame(path: Path, height: int) -> Frame:
    """The middle of a photograph in 16:9, as a video frame of so many lines."""
    picture = Image.open(path).convert("RGB")
    across = min(picture.width, picture.height * 16 / 9)
    down = across * 9 / 16
    left, top = (picture.width - across) / 2, (picture.height - down) / 2
    size = (WIDTHS[height], height)
    box = (left, top, left + across, top + down)
    enlarged = picture.resize(size, Image.Resampling.BICUBIC, box=box)
    return frame_of(np.asarray(enlarged), VIDEO_COLOUR)
