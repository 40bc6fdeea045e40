"""What patches say of sharpness, noise, coding, banding and scaling.

Functions take patches (N, h, w) as `vqmon.patches.look` gives them and return values per patch
or per block; pooling is for the caller. Everything is elementwise arithmetic in scratch memory
and small matrix products, which is what numpy does fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Plane
from vqmon.measures.rows import counts, dots
from vqmon.patches import Floats, scratch

Doubles = NDArray[np.float64]

LAGS = (1, 2, 4, 8)
"""Pixels between the two luma values of a difference."""

BLOCK = 8
"""Side of the blocks that noise is measured in, pixels."""


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Luma differences of patches.

    structure: (N, 4) mean squared difference over each of LAGS, rows and columns together. In
        sharp pictures it grows about linearly with the lag; below the width of a blur with its
        square. Noise of deviation s adds 2 s^2 at every lag.
    steps: (N, w - 1) across and (N, h - 1) down: mean magnitude of the step at each place.
    """

    structure: Doubles
    steps: tuple[Floats, Floats]


def differences(patches: Floats) -> Differences:
    across, down = (_profile(_magnitude(_steps(patches, 1, axis, "work")), axis) for axis in (2, 1))
    return Differences(structure(patches, LAGS), (across[:, :-1], down[:, :-1]))


def structure(patches: Floats, lags: tuple[int, ...]) -> Doubles:
    """(N, len(lags)) as in `Differences.structure`."""
    _, height, width = patches.shape
    found = np.zeros((len(patches), len(lags)))
    for index, lag in enumerate(lags):
        for axis, length, lines in ((2, width, height), (1, height, width)):
            reach = min(lag, length // 2)
            values = _steps(patches, reach, axis, "work").reshape(len(patches), -1)
            found[:, index] += dots(values, values) / (2 * lines * (length - reach))
    return found


def _steps(values: Floats, lag: int, axis: int, name: str, *, ends: int | None = None) -> Floats:
    """(N, h, w) each value subtracted from the one `lag` further along an axis.

    One long loop: the last `lag` of a line meet the next line, so the last `ends` are made 0.
    """
    stride = lag if axis == 2 else lag * values.shape[2]
    out = scratch(name, values.shape)
    flat, to = values.reshape(-1), out.reshape(-1)
    np.subtract(flat[stride:], flat[:-stride], out=to[:-stride])
    to[-stride:] = 0
    _end(out, values.shape[axis] - (ends or lag), axis)
    return np.asarray(out)


def _end(values: NDArray[Any], length: int, axis: int) -> None:
    """Lines along an axis end after so many places: 0 from there."""
    if axis == 2:
        values[:, :, length:] = 0
    else:
        values[:, length:] = 0


def _magnitude(values: Floats) -> Floats:
    return np.asarray(np.abs(values, out=values))


def _profile(values: Floats, axis: int) -> Floats:
    """(N, places) mean along the other axis than `axis`."""
    _, height, width = values.shape
    if axis == 2:
        return np.asarray(np.matmul(np.full((1, height), 1 / height, np.float32), values)[:, 0])
    return np.asarray(np.matmul(values, np.full((width, 1), 1 / width, np.float32))[:, :, 0])


@dataclass(frozen=True, slots=True, eq=False)
class Noise:
    """sigma, mean: (N, b, b) noise deviation and mean luma of blocks of 8x8.

    bends: (N, w - 2) across and (N, h - 2) down: mean magnitude of the second difference at
        each place; interpolation makes it periodic.
    """

    sigma: Floats
    mean: Floats
    bends: tuple[Floats, Floats]


def noise(patches: Floats) -> Noise:
    """The operator is Immerkaer's (1996): the difference of two Laplacians, blind to planes and
    to most structure; sigma = sqrt(pi / 2) / 6 * mean magnitude.
    """
    across = _bends(patches, 2, "across")
    both = _bends(across, 1, "work two")
    sigma = _block_means(_magnitude(both), 0) * np.float32(np.sqrt(np.pi / 2) / 6)
    bends_across = _profile(_magnitude(across), 2)[:, :-2]
    down = _bends(patches, 1, "work two")
    bends_down = _profile(_magnitude(down), 1)[:, :-2]
    return Noise(sigma, _block_means(patches, 1), (bends_across, bends_down))


def _bends(patches: Floats, axis: int, name: str) -> Floats:
    """Second difference, x[i + 2] - 2 x[i + 1] + x[i]; 0 at the last two places."""
    return _steps(_steps(patches, 1, axis, "work"), 1, axis, name, ends=2)


def _block_means(values: Floats, first: int) -> Floats:
    """(N, b, b) of the blocks that begin at the row and column `first` and leave out the last
    2 - first; at least one block however small the patch.
    """
    _, height, width = values.shape
    return np.asarray(np.matmul(np.matmul(_blocks(height, first), values), _blocks(width, first).T))


@cache
def _blocks(length: int, first: int) -> Floats:
    inside = length - 2
    matrix = np.zeros((max(1, inside // BLOCK), length), np.float32)
    for row in range(len(matrix)):
        matrix[row, first + row * BLOCK : first + min((row + 1) * BLOCK, inside)] = 1
    matrix /= matrix.sum(axis=1, keepdims=True)
    return matrix


def by_phase(steps: Floats, first: NDArray[np.int64]) -> Doubles:
    """(N, 8) mean step on each phase of an 8-pixel grid.

    steps: (N, n) profiles as in `Differences.steps`; first: (N,) where each begins in the
    picture, so that one coding grid falls on one phase in every patch.
    """
    count, length = steps.shape
    whole = length // BLOCK * BLOCK
    folded = steps[:, :whole].reshape(count, -1, BLOCK).mean(axis=1, dtype=np.float64)
    phase = (np.arange(BLOCK) - first[:, None] - 1) % BLOCK
    return np.asarray(folded[np.arange(count)[:, None], phase])


def grid_excess(phases: Doubles) -> Doubles:
    """(...) how far one phase of (..., 8) stands out, as a logarithm; 0 for no grid.

    Transform codes of eight or more pixels show it. The phase is free, for streams that were
    cropped or padded.
    """
    ordered = np.sort(phases, axis=-1)
    usual = (ordered[..., 3] + ordered[..., 4]) / 2
    return np.asarray(np.log((ordered[..., -1] + 0.1) / (usual + 0.1)))


_BINS = 64
_NEIGHBOURS = 9


def spectra(bends: Floats) -> Doubles:
    """(..., 33) power of (..., N, n) profiles over frequency k / 64 per pixel, patches averaged.

    Each profile is first divided by its mean and freed of slow changes, so that what stays is
    periodicity: peaks at 1 / f betray enlargement by f (Gallagher, "Detection of Linear and
    Cubic Interpolation in JPEG Compressed Images", 2005), those at eighths a coding grid.
    """
    relative = bends / (bends.mean(axis=-1, keepdims=True) + 0.05)
    relative = np.matmul(relative, _detrending(relative.shape[-1]))
    power = np.abs(np.fft.rfft(relative, _BINS)) ** 2
    return np.asarray(power.mean(axis=-2), np.float64)


@cache
def _detrending(length: int) -> Floats:
    """(n, n): minus the mean of nine neighbours, then a Hann window; for row vectors."""
    reach = np.abs(np.arange(length)[:, None] - np.arange(length)) <= _NEIGHBOURS // 2
    smooth = reach / reach.sum(axis=1, keepdims=True)
    window = np.hanning(length + 2)[1:-1]
    return np.asarray(((np.eye(length) - smooth).T * window), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Flatness:
    """Of stored luma values, per patch (N,), shares 0..1 over horizontal neighbours and back.

    equal: neighbours with the same value. runs: seven in a row the same.
    faint, bands: single steps of 2, and of 3 to 16, between flat runs of four: the edges of
        bands. Steps of 1 are what 8 bits look like in any smooth sky.
    """

    equal: Doubles
    runs: Doubles
    faint: Doubles
    bands: Doubles


_RUN = 3


def drawn(codes: Plane) -> float:
    """Share of equal neighbours across among stored values 27 to 225: near 1 in drawn pictures,
    small in photographs, whatever is black or white about them.
    """
    middle = scratch("step", codes.shape, np.uint8)
    np.subtract(codes, 27, out=middle)
    between = np.less(middle, 199, out=scratch("calm", codes.shape, np.bool_))
    between[:, :, 0] = False
    among = int(np.count_nonzero(between))
    flat, same = codes.reshape(-1), between.reshape(-1)[1:]
    same &= np.equal(flat[1:], flat[:-1], out=scratch("equal", same.shape, np.bool_))
    return int(np.count_nonzero(same)) / max(among, 500)


def flatness(codes: Plane) -> Flatness:
    return Flatness(*((_flatness(codes, 2) + _flatness(codes, 1)) / 2))


def _flatness(codes: Plane, axis: int) -> Doubles:
    """(4, N) along one axis, in long loops: what runs over the end of a line is made False."""
    _, height, width = codes.shape
    length, lines = (width, height) if axis == 2 else (height, width)
    stride, reach = (1 if axis == 2 else width), length - 1 - 2 * _RUN
    flat, step = codes.reshape(-1), scratch("step", codes.shape, np.uint8)
    np.subtract(flat[stride:], flat[:-stride], out=step.reshape(-1)[:-stride])
    equal = np.equal(step, 0, out=scratch("equal", codes.shape, np.bool_))
    _end(equal, length - 1, axis)
    near = [equal.reshape(-1)[k * stride :][: flat.size - 2 * _RUN * stride] for k in range(7)]
    calm = scratch("calm", codes.shape, np.bool_)
    inner = calm.reshape(-1)[: near[0].size]
    np.logical_and(near[0], near[1], out=inner)
    for k in (2, 4, 5, 6):
        inner &= near[k]
    _end(calm, reach, axis)
    size = scratch("size", codes.shape, np.uint8)
    moved = step.reshape(-1)[_RUN * stride :][: inner.size]
    np.minimum(moved, np.negative(moved), out=size.reshape(-1)[: inner.size])
    found = [
        counts(equal) / (lines * (length - 1)),
        *(
            counts(calm & flags) / (lines * reach)
            for flags in (size == 0, size == 2, (size - np.uint8(3)) <= _BAND)
        ),
    ]
    return np.stack(found)


_BAND = 16 - 3
