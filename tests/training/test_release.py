"""What is chosen when a model is released, and that it is chosen as the card says."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from trainer import evaluate
from trainer.groups import Pictures
from trainer.release import (
    LEAST_CLEAN,
    _unseen,
    costs,
    quality_calibration,
    thresholds,
    uncertainty_calibration,
)
from vqmon.domain import DEGRADATIONS


def test_a_line_is_fitted_and_never_leaves_the_scale() -> None:
    """Raw scores that are pressed together are stretched; the order stays."""
    said = np.linspace(5, 95, 50)
    raw = 50 + 0.5 * (said - 50)

    line = quality_calibration(raw, said)

    assert np.interp(raw, line["from"], line["to"]) == pytest.approx(said, abs=0.5)
    assert 0 <= min(line["to"]) <= max(line["to"]) <= 100


def test_four_of_five_opinions_lie_in_the_interval() -> None:
    """The nominal 80 % interval, on the pictures it was fitted on."""
    rng = np.random.default_rng(0)
    quality, spread = rng.uniform(20, 80, 500), rng.uniform(3, 9, 500)
    said = quality + rng.normal(0, 1.5 * spread)

    found = uncertainty_calibration(quality, spread, said)

    sigma = np.hypot(found["scale"] * spread, found["floor"])
    assert evaluate.coverage(quality, sigma, said) == pytest.approx(0.8, abs=0.01)


def test_thresholds_are_chosen_on_pictures_that_were_not_learned() -> None:
    """Where there are enough of them; a handful would leave the choice to chance."""
    split = np.repeat(np.array(["train", "validation"]), LEAST_CLEAN)
    clean = np.ones(2 * LEAST_CLEAN, bool)

    assert _unseen(clean, split).tolist() == (split == "validation").tolist()
    assert _unseen(clean[:-1], split[:-1]).all()


def test_thresholds_keep_false_alarms_rare() -> None:
    """Of all degradations together, on the clean pictures given."""
    rng = np.random.default_rng(1)
    present = rng.beta(1, 6, (2000, len(DEGRADATIONS)))
    levels = np.zeros((2000, len(DEGRADATIONS), 6))
    levels[..., 0], levels[..., 1] = 1 - present, present

    chosen = thresholds(levels, np.ones(2000, bool))

    limits = np.array([chosen[name] for name in DEGRADATIONS])
    assert (present > limits).any(1).mean() <= 0.032
    assert min(limits) >= 0.5


def test_the_cost_of_a_level_is_its_median_drop_and_rises() -> None:
    """From the clean rung of a ladder, degradations alone; a rare dip does not make level 4 cost
    less than level 3.
    """
    count, drops = 20, [0, 3, 9, 20, 18, 40]
    n = count * 6
    level = np.tile(np.arange(6), count)
    levels = np.zeros((n, len(DEGRADATIONS)), np.int8)
    levels[:, DEGRADATIONS.index("noise")] = level
    pictures = Pictures(
        features=np.zeros((n, 1, 2)),
        mos=np.full(n, np.nan, np.float32),
        sigma=np.full(n, np.nan, np.float32),
        dataset=np.full(n, "synthetic"),
        subset=np.full(n, "synthetic"),
        split=np.full(n, "train"),
        levels=levels,
        regions=np.full((n, 9), -1, np.int8),
        ladder=np.repeat(np.arange(count), 6),
        rung=level.astype(np.float32),
    )
    quality = 80 - np.tile(drops, count) + np.repeat(np.arange(count), 6)

    table = costs(pictures, quality)

    assert table["noise"] == [3, 9, 20, 20, 40]
    assert table["blur"] == [0, 0, 0, 0, 0]
