"""From probabilities to findings."""

from __future__ import annotations

import numpy as np
import pytest

from vqmon.domain import CELLS, DEGRADATIONS
from vqmon.scorers.naming import Naming

FACTS = {
    "thresholds": dict.fromkeys(DEGRADATIONS, 0.5) | {"noise": 0.9},
    "region_threshold": 0.5,
    "costs": {name: [2, 5, 10, 20, 40] for name in DEGRADATIONS},
}
NAMING = Naming.of(FACTS)


def levels(**rows: list[float]) -> np.ndarray:
    """(8, 6): absent for certain, but for what is named."""
    table = np.tile(np.array([1.0, 0, 0, 0, 0, 0]), (len(DEGRADATIONS), 1))
    for name, row in rows.items():
        table[DEGRADATIONS.index(name)] = row
    return table


def test_an_intact_picture_has_no_findings() -> None:
    """Clean means that all are absent."""
    assert NAMING.findings(levels(), np.zeros(9), 1.0) == ()


def test_the_likeliest_level_is_the_severity_and_the_expected_one_the_value() -> None:
    """Both are said: a word for people, a number for rules."""
    [found] = NAMING.findings(levels(blur=[0.2, 0, 0.2, 0.6, 0, 0]), np.zeros(9), 3.5)

    assert (found.name, found.severity, found.start) == ("blur", 3, 3.5)
    assert found.value == pytest.approx(2.75)
    assert (found.limit, found.unit) == (1.0, "of 5")
    assert found.confidence == pytest.approx(0.8)
    assert found.cost == pytest.approx(5 + 0.75 * 5, abs=0.06)
    assert found.region is None


def test_each_degradation_has_a_threshold_of_its_own() -> None:
    """Grain that is meant must not alarm: noise has to be surer than others."""
    unsure = [0.3, 0.7, 0, 0, 0, 0]

    found = NAMING.findings(levels(blur=unsure, noise=unsure), None, 0.0)

    assert [it.name for it in found] == ["blur"]


def test_the_worst_comes_first_and_some_cells_are_named() -> None:
    """Where it is, unless it is nearly everywhere."""
    both = levels(blur=[0.1, 0.9, 0, 0, 0, 0], corrupted=[0.05, 0, 0, 0, 0.95, 0])
    few, most = np.zeros(9), np.ones(9)
    few[[0, 4]] = 0.9

    found = NAMING.findings(both, few, 0.0)

    assert [it.name for it in found] == ["corrupted", "blur"]
    assert found[0].region == (CELLS[0], CELLS[4])
    assert NAMING.findings(both, most, 0.0)[0].region is None


def test_a_card_that_leaves_a_degradation_out_is_refused() -> None:
    """It would never be found, silently."""
    with pytest.raises(KeyError):
        Naming.of({**FACTS, "thresholds": {"blur": 0.5}})
    with pytest.raises(ValueError, match="five costs"):
        Naming.of({**FACTS, "costs": {name: [1, 2] for name in DEGRADATIONS}})
