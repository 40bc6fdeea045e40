"""Natural-scene statistics: how a picture's local contrast is distributed.

Undistorted photographs, divided by their local contrast (MSCN coefficients), are nearly
Gaussian; every distortion bends that shape in its own way. Coefficients, models and estimators
after Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the Spatial Domain"
(BRISQUE, 2012) and Lasmar et al. (2009) for the asymmetric model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import lgamma

import numpy as np
from numpy.typing import NDArray

from vqmon.patches import PATCH, Floats, scratch

WINDOW = 7
_SIGMA = 7 / 6
_CONSTANT = 1.0
"""Added to the local deviation, in luma levels, so that flat areas stay finite."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """MSCN coefficients and local deviation of (N, h, w) patches: (N, h - 6, w - 6) each."""

    mscn: Floats
    deviation: Floats


def coefficients(patches: Floats) -> Coefficients:
    """Luma minus its local mean, over its local deviation; in scratch memory, until the next."""
    count, height, width = patches.shape
    pair = scratch("pair", (2, count, height, width))
    np.subtract(patches, patches.mean(axis=(1, 2), keepdims=True), out=pair[0])
    np.multiply(pair[0], pair[0], out=pair[1])
    valid = (height - WINDOW + 1, width - WINDOW + 1)
    smooth = scratch("mean and deviation", (2, count, *valid))
    (_smooth_small if max(height, width) <= PATCH else _smooth_large)(pair, smooth)
    mean, deviation = smooth
    square = scratch("work", mean.shape)
    np.multiply(mean, mean, out=square)
    deviation -= square
    np.maximum(deviation, 0, out=deviation)
    np.sqrt(deviation, out=deviation)
    middle = pair[0, :, 3 : 3 + valid[0], 3 : 3 + valid[1]]
    np.subtract(middle, mean, out=mean)
    np.add(deviation, np.float32(_CONSTANT), out=square)
    mean /= square
    return Coefficients(mean, deviation)


def _smooth_small(pair: Floats, out: Floats) -> None:
    """As two matrix products a patch, each below the size from which BLAS wakes its threads:
    where many streams are watched they would fight for the same cores.
    """
    *outer, height, width = pair.shape
    wide = scratch("wide pair", (*outer, height, out.shape[-1]))
    np.matmul(pair, _band(width).T, out=wide)
    np.matmul(_band(height), wide, out=out)


def _smooth_large(pair: Floats, out: Floats) -> None:
    """By shifted sums, for the view."""
    *outer, height, _ = pair.shape
    wide = scratch("wide pair", (*outer, height, out.shape[-1]))
    _filtered(pair, wide, -1)
    _filtered(wide, out, -2)


def _filtered(values: Floats, out: Floats, axis: int) -> None:
    """The window along one axis, valid part; it is symmetric, so equal weights share a product."""
    length = out.shape[axis]
    term = scratch("work", out.shape)
    shifted = [
        values[..., k : k + length] if axis == -1 else values[..., k : k + length, :]
        for k in range(WINDOW)
    ]
    np.multiply(shifted[WINDOW // 2], _window()[WINDOW // 2], out=out)
    for k in range(WINDOW // 2):
        np.add(shifted[k], shifted[-1 - k], out=term)
        term *= _window()[k]
        out += term


@cache
def _window() -> Floats:
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum(), np.float32)


@cache
def _band(length: int) -> Floats:
    """(length - 6, length): the Gaussian window as a matrix, so that BLAS does the filtering."""
    band = np.zeros((length - WINDOW + 1, length), np.float32)
    for row in range(len(band)):
        band[row, row : row + WINDOW] = _window()
    return band


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Per patch (N,): mean absolute value, mean square, and the mean square of the negative
    and positive parts.
    """

    absolute: Doubles
    square: Doubles
    negative: Doubles
    positive: Doubles

    def pooled(self, weights: Doubles) -> Moments:
        """Of all patches together, (1,); weights add up to 1."""
        return Moments(
            *(
                np.atleast_1d(weights @ part)
                for part in (self.absolute, self.square, self.negative, self.positive)
            )
        )


NEIGHBOURS = {"side": ((0, 1), (1, 0)), "diagonal": ((1, 1), (1, -1))}
"""Steps down and across to the neighbours of a product. The two of a kind are averaged: turning
a picture by a right angle then changes nothing.
"""


def average(first: Moments, second: Moments) -> Moments:
    return Moments(
        (first.absolute + second.absolute) / 2,
        (first.square + second.square) / 2,
        (first.negative + second.negative) / 2,
        (first.positive + second.positive) / 2,
    )


def moments(values: Floats) -> Moments:
    """Of (N, h, w) values, or of any array whose first axis is the patch; contiguous."""
    flat = values.reshape(len(values), -1)
    size = flat.shape[1]
    magnitude = scratch("work two", flat.shape)
    np.abs(flat, out=magnitude)
    absolute = magnitude.sum(axis=1, dtype=np.float32).astype(np.float64) / size
    square = np.einsum("ij,ij->i", flat, flat).astype(np.float64) / size
    signed = np.einsum("ij,ij->i", flat, magnitude).astype(np.float64) / size
    return Moments(absolute, square, (square - signed) / 2, (square + signed) / 2)


def products(mscn: Floats, step: tuple[int, int]) -> Floats:
    """(N, h', w') products of each coefficient with its neighbour `step` rows, columns away."""
    down, across = step
    _, height, width = mscn.shape
    rows, columns = height - down, width - abs(across)
    left, right = max(0, -across), max(0, across)
    out = scratch("work", (len(mscn), rows, columns))
    first = mscn[:, :rows, left : left + columns]
    second = mscn[:, down:, right : right + columns]
    np.multiply(first, second, out=out)
    return out


def shape_of_gaussian(found: Moments) -> Doubles:
    """Shape of the generalised Gaussian with these moments: 2 is Gaussian, 1 Laplacian."""
    ratio = found.absolute**2 / np.maximum(found.square, 1e-12)
    return _shape(ratio)


def asymmetric(found: Moments) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Shape, mean, left and right deviation of the asymmetric generalised Gaussian."""
    left = np.sqrt(2 * np.maximum(found.negative, 0) + 1e-12)
    right = np.sqrt(2 * np.maximum(found.positive, 0) + 1e-12)
    skew = left / right
    ratio = found.absolute**2 / np.maximum(found.square, 1e-12)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _shape(ratio)
    mean = (right - left) * np.interp(shape, _SHAPES, _mean_factor())
    return shape, mean, left, right


_SHAPES = np.geomspace(0.2, 10, 400)


def _shape(ratio: Doubles) -> Doubles:
    return np.interp(ratio, _ratios(), _SHAPES)


def _log_gamma(values: Doubles) -> Doubles:
    return np.array([lgamma(value) for value in values])


@cache
def _ratios() -> Doubles:
    """Squared mean magnitude over mean square for every shape; rises with it."""
    one, two, three = (_log_gamma(k / _SHAPES) for k in (1, 2, 3))
    return np.exp(2 * two - one - three)


@cache
def _mean_factor() -> Doubles:
    """Gamma(2/a) / Gamma(1/a) * sqrt(Gamma(1/a) / Gamma(3/a)) for every shape a."""
    one, two, three = (_log_gamma(k / _SHAPES) for k in (1, 2, 3))
    return np.exp(two - one + (one - three) / 2)
