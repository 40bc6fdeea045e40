"""Known damage for synthetic pictures: name -> function(planes, level, rng) -> fresh planes.

Pictures are 4:2:0 in BT.709, limited range; level is 1 (slight) to 5 (catastrophic). Sizes that
mean something to the eye are given for a picture of 360 lines and grow with it.
"""

# ruff: noqa: ARG001 - all have one signature, so that they fit one table

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Plane

Planes = tuple[Plane, Plane, Plane]
Floats = NDArray[np.floating[Any]]
Impairment = Callable[[Planes, int, np.random.Generator], Planes]

BLUR_SIGMA = (1.0, 1.8, 2.8, 4.2, 6.5)
NOISE_SIGMA = (4.0, 8.0, 14.0, 22.0, 34.0)
JPEG_QUALITY = (30, 18, 11, 7, 4)
LUMA_STEP = (2, 3, 5, 8, 12)
BUSY_LEVELS = 1.5
DARKER = (0.62, 0.46, 0.33, 0.22, 0.13)
BRIGHTER = (1.3, 1.55, 1.9, 2.4, 3.2)
UPSCALED_FROM = (1.5, 2.0, 2.8, 4.0, 6.0)
DAMAGED_SHARE = (0.02, 0.06, 0.14, 0.28, 0.5)

BARS = ((180, 128, 128), (168, 44, 136), (145, 147, 44), (134, 63, 52), (63, 193, 204),
        (51, 109, 212), (28, 212, 120))  # fmt: skip
"""75 % colour bars in Y, Cb, Cr (BT.709, limited range; SMPTE RP 219)."""

# ITU-T T.81, table K.1: what each frequency of an 8x8 block may lose at quality 50.
LUMA_QUANTISER = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], np.float32)  # fmt: skip


def blur(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    """Out of focus: a Gaussian."""
    sigma = BLUR_SIGMA[level - 1] * _scale(planes)
    y, u, v = (_gaussian(p, s) for p, s in zip(planes, (sigma, sigma / 2, sigma / 2), strict=True))
    return _bytes(y), _bytes(u), _bytes(v)


def noise(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    """A dark room's sensor: Gaussian, new in every picture, half as strong in colour."""
    sigma = NOISE_SIGMA[level - 1]
    y, u, v = (
        _bytes(p + np.float32(s) * rng.standard_normal(p.shape, dtype=np.float32))
        for p, s in zip(planes, (sigma, sigma / 2, sigma / 2), strict=True)
    )
    return y, u, v


def compression(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    """Starved of bits: 8x8 cosine blocks, quantised as JPEG does at a low quality."""
    step = np.maximum(LUMA_QUANTISER * (50.0 / JPEG_QUALITY[level - 1]), 1).astype(np.float32)
    y, u, v = (_quantised(plane, step) for plane in planes)
    return y, u, v


def banding(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    """Too few shades: slow gradients become steps, while busy parts keep their detail."""
    step = LUMA_STEP[level - 1]
    y = planes[0].astype(np.float32)
    smooth = _gaussian(y, 1.5 * _scale(planes))
    busy = _gaussian(np.abs(y - smooth), 3.0 * _scale(planes)) > BUSY_LEVELS
    banded = np.where(busy, y, np.rint(smooth / step) * step)
    return _bytes(banded), planes[1].copy(), planes[2].copy()


def underexposed(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    return _exposed(planes, DARKER[level - 1])


def overexposed(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    return _exposed(planes, BRIGHTER[level - 1])


def upscaled(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    """Made from a smaller picture: reduced without aliasing, enlarged bilinearly."""
    factor = UPSCALED_FROM[level - 1]
    y, u, v = (_through_smaller(plane, factor) for plane in planes)
    return y, u, v


def corrupted(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    """Lost slices: runs of macroblocks show what lay elsewhere, or nothing."""
    y, u, v = (plane.copy() for plane in planes)
    rows, columns = y.shape[0] // 16, y.shape[1] // 16
    to_damage = DAMAGED_SHARE[level - 1] * rows * columns
    while to_damage > 0:
        run = int(rng.integers(3, max(4, columns)))
        row, first = int(rng.integers(rows)), int(rng.integers(columns))
        moved = int(rng.integers(1, max(2, columns))) if rng.random() < 0.7 else None
        for plane, size, grey in ((y, 16, 90), (u, 8, 122), (v, 8, 118)):
            part = plane[row * size : (row + 1) * size, first * size : (first + run) * size]
            part[:] = grey if moved is None else np.roll(part, moved * size, axis=1)[::-1]
        to_damage -= min(run, columns - first)
    return y, u, v


def black(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    return np.full_like(planes[0], 16), np.full_like(planes[1], 128), np.full_like(planes[2], 128)


def slate(planes: Planes, level: int, rng: np.random.Generator) -> Planes:
    """Colour bars, as a playout shows while nothing is on."""
    made = []
    for plane, component in zip(planes, range(3), strict=True):
        columns = np.arange(plane.shape[1]) * len(BARS) // plane.shape[1]
        row = np.array([bar[component] for bar in BARS], np.uint8)[columns]
        made.append(np.repeat(row[None, :], plane.shape[0], axis=0))
    return made[0], made[1], made[2]


IMPAIRMENTS: dict[str, Impairment] = {
    "blur": blur,
    "noise": noise,
    "compression": compression,
    "banding": banding,
    "underexposed": underexposed,
    "overexposed": overexposed,
    "upscaled": upscaled,
    "corrupted": corrupted,
    "black": black,
    "slate": slate,
}


def _scale(planes: Planes) -> float:
    return max(0.5, float(planes[0].shape[0]) / 360)


def _exposed(planes: Planes, gain: float) -> Planes:
    y = 16 + gain * (planes[0].astype(np.float32) - 16)
    u, v = (128 + min(gain, 1.6) * (p.astype(np.float32) - 128) for p in planes[1:])
    return _bytes(np.minimum(y, 235)), _bytes(u), _bytes(v)


def _gaussian(plane: Plane | Floats, sigma: float) -> Floats:
    """Three extended box filters a direction: the cost does not depend on sigma.

    Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering".
    """
    result = plane.astype(np.float32)
    for axis in (1, 0):
        for _ in range(3):
            result = _box(result, sigma * sigma / 3, axis)
    return result


def _box(plane: Floats, variance: float, axis: int) -> Floats:
    """The mean of 2r + 1 neighbours and a fraction of the next two; edges are repeated."""
    radius = int(0.5 * math.sqrt(12 * variance + 1) - 0.5)
    length = 2 * radius + 1
    over = variance - (radius + 1) ** 2
    ends = length * (radius * (radius + 1) - 3 * variance) / (6 * over)
    pad = [(0, 0), (0, 0)]
    pad[axis] = (radius + 2, radius + 1)
    padded = np.moveaxis(np.pad(plane, pad, mode="edge"), axis, 0)
    sums = np.cumsum(padded, axis=0, dtype=np.float64)
    size = plane.shape[axis]
    inner = sums[1 + length : 1 + length + size] - sums[1 : 1 + size]
    outer = padded[1 : 1 + size] + padded[2 + length : 2 + length + size]
    mean = (inner + ends * outer) / (length + 2 * ends)
    return np.moveaxis(mean.astype(np.float32), 0, axis)


def _quantised(plane: Plane, step: Floats) -> Plane:
    height, width = plane.shape
    padded = np.pad(plane, ((0, -height % 8), (0, -width % 8)), mode="edge").astype(np.float32)
    rows, columns = padded.shape
    cosine = _cosine()
    blocks = padded.reshape(rows // 8, 8, columns // 8, 8).transpose(0, 2, 1, 3) - 128
    frequencies = cosine @ blocks @ cosine.T
    kept = np.rint(frequencies / step) * step
    restored = (cosine.T @ kept @ cosine + 128).transpose(0, 2, 1, 3).reshape(rows, columns)
    return _bytes(restored[:height, :width])


def _cosine() -> Floats:
    """The orthonormal 8-point cosine transform."""
    k, n = np.arange(8)[:, None], np.arange(8)[None, :]
    matrix = np.sqrt(np.where(k == 0, 1, 2) / 8) * np.cos(np.pi * (2 * n + 1) * k / 16)
    return matrix.astype(np.float32)


def _through_smaller(plane: Plane, factor: float) -> Plane:
    height, width = plane.shape
    small = (max(2, round(height / factor)), max(2, round(width / factor)))
    reduced = _resampled(_gaussian(plane, 0.45 * factor), *small)
    return _bytes(_resampled(_bytes(reduced).astype(np.float32), height, width))


def _resampled(plane: Floats, rows: int, columns: int) -> Floats:
    for axis, size in ((0, rows), (1, columns)):
        have = plane.shape[axis]
        at = np.clip((np.arange(size, dtype=np.float32) + 0.5) * have / size - 0.5, 0, have - 1)
        first = np.minimum(at.astype(np.intp), have - 2)
        share = (at - first).reshape((-1, 1) if axis == 0 else (1, -1))
        near, far = np.take(plane, first, axis), np.take(plane, first + 1, axis)
        plane = near + share * (far - near)
    return plane


def _bytes(plane: Floats) -> Plane:
    return np.rint(np.clip(plane, 0, 255)).astype(np.uint8)
