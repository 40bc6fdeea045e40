"""The five-class test: noise, blur, JPEG, darken, clean; made here, apart from all training.

Levels 1 to 5 of every variant are the published parameters below; each held-out photograph,
variant and level comes once, seeded by the photograph's name. Nothing of `trainer.degrade` is used,
so that a fault there cannot hide itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage, signal

from trainer.evaluation.asis import read_plain
from trainer.evaluation.shelf import Shot, seed_of
from trainer.extract import JPEG_COLOUR, frame_of, read_picture
from vqmon.domain import Frame

Picture = NDArray[np.uint8]
Floats = NDArray[np.floating]

LEVELS = (1, 2, 3, 4, 5)


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to damage: its class, and its parameter at levels 1 to 5."""

    kind: str
    damage: Callable[[Picture, float, np.random.Generator], Frame]
    amounts: tuple[float, float, float, float, float]


def shots(source: Path) -> Iterable[Shot]:
    """The clean photograph, then every variant at every level."""
    yield Shot(read_plain(source), _facts(source, "clean", "clean", 0))
    picture = np.asarray(Image.open(source).convert("RGB"))
    for number, (name, variant) in enumerate(VARIANTS.items()):
        for level in LEVELS:
            rng = seed_of(source, number)
            frame = variant.damage(picture, variant.amounts[level - 1], rng)
            yield Shot(frame, _facts(source, variant.kind, name, level))


def _facts(source: Path, kind: str, variant: str, level: int) -> dict[str, str | int]:
    return {"photograph": source.name, "kind": kind, "variant": variant, "rung": level}


def _gaussian_noise(picture: Picture, sigma: float, rng: np.random.Generator) -> Frame:
    """R, G and B each by itself; sigma as a share of full scale."""
    return _frame(picture + 255 * sigma * rng.standard_normal(picture.shape, np.float32))


def _poisson(picture: Picture, peak: float, rng: np.random.Generator) -> Frame:
    return _frame(rng.poisson(picture / 255 * peak) / peak * 255)


def _impulse(picture: Picture, share: float, rng: np.random.Generator) -> Frame:
    """Black or white, all of a pixel."""
    drawn = rng.random(picture.shape[:2])[..., None]
    return _frame(np.where(drawn < share / 2, 0, np.where(drawn < share, 255, picture)))


def _correlated(picture: Picture, sigma: float, rng: np.random.Generator) -> Frame:
    """Gaussian noise, smoothed to a grain of a pixel, of the same sigma as white noise."""
    noise = rng.standard_normal(picture.shape, np.float32)
    grain = ndimage.gaussian_filter(noise, (1.0, 1.0, 0))
    return _frame(picture + 255 * sigma * grain / grain.std())


def _gaussian_blur(picture: Picture, sigma: float, _rng: np.random.Generator) -> Frame:
    return _frame(ndimage.gaussian_filter(picture.astype(np.float32), (sigma, sigma, 0)))


def _disk(picture: Picture, radius: float, _rng: np.random.Generator) -> Frame:
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return _frame(_convolved(picture, (np.hypot(y, x) <= radius).astype(np.float32)))


def _motion(picture: Picture, length: float, rng: np.random.Generator) -> Frame:
    """Straight, in any direction; length in pixels."""
    reach, angle = int(length) // 2 + 1, rng.uniform(0, np.pi)
    kernel = np.zeros((2 * reach + 1, 2 * reach + 1), np.float32)
    for step in np.linspace(-length / 2, length / 2, 8 * int(length)):
        y, x = reach + step * np.sin(angle), reach + step * np.cos(angle)
        top, left = int(y), int(x)
        for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
            kernel[row, column] += (1 - abs(y - row)) * (1 - abs(x - column))
    return _frame(_convolved(picture, kernel))


def _jpeg(picture: Picture, quality: float, _rng: np.random.Generator) -> Frame:
    """A real file, decoded as every file is."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coded.jpg"
        Image.fromarray(picture).save(file, "JPEG", quality=int(quality))
        return read_picture(file)


def _value(picture: Picture, shift: float, _rng: np.random.Generator) -> Frame:
    """V of HSV moved by a share of full scale; hue and saturation stay."""
    value = picture.max(axis=2, keepdims=True).astype(np.float32)
    wanted = np.clip(value + 255 * shift, 0, 255)
    return _frame(picture * (wanted / np.maximum(value, 1)))


def _gamma(picture: Picture, gamma: float, _rng: np.random.Generator) -> Frame:
    return _frame(255 * (picture / 255) ** gamma)


VARIANTS: Mapping[str, Variant] = {
    "gaussian noise": Variant("noise", _gaussian_noise, (0.05, 0.10, 0.15, 0.20, 0.25)),
    "poisson noise": Variant("noise", _poisson, (80, 60, 40, 25, 15)),
    "impulse noise": Variant("noise", _impulse, (0.01, 0.03, 0.05, 0.07, 0.10)),
    "correlated noise": Variant("noise", _correlated, (0.05, 0.10, 0.15, 0.20, 0.25)),
    "gaussian blur": Variant("blur", _gaussian_blur, (1, 2, 3, 4, 5)),
    "disk blur": Variant("blur", _disk, (2, 3, 4, 6, 8)),
    "motion blur": Variant("blur", _motion, (5, 9, 13, 17, 21)),
    "jpeg": Variant("jpeg", _jpeg, (25, 18, 12, 8, 5)),
    "value shift": Variant("darken", _value, (-0.1, -0.2, -0.3, -0.4, -0.5)),
    "gamma": Variant("darken", _gamma, (1.5, 1.8, 2.2, 2.7, 3.5)),
}


def _convolved(picture: Picture, kernel: Floats) -> Floats:
    reach = kernel.shape[0] // 2
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), "reflect")
    planes = np.moveaxis(padded.astype(np.float32), 2, 0)
    weights = (kernel / kernel.sum()).astype(np.float32)
    out = [signal.oaconvolve(plane, weights, mode="valid") for plane in planes]
    return np.stack(out, axis=2)


def _frame(picture: Floats) -> Frame:
    rounded = np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)
    return frame_of(rounded, JPEG_COLOUR)
