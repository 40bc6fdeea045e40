"""Damage of known strength: ladders are only worth something if their order is exact."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from trainer.degrade import DEGRADATIONS, STRENGTHS, Picture


@pytest.fixture(scope="module")
def clip() -> list[Picture]:
    """Two frames with texture at all scales and some colour."""
    rng = np.random.default_rng(3)
    coarse = np.kron(rng.uniform(40, 200, (12, 16, 3)), np.ones((16, 16, 1)))
    fine = rng.normal(0, 12, (192, 256, 1))
    first = np.clip(coarse + fine, 0, 255).astype(np.uint8)
    return [first, np.roll(first, 2, axis=1)]


each = pytest.mark.parametrize("name", list(DEGRADATIONS))


@each
def test_strength_zero_changes_nothing(name: str, clip: list[Picture]) -> None:
    """The first rung of every ladder is the clean picture itself."""
    unchanged = DEGRADATIONS[name](clip, 0, np.random.default_rng(1))

    assert all(np.array_equal(a, b) for a, b in zip(unchanged, clip, strict=True))


@each
def test_more_strength_is_more_damage(name: str, clip: list[Picture]) -> None:
    """Order is the only label a ladder has."""
    errors = [
        _error(DEGRADATIONS[name](clip, s, np.random.default_rng(1)), clip) for s in STRENGTHS
    ]

    assert errors == sorted(errors)
    assert len(set(errors)) == len(STRENGTHS)


@each
def test_the_same_seed_gives_the_same_damage(name: str, clip: list[Picture]) -> None:
    """Figures can be reproduced, and a ladder is one damage at rising strength."""
    one, two = (DEGRADATIONS[name](clip, 3, np.random.default_rng(9)) for _ in range(2))

    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


@each
def test_frames_stay_frames(name: str, clip: list[Picture]) -> None:
    """As many pictures come out as went in, of the same size and type; the input is kept."""
    before = [picture.copy() for picture in clip]

    damaged = DEGRADATIONS[name](clip, 2.5, np.random.default_rng(1))

    assert [(p.shape, p.dtype) for p in damaged] == [(p.shape, p.dtype) for p in clip]
    assert all(np.array_equal(a, b) for a, b in zip(before, clip, strict=True))


def test_exposure_moves_brightness_the_way_its_name_says(clip: list[Picture]) -> None:
    """A swapped sign would teach the model the opposite."""
    dark, bright = (
        float(np.mean(DEGRADATIONS[name](clip, 2, np.random.default_rng(1))[0]))
        for name in ("underexposed", "overexposed")
    )

    assert dark < clip[0].mean() - 20
    assert bright > clip[0].mean() + 20


def _error(damaged: list[Picture], clean: list[Picture]) -> float:
    pairs = zip(damaged, clean, strict=True)
    return float(np.mean([np.mean((a.astype(float) - b) ** 2) for a, b in pairs]))
