"""Pictures -> everything that the network reads of them, exactly as serving prepares it.

    python -m trainer.views --biq DIR --out FOLDER [--draws 4]

Training sees each picture through several draws of patch offsets; validation and test see it
through the fixed offsets of serving, which are draw 0 everywhere. Results are kept in parts of
some hundred pictures, so that a run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.datasets import biq2021, dhash
from trainer.extract import read_picture
from trainer.spreading import spread
from vqmon.domain import Frame
from vqmon.preprocess import prepare

PART = 400
"""Pictures in one file."""


@dataclass(frozen=True, slots=True)
class Views:
    """What the network reads of n pictures through D draws of offsets, and their hashes.

    patches: (n, D, 36, 40, 40) uint8. view: (n, 3, 96, 96) uint8, which hardly depends on the
    offsets. measures: (n, D, 128) float32. hashes: (n, 256) of the content.
    """

    patches: NDArray[np.uint8]
    view: NDArray[np.uint8]
    measures: NDArray[np.float32]
    hashes: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.view)


def views(paths: Sequence[Path], folder: Path, *, draws: int, processes: int = 2) -> Views:
    """Read, prepare and keep; from `folder` where the same pictures were prepared before."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = []
    for start in range(0, len(paths), PART):
        some = paths[start : start + PART]
        parts.append(_part(folder / f"{start:06}-{_key(some, draws)}.npz", some, draws, processes))
        print(f"  {start + len(some)} of {len(paths)}", flush=True)
    return Views(**{name: np.concatenate([it[name] for it in parts]) for name in parts[0]})


def drawn(frame: Frame, draws: int, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """The inputs at the fixed offsets of serving, then at random ones; as in `Views`."""
    seen = [dict(prepare(frame, rng if draw else None).inputs) for draw in range(draws)]
    return {
        "patches": np.stack([it["patches"] for it in seen]),
        "view": seen[0]["view"],
        "measures": np.stack([it["measures"] for it in seen]),
    }


def _part(file: Path, paths: Sequence[Path], draws: int, processes: int) -> dict[str, Any]:
    if file.is_file():
        with np.load(file) as stored:
            return dict(stored)
    results = list(spread(partial(_read, draws=draws), paths, processes))
    stacked = {name: np.stack([it[name] for it in results]) for name in results[0]}
    unfinished = file.with_suffix(".unfinished.npz")
    np.savez(unfinished, allow_pickle=False, **stacked)
    unfinished.replace(file)
    return stacked


def _read(path: Path, draws: int) -> dict[str, Any]:
    frame = read_picture(path)
    seed = int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8])
    luma = frame.planes[0].astype(np.float64)
    return drawn(frame, draws, np.random.default_rng(seed)) | {"hashes": dhash(luma)}


def _key(paths: Sequence[Path], draws: int) -> str:
    digest = hashlib.sha256(str(draws).encode())
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()[:12]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.views", description=__doc__)
    parser.add_argument("--biq", type=Path, required=True, help="BIQ2021 as published")
    parser.add_argument("--out", type=Path, required=True, help="folder to keep the parts in")
    parser.add_argument("--draws", type=int, default=4, help="draws of patch offsets in training")
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args(arguments)
    samples = biq2021(given.biq)
    for split, draws in (("train", given.draws), ("test", 1)):
        paths = [it.path for it in samples if it.split == split]
        views(paths, given.out / split, draws=draws, processes=given.processes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
