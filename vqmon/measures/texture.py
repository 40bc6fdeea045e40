"""What patches say of sharpness, noise, coding, banding and scaling.

Functions take patches (N, h, w) as `vqmon.patches.look` gives them and return values per patch
or per block; pooling is for the caller. Everything is elementwise arithmetic in scratch memory
and small matrix products, which is what numpy does fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Plane
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
    structure = np.zeros((len(patches), len(LAGS)))
    steps = []
    for index, lag in enumerate(LAGS):
        for axis in (2, 1):
            values = _difference(patches, min(lag, patches.shape[axis] // 2), axis)
            flat = values.reshape(len(values), -1)
            squares = np.einsum("ij,ij->i", flat, flat)
            structure[:, index] += squares / (2 * flat.shape[1])
            if lag == 1:
                steps.append(_profile(np.abs(values, out=values), axis))
    return Differences(structure, (steps[0], steps[1]))


def structure(patches: Floats, lags: tuple[int, ...]) -> Doubles:
    """(N, len(lags)) as in `Differences.structure`."""
    found = np.zeros((len(patches), len(lags)))
    for index, lag in enumerate(lags):
        for axis in (2, 1):
            values = _difference(patches, min(lag, patches.shape[axis] // 2), axis)
            flat = values.reshape(len(values), -1)
            found[:, index] += np.einsum("ij,ij->i", flat, flat) / (2 * flat.shape[1])
    return found


def _difference(patches: Floats, lag: int, axis: int) -> Floats:
    ahead, behind = _shifted(patches, lag, axis)
    out = scratch("work", ahead.shape)
    np.subtract(ahead, behind, out=out)
    return out


def _shifted(patches: Floats, lag: int, axis: int) -> tuple[Floats, Floats]:
    if axis == 2:
        return patches[:, :, lag:], patches[:, :, :-lag]
    return patches[:, lag:], patches[:, :-lag]


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
    across = _bend(patches, 2, "work")
    both = _bend(across, 1, "work two")
    sigma = _block_means(np.abs(both, out=both)) * np.float32(np.sqrt(np.pi / 2) / 6)
    bends_across = _profile(np.abs(across, out=across), 2)
    down = _bend(patches, 1, "work")
    bends_down = _profile(np.abs(down, out=down), 1)
    mean = _block_means(patches[:, 1:-1, 1:-1])
    return Noise(sigma, mean, (bends_across, bends_down))


def _bend(patches: Floats, axis: int, name: str) -> Floats:
    """Second difference: x[i + 1] - 2 x[i] + x[i - 1]."""
    ahead, behind = _shifted(patches, 2, axis)
    middle = patches[:, :, 1:-1] if axis == 2 else patches[:, 1:-1]
    out = scratch(name, ahead.shape)
    np.subtract(ahead, middle, out=out)
    out -= middle
    out += behind
    return np.asarray(out)


def _block_means(values: Floats) -> Floats:
    """(N, h // 8, w // 8); at least one block however small the patch."""
    _, height, width = values.shape
    return np.asarray(np.matmul(np.matmul(_blocks(height), values), _blocks(width).T))


@cache
def _blocks(length: int) -> Floats:
    count = max(1, length // BLOCK)
    matrix = np.zeros((count, length), np.float32)
    for row in range(count):
        matrix[row, row * BLOCK : (row + 1) * BLOCK] = 1
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
    return np.asarray(np.take_along_axis(folded, phase, axis=1))


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


def spectrum(bends: Floats) -> Doubles:
    """(33,) power of (N, n) profiles over frequency k / 64 per pixel, patches averaged.

    Each profile is first divided by its mean and freed of slow changes, so that what stays is
    periodicity: peaks at 1 / f betray enlargement by f (Gallagher, "Detection of Linear and
    Cubic Interpolation in JPEG Compressed Images", 2005), those at eighths a coding grid.
    """
    relative = bends / (bends.mean(axis=1, keepdims=True) + 0.05)
    relative = np.matmul(relative, _detrending(relative.shape[1]))
    power = np.abs(np.fft.rfft(relative, _BINS, axis=1)) ** 2
    return np.asarray(power.mean(axis=0), np.float64)


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
    middle = scratch("middle", codes.shape, np.uint8)
    np.subtract(codes, 27, out=middle)
    between = middle[:, :, 1:] < 199
    equal = int(np.count_nonzero(between & (codes[:, :, 1:] == codes[:, :, :-1])))
    return equal / max(int(np.count_nonzero(between)), 500)


def flatness(codes: Plane) -> Flatness:
    across = _flatness(codes)
    down = _flatness(np.ascontiguousarray(codes.swapaxes(1, 2)))
    return Flatness(*((a + d) / 2 for a, d in zip(across, down, strict=True)))


def _flatness(codes: Plane) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    count, height, width = codes.shape
    step = scratch("step", (count, height, width - 1), np.uint8)
    np.subtract(codes[:, :, 1:], codes[:, :, :-1], out=step)
    equal = scratch("equal", step.shape, np.bool_)
    np.equal(step, 0, out=equal)
    reach = width - 1 - 2 * _RUN
    calm = scratch("calm", (count, height, reach), np.bool_)
    np.logical_and(equal[:, :, :reach], equal[:, :, 1 : 1 + reach], out=calm)
    for place in (2, 4, 5, 6):
        calm &= equal[:, :, place : place + reach]
    middle = step[:, :, _RUN : _RUN + reach]
    height_of = scratch("height", calm.shape, np.uint8)
    np.minimum(middle, np.negative(middle), out=height_of)
    height_of[~calm] = 255
    size = height * reach
    return (
        _share(equal, height * (width - 1)),
        _share(height_of == 0, size),
        _share(height_of == 2, size),
        _share((height_of >= 3) & (height_of <= 16), size),
    )


def _share(flags: NDArray[np.bool_], size: int) -> Doubles:
    flat = flags.reshape(len(flags), -1)
    return np.array([np.count_nonzero(row) for row in flat]) / size
