"""Rows with what they must and should reach, and how they are printed and kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure must reach, and what it aims at.

    low: as small as possible; otherwise as large as possible. must_range, aim_range: for figures
    that should lie inside, in place of must and aim.
    """

    must: float | None = None
    aim: float | None = None
    low: bool = False
    must_range: tuple[float, float] | None = None
    aim_range: tuple[float, float] | None = None

    def must_met(self, value: float) -> bool:
        return _met(value, self.must, self.must_range, low=self.low)

    def aim_met(self, value: float) -> bool:
        return _met(value, self.aim, self.aim_range, low=self.low)

    def words(self, *, aim: bool = False) -> str:
        inside, bound = (self.aim_range, self.aim) if aim else (self.must_range, self.must)
        if inside:
            return f"{inside[0]:g} to {inside[1]:g}"
        return "" if bound is None else f"{'≤' if self.low else '≥'} {bound:g}"


NO_GOAL = Goal()


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. interval: its 95 % bootstrap interval; n: of what `unit` says."""

    figure: str
    value: float
    n: int
    goal: Goal = NO_GOAL
    interval: tuple[float, float] | None = None
    digits: int = 3

    @property
    def verdict(self) -> str:
        """What was reached: aim, must or miss; empty where nothing was asked."""
        if not self.goal.words():
            return ""
        if self.goal.words(aim=True) and self.goal.aim_met(self.value):
            return "aim"
        return "must" if self.goal.must_met(self.value) else "miss"

    def cells(self) -> tuple[str, ...]:
        value = f"{self.value:.{self.digits}f}"
        if self.interval:
            value += f" [{self.interval[0]:.{self.digits}f}, {self.interval[1]:.{self.digits}f}]"
        goal = self.goal
        return self.figure, value, str(self.n), goal.words(), goal.words(aim=True), self.verdict


@dataclass(slots=True)
class Table:
    """Rows, notes in words on how they came about, and details for those who want to know."""

    name: str
    title: str
    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        rows = [
            {key: value for key, value in asdict(row).items() if key not in {"goal", "digits"}}
            | {"value": rounded(row.value), "interval": rounded(row.interval)}
            | {"must": row.goal.words(), "aim": row.goal.words(aim=True), "verdict": row.verdict}
            for row in self.rows
        ]
        return {
            "title": self.title,
            "rows": rows,
            "notes": self.notes,
            "details": rounded(self.details),
        }


HEADS = ("figure", "value", "n", "must", "aim", "verdict")


def printed(rows: Iterable[Mapping[str, Any]], title: str) -> str:
    """Rows as `Table.as_json` keeps them, as a table in Markdown."""
    lines = [f"## {title}", "", "| " + " | ".join(HEADS) + " |", "|" + "---|" * len(HEADS)]
    for row in rows:
        value = f"{row['value']:.4g}" if row["value"] is not None else "none"
        if row["interval"] and None not in row["interval"]:  # NaN where all predictions are one
            value += f" [{row['interval'][0]:.4g}, {row['interval'][1]:.4g}]"
        cells = (row["figure"], value, row["n"], row["must"], row["aim"], row["verdict"])
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def markdown(facts: Mapping[str, Any]) -> str:
    """The whole evaluation, as `write` keeps it, for people."""
    parts = [f"# {facts['model']}\n", facts.get("scope", "") + "\n"]
    for table in facts["tables"].values():
        parts.append(printed(table["rows"], table["title"]))
        parts += [f"- {note}" for note in table["notes"]]
        parts.append("")
    return "\n".join(parts)


def write(facts: Mapping[str, Any], folder: Path) -> None:
    """`evaluation.json` and `evaluation.md`."""
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (folder / "evaluation.json").write_text(text + "\n", encoding="utf-8")
    (folder / "evaluation.md").write_text(markdown(facts), encoding="utf-8")


def rounded(value: Any, digits: int = 4) -> Any:
    """Numbers to so many digits behind the point, in whatever they are nested; NaN becomes None."""
    if isinstance(value, Mapping):
        return {str(key): rounded(each, digits) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(each, digits) for each in value]
    if hasattr(value, "tolist"):
        return rounded(value.tolist(), digits)
    if isinstance(value, float):
        return round(value, digits) if value == value else None  # noqa: PLR0124  NaN
    return value


def _met(
    value: float, bound: float | None, inside: tuple[float, float] | None, *, low: bool
) -> bool:
    if inside:
        return inside[0] <= value <= inside[1]
    return bound is not None and (value <= bound if low else value >= bound)
