"""Natural-scene statistics: how a picture's local contrast is distributed.

Undistorted photographs, divided by their local contrast (MSCN coefficients), are nearly
Gaussian; every distortion bends that shape in its own way. Coefficients, models and estimators
after Mittal, Moorthy and Bovik, "No-Reference Image Quality Assessment in the Spatial Domain"
(BRISQUE, 2012) and Lasmar et al. (2009) for the asymmetric model.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import lgamma, sqrt

import numpy as np
from numpy.typing import NDArray

from vqmon.measures.rows import dots, sums
from vqmon.patches import Floats, scratch

WINDOW = 7
_SIGMA = 7 / 6
_CONSTANT = 1.0
"""Added to the local deviation, in luma levels, so that flat areas stay finite."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Coefficients:
    """MSCN coefficients and local deviation of (N, h, w) patches: (N, h, w) each, 0 in the last
    six rows and columns, where the window does not fit. A neighbour is then a fixed distance
    away in memory and those that are missing add nothing to a sum, so that every operation
    here is one long loop.
    """

    mscn: Floats
    deviation: Floats

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns that hold coefficients."""
        return self.mscn.shape[1] - WINDOW + 1, self.mscn.shape[2] - WINDOW + 1

    def contrast(self) -> Doubles:
        """(N,) mean deviation."""
        rows, columns = self.size
        total = sums(self.deviation.reshape(len(self.deviation), -1))
        return total.astype(np.float64) / (rows * columns)

    def deviations(self) -> Floats:
        """(N, h - 6, w - 6) those that are one."""
        rows, columns = self.size
        return self.deviation[:, :rows, :columns]


def coefficients(patches: Floats) -> Coefficients:
    """Luma minus its local mean, over its local deviation; in scratch memory, until the next."""
    pair = scratch("pair", (2, *patches.shape))
    means = np.rint(sums(patches.reshape(len(patches), -1)) / np.float32(patches[0].size))
    np.subtract(patches, means[:, None, None], out=pair[0])  # whole: flat areas square exactly
    np.multiply(pair[0], pair[0], out=pair[1])
    mean, deviation = _smoothed(pair)
    work = scratch("work", mean.shape)
    np.multiply(mean, mean, out=work)
    deviation -= work
    np.maximum(deviation, 0, out=deviation)
    np.sqrt(deviation, out=deviation)
    _subtract_from_middle(pair[0], mean)
    np.add(deviation, np.float32(_CONSTANT), out=work)
    mean /= work
    for found in (mean, deviation):
        found[:, 1 - WINDOW :] = 0
        found[:, :, 1 - WINDOW :] = 0
    return Coefficients(mean, deviation)


def _smoothed(pair: Floats) -> Floats:
    """Under the window, at its first row and column; the ends of rows run into the next."""
    wide = scratch("wide pair", pair.shape)
    smooth = scratch("mean and deviation", pair.shape)
    _filtered(pair.reshape(-1), wide.reshape(-1), 1)
    _filtered(wide.reshape(-1), smooth.reshape(-1), pair.shape[-1])
    return smooth


def _filtered(values: Floats, out: Floats, stride: int) -> None:
    """The window along elements `stride` apart; it is symmetric, so equal weights share a product.

    From the middle outwards: the other way round takes one step less, but what it rounds would
    give flat bright areas a contrast.
    """
    length = len(values) - (WINDOW - 1) * stride
    shifted = [values[k * stride : k * stride + length] for k in range(WINDOW)]
    inside, term = out[:length], scratch("work", (length,))
    weights = _window()
    np.multiply(shifted[WINDOW // 2], weights[WINDOW // 2], out=inside)
    for k in range(WINDOW // 2):
        np.add(shifted[k], shifted[-1 - k], out=term)
        term *= weights[k]
        inside += term
    out[length:] = 0


def _subtract_from_middle(values: Floats, mean: Floats) -> None:
    """The values in the middle of each window minus its mean take the place of the mean."""
    ahead = WINDOW // 2 * (values.shape[-1] + 1)
    flat = mean.reshape(-1)[:-ahead]
    np.subtract(values.reshape(-1)[ahead:], flat, out=flat)


@cache
def _window() -> Floats:
    weights = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * _SIGMA**2))
    return np.asarray(weights / weights.sum(), np.float32)


NEIGHBOURS = {"side": ((0, 1), (1, 0)), "diagonal": ((1, 1), (1, -1))}
"""Steps down and across to the neighbours of a product. The two of a kind are averaged: turning
a picture by a right angle then changes nothing.
"""


class Correlations:
    """Moments of coefficients, and of their products with neighbours: (3, N) mean magnitude,
    mean square, and mean square with the sign of what was squared.

    No product is ever formed: its magnitude, square and signed square are products of those of
    the two coefficients, so each moment is a dot product of an array with itself, shifted.
    """

    def __init__(self, found: Coefficients) -> None:
        self._size, self._width = found.size, found.mscn.shape[2]
        mscn = found.mscn.reshape(len(found.mscn), -1)
        self._parts = scratch("magnitude and squares", (3, *mscn.shape))
        magnitude, square, signed = self._parts
        np.abs(mscn, out=magnitude)
        np.multiply(mscn, mscn, out=square)
        np.multiply(mscn, magnitude, out=signed)

    def own(self) -> Doubles:
        rows, columns = self._size
        return np.asarray(sums(self._parts), np.float64) / (rows * columns)

    def products(self, step: tuple[int, int]) -> Doubles:
        """With the neighbours `step` rows, columns away."""
        (rows, columns), (down, across) = self._size, step
        shift = down * self._width + across
        found = dots(self._parts[..., :-shift], self._parts[..., shift:])
        return np.asarray(found, np.float64) / ((rows - down) * (columns - abs(across)))


def shape_of_gaussian(moments: Doubles) -> Doubles:
    """(N,) shape of the generalised Gaussian with these moments: 2 is Gaussian, 1 Laplacian."""
    magnitude, square, _ = moments
    return np.asarray(np.interp(magnitude**2 / np.maximum(square, 1e-12), _ratios(), _SHAPES))


def asymmetric(moments: Doubles) -> tuple[float, float, float, float]:
    """Shape, mean, left and right deviation of the asymmetric generalised Gaussian with these
    three moments.
    """
    magnitude, square, signed = moments.tolist()
    left = sqrt(max(square - signed, 0) + 1e-12)
    right = sqrt(max(square + signed, 0) + 1e-12)
    skew = left / right
    ratio = magnitude**2 / max(square, 1e-12)
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = float(np.interp(ratio, _ratios(), _SHAPES))
    mean = (right - left) * float(np.interp(shape, _SHAPES, _mean_factor()))
    return shape, mean, left, right


_SHAPES = np.geomspace(0.2, 10, 400)


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
