"""Exposure and colour, from the view of the whole picture."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vqmon.measures.pooling import Named, quantiles
from vqmon.patches import BLUE, RED, Floats, Look

BLACK = 20.0
"""Full-range luma below which a point of the view counts as black."""

CLIPPED_DARK, CLIPPED_BRIGHT = 4.0, 250.0


def exposure(look: Look) -> Named:
    view = np.clip(look.view, 0, 255)
    yield "luma_mean", view.mean()
    yield "luma_std", view.std()
    places = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)
    names = ("p1", "p5", "p25", "p50", "p75", "p95", "p99", "peak")
    for name, level in zip(names, quantiles(view.reshape(-1), places), strict=True):
        yield f"luma_{name}", level
    counts = np.bincount((view * 0.25).astype(np.intp).reshape(-1), minlength=64) / view.size
    yield "luma_entropy", -(counts * np.log2(counts + 1e-12)).sum()
    yield from _placement(look.view)
    flat = look.native.reshape(len(look.native), -1)
    bright = np.array([np.count_nonzero(patch > CLIPPED_BRIGHT) for patch in flat]) / flat.shape[1]
    yield "clipped_dark", np.count_nonzero(flat < CLIPPED_DARK) / flat.size
    yield "clipped_bright", bright.mean()
    yield "clipped_patches", (bright > 0.97).mean()
    yield "clipped_colour", _colour_clipped(look, view)


def _placement(view: Floats) -> Named:
    rows, columns = (np.array([0, n // 3, n - n // 3, n]) for n in view.shape)
    centre = view[rows[1] : rows[2], columns[1] : columns[2]].mean()
    yield "luma_centre", centre - view.mean()
    yield "luma_above", view[: rows[1]].mean() - view[rows[2] :].mean()


def _colour_clipped(look: Look, view: Floats) -> float:
    """Share of the view where red, green or blue is at its end although luma is not."""
    peak = np.maximum.reduce(_departures(look))
    peak += view
    return np.count_nonzero((peak > CLIPPED_BRIGHT) & (view < 235)) / view.size


def _departures(look: Look) -> tuple[Floats, Floats, Floats]:
    """Red, green and blue minus luma."""
    cb, cr = look.chroma
    red, blue = np.float32(2 * (1 - RED)) * cr, np.float32(2 * (1 - BLUE)) * cb
    green = np.float32(-RED / (1 - RED - BLUE)) * red
    green -= np.float32(BLUE / (1 - RED - BLUE)) * blue
    return red, green, blue


def colour(look: Look) -> Named:
    """Colourfulness after Hasler and Suesstrunk (2003); R - G and (R + G) / 2 - B need no luma."""
    cb, cr = look.chroma
    red, green, blue = _departures(look)
    red_green, yellow_blue = red - green, (red + green) / 2 - blue
    mean = np.hypot(red_green.mean(), yellow_blue.mean())
    yield "colourfulness", np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * mean
    yield "chroma_mean", np.hypot(cb, cr).mean()
    yield "chroma_spread", np.hypot(cb.std(), cr.std())
    yield "cb_mean", cb.mean()
    yield "cr_mean", cr.mean()


def cells(view: Floats) -> Iterator[tuple[str, Floats]]:
    thirds = [np.array_split(part, 3, axis=1) for part in np.array_split(view, 3)]
    yield "luma", np.array([cell.mean() for row in thirds for cell in row], np.float32)
    black = [np.count_nonzero(cell < BLACK) / cell.size for row in thirds for cell in row]
    yield "black", np.array(black, np.float32)
