"""Painters of the synthetic landscape. Colours are R'G'B' 0..1 on canvases (rows, period, 3)
whose left and right edges join.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]

Painting = tuple[Floats, Floats, int]
"""Colours, opacity (rows, period) and the picture row of the first row."""


BALLOON_RADII = (0.085, 0.055, 0.035)
BALLOON_COLOURS = (
    ((0.72, 0.16, 0.13), (0.90, 0.84, 0.70)),
    ((0.14, 0.30, 0.55), (0.88, 0.70, 0.20)),
)


class Canvas:
    """What all painters share: sizes, the random source and one tile of 1/f texture."""

    def __init__(self, width: int, height: int, rng: np.random.Generator) -> None:
        self.width = width
        self.height = height
        self.period = 2 * width
        self.rng = rng
        self.texture = fractal(rng, 512, 512, slope=1.0)


def fractal(
    rng: np.random.Generator, rows: int, columns: int, slope: float, upright: float = 1.0
) -> Floats:
    """Noise whose amplitude falls as 1/f^slope, periodic both ways, mean 0, deviation 1.

    upright: how many times taller than wide its blots are.
    """
    fy = np.fft.fftfreq(rows)[:, None] * upright
    fx = np.fft.rfftfreq(columns)[None, :]
    radius = np.hypot(fy, fx)
    radius[0, 0] = np.inf
    shape = radius.shape
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / radius**slope
    noise = np.fft.irfft2(spectrum, s=(rows, columns))
    noise = (noise - noise.mean()) / noise.std()
    return np.asarray(noise, np.float32)


def far(canvas: Canvas) -> Painting:
    """Sky, clouds and two chains of mountains; opaque."""
    rows, period, rng = canvas.height, canvas.period, canvas.rng
    down = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None]
    zenith, horizon = _rgb(0.30, 0.47, 0.74), _rgb(0.74, 0.81, 0.86)
    sky = zenith + (horizon - zenith) * np.clip(down / 0.55, 0, 1) ** 0.8
    sky = np.broadcast_to(sky, (rows, period, 3)).copy()
    _clouds(sky, rng)
    for base, rise, tint in ((0.42, 0.17, 0.52), (0.52, 0.11, 0.30)):
        _mountains(sky, rng, base, rise, tint)
    return sky, np.ones((rows, period), np.float32), 0


def _clouds(sky: Floats, rng: np.random.Generator) -> None:
    """White heaps, grey below: the shade is the cloud itself, moved down."""
    rows, period, _ = sky.shape
    body = fractal(rng, rows, period, slope=1.55)
    density = _smooth((body - 0.25) / 1.1)[..., None]
    shade = _smooth((np.roll(body, -max(2, rows // 40), axis=0) - 0.5) / 2.0)[..., None]
    colour = _rgb(0.93, 0.93, 0.94) - shade * _rgb(0.34, 0.31, 0.26)
    sky += density * (colour - sky)


def _mountains(
    picture: Floats, rng: np.random.Generator, base: float, rise: float, haze: float
) -> None:
    """A ridge lit from the upper left; far ones fade into the colour of the air."""
    rows, period, _ = picture.shape
    ridge = rows * (base - rise * (0.5 + 0.45 * _ridge(rng, period)))
    down = np.arange(rows, dtype=np.float32)[:, None] - ridge[None, :]
    relief = fractal(rng, rows, period, slope=2.0)
    tilt = 2 * relief - np.roll(relief, 1, axis=1) - np.roll(relief, 1, axis=0)
    lit = np.clip(0.55 + 0.3 * tilt / tilt.std(), 0.1, 1.2)
    snow = _smooth((rows * (0.03 + 0.035 * relief) - down) / (rows * 0.03))[..., None]
    stone = _rgb(0.34, 0.31, 0.30) + snow * _rgb(0.44, 0.47, 0.51)
    colour = stone * (0.3 + 0.9 * lit[..., None])
    colour = colour + (_rgb(0.60, 0.69, 0.79) - colour) * haze
    cover = np.clip(down + 0.5, 0, 1)[..., None]
    picture += cover * (colour - picture)


def hills(canvas: Canvas) -> Painting:
    """Woods and a village: crowns painted from far to near, larger as they come nearer."""
    height, period, rng = canvas.height, canvas.period, canvas.rng
    top = _even_row(0.42 * height)
    rows = height - top
    ridge = rows * (0.17 + 0.055 * _ridge(rng, period))
    down = np.arange(rows, dtype=np.float32)[:, None] - ridge[None, :]
    alpha = np.clip(down + 0.5, 0, 1)
    rgb = np.empty((rows, period, 3), np.float32)
    rgb[:] = _rgb(0.18, 0.25, 0.12)
    rgb *= np.clip(1 + 0.3 * fractal(rng, rows, period, slope=0.9), 0.2, 2.2)[..., None]
    painter = _Painter(rgb, alpha, canvas)
    for y in _rows_to_paint(rng, rows * 0.16, rows * 0.98, near=rows * 0.075, far=rows * 0.022):
        x = rng.uniform(0, period)
        nearness = (y - 0.16 * rows) / (0.82 * rows)
        if y < ridge[int(x) % period]:
            continue
        radius = rows * (0.017 + 0.075 * nearness) * rng.lognormal(0, 0.4)
        if rng.random() < 0.03:
            painter.house(x, y, 1.1 * radius)
        else:
            painter.crown(x, y, radius, _foliage(rng, nearness))
    return rgb, alpha, top


def meadow(canvas: Canvas) -> Painting:
    """The ground before our feet: grass, flowers and stones with power-law sizes."""
    height, period, rng = canvas.height, canvas.period, canvas.rng
    top = _even_row(0.72 * height)
    rows = height - top
    ridge = rows * (0.30 + 0.07 * _ridge(rng, period))
    down = np.arange(rows, dtype=np.float32)[:, None] - ridge[None, :]
    alpha = np.clip(down + 0.5, 0, 1)
    rgb = np.empty((rows, period, 3), np.float32)
    grass = fractal(rng, rows, period, slope=0.8, upright=3.0)
    drift = fractal(rng, rows, period, slope=1.8)
    shade = np.clip(1 + 0.2 * grass + 0.14 * drift, 0.3, 2.0)[..., None]
    rgb[:] = shade * (_rgb(0.31, 0.37, 0.14) + np.clip(drift, -1, 1)[..., None] * _rgb(0.06, 0, 0))
    painter = _Painter(rgb, alpha, canvas)
    for y in _rows_to_paint(rng, rows * 0.28, rows * 1.15, near=rows * 0.06, far=rows * 0.03):
        x = rng.uniform(0, period)
        if y < ridge[int(x) % period]:
            continue
        radius = height * 0.009 * min(rng.pareto(1.6) + 1, 8.0) * (0.5 + 0.7 * y / rows)
        _grow(painter, rng, x, y, radius)
    return rgb, alpha, top


def _rows_to_paint(
    rng: np.random.Generator, first: float, last: float, *, near: float, far: float
) -> list[float]:
    """Rows from the horizon to the front, denser where things are smaller."""
    rows = []
    y = first
    while y < last:
        rows.append(y)
        size = far + (near - far) * (y - first) / (last - first)
        y += rng.exponential(size * size / (40 * near))
    return rows


def _foliage(rng: np.random.Generator, nearness: float) -> Floats:
    green = _rgb(0.27, 0.37, 0.14) * float(rng.uniform(0.7, 1.35))
    autumn = _rgb(0.55, 0.36, 0.12) * float(rng.uniform(0.7, 1.2))
    colour = autumn if rng.random() < 0.12 else green + _rgb(rng.uniform(0, 0.1), 0.0, 0.0)
    return colour + (_rgb(0.52, 0.62, 0.66) - colour) * float(0.4 * (1 - nearness) ** 2)


def _grow(painter: _Painter, rng: np.random.Generator, x: float, y: float, radius: float) -> None:
    """Mostly blades of grass, now and then a flower or a stone."""
    kind = rng.random()
    if kind < 0.06:
        petals = (_rgb(0.86, 0.84, 0.79), _rgb(0.82, 0.64, 0.12), _rgb(0.66, 0.17, 0.16))
        painter.leaf(x, y, 0.45 * radius, 0.8, petals[int(rng.integers(3))])
    elif kind < 0.09:
        painter.leaf(x, y, radius, 0.6, _rgb(0.46, 0.43, 0.40) * float(rng.uniform(0.6, 1.3)))
    else:
        green = _rgb(0.37, 0.46, 0.16) + _rgb(
            rng.uniform(-0.08, 0.16), 0.0, rng.uniform(-0.06, 0.08)
        )
        painter.leaf(
            x, y, 1.6 * radius, rng.uniform(0.06, 0.2), green * float(rng.uniform(0.4, 1.4))
        )


class _Painter:
    """Puts shaded, textured things on a canvas whose left and right edges join."""

    def __init__(self, rgb: Floats, alpha: Floats, canvas: Canvas) -> None:
        self._rgb = rgb
        self._alpha = alpha
        self._texture = canvas.texture
        self._rng = canvas.rng

    def crown(self, x: float, y: float, radius: float, colour: Floats) -> None:
        """A tree: a ragged ball, dark below, its leaves catching light."""

        def look(dx: Floats, dy: Floats, grain: Floats) -> tuple[Floats, Floats]:
            distance = np.hypot(dx, dy) + 0.16 * grain
            light = 0.78 - 0.42 * dy - 0.22 * dx + 0.24 * grain
            return (1 - distance) * radius, np.clip(light, 0.15, 1.7)

        self._paint((x, y), radius, look, colour, reach=1.3)

    def leaf(self, x: float, y: float, radius: float, narrow: float, colour: Floats) -> None:
        """A blade, petal or stone: a tilted ellipse with a gradient along it."""
        angle = self._rng.normal(math.pi / 2, 0.45)
        cos, sin = math.cos(angle), math.sin(angle)

        def look(dx: Floats, dy: Floats, grain: Floats) -> tuple[Floats, Floats]:
            along, across = dx * cos + dy * sin, (dy * cos - dx * sin) / narrow
            light = 0.86 - 0.22 * along - 0.18 * across + 0.10 * grain
            return (1 - np.hypot(along, across)) * radius * narrow, np.clip(light, 0.2, 1.6)

        self._paint((x, y), radius, look, colour)

    def house(self, x: float, y: float, radius: float) -> None:
        """White walls with windows under a red roof: straight edges, as people make them."""
        wall, roof, glass = _rgb(0.80, 0.76, 0.68), _rgb(0.52, 0.25, 0.18), 0.35

        def walls(dx: Floats, dy: Floats, grain: Floats) -> tuple[Floats, Floats]:
            inside = np.minimum(0.85 - np.abs(dx), 0.8 - np.abs(dy - 0.2))
            panes = (np.abs(np.abs(dx) - 0.42) < 0.17) & (np.abs(dy - 0.25) < 0.22)
            light = 0.95 - 0.12 * dx + 0.04 * grain
            return inside * radius, np.where(panes, glass, light).astype(np.float32)

        def gable(dx: Floats, dy: Floats, grain: Floats) -> tuple[Floats, Floats]:
            slopes = dy + 1.3 - 0.55 * np.abs(dx)
            inside = np.minimum(np.minimum(slopes, -0.4 - dy), 1.25 - np.abs(dx))
            return inside * radius, 0.9 - 0.2 * dx + 0.08 * grain

        self._paint((x, y), radius, walls, wall, reach=1.2)
        self._paint((x, y), radius, gable, roof, reach=1.4)

    def _paint(
        self,
        at: tuple[float, float],
        radius: float,
        look: Callable[[Floats, Floats, Floats], tuple[Floats, Floats]],
        colour: Floats,
        reach: float = 1.0,
    ) -> None:
        """`look` maps offsets in radii and texture to (pixels inside the edge, light).

        reach: how many radii away the thing may still be.
        """
        (x, y), reach = at, reach * radius
        rows, period = self._alpha.shape
        y0, y1 = max(0, int(y - reach)), min(rows, int(y + reach) + 2)
        x0, x1 = int(x - reach), int(x + reach) + 2
        if y0 >= y1 or x1 - x0 > period:
            return
        dy = ((np.arange(y0, y1, dtype=np.float32) - y) / radius)[:, None]
        dx = ((np.arange(x0, x1, dtype=np.float32) - x) / radius)[None, :]
        inside, light = look(dx, dy, self._grain(y1 - y0, x1 - x0))
        cover = np.clip(inside + 0.5, 0, 1)
        for columns, part in _wrapped(x0, x1, period):
            here = (slice(y0, y1), columns)
            share = cover[:, part]
            self._rgb[here] += share[..., None] * (light[:, part, None] * colour - self._rgb[here])
            self._alpha[here] += share * (1 - self._alpha[here])

    def _grain(self, rows: int, columns: int) -> Floats:
        size = self._texture.shape[0]
        y = int(self._rng.integers(0, size - min(rows, size - 1)))
        x = int(self._rng.integers(0, size - min(columns, size - 1)))
        if rows < size and columns < size:
            return self._texture[y : y + rows, x : x + columns]
        index = np.ix_((y + np.arange(rows)) % size, (x + np.arange(columns)) % size)
        return self._texture[index]


def _wrapped(start: int, stop: int, period: int) -> Sequence[tuple[slice, slice]]:
    """Columns [start, stop) on a canvas that joins its edges: (on the canvas, of the thing)."""
    first = start % period
    length = stop - start
    if first + length <= period:
        return [(slice(first, first + length), slice(0, length))]
    cut = period - first
    return [(slice(first, period), slice(0, cut)), (slice(0, length - cut), slice(cut, length))]


def balloon(canvas: Canvas, number: int) -> Painting:
    """A striped hot-air balloon, shaded as a ball; its canvas does not join edges."""
    radius = canvas.height * BALLOON_RADII[number]
    rows, columns = 2 * round(1.7 * radius), 2 * round(1.2 * radius)
    dy = ((np.arange(rows, dtype=np.float32) - 1.2 * radius) / radius)[:, None]
    dx = ((np.arange(columns, dtype=np.float32) - columns / 2) / radius)[None, :]
    taper = 1 - 0.35 * np.clip(dy, 0, 1.3) ** 2
    hull = (1 - np.hypot(dx / np.maximum(taper, 0.3), dy * np.where(dy > 0, 0.8, 1.0))) * radius
    basket = np.minimum(0.16 - np.abs(dx), 0.13 - np.abs(dy - 1.75)) * radius
    ropes = (0.03 - np.abs(np.abs(dx) - 0.13)) * radius - np.where(np.abs(dy - 1.4) < 0.3, 0, 9)
    girth = np.maximum(taper * np.sqrt(np.clip(1 - dy**2, 0.1, 1)), 0.2)
    striped = (np.sin(7 * np.arcsin(np.clip(dx / girth, -1, 1)) + number) > 0)[..., None]
    light = np.clip(0.92 - 0.38 * dx - 0.3 * dy, 0.25, 1.15)[..., None]
    stripe, cloth = BALLOON_COLOURS[number % 2]
    rgb = np.where(striped, _rgb(*stripe), _rgb(*cloth)) * light
    rgb = np.where((dy > 1.25)[..., None], _rgb(0.30, 0.20, 0.12), rgb)
    alpha = np.clip(np.maximum(np.maximum(hull, basket), ropes) + 0.5, 0, 1)
    return rgb, alpha, 0


def _even_row(value: float) -> int:
    return 2 * round(value / 2)


def _ridge(rng: np.random.Generator, columns: int) -> Floats:
    """A line of hills, periodic, about -1..1."""
    frequency = np.fft.rfftfreq(columns) * columns
    frequency[0] = np.inf
    shape = frequency.shape
    spectrum = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / frequency**1.3
    line = np.fft.irfft(spectrum, n=columns)
    return np.asarray(line / np.abs(line).max(), np.float32)


def _smooth(value: Floats) -> Floats:
    value = np.clip(value, 0, 1)
    return np.asarray(value * value * (3 - 2 * value), np.float32)


def _rgb(red: float, green: float, blue: float) -> Floats:
    return np.array([red, green, blue], np.float32)
