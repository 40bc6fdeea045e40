"""Measures are computed in long loops over memory; here is the same, place by place."""

from __future__ import annotations

import numpy as np
import pytest

from vqmon.measures import natural, rows, texture
from vqmon.patches import quartered
from vqmon.patches.pieces import _averaged
from vqmon.patches.planes import enlarged, paired, smoothed
from vqmon.patches.view import _averaged as blocks

SHAPES = [(3, 32, 32), (2, 64, 64), (1, 108, 192), (2, 12, 12)]


def patches(shape, seed=0):
    """Texture on a slope, far from 0; no row goes on in the next."""
    rng = np.random.default_rng(seed)
    slope = np.linspace(20, 200, shape[2])
    return (slope + rng.normal(0, 9, shape)).clip(0, 255).astype(np.float32)


def window(values):
    """The Gaussian of the local mean, in double precision, where it fits."""
    weights = np.exp(-((np.arange(7) - 3) ** 2) / (2 * (7 / 6) ** 2))
    weights /= weights.sum()
    for axis in (1, 2):
        length = values.shape[axis] - 6
        values = sum(w * values.take(range(k, k + length), axis) for k, w in enumerate(weights))
    return values


def mscn(shown):
    values = shown.astype(np.float64)
    mean = window(values)
    deviation = np.sqrt(np.maximum(window(values**2) - mean**2, 0))
    return (values[:, 3:-3, 3:-3] - mean) / (deviation + 1), deviation


@pytest.mark.parametrize("shape", SHAPES)
def test_coefficients_are_those_of_the_definition(shape):
    """Where a row ends the next must not leak in."""
    shown = patches(shape)
    expected, deviation = mscn(shown)

    found = natural.coefficients(shown)

    within = found.mscn[:, :-6, :-6]
    np.testing.assert_allclose(within, expected, atol=2e-4)
    np.testing.assert_allclose(found.deviations(), deviation, rtol=1e-3)
    np.testing.assert_allclose(found.contrast(), deviation.mean(axis=(1, 2)), rtol=1e-5)


def test_a_flat_bright_area_beside_a_dark_one_has_no_contrast():
    """Rounding of the squares of a bright level would look like faint texture."""
    shown = np.full((1, 64, 64), 235, np.float32)
    shown[:, :, :20] = 16.3

    found = natural.coefficients(shown)

    assert found.deviations()[0, :, 30:].max() < 0.1


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("step", [(0, 1), (1, 0), (1, 1), (1, -1)])
def test_moments_of_products_are_those_of_the_products(shape, step):
    """They are computed without ever forming a product."""
    shown, (down, across) = patches(shape), step
    values, _ = mscn(shown)
    _, height, width = values.shape
    left = max(0, -across)
    columns = slice(left, left + width - abs(across))
    beside = slice(left + across, left + across + width - abs(across))
    product = values[:, : height - down, columns] * values[:, down:, beside]

    found = natural.Correlations(natural.coefficients(shown)).products(step)

    expected = [abs(product), product**2, product * abs(product)]
    np.testing.assert_allclose(found, [it.mean(axis=(1, 2)) for it in expected], atol=2e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_structure_is_the_mean_squared_difference(shape):
    """Rows and columns together, as many differences as fit."""
    shown = patches(shape).astype(np.float64)

    found = texture.structure(shown.astype(np.float32), (1, 4))

    for place, lag in enumerate((1, 4)):
        across = ((shown[:, :, lag:] - shown[:, :, :-lag]) ** 2).mean(axis=(1, 2))
        down = ((shown[:, lag:] - shown[:, :-lag]) ** 2).mean(axis=(1, 2))
        np.testing.assert_allclose(found[:, place], (across + down) / 2, rtol=1e-4)


@pytest.mark.parametrize("side", [8, 12, 32, 64])
def test_noise_is_measured_in_blocks_of_eight(side):
    """The operator leaves out a pixel all around; the blocks begin after it."""
    shown = patches((2, side, side)).astype(np.float64)
    both = np.diff(np.diff(shown, 2, axis=1), 2, axis=2)
    inside = shown[:, 1:-1, 1:-1]
    size, count = min(8, side - 2), max(1, (side - 2) // 8)

    found = texture.noise(shown.astype(np.float32))

    for row, column in np.ndindex(count, count):
        block = np.s_[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
        sigma = np.abs(both[block]).mean(axis=(1, 2)) * np.sqrt(np.pi / 2) / 6
        np.testing.assert_allclose(found.sigma[:, row, column], sigma, rtol=1e-4)
        np.testing.assert_allclose(
            found.mean[:, row, column], inside[block].mean(axis=(1, 2)), rtol=1e-5
        )
    bends = np.abs(np.diff(shown, 2, axis=1)).mean(axis=2)
    np.testing.assert_allclose(found.bends[1], bends, rtol=1e-4)


@pytest.mark.parametrize("side", [8, 12, 64])
def test_flatness_counts_neighbours_in_their_own_line(side):
    """Runs, steps and bands of few levels, where the end of a line meets the next one's start."""
    rng = np.random.default_rng(side)
    codes = (rng.integers(0, 3, (4, side, side // 4)) * 2).repeat(4, axis=2).astype(np.uint8)
    codes[0] = 90
    codes[1, :, side // 2 :] = 60

    found = texture.flatness(codes)

    expected = np.mean([plain_flatness(codes), plain_flatness(codes.swapaxes(1, 2))], axis=0)
    np.testing.assert_allclose(
        [found.equal, found.runs, found.faint, found.bands], expected, atol=1e-12
    )


def plain_flatness(codes):
    step = np.abs(np.diff(codes.astype(int), axis=2))
    shares = []
    for patch in step:
        rows_of = [row[k : k + 7] for row in patch for k in range(len(row) - 6)]
        middles = [int(run[3]) for run in rows_of if not run[[0, 1, 2, 4, 5, 6]].any()]
        kinds = [sum(it == 0 for it in middles), sum(it == 2 for it in middles)]
        kinds.append(sum(3 <= it <= 16 for it in middles))
        shares.append([(patch == 0).mean(), *(it / len(rows_of) for it in kinds)])
    return np.transpose(shares)


@pytest.mark.parametrize("length", [50, 96, 108, 144, 192, 700])
def test_the_overview_keeps_the_mean_and_shares_out_samples(length):
    """Each point is the area mean of its stretch, parts of samples included."""
    values = np.random.default_rng(1).normal(0, 50, (1, length, 3)).astype(np.float32)
    fine = values.astype(np.float64).repeat(96, axis=1).reshape(1, 96, length, 3).mean(axis=2)

    found = _averaged(values, 1)

    np.testing.assert_allclose(found, fine, atol=1e-3)


@pytest.mark.parametrize(("down", "across"), [(2, 1), (10, 5), (10, 10), (20, 20), (114, 114)])
def test_blocks_are_averaged_from_four_rows_without_overflow(down, across):
    """The largest pictures have blocks whose sums pass 16 bits."""
    plane = np.random.default_rng(2).integers(200, 256, (3 * down + 1, 2 * across + 3), np.uint8)
    count = min(4, down)
    rows_read = [(2 * i + 1) * down // (2 * count) for i in range(count)]

    found = blocks(plane, down, across, "test")

    for row, column in np.ndindex(3, 2):
        block = plane[row * down :, column * across :][rows_read, :across]
        assert found[row, column] == pytest.approx(block.mean(), rel=1e-6)


def test_smoothed_chroma_is_enlarged_chroma_averaged_back():
    """The shortcut of 4:2:0 and the general way are one."""
    chroma = patches((2, 16, 24))

    np.testing.assert_allclose(
        smoothed(smoothed(chroma, 1), 2), quartered(enlarged(chroma, (32, 48))), rtol=1e-5
    )


def test_neighbours_are_added_in_pairs():
    codes = np.random.default_rng(3).integers(0, 256, (2, 4, 6), np.uint8)

    assert (paired(codes) == codes.reshape(2, 4, 3, 2).sum(axis=3)).all()


def test_long_rows_are_added_up_whole():
    """Rows are cut where BLAS would wake its threads, also in the middle of one."""
    values = np.random.default_rng(4).random((2, 20_000), np.float32)

    np.testing.assert_allclose(rows.dots(values, values), (values**2).sum(axis=1), rtol=1e-5)
    np.testing.assert_allclose(rows.sums(values), values.sum(axis=1), rtol=1e-5)
    assert (rows.counts(values > 0.5) == (values > 0.5).sum(axis=1)).all()
    assert rows.mean_and_spread(values) == pytest.approx((values.mean(), values.std()), rel=1e-4)
