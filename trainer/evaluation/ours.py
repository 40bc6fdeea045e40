"""Our own eight degradations at our own levels, on photographs that nothing was trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer import degrade
from trainer.degrade import DEGRADATIONS, VARIANTS, Picture, amount
from trainer.degrade.codecs import ENCODERS, decoded, encoded, shown, yuv
from trainer.degrade.corruption import damage, lossy_rungs
from trainer.evaluation.asis import read_plain
from trainer.evaluation.shelf import Shot, seed_of
from trainer.extract import JPEG_COLOUR, VIDEO_COLOUR, frame_of
from trainer.likeness import Original

LEVELS = (1, 2, 3, 4, 5)

FRAMES = 13
"""Of the moving clip that codecs and lost packets work on; the last is judged, no keyframe."""

CODED_SIZE = (1280, 720)
"""Codecs see at most so much of a photograph, as a stream would show it."""

LOST_PACKETS, OWN_CLIP = "lost packets", "clip"

LOST = (0.06, 0.15, 0.3, 0.6, 0.9)
"""Shares of the slices of one frame that are lost."""

MADE_BY = tuple(sorted(Path(degrade.__file__).parent.glob("*.py")))
"""Files beside this one that decide what the pictures are."""


def shots(source: Path) -> Iterable[Shot]:
    """The clean photograph; a ladder of every degradation, of one variant drawn for it; one more
    of a video codec; and lost packets.

    Numbers: the losses of `trainer.likeness` against the undamaged picture, its mean change (of
    255) and the share of its area that is damaged; `classes.level` makes a label of them.
    """
    yield Shot(read_plain(source), _facts(source, "clean", "clean", 0), np.zeros(14))
    picture = np.asarray(Image.open(source).convert("RGB"))
    original = Original(picture)
    for number, kind in enumerate(VARIANTS):
        yield from _still(source, picture, original, kind, number)
    clip = _clip(picture, seed_of(source, 100))
    yield from _coded(source, clip)
    yield from _lossy(source, clip)


def _still(
    source: Path, picture: Picture, original: Original, kind: str, number: int
) -> Iterator[Shot]:
    for rung in LEVELS:
        damaged = DEGRADATIONS[kind]([picture], rung, seed_of(source, number))[0]
        facts = _facts(source, kind, kind, rung)
        yield Shot(frame_of(damaged, JPEG_COLOUR), facts, _numbers(damaged, picture, original))


def _coded(source: Path, clip: Sequence[Picture]) -> Iterator[Shot]:
    """The clean rung of this ladder is the clip's own last frame."""
    name = list(ENCODERS)[int(seed_of(source, 101).integers(len(ENCODERS)))]
    base, frames = clip[-1], yuv(clip)
    original = Original(base)
    facts = _facts(source, "clean", OWN_CLIP, 0)
    yield Shot(frame_of(base, VIDEO_COLOUR), facts, np.zeros(14))
    for rung in LEVELS:
        packets = encoded(frames, name, amount(rung, ENCODERS[name].rates))
        damaged = shown(decoded(packets, name)[-1])
        facts = _facts(source, "compression", name, rung)
        yield Shot(frame_of(damaged, VIDEO_COLOUR), facts, _numbers(damaged, base, original))


def _lossy(source: Path, clip: Sequence[Picture]) -> Iterator[Shot]:
    intact, rungs = lossy_rungs(clip, LOST, seed_of(source, 102))
    original = Original(intact)
    for rung, damaged in enumerate(rungs, 1):
        facts = _facts(source, "corrupted", LOST_PACKETS, rung)
        yield Shot(frame_of(damaged, VIDEO_COLOUR), facts, _numbers(damaged, intact, original))


def _clip(picture: Picture, rng: np.random.Generator) -> list[Picture]:
    """A pan of a few pixels a frame over a middle piece."""
    across, down = (int(n) for n in rng.integers(1, 4, 2))
    height = min(CODED_SIZE[1], picture.shape[0] - (FRAMES - 1) * down) // 2 * 2
    width = min(CODED_SIZE[0], picture.shape[1] - (FRAMES - 1) * across) // 2 * 2
    top = (picture.shape[0] - height - (FRAMES - 1) * down) // 2
    left = (picture.shape[1] - width - (FRAMES - 1) * across) // 2
    return [picture[top + i * down :, left + i * across :][:height, :width] for i in range(FRAMES)]


def _numbers(damaged: Picture, picture: Picture, original: Original) -> NDArray[np.float64]:
    change = float(np.abs(damaged.astype(np.int16) - picture).mean())
    area = float(damage(damaged, picture).mean())
    return np.array([*original.losses(damaged), change, area])


def _facts(source: Path, kind: str, variant: str, rung: int) -> dict[str, Any]:
    return {"photograph": source.name, "kind": kind, "variant": variant, "rung": rung}
