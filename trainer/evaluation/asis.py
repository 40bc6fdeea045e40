"""Pictures that nothing is done to but scaling down."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from trainer.datasets import dhash
from trainer.evaluation.shelf import Shot
from trainer.extract import JPEG_COLOUR, frame_of, read_picture
from vqmon.domain import Frame

REDUCED = (1024, 512)
"""Longer side, pixels, that large photographs are reduced to."""

LARGE = 1500
"""Longer side, pixels, from which on a photograph is large."""


def photographs_as_they_are(source: Path) -> Iterable[Shot]:
    """The picture as `vqmon score` decodes it; its numbers are the 256 bits of its hash."""
    frame = read_plain(source)
    bits = dhash(frame.planes[0].astype(np.float64))
    yield Shot(frame, {"name": source.name}, bits.astype(np.float64))


def clean_at_all_sizes(source: Path) -> Iterable[Shot]:
    """As it is and, where it is large, reduced to each of REDUCED; size 0 is its own."""
    yield Shot(read_plain(source), _facts(source, 0))
    picture = Image.open(source).convert("RGB")
    if max(picture.size) < LARGE:
        return
    for size in REDUCED:
        factor = size / max(picture.size)
        wanted = (round(picture.width * factor), round(picture.height * factor))
        small = np.asarray(picture.resize(wanted, Image.Resampling.LANCZOS))
        yield Shot(frame_of(small, JPEG_COLOUR), _facts(source, size))


def read_plain(source: Path) -> Frame:
    """As `vqmon score` decodes it; a PNG without its colour profile, which is not used anyway and
    whose name PyAV 18.1 frees twice.
    """
    if source.suffix.lower() != ".png":
        return read_picture(source)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / source.name
        picture = Image.open(source).convert("RGB")
        picture.info.clear()
        picture.save(plain, compress_level=1)
        return read_picture(plain)


def _facts(source: Path, size: int) -> dict[str, str | int]:
    return {"photograph": source.name, "corpus": corpus(source), "size": size}


def corpus(source: Path) -> str:
    """Of a clean photograph in its published layout: "CID22 validation", "kodak", ..."""
    folder, above = source.parent.name, source.parent.parent.name
    return folder if folder == "kodak" else f"{above.removesuffix('-512')} {folder}"
