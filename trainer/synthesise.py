"""Clean pictures -> damaged ones with exact labels, prepared as serving prepares its frames.

    python -m trainer.synthesise --clean DIR [--biq DIR] [--clips DIR] --out FOLDER
        [--samples 20000] [--seed 1] [--processes 2] [--only KIND ...]

Two thirds are *ladders*: one content, one damage, rungs 0 (clean) to 5. The others stand alone:
two or three kinds of damage at once, damage in a part of the picture, and clean pictures of many
sorts. Half of the sources went through JPEG 75 first, which is no damage, so that the codec's
grid tells nothing. Kept in parts of some 200 samples; an interrupted run goes on where it
stopped, and training can begin with what is there. `--only` makes ladders of the named kinds alone,
where a figure shows what the network has seen too little of; such a run needs a seed of its own.

Light is judged from what a picture shows, so that ladders of exposure are made of whole pictures
and of many more of them: all of BIQ2021's `LIT` ones, whose sharpness is then unknown.

Strengths are continuous; the label is the nearest level of `trainer.degrade.VARIANTS`. Video
codecs are labelled by what they cost (`CODED`), lost slices by the damaged area. Where a change
cannot be seen (`trainer.likeness` above 88) or hides behind another, the label is -1: unknown.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from trainer.datasets import biq2021, clean_photographs
from trainer.degrade import ORDER, VARIANTS, Picture, amount, drawn_variant, jpeg_quality, pixels
from trainer.degrade.codecs import (
    ENCODERS,
    decoded,
    encoded,
    shown,
    through_codec,
    through_jpeg,
    yuv,
)
from trainer.degrade.corruption import damage, debris, level_of_area, lossy_rungs
from trainer.degrade.pixels import rounded
from trainer.extract import JPEG_COLOUR, VIDEO_COLOUR, frame_of
from trainer.likeness import VISIBLE, Original
from trainer.spreading import spread
from vqmon.domain import DEGRADATIONS, Colour
from vqmon.preprocess import prepare

GROUP = 6
"""Samples of one content: a ladder, or as many single ones."""

PART = 34
"""Groups in one file."""

DRAWS = 2
"""Of patch offsets: the fixed ones of serving, and random ones."""

SEEDS_APART = 1_000_000
"""Between the ladders of two seeds, whose groups are both counted from 0."""

FRAMES = 12
UNKNOWN = -1

CODED = (50.0, 37.0, 20.0, 0.0, -22.0)
"""Index of levels 1 to 5 of compression: medians of JPEG quality 25, 18, 12, 8 and 5."""

LADDERS = {
    "blur": 0.13,
    "noise": 0.12,
    "compression": 0.22,
    "banding": 0.07,
    "underexposed": 0.17,
    "overexposed": 0.11,
    "upscaled": 0.08,
    "corrupted": 0.10,
}
"""Share of the ladders. Exposure is told from content, not from a trace, so that it needs most."""

EXPOSURE = ("underexposed", "overexposed")
REAL_CLIPS = ("tears-of-steel.webm", "flower.mp4", "road.mp4")
GOOD = 75.0
"""MOS of BIQ2021, 0..100: Unsplash pictures from here on count as clean once reduced 2:1."""

LIT = 60.0
"""MOS from which a picture of BIQ2021 counts as well exposed, whatever else ails it."""


@dataclass(frozen=True, slots=True)
class Source:
    """A clean picture, or a clip. reduced: it is only clean at half its size. lit: nothing but
    its exposure is known to be right.
    """

    path: str
    content: int
    split: int
    reduced: bool = False
    lit: bool = False


@dataclass(frozen=True, slots=True)
class Sources:
    """By origin, with the share of groups that each origin gets. lit: for exposure."""

    pools: tuple[tuple[float, tuple[Source, ...]], ...]
    clips: tuple[Source, ...] = ()
    lit: tuple[Source, ...] = ()

    def draw(self, rng: np.random.Generator) -> Source:
        weights = np.array([share for share, _ in self.pools])
        pool = self.pools[int(rng.choice(len(weights), p=weights / weights.sum()))][1]
        return pool[int(rng.integers(len(pool)))]


@dataclass(slots=True)
class Sample:
    """A picture and what is known of it. levels: by name, absent ones are 0.

    regions: (9,) whether there is damage in each of the nine cells.
    index: full-reference, NaN where it is not comparable. rung: -1 outside ladders.
    """

    picture: Picture
    kind: str
    levels: dict[str, int] = field(default_factory=dict)
    regions: NDArray[np.int8] | None = None
    index: float = float("nan")
    rung: int = -1


@dataclass(frozen=True, slots=True)
class Synthetic:
    """What the network reads of n samples, and their labels.

    patches: (n, D, 36, 40, 40) uint8. view: (n, D, 3, 96, 96) uint8. measures: (n, D, 128)
    float32. levels: (n, 8) int8, -1 unknown, 0 absent, 1..5. regions: (n, 9) int8, -1 unknown.
    index: (n,) float32, 0..100, NaN unknown. ladder: (n,) int32, -1 none. rung: (n,) int8.
    content: (n,) int32. split: (n,) uint8, 0 train, 1 validation. kinds: n names.
    """

    patches: NDArray[np.uint8]
    view: NDArray[np.uint8]
    measures: NDArray[np.float32]
    levels: NDArray[np.int8]
    regions: NDArray[np.int8]
    index: NDArray[np.float32]
    ladder: NDArray[np.int32]
    rung: NDArray[np.int8]
    content: NDArray[np.int32]
    split: NDArray[np.uint8]
    kinds: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.levels)


_NAMES = tuple(it.name for it in fields(Synthetic) if it.name != "kinds")


def parts(folder: Path) -> list[Path]:
    """The finished files of a folder, by seed and number."""
    return sorted(it for it in folder.glob("part-*.npz") if "unfinished" not in it.name)


def load(folder: Path) -> Synthetic:
    """All parts that are there. Raises FileNotFoundError for a folder without any."""
    arrays = columns(folder, (*_NAMES, "kind"))
    kinds = tuple(str(name) for name in arrays.pop("kind"))
    return Synthetic(**arrays, kinds=kinds)


def columns(folder: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Some fields of all samples that are there, by name. Raises FileNotFoundError without any."""
    files = parts(folder)
    if not files:
        raise FileNotFoundError(f"no samples in {folder}: see trainer/README.md")
    counts = [len(_array(file, "rung")) for file in files]
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:  # into place, so that memory holds everything only once
        first = _array(files[0], name)
        whole = arrays[name] = np.empty((sum(counts), *first.shape[1:]), first.dtype)
        begin = 0
        for file, count in zip(files, counts, strict=True):
            rows = whole[begin : (begin := begin + count)]
            rows[:] = _array(file, name)
            if name == "ladder":
                rows[rows >= 0] += int(file.stem.split("-")[1]) * SEEDS_APART
    return arrays


def _array(part: Path, name: str) -> NDArray[Any]:
    with np.load(part) as held:
        return np.asarray(held[name])


def find_sources(clean: Path, biq: Path | None, clips: Path | None) -> Sources:
    """Training and validation sources; held-out photographs and the test split never."""
    photographs = clean_photographs(clean)
    ours = [(path, 0) for path in photographs.train] + [
        (path, 1) for path in photographs.validation
    ]
    pools: dict[str, list[Source]] = {"small": [], "large": [], "berkeley": [], "biq": []}
    for content, (path, split) in enumerate(sorted(ours)):
        reduced = "BSDS500" in path.parts
        name = "berkeley" if reduced else "large" if "clic2025" in path.parts else "small"
        pools[name].append(Source(str(path), content, split, reduced))
    ours_to_see = [it for it in (biq2021(biq) if biq else []) if it.split == "train"]
    good = [it for it in ours_to_see if it.subset == "ss03" and it.quality >= GOOD]
    known = {it.path for it in good}
    others = [it for it in ours_to_see if it.quality >= LIT and it.path not in known]
    pools["biq"] = [
        Source(str(it.path), 10_000 + i, int(i % 8 == 0), True) for i, it in enumerate(good)
    ]
    moving = [clips / name for name in REAL_CLIPS if (clips / name).is_file()] if clips else []
    shares = {"small": 0.4, "large": 0.22, "berkeley": 0.06, "biq": 0.32}
    return Sources(
        tuple((shares[name], tuple(pool)) for name, pool in pools.items() if pool),
        tuple(Source(str(path), 20_000 + i, 0) for i, path in enumerate(moving)),
        tuple(
            Source(str(it.path), 30_000 + i, int(i % 8 == 0), reduced=True, lit=True)
            for i, it in enumerate(others)
        ),
    )


def group(
    number: int, sources: Sources, seed: int, only: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """Six samples or, where rungs were left out, fewer; the same for the same number and seed."""
    samples, colour, source, rng = made(number, sources, seed, only)
    rows = [_row(sample, colour, source, number, rng) for sample in samples]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def made(
    number: int, sources: Sources, seed: int, only: Sequence[str] = ()
) -> tuple[list[Sample], Colour, Source, np.random.Generator]:
    """The samples of a group as whole pictures, the range and matrix in which they are shown, what
    they were made from, and the generator that made them.
    """
    rng = np.random.default_rng((seed, number))
    source = sources.draw(rng)
    colour = JPEG_COLOUR if rng.random() < 0.5 else VIDEO_COLOUR
    if only or rng.random() < 0.66:
        kinds = list(only or LADDERS)
        shares = np.array([LADDERS[kind] for kind in kinds])
        kind = str(rng.choice(kinds, p=shares / shares.sum()))
        if kind in EXPOSURE:
            if sources.lit and rng.random() < 0.35:
                source = sources.lit[int(rng.integers(len(sources.lit)))]
            samples = _exposure_ladder(kind, source, rng)
        elif kind == "compression" and sources.clips and rng.random() < 0.15:
            source = sources.clips[int(rng.integers(len(sources.clips)))]
            samples = _clip_ladder(source, rng)
        else:
            samples = _ladder(kind, _still(source, rng), rng)
    else:
        picture = _still(source, rng)
        samples = [_single(_grid(_cropped(picture, rng), rng), rng) for _ in range(GROUP)]
    return samples, colour, source, rng


def _row(
    sample: Sample, colour: Colour, source: Source, number: int, rng: np.random.Generator
) -> dict[str, NDArray[Any]]:
    frame = frame_of(sample.picture, colour)
    seen = []
    for draw in range(DRAWS):
        inputs = prepare(frame, rng if draw else None).inputs
        seen.append({name: value.copy() for name, value in inputs.items()})
    regions = np.full(9, UNKNOWN) if sample.regions is None else sample.regions
    drawn = {name: np.stack([draw[name] for draw in seen]) for name in seen[0]}
    labels: dict[str, Any] = {
        "levels": np.array([sample.levels.get(name, 0) for name in DEGRADATIONS], np.int8),
        "regions": np.asarray(regions, np.int8),
        "index": np.float32(np.clip(sample.index, 0, 100)),
        "ladder": np.int32(number if sample.rung >= 0 else -1),
        "rung": np.int8(sample.rung),
        "content": np.int32(source.content),
        "split": np.uint8(source.split),
        "kind": np.array(sample.kind, "U40"),
    }
    return drawn | labels


@lru_cache(maxsize=4)
def _read(path: str) -> Picture:
    return np.asarray(Image.open(path).convert("RGB"))


def _still(source: Source, rng: np.random.Generator) -> Picture:
    """A clean picture in one of its clean sizes."""
    picture = _read(source.path)
    if source.reduced:
        return _halved(picture)
    if max(picture.shape) >= 1280 and rng.random() < 0.55:
        factor = rng.uniform(1, 2)
        size = (round(picture.shape[1] / factor), round(picture.shape[0] / factor))
        return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))
    return picture


def _halved(picture: Picture) -> Picture:
    height, width = (n // 2 * 2 for n in picture.shape[:2])
    quads = picture[:height, :width].astype(np.float32).reshape(height // 2, 2, width // 2, 2, 3)
    return rounded(quads.mean(axis=(1, 3)))


def _exposure_ladder(kind: str, source: Source, rng: np.random.Generator) -> list[Sample]:
    """Of the whole picture, mostly: a crop from the shade of a fine photograph is dark indeed."""
    whole = _still(source, rng)
    if not source.reduced and rng.random() < 0.75:
        longest = max(whole.shape)
        whole = _sized(whole, max(1.0, longest / rng.uniform(400, 1000)))
        base = whole[: whole.shape[0] // 2 * 2, : whole.shape[1] // 2 * 2]
    else:
        base = _cropped(whole, rng)
    samples = _strength_ladder(kind, _grid(np.ascontiguousarray(base), rng), rng)
    if source.lit:
        for sample in samples:
            sample.levels = dict.fromkeys(DEGRADATIONS, UNKNOWN) | (
                sample.levels or dict.fromkeys(EXPOSURE, 0)
            )
            sample.regions, sample.index = None, float("nan")
    return samples


def _grid(picture: Picture, rng: np.random.Generator) -> Picture:
    return through_jpeg(picture, 75) if rng.random() < 0.5 else picture


def _size(picture: Picture, rng: np.random.Generator) -> tuple[int, int]:
    """Height and width of a crop: 384 to 640, or of a third of the large photographs much more."""
    height, width = picture.shape[:2]
    if max(height, width) >= 1280 and rng.random() < 0.3:
        across = int(min(width, 1920))
        return min(height, across * 9 // 16) // 2 * 2, across // 2 * 2
    sides = rng.integers(384, 641, 2)
    return tuple(int(min(n, side)) // 2 * 2 for n, side in zip((height, width), sides, strict=True))  # type: ignore[return-value]


def _cropped(picture: Picture, rng: np.random.Generator) -> Picture:
    height, width = _size(picture, rng)
    top = int(rng.integers(picture.shape[0] - height + 1))
    left = int(rng.integers(picture.shape[1] - width + 1))
    return np.ascontiguousarray(picture[top : top + height, left : left + width])


def _moving(picture: Picture, frames: int, rng: np.random.Generator) -> list[Picture]:
    """A pan and zoom over the picture that ends on its own pixels, so that the end is as sharp."""
    height, width = _size(picture, rng)
    height = min(height, picture.shape[0] - 32) // 2 * 2
    width = min(width, picture.shape[1] - 32) // 2 * 2
    room = picture.shape[0] - height, picture.shape[1] - width
    top, left = (int(rng.integers(8, n - 7)) for n in room)
    speed = rng.uniform(-3.5, 3.5, 2)
    zoom = rng.uniform(-0.002, 0.006)
    image = Image.fromarray(picture)
    clip = []
    for back in range(frames - 1, 0, -1):
        tall = min(height * (1 + zoom * back), picture.shape[0])
        wide = min(width * (1 + zoom * back), picture.shape[1])
        y = float(np.clip(top + speed[0] * back, 0, picture.shape[0] - tall))
        x = float(np.clip(left + speed[1] * back, 0, picture.shape[1] - wide))
        box = (x, y, x + wide, y + tall)
        clip.append(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC, box=box)))
    clip.append(np.ascontiguousarray(picture[top : top + height, left : left + width]))
    return clip


def _ladder(kind: str, picture: Picture, rng: np.random.Generator) -> list[Sample]:
    if kind == "compression" and rng.random() < 0.6:
        return _codec_ladder(_moving(_grid(picture, rng), FRAMES, rng), rng)
    if kind == "corrupted" and rng.random() < 0.6:
        return _lost_ladder(_moving(_grid(picture, rng), FRAMES, rng), rng)
    base = _grid(_cropped(picture, rng), rng)
    if kind == "corrupted":
        return _debris_ladder(base, rng)
    return _strength_ladder(kind, base, rng)


def _strength_ladder(kind: str, base: Picture, rng: np.random.Generator) -> list[Sample]:
    """All rungs off their level by the same amount, so that they stay apart."""
    variant = drawn_variant(kind, rng)
    offset, seed = rng.uniform(-0.4, 0.4), int(rng.integers(1 << 31))
    original = Original(base)
    samples = [_clean(base, "clean", rung=0)]
    for rung in range(1, GROUP):
        strength = rung + offset
        damaged = variant(base, strength, np.random.default_rng(seed))
        index = original.index(damaged)
        level = _level(kind, strength, index, damaged, base)
        name = f"{kind}:{variant.name}"
        samples.append(_global(damaged, name, _beside({kind: level}), _told(kind, index), rung))
    return samples


def _level(kind: str, strength: float, index: float, damaged: Picture, base: Picture) -> int:
    """Nearest level, or unknown where the change is hardly visible."""
    level = int(np.clip(round(strength), 1, 5))
    if kind in EXPOSURE:
        change = np.abs(damaged.astype(np.int16) - base).mean()
        return level if change > 6 else UNKNOWN
    return level if index < VISIBLE else UNKNOWN


def _told(kind: str, index: float) -> float:
    return float("nan") if kind in EXPOSURE else index


def _beside(levels: dict[str, int]) -> dict[str, int]:
    """What strong damage brings with it is not denied."""
    if levels.get("compression", 0) >= 4:
        levels = {"banding": UNKNOWN} | levels
    if levels.get("upscaled", 0) >= 2:
        levels = {"blur": UNKNOWN} | levels
    return levels


def _coded_level(index: float) -> int:
    if index >= VISIBLE:
        return 0
    if index >= VISIBLE - 6:
        return UNKNOWN
    return 1 + int(np.argmin(np.abs(np.array(CODED) - index)))


def _codec_ladder(clip: Sequence[Picture], rng: np.random.Generator) -> list[Sample]:
    """One clip at falling rates, some at a smaller size and enlarged again; half of the pictures
    shown are no keyframes. Rungs that cost nothing more than the one before are left out.
    """
    names = list(ENCODERS)
    name = names[int(rng.choice(len(names), p=(0.36, 0.16, 0.18, 0.1, 0.2)))]
    key = bool(rng.random() < 0.5)
    shown_clip = clip[-2:] if key else clip
    factor = float(rng.choice((1.0, 1.0, 1.0, 1.5, 2.0)))
    base = clip[-2] if key else clip[-1]
    small = [_sized(picture, factor) for picture in shown_clip]
    place = 0 if key else len(small) - 1
    reference = _resized(small[place], base) if factor > 1 else base
    whole, stretched = Original(base), Original(reference)
    frames, offset = yuv(small), rng.uniform(-0.4, 0.4)
    samples = [_clean(base, "clean", rung=0)]
    previous = VISIBLE + 6
    for rung in range(1, GROUP):
        rate = amount(rung + offset, ENCODERS[name].rates)
        limit = ENCODERS[name].rates[-1]
        packets = encoded(frames, name, min(rate, limit))
        damaged = _resized(shown(decoded(packets, name)[place]), base)
        index = stretched.index(damaged)
        if index > previous - 1.5:
            continue
        previous = index
        levels = _beside({"compression": _coded_level(index)})
        if factor > 1:
            levels |= {"blur": UNKNOWN, "upscaled": UNKNOWN if factor < 2 else 2}
            if max(levels["compression"], 0) >= 3:
                levels["upscaled"] = UNKNOWN
        kind = f"compression:{name}" + ("-small" if factor > 1 else "") + (":key" if key else "")
        samples.append(_global(damaged, kind, levels, whole.index(damaged), rung))
    return samples


def _clip_ladder(source: Source, rng: np.random.Generator) -> list[Sample]:
    """Real footage was compressed before: its first rung is not called clean."""
    samples = _codec_ladder(_footage(source.path, rng), rng)
    for sample in samples:
        for name in DEGRADATIONS:
            if sample.levels.get(name, 0) <= 0 and name not in {"noise", "corrupted"}:
                sample.levels[name] = UNKNOWN
    samples[0].regions, samples[0].kind = None, "footage"
    return samples


def _footage(path: str, rng: np.random.Generator) -> list[Picture]:
    import av

    with av.open(path) as container:
        stream = container.streams.video[0]
        seconds = float(container.duration or 0) / av.time_base
        container.seek(int(rng.uniform(0, max(0.0, seconds - 2)) * av.time_base))
        frames = []
        for frame in container.decode(stream):
            frames.append(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8))
            if len(frames) == FRAMES:
                break
    height, width = (min(n, 640) // 2 * 2 for n in frames[0].shape[:2])
    top, left = (
        int(rng.integers(n - m + 1)) for n, m in zip(frames[0].shape, (height, width), strict=False)
    )
    return [np.ascontiguousarray(it[top : top + height, left : left + width]) for it in frames]


def _sized(picture: Picture, factor: float) -> Picture:
    if factor == 1:
        return picture
    size = tuple(round(n / factor) // 2 * 2 for n in (picture.shape[1], picture.shape[0]))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _resized(picture: Picture, like: Picture) -> Picture:
    if picture.shape == like.shape:
        return picture
    size = (like.shape[1], like.shape[0])
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))


def _debris_ladder(base: Picture, rng: np.random.Generator) -> list[Sample]:
    offset, seed = rng.uniform(-0.3, 0.3), int(rng.integers(1 << 31))
    shares = [amount(rung + offset, (0, 0.02, 0.055, 0.13, 0.28, 0.55)) for rung in range(1, GROUP)]
    pictures = [debris(base, share, np.random.default_rng(seed)) for share in shares]
    return _by_area(base, pictures, "corrupted:debris", 0)


def _lost_ladder(clip: Sequence[Picture], rng: np.random.Generator) -> list[Sample]:
    intact, pictures = lossy_rungs(clip, (0.09, 0.17, 0.34, 0.6, 1.0), rng)
    base = clip[-1]
    if intact.shape != base.shape:
        base = np.ascontiguousarray(base[: intact.shape[0], : intact.shape[1]])
    compression = 0 if Original(base).index(intact) > VISIBLE - 4 else UNKNOWN
    return _by_area(intact, pictures, "corrupted:lost", compression)


def _by_area(
    intact: Picture, pictures: Sequence[Picture], kind: str, compression: int
) -> list[Sample]:
    original = Original(intact)
    samples = [_clean(intact, "clean", rung=0)]
    samples[0].levels = {"compression": compression}
    before = 0.004
    for rung, picture in enumerate(pictures, 1):
        where = damage(picture, intact)
        share = float(where.mean())
        if share < before * 1.15:
            continue
        before = share
        level = level_of_area(share) or UNKNOWN
        levels = {"corrupted": level, "compression": compression}
        if level >= 2:
            levels |= {"blur": UNKNOWN, "banding": UNKNOWN}
        regions = _cells(where, least=0.06, none=0.004)
        samples.append(Sample(picture, kind, levels, regions, original.index(picture), rung))
    return samples


def _cells(where: NDArray[Any], *, least: float, none: float) -> NDArray[np.int8]:
    """1 where at least `least` of a cell is damaged, 0 where at most `none`, between unknown."""
    shares = np.array(
        [
            part.mean()
            for row in np.array_split(np.asarray(where, np.float32), 3, axis=0)
            for part in np.array_split(row, 3, axis=1)
        ]
    )
    return np.where(shares >= least, 1, np.where(shares <= none, 0, UNKNOWN)).astype(np.int8)


def _clean(picture: Picture, kind: str, index: float = 100.0, rung: int = -1) -> Sample:
    return Sample(picture, kind, {}, np.zeros(9, np.int8), index, rung)


def _global(
    picture: Picture, kind: str, levels: dict[str, int], index: float, rung: int = -1
) -> Sample:
    regions = np.ones(9, np.int8) if max(levels.values()) > 0 else np.full(9, UNKNOWN, np.int8)
    return Sample(picture, kind, levels, regions, index, rung)


def _single(base: Picture, rng: np.random.Generator) -> Sample:
    choice = rng.random()
    if choice < 0.42:
        return _clean_sort(base, rng)
    if choice < 0.62:
        return _local(base, rng)
    if choice < 0.72:
        return _mild(base, rng)
    return _combined(base, rng)


def _mild(base: Picture, rng: np.random.Generator) -> Sample:
    """Less than level 1 in the table: level 1 where it is seen, else clean."""
    kind = str(rng.choice(("blur", "noise", "compression", "upscaled", "banding")))
    variant, strength = drawn_variant(kind, rng), rng.uniform(0.25, 0.6)
    damaged = variant(base, strength, rng)
    index = Original(base).index(damaged)
    if index >= VISIBLE:
        return _clean(damaged, f"clean:mild-{kind}", index)
    level = 1 if index < VISIBLE - 8 else UNKNOWN
    if kind == "compression" and jpeg_quality(strength) > 55:
        level = UNKNOWN
    return _global(damaged, f"{kind}:{variant.name}-mild", {kind: level}, index)


def _clean_sort(base: Picture, rng: np.random.Generator) -> Sample:
    """Nothing wrong with it, in many ways."""
    sort = int(rng.integers(8))
    if sort == 0:
        quality = int(rng.integers(90, 97))
        return _clean(through_jpeg(base, quality), "clean:jpeg")
    if sort == 1:
        rate = float(rng.integers(12, 19))
        frames = [base, np.roll(base, 2, axis=1)]
        return _clean(_resized(through_codec(frames, "h264", rate)[0], base), "clean:h264")
    if sort == 2:
        return _clean(_low_key(base, rng), "clean:low-key")
    if sort == 3:
        return _clean(_shallow_focus(base, rng), "clean:shallow-focus")
    if sort == 4:
        return _clean(pixels.grained(base, rng.uniform(1.5, 4.5), rng), "clean:grain")
    if sort == 5:
        lifted = 255 * (np.arange(256.0) / 255) ** rng.uniform(0.78, 0.9)
        return _clean(rounded(lifted)[base], "clean:high-key")
    if sort == 6 and min(base.shape[:2]) >= 500:
        return _clean(_halved(base), "clean:reduced")
    return _clean(base[:, ::-1].copy(), "clean:lossless")


def _low_key(base: Picture, rng: np.random.Generator) -> Picture:
    """A lit subject in the dark: the light parts of the subject stay as they are."""
    light = _blob(base, rng, 0.45, 0.8, soft=0.35)
    shade = light + (1 - light) * np.float32(rng.uniform(0.12, 0.35))
    return rounded(base.astype(np.float32) * shade[..., None])


def _shallow_focus(base: Picture, rng: np.random.Generator) -> Picture:
    """Sharp subject before a soft background."""
    sharp = _blob(base, rng, 0.5, 0.8, soft=0.25)
    return pixels.mixed(pixels.boxes(base, rng.uniform(2, 6), rng), base, sharp)


def _blob(
    picture: Picture, rng: np.random.Generator, least: float, most: float, *, soft: float
) -> NDArray[np.float32]:
    """(h, w) 1 inside an ellipse of that share of the sides, falling to 0 outside it."""
    height, width = picture.shape[:2]
    tall, wide = rng.uniform(least, most, 2) / 2
    y, x = (rng.uniform(0.35, 0.65, 2)).tolist()
    rows, columns = np.arange(height)[:, None] / height, np.arange(width)[None] / width
    distance = np.hypot((rows - y) / tall, (columns - x) / wide)
    return np.asarray(np.clip((1 + soft - distance) / soft, 0, 1), np.float32)


def _local(base: Picture, rng: np.random.Generator) -> Sample:
    """Damage in one rectangle with soft edges."""
    kind = str(rng.choice(("blur", "noise", "underexposed", "overexposed", "compression")))
    variant, strength = drawn_variant(kind, rng), rng.uniform(1.6, 5.3)
    damaged = variant(base, strength, rng)
    level = _level(kind, strength, Original(base).index(damaged), damaged, base)
    height, width = base.shape[:2]
    tall, wide = (float(n) for n in rng.uniform(0.3, 0.72, 2))
    top, left = rng.uniform(0, 1 - tall), rng.uniform(0, 1 - wide)
    mask = np.zeros((height, width), np.float32)
    mask[
        round(top * height) : round((top + tall) * height),
        round(left * width) : round((left + wide) * width),
    ] = 1
    soft = ndimage.uniform_filter(mask, int(rng.integers(9, 41)))
    picture = pixels.mixed(base, damaged, soft)
    regions = _cells(mask, least=0.3, none=0.01) if level > 0 else None
    return Sample(picture, f"{kind}:{variant.name}-local", {kind: level}, regions)


def _combined(base: Picture, rng: np.random.Generator) -> Sample:
    """Two or three kinds at once, in the physical order. What cannot be told from the picture
    without it loses its label.
    """
    weights = np.array([0.5, 0.35, 1, 1, 0.6, 0.5, 1.2, 0.4])
    count = 2 if rng.random() < 0.7 else 3
    picked = set(rng.choice(ORDER, count, replace=False, p=weights / weights.sum()).tolist())
    if set(EXPOSURE) <= picked:
        picked.remove("overexposed")
    kinds = [kind for kind in ORDER if kind in picked]
    steps = {
        kind: (drawn_variant(kind, rng), float(rng.uniform(0.8, 5.2)), int(rng.integers(1 << 31)))
        for kind in kinds
    }

    def done(without: str = "") -> Picture:
        picture = base
        for kind, (variant, strength, seed) in steps.items():
            if kind != without:
                picture = variant(picture, strength, np.random.default_rng(seed))
        return picture

    whole, levels = done(), {}
    for kind, (_, strength, _) in steps.items():
        rest = done(without=kind)
        level = _level(kind, strength, Original(rest).index(whole), whole, rest)
        if kind == "corrupted":
            level = level_of_area(float(damage(whole, rest).mean())) or UNKNOWN
        levels[kind] = level
    index = float("nan") if picked & set(EXPOSURE) else Original(base).index(whole)
    return _global(whole, "+".join(kinds), _beside(levels), index)


class SeedTaken(ValueError):
    """Parts of one seed must be of one mix: they are numbered by seed alone."""

    def __init__(self, seed: int, out: Path) -> None:
        super().__init__(
            f"{out} has samples of other kinds under seed {seed}: give these kinds a --seed of"
            " their own, or another --out"
        )


def synthesise(
    sources: Sources,
    out: Path,
    *,
    samples: int,
    seed: int,
    processes: int,
    only: Sequence[str] = (),
) -> None:
    """Write the parts that are not there yet. Raises WorkerDied when a process ended under it,
    SeedTaken when the folder's parts of this seed are of other kinds.
    """
    out.mkdir(parents=True, exist_ok=True)
    _describe(out, seed, only)
    groups = -(-samples // GROUP)
    starts = [
        start
        for start in range(0, groups, PART)
        if not (out / f"part-{seed}-{start:06}.npz").is_file()
    ]
    if not starts:
        return
    os.environ.setdefault("SVT_LOG", "1")
    numbers = [n for start in starts for n in range(start, min(groups, start + PART))]
    results = spread(
        partial(group, sources=sources, seed=seed, only=tuple(only)), numbers, processes
    )
    for start in starts:
        rows = [next(results) for _ in range(start, min(groups, start + PART))]
        _write(out / f"part-{seed}-{start:06}.npz", rows)
        print(f"  {min(groups, start + PART) * GROUP} of {samples}", flush=True)


def _describe(out: Path, seed: int, only: Sequence[str]) -> None:
    """Write `names.json`; its "seeds" tell what each was used for."""
    file = out / "names.json"
    seeds = json.loads(file.read_text()).get("seeds", {}) if file.is_file() else {}
    kinds = sorted(only) or "all"
    before = seeds.setdefault(str(seed), kinds)
    if before != kinds:
        raise SeedTaken(seed, out)
    names = {
        "degradations": DEGRADATIONS,
        "variants": {k: [v.name for v in vs] for k, vs in VARIANTS.items()},
        "seeds": seeds,
    }
    file.write_text(json.dumps(names, indent=1) + "\n")


def _write(file: Path, rows: Sequence[dict[str, NDArray[Any]]]) -> None:
    unfinished = file.with_suffix(".unfinished.npz")
    stacked = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    np.savez(unfinished, allow_pickle=False, **stacked)
    unfinished.replace(file)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.synthesise", description=__doc__)
    parser.add_argument("--clean", type=Path, required=True, help="clean photographs")
    parser.add_argument("--biq", type=Path, help="BIQ2021 as published, for more clean pictures")
    parser.add_argument("--clips", type=Path, help="real footage: " + ", ".join(REAL_CLIPS))
    parser.add_argument("--out", type=Path, required=True, help="folder to keep the parts in")
    parser.add_argument("--samples", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(LADDERS), default=(), metavar="KIND")
    given = parser.parse_args(arguments)
    sources = find_sources(given.clean, given.biq, given.clips)
    try:
        synthesise(
            sources,
            given.out,
            samples=given.samples,
            seed=given.seed,
            processes=given.processes,
            only=given.only,
        )
    except SeedTaken as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
