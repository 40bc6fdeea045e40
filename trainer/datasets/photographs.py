"""Photographs without visible damage: what ladders of damage are made from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PICTURES = (".png", ".jpg", ".jpeg", ".webp")


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
    BSDS500 (481x321). Of these, every eighth CID22 and CLIC picture is for validation.
    Held out: CID22 validation, CLIC 2025 final-test, Kodak.
    """
    cid, clic = root / "CID22" / "CID22-512", root / "clic2025"
    ours = [*_pictures(cid / "training"), *_pictures(clic / "validation")]
    train = [p for i, p in enumerate(ours) if i % 8]
    berkeley = [
        path
        for part in ("train", "val", "test")
        for path in _pictures(root / "BSDS500" / "data" / "images" / part)
    ]
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
