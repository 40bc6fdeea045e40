"""Exposure and colour, from the view of the whole picture."""

from __future__ import annotations

from collections.abc import Iterator
from math import sqrt

import numpy as np

from vqmon.measures import rows
from vqmon.measures.pooling import Named
from vqmon.measures.rows import mean_and_spread
from vqmon.patches import BLUE, RED, Floats, Look

BLACK = 20.0
"""Full-range luma below which a point of the view counts as black."""

CLIPPED_DARK, CLIPPED_BRIGHT = 4.0, 250.0


def exposure(look: Look) -> Named:
    view = np.clip(look.view, 0, 255)
    mean, spread = mean_and_spread(view)
    yield "luma_mean", mean
    yield "luma_std", spread
    ordered = np.sort(view, axis=None)
    places = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
    names = ("p1", "p5", "p25", "p50", "p75", "p95", "p99", "peak")
    for name, share in zip(names, places, strict=True):
        yield f"luma_{name}", ordered[round(share * (view.size - 1))]
    counts = np.diff(ordered.searchsorted(_FOURS), append=view.size) / view.size
    yield "luma_entropy", -(counts * np.log2(counts + 1e-12)).sum()
    yield from _placement(look.view)
    bright = rows.counts(look.native > CLIPPED_BRIGHT) / look.native[0].size
    yield "clipped_dark", np.count_nonzero(look.native < CLIPPED_DARK) / look.native.size
    yield "clipped_bright", bright.mean()
    yield "clipped_patches", (bright > 0.97).mean()
    yield "clipped_colour", _colour_clipped(look, view)


_FOURS = np.arange(0, 256, 4, dtype=np.float32)
"""Where the 64 classes of luma begin whose entropy is taken."""


def _placement(view: Floats) -> Named:
    down, across = (np.array([0, n // 3, n - n // 3, n]) for n in view.shape)
    centre = view[down[1] : down[2], across[1] : across[2]].mean()
    yield "luma_centre", centre - view.mean()
    yield "luma_above", view[: down[1]].mean() - view[down[2] :].mean()


def _colour_clipped(look: Look, view: Floats) -> float:
    """Share of the view where red, green or blue is at its end although luma is not."""
    cb, cr = look.chroma
    peak = np.float32(_DEPARTURES[1, 0]) * cb
    term = np.float32(_DEPARTURES[1, 1]) * cr
    peak += term
    for weight, part in ((_DEPARTURES[0, 1], cr), (_DEPARTURES[2, 0], cb)):
        np.multiply(part, np.float32(weight), out=term)
        np.maximum(peak, term, out=peak)
    peak += view
    return np.count_nonzero((peak > CLIPPED_BRIGHT) & (view < 235)) / view.size


_GREEN = 1 - RED - BLUE
_DEPARTURES = np.array(
    [
        [0, 2 * (1 - RED)],
        [-BLUE / _GREEN * 2 * (1 - BLUE), -RED / _GREEN * 2 * (1 - RED)],
        [2 * (1 - BLUE), 0],
    ]
)
"""Red, green and blue minus luma: shares of Cb and Cr."""


def colour(look: Look) -> Named:
    """Colourfulness after Hasler and Suesstrunk (2003); R - G and (R + G) / 2 - B need no luma."""
    pair = look.chroma.reshape(2, -1)
    means = rows.sums(pair).astype(np.float64) / pair.shape[1]
    centred = pair - means[:, None].astype(np.float32)
    spread = rows.dots(centred[:, None], centred).astype(np.float64) / pair.shape[1]
    opponents = _OPPONENTS @ _DEPARTURES
    mean = np.hypot(*(opponents @ means))
    yield "colourfulness", sqrt(((opponents @ spread) * opponents).sum()) + 0.3 * mean
    yield "chroma_mean", np.sqrt(pair[0] ** 2 + pair[1] ** 2).mean()
    yield "chroma_spread", sqrt(spread.trace())
    yield "cb_mean", means[0]
    yield "cr_mean", means[1]


_OPPONENTS = np.array([[1, -1, 0], [0.5, 0.5, -1]])
"""Red minus green, and yellow minus blue."""


def cells(view: Floats) -> Iterator[tuple[str, Floats]]:
    layers = np.stack([view, view < BLACK])
    starts, sizes = zip(*(_thirds(n) for n in view.shape), strict=True)
    found = np.add.reduceat(np.add.reduceat(layers, starts[0], axis=1), starts[1], axis=2)
    luma, black = found.reshape(2, 9) / np.outer(*sizes).reshape(-1)
    yield "luma", luma
    yield "black", black


def _thirds(length: int) -> tuple[list[int], list[int]]:
    """Where the thirds of a line begin, and their lengths; the first are the longer ones."""
    sizes = [(length + 2 - place) // 3 for place in range(3)]
    return [0, sizes[0], sizes[0] + sizes[1]], sizes
