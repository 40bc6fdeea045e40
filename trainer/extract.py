"""Pictures -> measures, exactly as the running product measures them, cached on disk.

Training sees each picture through several draws of patch offsets; validation and test see it
through the fixed offsets of serving, which are draw 0 everywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from trainer.datasets import dhash
from trainer.degrade import DEGRADATIONS, STRENGTHS, Picture, through_jpeg
from trainer.spreading import spread
from vqmon.domain import Colour, Frame, Stream
from vqmon.measures import MEASURES
from vqmon.preprocess import prepare
from vqmon.sources import open_source

Values = NDArray[np.float32]
Work = Callable[[Path], dict[str, Any]]

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
JPEG_COLOUR = Colour(full_range=True, matrix="bt601")
VIDEO_COLOUR = Colour(full_range=False, matrix="bt709")

LADDER_FRAMES = 3
"""Frames of the short pan that a ladder is made from; the last one is measured."""

LADDER_DRAWS = 1

PARTS = {"opinions": 600, "ladders": 48}
"""Pictures in one file of the cache: about a minute's work."""

CLIP_KINDS = ("compression",)
"""Damage that depends on the frames before."""


@dataclass(frozen=True, slots=True)
class Opinions:
    """values: (pictures, draws, measures); hashes: (pictures, 256) of their content."""

    values: Values
    hashes: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Ladders:
    """values: (ladders, strengths, draws, measures); kinds and sources: (ladders,)."""

    values: Values
    kinds: NDArray[np.str_]
    sources: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True, slots=True)
class Extraction:
    """How pictures are measured, and where the results are kept.

    draws: of patch offsets per picture, the fixed ones of serving (draw 0) included.
    """

    cache: Path
    draws: int = 3
    processes: int = 2

    def opinions(self, paths: Sequence[Path]) -> Opinions:
        """Measure pictures as they are."""
        found = self._cached("opinions", paths, partial(_measure_file, draws=self.draws))
        return Opinions(found["values"], found["hashes"])

    def ladders(self, paths: Sequence[Path]) -> Ladders:
        """Each clean photograph once through every degradation, at all strengths."""
        work = partial(_measure_ladders, draws=LADDER_DRAWS)
        found = self._cached("ladders", paths, work)
        values = found["values"]
        return Ladders(
            values=values.reshape(-1, *values.shape[2:]),
            kinds=np.tile(np.array(list(DEGRADATIONS)), len(paths)),
            sources=np.repeat(np.array([str(path) for path in paths]), len(DEGRADATIONS)),
        )

    def _cached(self, what: str, paths: Sequence[Path], work: Work) -> dict[str, NDArray[Any]]:
        """Results of `work` for all paths, stacked; from disk when nothing relevant changed.

        Kept in parts, so that a run that was interrupted goes on where it stopped.
        """
        folder = self.cache / f"{what}-{_key(what, paths, self.draws)}"
        folder.mkdir(parents=True, exist_ok=True)
        size, parts = PARTS[what], []
        for start in range(0, len(paths), size):
            part = _part(
                folder / f"{start:06}.npz", paths[start : start + size], work, self.processes
            )
            parts.append(part)
            print(f"  {min(start + size, len(paths))} of {len(paths)}", flush=True)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _part(file: Path, paths: Sequence[Path], work: Work, processes: int) -> dict[str, NDArray[Any]]:
    if file.is_file():
        with np.load(file) as stored:
            return dict(stored)
    results = list(spread(work, paths, processes, chunk=2))
    stacked = {name: np.stack([r[name] for r in results]) for name in results[0]}
    unfinished = file.with_suffix(".unfinished.npz")
    np.savez(unfinished, allow_pickle=False, **stacked)
    unfinished.replace(file)
    return stacked


def read_picture(path: Path) -> Frame:
    """The first picture of a file, decoded as `vqmon score` decodes it."""
    with open_source(Stream(path.name, str(path))).open() as media:
        for item in media:
            if isinstance(item, Frame):
                return item
    raise ValueError(f"{path} holds no picture")


def frame_of(picture: Picture, colour: Colour) -> Frame:
    """R'G'B' -> planes 4:2:0 in the stated range and matrix, chroma averaged 2x2."""
    height, width = (n // 2 * 2 for n in picture.shape[:2])
    red, green, blue = np.moveaxis(picture[:height, :width].astype(np.float32), 2, 0)
    kr, kb = KR_KB[colour.matrix]
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb = (blue - luma) / (2 * (1 - kb))
    cr = (red - luma) / (2 * (1 - kr))
    scale, offset, chroma = (1, 0, 1) if colour.full_range else (219 / 255, 16, 224 / 255)
    planes = (
        _eight_bits(luma * scale + offset),
        _eight_bits(_halved(cb) * chroma + 128),
        _eight_bits(_halved(cr) * chroma + 128),
    )
    return Frame(planes, position=0.0, captured_at=datetime.now(UTC), colour=colour)


def _eight_bits(plane: NDArray[np.floating]) -> NDArray[np.uint8]:
    return np.asarray(np.clip(np.rint(plane), 0, 255), np.uint8)


def _halved(plane: NDArray[np.floating]) -> NDArray[np.floating]:
    quads = plane[::2, ::2] + plane[1::2, ::2] + plane[::2, 1::2] + plane[1::2, 1::2]
    return np.asarray(quads / 4)


def _measure_file(path: Path, draws: int) -> dict[str, Any]:
    frame = read_picture(path)
    return {
        "values": _drawn(frame, draws, _rng(path)),
        "hashes": dhash(frame.planes[0].astype(np.float64)),
    }


def _measure_ladders(path: Path, draws: int) -> dict[str, Any]:
    """(degradations, strengths, draws, measures). What is no damage varies between ladders:
    codec grid before the damage, range and matrix, and the crop of large photographs.
    """
    rng = _rng(path)
    picture = np.asarray(Image.open(path).convert("RGB"))
    return {"values": np.stack([_ladder(picture, kind, draws, rng) for kind in DEGRADATIONS])}


def _ladder(picture: Picture, kind: str, draws: int, rng: np.random.Generator) -> Values:
    clip = _pan(_cropped(picture, rng), rng)
    if rng.random() < 0.5:
        clip = [through_jpeg(p, 75) for p in clip]
    colour = JPEG_COLOUR if rng.random() < 0.5 else VIDEO_COLOUR
    seed = int(rng.integers(1 << 31))
    rungs = []
    shown = clip if kind in CLIP_KINDS else clip[-1:]
    for strength in STRENGTHS:
        damaged = DEGRADATIONS[kind](shown, strength, np.random.default_rng(seed))[-1]
        rungs.append(_drawn(frame_of(damaged, colour), draws, rng))
    return np.stack(rungs)


def _cropped(picture: Picture, rng: np.random.Generator) -> Picture:
    """Large photographs: whole, or a 16:9 piece of up to 1920 pixels."""
    height, width = picture.shape[:2]
    if max(height, width) < 1280 or rng.random() < 0.4:
        return picture
    across = min(1920, width)
    down = min(height, across * 9 // 16)
    top, left = (int(rng.integers(n)) for n in (height - down + 1, width - across + 1))
    return picture[top : top + down, left : left + across]


def _pan(picture: Picture, rng: np.random.Generator) -> list[Picture]:
    """Frames of a slow pan, so that a codec sees motion as in video."""
    dy, dx = (int(n) for n in rng.integers(0, 4, 2))
    steps = LADDER_FRAMES - 1
    height = (picture.shape[0] - steps * dy) // 2 * 2
    width = (picture.shape[1] - steps * dx) // 2 * 2
    return [
        picture[i * dy : i * dy + height, i * dx : i * dx + width] for i in range(LADDER_FRAMES)
    ]


def _drawn(frame: Frame, draws: int, rng: np.random.Generator) -> Values:
    """(draws, measures): at the fixed offsets of serving, then at random ones."""
    rows = [prepare(frame).measures.values.copy()]
    rows += [prepare(frame, rng).measures.values.copy() for _ in range(draws - 1)]
    return np.stack(rows)


def _rng(path: Path) -> np.random.Generator:
    """The same draws for the same file, whatever the order of work."""
    return np.random.default_rng(int.from_bytes(hashlib.sha256(path.name.encode()).digest()[:8]))


def _key(what: str, paths: Sequence[Path], draws: int) -> str:
    """Changes with the files, with what is measured of them, and with how they are damaged."""
    digest = hashlib.sha256(f"{what} {draws} {MEASURES} {fingerprint()}".encode())
    digest.update(Path(__file__).read_bytes())
    if what == "ladders":
        digest.update(Path(__file__).with_name("degrade.py").read_bytes())
    for path in paths:
        digest.update(f"{path.name} {path.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def probe_measures() -> Values:
    """(2, measures) of two made-up pictures, the large one between black bars: shows whether a
    model fits the running code.
    """
    rng = np.random.default_rng(7)
    small = made_up(rng, 384, 512)
    large = made_up(rng, 1080, 1920)
    large[:140] = large[-140:] = 0
    frames = [frame_of(small, JPEG_COLOUR), frame_of(large, VIDEO_COLOUR)]
    return np.stack([prepare(frame).measures.values.copy() for frame in frames])


def fingerprint() -> str:
    """The same for any code that measures the same."""
    return " ".join(f"{value:.4g}" for value in probe_measures().ravel())


def made_up(rng: np.random.Generator, height: int, width: int) -> Picture:
    """Cloudy texture with an amplitude of 1 / f, coloured, coarsely quantised on the left."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1
    layers = []
    for _ in range(3):
        spectrum = np.fft.rfft2(rng.standard_normal((height, width))) / frequency
        layer = np.fft.irfft2(spectrum, (height, width))
        layers.append(layer / layer.std())
    grey = layers[0][..., None]
    picture = 120 + 45 * grey + 12 * np.stack(layers, -1)
    picture[:, : width // 3] = picture[:, : width // 3] // 16 * 16
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)
