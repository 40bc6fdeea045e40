"""How many patches become one number."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon.measures.texture import Noise
from vqmon.patches import Floats

Named = Iterator[tuple[str, float]]
"""Measures by name."""


def quantiles(values: NDArray[Any], shares: tuple[float, ...]) -> NDArray[Any]:
    """Along the first axis, (shares, ...): the nearest values in order; numpy's own percentile
    costs more than a sort on arrays this small.
    """
    ordered = np.sort(values, axis=0)
    return ordered[[round(share * (len(ordered) - 1)) for share in shares]]


def lit_patches(patches: Floats) -> NDArray[np.bool_]:
    """(N,) patches that show something; the bars beside a picture do not. All if none does."""
    sample = patches.reshape(len(patches), -1)[:, ::5]
    shown = sample.mean(axis=1) > 14
    if not shown.all():
        shown |= sample.std(axis=1) > 3
    return np.asarray(shown if shown.any() else ~shown)


def usable_blocks(noise: Noise) -> NDArray[np.bool_]:
    """(N, b, b) blocks in which noise could show: neither black nor white."""
    blocks = (noise.mean > 12) & (noise.mean < 243)
    return np.asarray(blocks if blocks.sum() > 40 else np.ones_like(blocks))
