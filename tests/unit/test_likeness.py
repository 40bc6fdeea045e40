"""Whether two sides show the same content decides how sure a comparison may be."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tests.scenes import photograph
from vqmon.likeness import LIKE, Bits, Glimpses, counterparts, dhash, distances, upright_hash
from vqmon.testing import textured_frame


def _scene(seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 255, (20, 20))
    return np.kron(coarse, np.ones((16, 16)))


def hashes(*seeds: int) -> list[Bits]:
    return [dhash(_scene(seed)) for seed in seeds]


def test_a_rendition_is_near_and_another_scene_is_far() -> None:
    """Half the size and coarsely quantised is the same scene; the limit lies well between."""
    scene = _scene(1)
    rendition = (scene[::2, ::2] // 24) * 24.0

    near, far = (distances([dhash(scene)], [dhash(it)])[0, 0] for it in (rendition, _scene(2)))

    assert near <= LIKE / 2
    assert far >= LIKE * 1.3


def test_a_turned_picture_is_hashed_as_it_is_shown() -> None:
    """A phone's clip stored on its side must match the thumbnail that was turned upright."""
    shown = photograph(3)
    stored = np.rot90(shown)  # a player turns it 90 degrees clockwise

    assert (upright_hash(stored, 90) == upright_hash(shown)).all()


def test_counterparts_are_counted_on_the_side_with_fewer() -> None:
    """An excerpt is the same content although most of the whole is not in it."""
    whole, excerpt = hashes(1, 2, 3, 4, 5), hashes(3, 4)

    assert counterparts(whole, excerpt) == (2, 2)
    assert counterparts(excerpt, whole) == (2, 2)
    assert counterparts(hashes(1, 9), hashes(1, 2, 3)) == (1, 2)


def test_without_pictures_nothing_is_claimed() -> None:
    assert counterparts([], hashes(1)) is None


def test_glimpses_take_a_hash_of_each_picture_and_touch_no_segment() -> None:
    glimpses = Glimpses()
    frame = textured_frame(0.0, seed=1)

    glimpses.offer(frame, 50.0)
    glimpses.offer(replace(frame, position=1.0), None)

    assert len(glimpses.hashes) == 2
    assert glimpses.hashes[0].shape == (256,)
