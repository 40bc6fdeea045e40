"""GRPO teaches a writing model to see: from random weights, shown on pictures that it never saw."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from PIL import Image

from benchmarks import writer_learns
from vqmon.sources.scene import make_scene

ROOT = Path(__file__).parents[2]
RISE = 0.10


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pieces of landscapes: neighbours in the order of names are of different landscapes, so what
    is learned from (every other one) and what is judged by show none in common."""
    folder = tmp_path_factory.mktemp("photographs")
    for landscape in range(40):
        scene = make_scene(640, 400, seed=landscape)
        for piece in range(6):
            y, u, v = scene.render(7.0 * piece)
            yuv = np.stack([y, *(plane.repeat(2, 0).repeat(2, 1) for plane in (u, v))], -1)
            top, left = 200 * (piece > 0), 200 * (piece % 3)  # the sky of one, for it hides blur
            shown = _rgb(yuv[top : top + 200, left : left + 200])
            Image.fromarray(shown).save(folder / f"{piece}-{landscape:02}.png")
    return folder


def _rgb(yuv: Any) -> Any:
    """BT.709, limited range -> R'G'B', (h, w, 3) uint8."""
    y, u, v = np.moveaxis(yuv.astype(np.float32), -1, 0)
    luma, blue, red = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
    rgb = np.stack([luma + 1.5748 * red, luma - 0.1873 * blue - 0.4681 * red, luma + 1.8556 * blue])
    return np.moveaxis(rgb, 0, -1).round().clip(0, 255).astype(np.uint8)


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_three_seeds_learn_and_the_control_does_not(photographs: Path, tmp_path: Path) -> None:
    """Answers keep their form, score and class get right more often by a tenth at least.

    The control is told the labels of other pictures: what it earns must not rise with them.
    """
    writer_learns.photographs(photographs, tmp_path / "photographs")

    def run(seed: int, *options: str) -> None:
        command = [sys.executable, "-m", "benchmarks.writer_learns", "--seeds", str(seed)]
        command += ["--photographs", str(photographs), "--out", str(tmp_path), "--steps", "200"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [*command, *options],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-3000:]

    def first() -> None:
        run(1)
        run(1, "--control")  # begins where the run of its seed did

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for work in [pool.submit(first), pool.submit(run, 2), pool.submit(run, 3)]:
            work.result()
    names = [*(f"seed{seed}" for seed in (1, 2, 3)), "control1"]
    runs = {name: json.loads((tmp_path / name / "result.json").read_text()) for name in names}

    def rise(name: str, what: str) -> float:
        after, before = (runs[name][end][f"held_out/{what}"] for end in ("after", "before"))
        return float(after - before)

    for name in names[:-1]:
        assert runs[name]["after"]["held_out/format"] >= 0.95, runs[name]
        assert rise(name, "within") >= RISE, runs[name]
        assert rise(name, "named") >= RISE, runs[name]
    assert rise("control1", "within") < RISE, runs["control1"]
    assert rise("control1", "named") < RISE, runs["control1"]
