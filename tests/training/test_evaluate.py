"""Figures that the card publishes, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from trainer import evaluate

OPINION = np.array([1.0, 2, 3, 4, 5])


def test_agreement_of_known_vectors() -> None:
    """PLCC 0.8 = 8/10, SRCC 1 - 6*4/(5*24) = 0.8, KRCC (8 - 2)/10, RMSE sqrt(4/5)."""
    predicted = np.array([2.0, 1, 4, 3, 5])

    assert evaluate.plcc(predicted, OPINION) == pytest.approx(0.8)
    assert evaluate.srcc(predicted, OPINION) == pytest.approx(0.8)
    assert evaluate.krcc(predicted, OPINION) == pytest.approx(0.6)
    assert evaluate.rmse(predicted, OPINION) == pytest.approx(np.sqrt(0.8))


def test_rank_figures_ignore_a_monotone_change_and_rmse_does_not() -> None:
    """Raw predictions are judged: no logistic is fitted that would hide a wrong scale."""
    predicted = np.exp(OPINION)

    assert evaluate.srcc(predicted, OPINION) == pytest.approx(1)
    assert evaluate.plcc(predicted, OPINION) < 0.9
    assert evaluate.rmse(predicted, OPINION) > 10


def test_intervals_hold_the_value_and_shrink_with_more_pictures() -> None:
    """An interval is what tells a reader whether two models differ."""
    rng = np.random.default_rng(0)
    opinion = rng.normal(size=1600)
    predicted = opinion + rng.normal(size=1600)

    few = evaluate.agreement(predicted[:100], opinion[:100], rng, 300)["plcc"]
    many = evaluate.agreement(predicted, opinion, rng, 300)["plcc"]

    assert few.low < few.value < few.high
    assert many.low < np.sqrt(0.5) < many.high
    assert (many.high - many.low) < 0.5 * (few.high - few.low)


def test_coverage_of_true_normal_errors_is_nominal() -> None:
    """An uncertainty is right when so many opinions fall inside as it promises."""
    rng = np.random.default_rng(0)
    sigma = rng.uniform(2, 20, 20000)
    error = rng.normal(0, sigma)

    assert evaluate.coverage(error, sigma, np.zeros(20000)) == pytest.approx(0.8, abs=0.01)
    assert evaluate.coverage(error, sigma, np.zeros(20000), 0.5) == pytest.approx(0.5, abs=0.01)
    assert evaluate.coverage(error, sigma / 2, np.zeros(20000)) < 0.6


def test_equal_rungs_do_not_count_as_ordered() -> None:
    """A model that does not see a damage at all must not get credit for it."""
    ladders = [np.array([80.0, 70, 70, 60]), np.array([50.0, 55, 40, 30])]

    assert evaluate.ordered(ladders) == pytest.approx(4 / 6)


def test_pair_accuracy_is_reported_by_distance() -> None:
    """Close pairs are hard for people too; one number would hide that."""
    opinion = np.array([10.0, 12, 60])
    predicted = np.array([12.0, 10, 60])

    shares = evaluate.pair_accuracy(predicted, opinion, (0, 5, 100))

    assert shares == {"0-5": 0.0, "5-100": 1.0}
