"""What every decoded picture tells at almost no cost."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Colour, Frame, Plane
from vqmon.patches import full_range

_COLUMNS, _ROWS = 64, 36
_HASHED_ROWS = 32

BLACK_PEAK = 24.0
BLACK_MEAN = 12.0
"""Full-range luma below which a picture shows nothing: peak and mean."""


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """A picture at a glance.

    luma: uint8 (36, 64), or (64, 36) pictures turned upright, full range: plain samples, not
        averages, so that sensor noise stays visible and only a repeat is without it.
    checksum: of 32 whole rows as stored; equal for exact repeats.
    mean, std: of `luma`. minimum, maximum: without its darkest and brightest half per cent.
    """

    luma: Plane
    checksum: int
    mean: float
    std: float
    minimum: float
    maximum: float

    @property
    def black(self) -> bool:
        return self.maximum < BLACK_PEAK and self.mean < BLACK_MEAN


def glance(frame: Frame) -> Glance:
    """Under 0.1 ms at any resolution; works for every picture, supported or not."""
    plane = frame.planes[0]
    samples = plane[_places(plane.shape[0], _ROWS)][:, _places(plane.shape[1], _COLUMNS)]
    luma = np.rot90(_levels(frame.colour.full_range)[samples], -(frame.rotation // 90))
    ordered = np.sort(luma, axis=None, kind="stable")
    cut = ordered.size // 200
    return Glance(
        luma=luma,
        checksum=_checksum(plane),
        mean=float(ordered.mean()),
        std=float(ordered.std()),
        minimum=float(ordered[cut]),
        maximum=float(ordered[-1 - cut]),
    )


@cache
def _places(length: int, count: int) -> NDArray[np.intp]:
    return np.asarray((np.arange(count) * 2 + 1) * length // (2 * count))


@cache
def _levels(is_full_range: bool) -> Plane:
    """Stored luma -> full range."""
    scale, offset = full_range(Colour(full_range=is_full_range))
    return np.asarray(np.clip(np.rint(np.arange(256) * scale + offset), 0, 255), np.uint8)


def _checksum(plane: Plane) -> int:
    return zlib.adler32(plane[_places(plane.shape[0], _HASHED_ROWS)].tobytes())
