"""What coding and scaling leave behind: grids, flat runs, dead blocks, periods."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqmon.measures import texture
from vqmon.measures.natural import Doubles
from vqmon.measures.pooling import Named, quantiles
from vqmon.patches import Look


def coding(
    look: Look, phases: tuple[Doubles, Doubles], noise: texture.Noise, lit: NDArray[np.bool_]
) -> Named:
    weights = lit / lit.sum()
    for name, steps in zip(("across", "down"), phases, strict=True):
        yield f"block_{name}", float(texture.grid_excess(weights @ steps))
    flatness = texture.flatness(look.codes)
    yield "block_equal", flatness.equal[lit].mean()
    yield "block_equal_high", quantiles(flatness.equal[lit], (0.9,))[0]
    for name in ("runs", "faint", "bands"):
        yield f"block_{name}", np.log(getattr(flatness, name)[lit].mean() + 1e-4)
    yield "block_bands_high", np.log(flatness.bands[lit].max() + 1e-3)
    yield "block_drawn", texture.drawn(look.codes)
    yield from _dead(noise)


def phases(look: Look, found: texture.Differences) -> tuple[Doubles, Doubles]:
    """(N, 8) steps by phase of the coding grid, across and down."""
    across, down = found.steps
    rows, columns = look.corners.T
    return texture.by_phase(across, columns), texture.by_phase(down, rows)


def _dead(noise: texture.Noise) -> Named:
    """Blocks whose means differ from their neighbours', so that something is there, yet hold no
    fine detail: coarse quantisation, or blur.
    """
    mean, sigma = noise.mean, noise.sigma[:, :-1, :-1]
    slope = np.abs(mean[:, 1:, :-1] - mean[:, :-1, :-1]) + np.abs(
        mean[:, :-1, 1:] - mean[:, :-1, :-1]
    )
    sloping = (slope > 3) & (mean[:, :-1, :-1] > 12) & (mean[:, :-1, :-1] < 243)
    enough = np.count_nonzero(sloping) > 30
    detail, slope = sigma[sloping], slope[sloping]
    yield "block_dead", float(np.mean(detail < 0.4)) if enough else 0.0
    yield "block_detail", -float(np.mean(np.log((detail + 0.1) / slope))) if enough else 2.0
    usable = noise.sigma[(noise.mean > 12) & (noise.mean < 243)]
    yield "block_still", float(np.mean(usable < 0.15)) if usable.size > 40 else 0.0


PERIODS = {
    "8": (8, 8),
    "4": (16, 16),
    "3": (20, 22),
    "8_3": (24, 24),
    "2.5": (25, 26),
    "2": (32, 32),
}
"""Periods in pixels (8_3: 8/3, a grid's third harmonic) and their bins in the spectrum."""


def periods(noise: texture.Noise) -> Named:
    power = texture.spectra(np.stack(noise.bends))
    both = (power / (np.median(power[:, 8:], axis=1, keepdims=True) + 0.018)).sum(axis=0)
    for name, (first, last) in PERIODS.items():
        yield f"period_{name}", np.log(both[first : last + 1].max() + 0.1)
