"""How much a picture has lost against its clean original: 100 nothing, 0 and below ruined.

A fast stand-in for SSIMULACRA2, whose Python package takes over a second for 512x512: structural
similarity of luma at four scales and of chroma at a quarter, in windows of 8x8 at every fourth pixel.
`WEIGHTS` were fitted by `trainer.calibrate_levels` to SSIMULACRA2 itself on clean training
photographs damaged in every way, through that index's own last step (100 - 10 e ** 0.6276).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

SCALES = 4
"""Of luma: full, half, quarter and eighth resolution; chroma has the quarter."""

EXPONENT = 0.6276
C1, C2 = 6.5025, 58.5225

WEIGHTS = (0.0, 46.01, 0.0, 37.84, 0.0, 0.0, 0.0, 0.0, 0.0, 15.77, 0.0, 3.666)
"""Of `losses`, none negative."""

VISIBLE = 88.0
"""Above this nobody sees a difference."""


class Original:
    """A clean picture, against which several others are measured."""

    def __init__(self, picture: NDArray[np.uint8]) -> None:
        self.shape = picture.shape
        self._layers = [_Layer(plane) for plane in _pyramid(picture)]

    def losses(self, picture: NDArray[np.uint8]) -> NDArray[np.float64]:
        """(12,) mean and fourth-power mean of 1 - SSIM of each layer, 0 for the original."""
        if picture.shape != self.shape:
            raise ValueError(f"sizes differ: {picture.shape} and {self.shape}")
        layers = zip(self._layers, _pyramid(picture), strict=True)
        return np.array([layer.losses(plane) for layer, plane in layers]).ravel().clip(0)

    def index(self, picture: NDArray[np.uint8]) -> float:
        """At most 100; far below 0 for a picture in ruins, as SSIMULACRA2 is."""
        error = float(np.dot(WEIGHTS, self.losses(picture)))
        return 100 - 10 * math.pow(error, EXPONENT)


class _Layer:
    def __init__(self, plane: Floats) -> None:
        self.plane = plane
        self.mean = _windows(plane)
        self.power = _windows(plane * plane) - self.mean**2

    def losses(self, plane: Floats) -> tuple[float, float]:
        mean = _windows(plane)
        power = _windows(plane * plane) - mean**2
        both = _windows(plane * self.plane) - mean * self.mean
        light = (2 * mean * self.mean + C1) / (mean**2 + self.mean**2 + C1)
        loss = 1 - light * (2 * both + C2) / (power + self.power + C2)
        square = loss * loss
        return float(loss.mean()), float(np.mean(square * square) ** 0.25)


def _pyramid(picture: NDArray[np.uint8]) -> list[Floats]:
    height, width = (n // 32 * 32 for n in picture.shape[:2])
    red, green, blue = (picture[:height, :width, i].astype(np.float32) for i in range(3))
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    layers = [luma]
    for _ in range(SCALES - 1):
        layers.append(_halved(layers[-1]))
    return layers + [_halved(_halved(colour - luma)) for colour in (blue, red)]


def _halved(plane: Floats) -> Floats:
    across = plane[:, ::2] + plane[:, 1::2]
    return np.asarray((across[::2] + across[1::2]) * np.float32(0.25))


def _windows(plane: Floats) -> Floats:
    """Means of 8x8 at every fourth pixel."""
    blocks = _halved(_halved(plane))
    across = blocks[:, :-1] + blocks[:, 1:]
    return np.asarray((across[:-1] + across[1:]) * np.float32(0.25))
