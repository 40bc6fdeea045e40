"""A landscape that moves like footage and has the statistics of a photograph, without any file.

Natural pictures are occluding objects of all sizes with soft shading and texture whose spectrum
falls as 1/f^2 (the dead-leaves model: Lee, Mumford and Huang, "Occlusion models for natural
images", 2001). So: a cloudy sky over mountains, wooded hills with houses, a meadow in front,
and balloons. Each layer is painted once on a canvas that joins its own left edge, softened as a
lens does, given a little sensor noise, and then only moved, nearer layers faster.

    scene = make_scene(640, 360, seed=1)
    y, u, v = scene.render(12.5)        # 4:2:0, BT.709, limited range
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Plane
from vqmon.sources.painting import Canvas, Floats, Painting, balloon, far, hills, meadow

Planes = tuple[Plane, Plane, Plane]
Scalar = TypeVar("Scalar", bound=np.generic)

ALPHA_ONE = 64
"""Opaque, in the integer alpha of layers: 64 x 255 still fits 16 bits."""

SPEEDS = {"far": 1 / 48, "hills": 1 / 20, "meadow": 1 / 8}
"""Picture widths that each layer moves per second."""

LENS_SIGMA = 0.55
SENSOR_NOISE = 0.004


@lru_cache(maxsize=4)
def make_scene(width: int, height: int, seed: int = 1) -> Scene:
    """Paint everything once: about half a second at 640x360, four at 1920x1080.

    width, height: even, 64..4096. The same seed gives the same scene, bit by bit.
    """
    rng = np.random.default_rng([seed, width, height])
    canvas = Canvas(width, height, rng)
    return Scene(
        width,
        height,
        far=_layer(far(canvas), canvas, SPEEDS["far"]),
        hills=_layer(hills(canvas), canvas, SPEEDS["hills"]),
        meadow=_layer(meadow(canvas), canvas, SPEEDS["meadow"]),
        balloons=tuple(_sprite(canvas, number) for number in range(3)),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """Layers from far to near; `render` is a pure function of time."""

    width: int
    height: int
    far: Layer
    hills: Layer
    meadow: Layer
    balloons: tuple[Sprite, ...]

    def render(self, seconds: float) -> Planes:
        """The picture at a time: fresh Y (h, w), U and V (h/2, w/2)."""
        picture = self.far.crop(seconds)
        for sprite in self.balloons:
            sprite.draw(picture, seconds)
        self.hills.draw(picture, seconds)
        self.meadow.draw(picture, seconds)
        return picture


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A piece of picture in 4:2:0 with its opacity 0..ALPHA_ONE at both resolutions."""

    planes: Planes
    alpha: tuple[NDArray[np.int16], NDArray[np.int16]]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A canvas that joins its own left edge; `phases` are for even and odd shifts, because
    chroma is sampled at every other pixel.

    top: the picture row of its first row. solid: rows from there on hide what is behind.
    speed: pixels per second.
    """

    phases: tuple[Patch, Patch]
    period: int
    width: int
    top: int
    solid: int
    speed: float

    def crop(self, seconds: float) -> Planes:
        """A fresh picture from an opaque layer."""
        y, u, v = (plane.copy() for plane in self._view(seconds).planes)
        return y, u, v

    def draw(self, picture: Planes, seconds: float) -> None:
        """Put the layer over a picture: its ragged upper edge blended, the rest copied."""
        view = self._view(seconds)
        for plane, source, alpha, scale in zip(
            picture, view.planes, _alphas(view), (1, 2, 2), strict=True
        ):
            top, edge = self.top // scale, self.solid // scale
            _blend(plane[top : top + edge], source[:edge], alpha[:edge])
            plane[top + edge :] = source[edge:]

    def _view(self, seconds: float) -> Patch:
        shift = round(seconds * self.speed) % self.period
        phase = self.phases[shift % 2]
        luma = slice(shift - shift % 2, shift - shift % 2 + self.width)
        chroma = slice(shift // 2, shift // 2 + self.width // 2)
        y, u, v = phase.planes
        return Patch(
            (y[:, luma], u[:, chroma], v[:, chroma]),
            (phase.alpha[0][:, luma], phase.alpha[1][:, chroma]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sprite:
    """A thing that crosses the picture at `speed` (pixels per second) and bobs while it does."""

    patch: Patch
    row: float
    start: float
    speed: float
    bob: float

    def draw(self, picture: Planes, seconds: float) -> None:
        width = self.patch.planes[0].shape[1]
        across = picture[0].shape[1] + width
        x = _even((self.start + seconds * self.speed) % across) - width
        y = _even(self.row + self.bob * math.sin(seconds / 3 + self.start))
        for plane, source, alpha, scale in zip(
            picture, self.patch.planes, _alphas(self.patch), (1, 2, 2), strict=True
        ):
            _blend_at(plane, source, alpha, x // scale, y // scale)


def _alphas(patch: Patch) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.int16]]:
    luma, chroma = patch.alpha
    return luma, chroma, chroma


def _blend(below: Plane, above: Plane, alpha: NDArray[np.int16]) -> None:
    difference = above.astype(np.int16) - below
    below[:] = below + ((difference * alpha + ALPHA_ONE // 2) >> 6)


def _blend_at(plane: Plane, source: Plane, alpha: NDArray[np.int16], x: int, y: int) -> None:
    height, width = source.shape
    x0, x1 = max(0, x), min(plane.shape[1], x + width)
    y0, y1 = max(0, y), min(plane.shape[0], y + height)
    if x0 < x1 and y0 < y1:
        part = (slice(y0 - y, y1 - y), slice(x0 - x, x1 - x))
        _blend(plane[y0:y1, x0:x1], source[part], alpha[part])


def _even(value: float) -> int:
    return 2 * round(value / 2)


def _layer(painting: Painting, canvas: Canvas, speed: float) -> Layer:
    """speed: picture widths per second."""
    rgb, alpha, top = painting
    exposed, cover = _exposed(rgb, canvas.rng), _soft(alpha)
    even, odd = (_extended(_patch(exposed, cover, phase), canvas.width) for phase in (0, 1))
    hidden = np.flatnonzero((even.alpha[0] < ALPHA_ONE).any(axis=1))
    solid = _even(hidden[-1] + 2) if hidden.size else 0
    return Layer((even, odd), canvas.period, canvas.width, top, solid, speed * canvas.width)


def _sprite(canvas: Canvas, number: int) -> Sprite:
    rgb, alpha, _ = balloon(canvas, number)
    return Sprite(
        patch=_patch(_exposed(rgb, canvas.rng), _soft(alpha), 0),
        row=canvas.height * (0.10, 0.05, 0.17)[number],
        start=canvas.width * ((0.45, 0.95, 1.15)[number] + canvas.rng.uniform(-0.25, 0.25)),
        speed=canvas.width * (0.035, 0.024, -0.018)[number],
        bob=canvas.height * 0.02,
    )


def _exposed(rgb: Floats, rng: np.random.Generator) -> Floats:
    """Through the lens onto the sensor: softened, and noisier where it is darker."""
    soft = np.stack([_soft(rgb[..., channel]) for channel in range(3)], axis=-1)
    grey = rng.standard_normal(soft.shape[:2], dtype=np.float32)[..., None]
    noise = 0.8 * grey + 0.5 * rng.standard_normal(soft.shape, dtype=np.float32)
    return np.clip(soft + SENSOR_NOISE * noise, 0.0, 1.0)


def _soft(plane: Floats) -> Floats:
    """A small Gaussian (LENS_SIGMA pixels), wrapping sideways."""
    side = math.exp(-0.5 / LENS_SIGMA**2)
    centre, side = 1 / (1 + 2 * side), side / (1 + 2 * side)
    across = centre * plane + side * (np.roll(plane, 1, axis=1) + np.roll(plane, -1, axis=1))
    padded = np.pad(across, ((1, 1), (0, 0)), mode="edge")
    return np.asarray(centre * across + side * (padded[:-2] + padded[2:]), np.float32)


def _patch(rgb: Floats, alpha: Floats, phase: int) -> Patch:
    """R'G'B' 0..1 to BT.709 limited 4:2:0, shifted left by `phase` pixels first."""
    rgb, alpha = np.roll(rgb, -phase, axis=1), np.roll(alpha, -phase, axis=1)
    r, g, b = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    y = 16 + 219 * luma
    u = 128 + 224 * _halved((b - luma) / 1.8556)
    v = 128 + 224 * _halved((r - luma) / 1.5748)
    return Patch(
        (_bytes(y), _bytes(u), _bytes(v)),
        tuple(np.rint(ALPHA_ONE * a).astype(np.int16) for a in (alpha, _halved(alpha))),  # type: ignore[arg-type]
    )


def _extended(patch: Patch, width: int) -> Patch:
    """With the first picture width repeated at the right, so that every crop is a plain view."""
    y, u, v = patch.planes
    luma, chroma = patch.alpha
    half = width // 2
    return Patch(
        (_repeat(y, width), _repeat(u, half), _repeat(v, half)),
        (_repeat(luma, width), _repeat(chroma, half)),
    )


def _repeat(plane: NDArray[Scalar], columns: int) -> NDArray[Scalar]:
    return np.concatenate([plane, plane[:, :columns]], axis=1)


def _halved(plane: Floats) -> Floats:
    rows, columns = plane.shape
    return np.asarray(plane.reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3)))


def _bytes(plane: Floats) -> Plane:
    return np.rint(np.clip(plane, 0, 255)).astype(np.uint8)
