"""Pictures with human opinions, and clean photographs. Splits are by content, never by file.

MOS of every set is mapped linearly to quality 0..100 and the scale stated at its reader.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NEAR = 10
"""Pictures whose 256-bit dHash differs in at most so many bits show the same content."""

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what people said of it.

    quality: mean opinion 0..100. subset: the part of its set that it comes from.
    split: "train" or "test", as the set's owner divided it.
    """

    path: Path
    quality: float
    subset: str
    split: str


def biq2021(root: Path) -> list[Sample]:
    """BIQ2021: 12,000 pictures of 512x512, MOS 0..1 from 30 observers each -> 0..100.

    `root` holds `Images/` and the two CSV files as published. Subsets: ss01 (gallery, mixed
    faults), ss02 (faults made while taking), ss03 (from Unsplash). Raises FileNotFoundError
    naming what is missing.
    """
    on_disk = {path.name.lower(): path for path in (root / "Images").iterdir()}
    return [
        Sample(_on_disk(on_disk, name, root), 100 * mos, name[:4], split.lower())
        for split in ("Train", "Test")
        for name, mos in _rows(root / f"{split} (Images and MOS).csv")
    ]


def _rows(path: Path) -> Iterable[tuple[str, float]]:
    """Some rows carry empty columns behind the two that count."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            if row and row[0].strip():
                yield row[0].strip(), float(row[1])


def _on_disk(files: dict[str, Path], name: str, root: Path) -> Path:
    """One file is `.JPG` on disk and `.jpg` in the table."""
    if name.lower() not in files:
        raise FileNotFoundError(f"{root / 'Images' / name} is named in the table but missing")
    return files[name.lower()]


@dataclass(frozen=True, slots=True)
class CleanPhotographs:
    """Photographs without visible damage: sources of ladders, and of false alarms.

    train: to fit on; validation: to choose on; held_out: for final figures only.
    """

    train: tuple[Path, ...]
    validation: tuple[Path, ...]
    held_out: tuple[Path, ...]


def clean_photographs(root: Path) -> CleanPhotographs:
    """Photographs below `root`: the corpora `CID22/`, `clic2025/`, `kodak/` and `BSDS500/`.

    Laid out as published. Train: CID22 training (512 px), CLIC 2025 validation (2048 px) and
    BSDS500 train (481x321). Of these, every eighth CID22 and CLIC picture is for validation.
    Held out: CID22 validation, CLIC 2025 final-test, Kodak.
    """
    cid, clic = root / "CID22" / "CID22-512", root / "clic2025"
    ours = [*_pictures(cid / "training"), *_pictures(clic / "validation")]
    train = [p for i, p in enumerate(ours) if i % 8]
    berkeley = _pictures(root / "BSDS500" / "data" / "images" / "train")
    held_out = [
        *_pictures(cid / "validation"),
        *_pictures(clic / "final-test"),
        *_pictures(root / "kodak"),
    ]
    if not train or not held_out:
        raise FileNotFoundError(f"no clean photographs below {root}: see trainer/README.md")
    return CleanPhotographs(tuple(train + berkeley), tuple(ours[::8]), tuple(held_out))


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURES)


def dhash(luma: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(h, w) luma -> 256 bits: of a 16 x 17 reduction, whether brightness rises to the right.

    Survives scaling, recompression and small changes of exposure.
    """
    small = _reduced(luma, 16, 17)
    bits: NDArray[np.bool_] = (small[:, 1:] > small[:, :-1]).reshape(-1)
    return bits


def _reduced(luma: NDArray[np.floating], rows: int, columns: int) -> NDArray[np.float64]:
    """Means over a grid, by differences of the summed-area table."""
    table = np.zeros((luma.shape[0] + 1, luma.shape[1] + 1))
    table[1:, 1:] = luma.cumsum(0).cumsum(1)
    y = np.linspace(0, luma.shape[0], rows + 1).round().astype(int)
    x = np.linspace(0, luma.shape[1], columns + 1).round().astype(int)
    sums = np.diff(np.diff(table[np.ix_(y, x)], axis=0), axis=1)
    areas = np.outer(np.diff(y), np.diff(x))
    return np.asarray(sums / areas)


def near_duplicates(
    a: NDArray[np.bool_], b: NDArray[np.bool_], limit: int = NEAR
) -> NDArray[np.int64]:
    """(pairs, 2) indices into the hashes `a` (n, 256) and `b` (m, 256) that are near."""
    left, right = a.astype(np.float32), b.astype(np.float32)
    distance = left.sum(1)[:, None] + right.sum(1)[None] - 2 * left @ right.T
    return np.argwhere(distance <= limit + 0.5)


def content_groups(hashes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """(n,) group numbers: near-duplicates, and near-duplicates of those, are one group."""
    parent = list(range(len(hashes)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in near_duplicates(hashes, hashes).tolist():
        parent[root(i)] = root(j)
    return np.array([root(i) for i in range(len(hashes))])


def validation_part(
    subsets: Sequence[str], groups: NDArray[np.int64], size: int, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """(n,) True for about `size` pictures, every subset in proportion, no group divided."""
    members: dict[int, list[int]] = defaultdict(list)
    for i, group in enumerate(groups.tolist()):
        members[group].append(i)
    total = len(subsets)
    room = {s: round(size * list(subsets).count(s) / total) for s in sorted(set(subsets))}
    chosen = np.zeros(total, bool)
    for group in rng.permutation(np.unique(groups)).tolist():
        taken = [subsets[i] for i in members[group]]
        if all(room[s] >= taken.count(s) for s in set(taken)):
            chosen[members[group]] = True
            for s in taken:
                room[s] -= 1
    return chosen
