"""Damage of known strength: ladders are only worth something if their order is exact."""

from __future__ import annotations

import os

import numpy as np
import pytest

pytest.importorskip("scipy")

from trainer.degrade import DEGRADATIONS, STRENGTHS, VARIANTS, Picture, Variant
from trainer.degrade.codecs import ENCODERS, through_codec
from trainer.degrade.corruption import damage, debris, level_of_area, lossy_rungs


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


variants = pytest.mark.parametrize(
    ("kind", "variant"),
    [(kind, variant) for kind, some in VARIANTS.items() for variant in some],
    ids=lambda it: it if isinstance(it, str) else it.name,
)


@variants
def test_every_variant_rises_with_its_strength(
    kind: str, variant: Variant, clip: list[Picture]
) -> None:
    """Levels mean the same order whatever the variant."""
    damaged = [variant(clip[0], s, np.random.default_rng(2)) for s in STRENGTHS]

    errors = [_error([picture], [clip[0]]) for picture in damaged]

    assert errors[0] == 0
    assert errors == sorted(errors), kind


@pytest.mark.parametrize("codec", list(ENCODERS))
def test_every_codec_loses_more_at_higher_strength(codec: str, clip: list[Picture]) -> None:
    """Rates are given best first; a decoder gives every frame back."""
    rates = ENCODERS[codec].rates
    errors = []
    for strength in (0, 2, 5):
        frames = through_codec(clip, codec, rates[strength])
        assert len(frames) == len(clip)
        errors.append(_error(frames, clip))

    assert errors == sorted(errors)


def test_lost_slices_damage_more_the_more_are_lost(clip: list[Picture]) -> None:
    """Real decoders hide some of it, so the label is the damaged area and nothing else."""
    moving = [np.roll(clip[0], 5 * i, axis=1) for i in range(12)]

    intact, rungs = lossy_rungs(moving, (0.1, 1.0), np.random.default_rng(1))

    areas = [float(damage(picture, intact).mean()) for picture in rungs]
    assert areas[0] < areas[1]
    assert areas[1] > 0.1
    assert damage(intact, intact).mean() == 0


@pytest.mark.parametrize(("share", "level"), [(0, 0), (0.02, 1), (0.13, 3), (0.5, 5), (1, 5)])
def test_corruption_is_as_bad_as_its_area(share: float, level: int) -> None:
    """Levels lie on a logarithmic scale: two per cent is slight, half is catastrophic."""
    assert level_of_area(share) == level


def test_debris_hits_the_area_that_was_asked_for(clip: list[Picture]) -> None:
    """Never less of the picture is changed when more is asked for."""
    hit = [
        float((debris(clip[0], share, np.random.default_rng(3)) != clip[0]).any(axis=2).mean())
        for share in (0.05, 0.2, 0.5)
    ]

    assert hit == sorted(hit)
    assert hit[-1] == pytest.approx(0.5, abs=0.15)


def test_encoding_leaves_the_process_as_ordinary_as_it_was() -> None:
    """As root SVT-AV1 makes its caller real-time: a run of the generator would starve the machine."""
    before = os.sched_getscheduler(0)

    through_codec([np.full((64, 64, 3), 90, np.uint8)] * 3, "av1", 50)

    assert os.sched_getscheduler(0) == before
