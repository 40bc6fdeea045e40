"""The fixed vector of measures: what each is called and how patches are pooled into it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vqmon.measures import coding, light, natural, texture
from vqmon.measures.natural import Doubles
from vqmon.measures.pooling import Named, lit_patches, quantiles, usable_blocks
from vqmon.measures.rows import mean_and_spread
from vqmon.patches import Floats, Look, quartered

_TINY = 0.02
_CONTRAST = 15.0
"""Mean squared difference over 8 pixels that a patch needs to tell sharp from blurred."""

_FLAT_NOISE = 1.22
"""Noise deviation over the fifth percentile of blocks of pure noise."""

_SHARP = -0.7
"""log(S1 / S2) of sharp pictures; said of pictures without any contrast too."""

MEASURES = (
    "fine_contrast_low",
    "fine_contrast_mid",
    "fine_contrast_high",
    "fine_contrast_spread",
    "fine_shape",
    "fine_variance",
    "fine_side_shape",
    "fine_side_mean",
    "fine_side_left",
    "fine_side_right",
    "fine_diagonal_shape",
    "fine_diagonal_mean",
    "fine_diagonal_left",
    "fine_diagonal_right",
    "fine_shape_low",
    "fine_shape_high",
    "fine_variance_low",
    "fine_variance_high",
    "half_contrast_low",
    "half_contrast_mid",
    "half_contrast_high",
    "half_contrast_spread",
    "half_shape",
    "half_variance",
    "half_side_shape",
    "half_side_mean",
    "half_side_left",
    "half_side_right",
    "half_diagonal_shape",
    "half_diagonal_mean",
    "half_diagonal_left",
    "half_diagonal_right",
    "half_shape_low",
    "half_shape_high",
    "half_variance_low",
    "half_variance_high",
    "view_shape",
    "view_variance",
    "view_side_shape",
    "view_side_mean",
    "view_side_left",
    "view_side_right",
    "view_diagonal_shape",
    "view_diagonal_mean",
    "view_diagonal_left",
    "view_diagonal_right",
    "view_contrast",
    "view_contrast_spread",
    "view_slope1",
    "view_slope2",
    "cb_shape",
    "cb_variance",
    "cb_contrast",
    "cb_contrast_spread",
    "cr_shape",
    "cr_variance",
    "cr_contrast",
    "cr_contrast_spread",
    "contrast_centre",
    "contrast_above",
    "contrast_cells_spread",
    "contrast_most",
    "gradient_centre",
    "gradient_above",
    "gradient_cells_spread",
    "gradient_most",
    "slope_centre",
    "slope_above",
    "slope_cells_spread",
    "slope_most",
    "slope1_low",
    "slope1_mid",
    "slope1_high",
    "slope2_low",
    "slope2_mid",
    "slope2_high",
    "slope4_low",
    "slope4_mid",
    "slope4_high",
    "gradient_mid",
    "gradient_high",
    "sharp1",
    "sharp2",
    "sharp4",
    "sharp_half1",
    "noise",
    "noise_mid",
    "noise_high",
    "block_across",
    "block_down",
    "block_equal",
    "block_equal_high",
    "block_runs",
    "block_faint",
    "block_bands",
    "block_bands_high",
    "block_drawn",
    "block_dead",
    "block_detail",
    "block_still",
    "period_8",
    "period_4",
    "period_3",
    "period_8_3",
    "period_2.5",
    "period_2",
    "luma_mean",
    "luma_std",
    "luma_p1",
    "luma_p5",
    "luma_p25",
    "luma_p50",
    "luma_p75",
    "luma_p95",
    "luma_p99",
    "luma_peak",
    "luma_entropy",
    "luma_centre",
    "luma_above",
    "clipped_dark",
    "clipped_bright",
    "clipped_patches",
    "clipped_colour",
    "colourfulness",
    "chroma_mean",
    "chroma_spread",
    "cb_mean",
    "cr_mean",
)


def measured(look: Look) -> tuple[NDArray[np.float32], dict[str, Floats]]:
    """Values in the order of MEASURES, and the cell maps."""
    lit, lit_half = lit_patches(look.native), lit_patches(look.half)
    noise = texture.noise(look.native)
    sigma, usable = noise.sigma, usable_blocks(noise)
    differences = texture.differences(look.native)
    phases = coding.phases(look, differences)
    named = {
        **dict(_naturalness("fine", look.native, lit)),
        **dict(_naturalness("half", look.half, lit_half)),
        **dict(_view_naturalness(look.view)),
        **dict(_chroma_naturalness(look.chroma)),
        **dict(_placement(look, differences.structure)),
        **dict(_slopes(differences.structure[lit])),
        **dict(_sharpness(differences.structure, look, sigma[usable])),
        **dict(_noise(sigma[usable])),
        **dict(coding.coding(look, phases, noise, lit)),
        **dict(coding.periods(noise)),
        **dict(light.exposure(look)),
        **dict(light.colour(look)),
    }
    values = np.array([named[name] for name in MEASURES], np.float32)
    return values, _cells(look, differences, phases, noise, usable)


def _naturalness(name: str, patches: Floats, lit: NDArray[np.bool_]) -> Named:
    found = natural.coefficients(patches)
    logs = np.log(found.contrast()[lit] + 0.25)
    for label, value in zip(("low", "mid", "high"), quantiles(logs, (0.1, 0.5, 0.9)), strict=True):
        yield f"{name}_contrast_{label}", value
    yield f"{name}_contrast_spread", logs.std()
    correlations = natural.Correlations(found)
    each = correlations.own()
    yield from _shapes(name, correlations, each, lit / np.count_nonzero(lit))
    low, high = quantiles(natural.shape_of_gaussian(each)[lit], (0.1, 0.9))
    yield f"{name}_shape_low", low
    yield f"{name}_shape_high", high
    low, high = quantiles(each[1][lit], (0.1, 0.9))
    yield f"{name}_variance_low", low
    yield f"{name}_variance_high", high


def _view_naturalness(view: Floats) -> Named:
    whole = np.ascontiguousarray(view)[None]
    found = natural.coefficients(whole)
    correlations = natural.Correlations(found)
    yield from _shapes("view", correlations, correlations.own(), np.ones(1))
    mean, spread = mean_and_spread(np.log(found.deviations() + 1))
    yield "view_contrast", mean
    yield "view_contrast_spread", spread
    energy = texture.structure(whole, (1, 2, 4))[0] + _TINY
    yield "view_slope1", np.log(energy[0] / energy[1])
    yield "view_slope2", np.log(energy[1] / energy[2])


def _chroma_naturalness(chroma: Floats) -> Named:
    """At half the size of the view: noise and fringes of colour are coarse."""
    _, height, width = chroma.shape
    found = natural.coefficients(quartered(chroma[:, : height // 2 * 2, : width // 2 * 2]))
    moments = natural.Correlations(found).own()
    shapes = natural.shape_of_gaussian(moments)
    for place, name in enumerate(("cb", "cr")):
        yield f"{name}_shape", shapes[place]
        yield f"{name}_variance", moments[1][place]
        mean, spread = mean_and_spread(np.log(found.deviations()[place] + 0.5))
        yield f"{name}_contrast", mean
        yield f"{name}_contrast_spread", spread


def _placement(look: Look, structure: Doubles) -> Named:
    """Where the detail is: a subject in the middle, a sky above, evenly or in one place."""
    members = np.asarray(look.cells == np.arange(9)[:, None])
    means = members / members.sum(axis=1, keepdims=True)
    values = np.stack(
        [
            np.log(structure[:, 3] + 0.25),
            np.log(structure[:, 0] + 0.25),
            np.log((structure[:, 0] + _TINY) / (structure[:, 1] + _TINY)),
        ],
        axis=1,
    )
    cells = means @ values
    found = {
        "centre": cells[4] - (cells.sum(axis=0) - cells[4]) / 8,
        "above": cells[:3].mean(axis=0) - cells[6:].mean(axis=0),
        "cells_spread": cells.std(axis=0),
        "most": values.max(axis=0),
    }
    for label, each in found.items():
        for name, value in zip(("contrast", "gradient", "slope"), each.tolist(), strict=True):
            yield f"{name}_{label}", value


def _shapes(name: str, correlations: natural.Correlations, own: Doubles, weights: Doubles) -> Named:
    """Of all patches together; weights add up to 1."""
    whole = own @ weights
    yield f"{name}_shape", float(natural.shape_of_gaussian(whole))
    yield f"{name}_variance", whole[1]
    for label, steps in natural.NEIGHBOURS.items():
        one, other = (correlations.products(step) for step in steps)
        parts = natural.asymmetric((one + other) @ (weights / 2))
        for part, value in zip(("shape", "mean", "left", "right"), parts, strict=True):
            yield f"{name}_{label}_{part}", value


def _slopes(structure: Doubles) -> Named:
    logs = np.log(structure + _TINY)
    slopes = quantiles(logs[:, :-1] - logs[:, 1:], (0.1, 0.5, 0.9))
    for place, lag in enumerate(texture.LAGS[:-1]):
        for label, value in zip(("low", "mid", "high"), slopes[:, place], strict=True):
            yield f"slope{lag}_{label}", value
    yield "gradient_mid", np.log(np.median(structure[:, 0]) + 0.25)
    yield "gradient_high", np.log(quantiles(structure[:, 0], (0.9,))[0] + 0.25)


def _sharpness(structure: Doubles, look: Look, sigma: Floats) -> Named:
    """The sharpest patches speak, so that shallow focus is not taken for blur."""
    level = quantiles(sigma, (0.2,))[0]
    fine = _sharp(structure, 0.9 * level)
    half = _sharp(texture.structure(look.half, (1, 2, 4)), 0.5 * level)
    for place, lag in enumerate(texture.LAGS[:-1]):
        yield f"sharp{lag}", quantiles(fine[:, place], (0.9,))[0]
    yield "sharp_half1", quantiles(half[:, 0], (0.9,))[0]


def _sharp(structure: Doubles, level: float) -> Doubles:
    """(n, lags - 1) logs of S(lag) / S(2 lag) without noise, of the patches with contrast."""
    energy = structure[structure[:, -1] - 2 * level**2 > _CONTRAST]
    return _sharp_each(energy, level) if len(energy) else np.full((1, 3), _SHARP)


def _sharp_each(structure: Doubles, level: float) -> Doubles:
    logs = np.log(np.maximum(structure - 2 * level**2, _TINY))
    return np.asarray(logs[:, :-1] - logs[:, 1:])


def _noise(sigma: Floats) -> Named:
    low, mid, high = quantiles(sigma, (0.05, 0.2, 0.5))
    yield "noise", _FLAT_NOISE * low
    yield "noise_mid", mid
    yield "noise_high", high


def _cells(
    look: Look,
    found: texture.Differences,
    phases: tuple[Doubles, Doubles],
    noise: texture.Noise,
    usable: NDArray[np.bool_],
) -> dict[str, Floats]:
    members = np.asarray(look.cells == np.arange(9)[:, None])  # (9, N)
    members_sigma = [noise.sigma[here][usable[here]] for here in members]
    level = quantiles(noise.sigma[usable], (0.2,))[0]
    sharp = _sharp_each(found.structure, 0.9 * level)[:, 0]
    means = members / members.sum(axis=1, keepdims=True)
    maps = {
        "blur": np.interp(np.where(members, sharp, -np.inf).max(axis=1), _SHARPNESS, _SIGMA),
        "noise": np.array([_cell_noise(sigma) for sigma in members_sigma]),
        "blockiness": np.maximum(*(texture.grid_excess(means @ steps) for steps in phases)),
        **dict(light.cells(look.view)),
    }
    return {name: values.astype(np.float32).reshape(3, 3) for name, values in maps.items()}


_SHARPNESS = (-1.33, -1.30, -1.26, -1.18, -1.10, -0.96, -0.65)
_SIGMA = (3.0, 2.05, 1.57, 1.1, 0.92, 0.75, 0.45)
"""What log(S1 / S2) of photographs becomes under Gaussian blur of this many pixels."""


def _cell_noise(sigma: Floats) -> float:
    return float(_FLAT_NOISE * quantiles(sigma, (0.05,))[0]) if sigma.size > 8 else 0.0
