"""What a network sees: pieces at their own resolution, and the whole picture, small."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from vqmon.domain import Colour, Frame
from vqmon.patches import look
from vqmon.patches.pieces import OVERVIEW, PIECE, overview, pieces
from vqmon.preprocess import prepare

FULL = Colour(full_range=True, matrix="bt709")


def frame(luma: np.ndarray, colour: Colour = FULL) -> Frame:
    grey = np.full((luma.shape[0] // 2, luma.shape[1] // 2), 128, np.uint8)
    return Frame((luma.astype(np.uint8), grey, grey), 0.0, datetime.now(UTC), colour)


def ramp(height: int, width: int) -> np.ndarray:
    """Brighter to the right, and slightly downwards."""
    rows, columns = np.mgrid[:height, :width]
    return np.asarray(30 + 150 * columns / width + 50 * rows / height)


@pytest.mark.parametrize("size", [(32, 48), (60, 34), (384, 512), (1080, 1920), (2160, 3840)])
def test_every_picture_gives_inputs_of_the_same_size(size: tuple[int, int]) -> None:
    """Pictures of all streams share a batch."""
    inputs = prepare(frame(ramp(*size))).inputs

    assert inputs["patches"].shape == (36, PIECE, PIECE)
    assert inputs["view"].shape == (3, OVERVIEW, OVERVIEW)
    assert inputs["patches"].dtype == inputs["view"].dtype == np.uint8


@pytest.mark.parametrize("size", [(384, 512), (1080, 1920)])
def test_pieces_lie_row_by_row(size: tuple[int, int]) -> None:
    """Regions are told by their place in the grid, at half resolution as well."""
    means = pieces(look(frame(ramp(*size)))).mean(axis=(1, 2)).reshape(6, 6)

    assert (np.diff(means, axis=1) > 0).all()
    assert (np.diff(means, axis=0) > 0).all()


def test_a_third_of_a_wide_picture_is_seen_at_half_resolution() -> None:
    """A one-pixel checkerboard is grey there, and black and white elsewhere."""
    rows, columns = np.mgrid[:1080, :1920]
    contrast = pieces(look(frame(255 * ((rows + columns) % 2)))).std(axis=(1, 2))

    assert (contrast < 1).sum() == 12
    assert (contrast > 120).sum() == 24


def test_range_and_matrix_do_not_matter() -> None:
    """The same luma, stored in full and in limited range."""
    full = pieces(look(frame(ramp(384, 512))))
    limited = np.rint(ramp(384, 512).astype(np.uint8).astype(float) * 219 / 255 + 16)
    stored = pieces(look(frame(limited, Colour(full_range=False, matrix="bt709"))))

    assert np.abs(full.astype(int) - stored.astype(int)).max() <= 1


def test_the_overview_keeps_the_mean_of_what_is_shown() -> None:
    """It is for exposure: averaging must not brighten or darken."""
    picture = np.random.default_rng(0).integers(0, 255, (720, 1280)).astype(float)

    luma = overview(look(frame(picture)))[0]

    assert luma.mean() == pytest.approx(picture.mean(), abs=1.5)


def test_serving_looks_at_the_same_places_every_time() -> None:
    """The same picture must score the same; only training draws offsets."""
    picture = frame(np.random.default_rng(1).integers(0, 255, (384, 512)).astype(float))

    first, again = prepare(picture).inputs, prepare(picture).inputs
    drawn = prepare(picture, np.random.default_rng(2)).inputs

    assert (first["patches"] == again["patches"]).all()
    assert not (first["patches"] == drawn["patches"]).all()
