"""Sums over rows of memory, which is where most of measuring goes.

Each is one call whatever the number of rows: numpy's own `mean` and `std` spend longer on a
small array than its arithmetic takes.
"""

from __future__ import annotations

from functools import lru_cache
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon.patches import Floats

_LONG = 8192
"""Elements of a dot product from about which BLAS wakes its threads: where many streams are
watched they would fight for the same cores.
"""


def dots(first: Floats, second: Floats) -> Floats:
    """(...) dot products of (..., n) rows."""
    length = first.shape[-1]
    if length <= _LONG:
        return np.asarray(np.vecdot(first, second))
    whole = length // _LONG * _LONG
    pieces = (it[..., :whole].reshape(*it.shape[:-1], -1, _LONG) for it in (first, second))
    found = np.vecdot(*pieces).sum(axis=-1)
    return np.asarray(found + np.vecdot(first[..., whole:], second[..., whole:]))


def sums(values: Floats) -> Floats:
    """(...) of (..., n) rows."""
    return dots(values, _ones(values.shape[-1]))


def counts(flags: NDArray[np.bool_]) -> NDArray[Any]:
    """(N,) how many of (N, ...) are set; a row must be contiguous, its size a multiple of 8."""
    words = flags.reshape(len(flags), -1).view(np.uint64)
    return np.asarray(np.bitwise_count(words).sum(axis=1))


def mean_and_spread(values: Floats) -> tuple[float, float]:
    """Mean and standard deviation of all values."""
    flat = values.reshape(-1)
    mean = float(flat.mean())
    centred = flat - np.float32(mean)
    return mean, sqrt(float(dots(centred, centred)) / flat.size)


@lru_cache(maxsize=16)
def _ones(length: int) -> Floats:
    return np.ones(length, np.float32)
