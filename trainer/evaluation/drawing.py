"""Figures as PNG: what a table says, to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from trainer.evaluation.classes import OTHER
from trainer.evaluation.tables import Table

SIZE, DPI = (6.0, 4.6), 110
NOMINAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def draw(table: Table, folder: Path) -> list[Path]:
    """Draws what the table's details allow; the files written."""
    details = table.details
    found = []
    if "predicted" in details:
        found.append(_scatter(details, folder / f"{table.name}-scatter.png"))
        found.append(_reliability(details, folder / f"{table.name}-reliability.png"))
    if "confusion" in details:
        found.append(_confusion(table, folder / f"{table.name}-confusion.png"))
    medians = details.get("median quality, clean and level 1 to 5")
    if medians:
        found.append(_lines(medians, table.title, folder / f"{table.name}.png", "level"))
    if table.name == "rates":
        found.append(_rates(details, table.title, folder / "rates.png"))
    return found


def _scatter(details: Mapping[str, Any], path: Path) -> Path:
    predicted, said = _numbers(details["predicted"]), _numbers(details["opinion"])
    figure, axes = _axes("BIQ2021 test: score against opinion")
    for name in sorted(set(details["subset"])):
        rows = np.array(details["subset"]) == name
        axes.scatter(said[rows], predicted[rows], s=5, alpha=0.5, label=name)
    axes.plot([0, 100], [0, 100], color="grey", linewidth=0.8)
    axes.set(xlabel="mean opinion, 0 to 100", ylabel="score", xlim=(0, 100), ylim=(0, 100))
    axes.legend(markerscale=2)
    return _saved(figure, path)


def _reliability(details: Mapping[str, Any], path: Path) -> Path:
    error = np.abs(_numbers(details["predicted"]) - _numbers(details["opinion"]))
    sigma = _numbers(details["uncertainty"])
    held = [float(np.mean(error <= stats.norm.ppf(0.5 + it / 2) * sigma)) for it in NOMINAL]
    figure, axes = _axes("BIQ2021 test: what the intervals hold")
    axes.plot(NOMINAL, held, marker="o")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    axes.set(xlabel="nominal", ylabel="opinions inside", xlim=(0, 1), ylim=(0, 1))
    return _saved(figure, path)


def _confusion(table: Table, path: Path) -> Path:
    counts = np.array(table.details["confusion"], float)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = table.details["classes"]
    figure, axes = _axes(table.title, side=1.0 + 0.62 * len(names))
    axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, line in enumerate(shares):
        for column, share in enumerate(line):
            if share >= 0.005:
                colour = "white" if share > 0.5 else "black"
                axes.text(
                    column, row, f"{share:.2f}", ha="center", va="center", color=colour, fontsize=7
                )
    axes.set_xticks(range(len(names) + 1), [*names, OTHER], rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.set(xlabel="said", ylabel="is")
    return _saved(figure, path)


def _lines(lines: Mapping[str, Any], title: str, path: Path, across: str) -> Path:
    figure, axes = _axes(title)
    for name, values in lines.items():
        axes.plot(_numbers(values), marker="o", markersize=3, label=name)
    axes.set(xlabel=across, ylabel="median score", ylim=(0, 100))
    axes.legend(fontsize=8)
    return _saved(figure, path)


def _rates(details: Mapping[str, Any], title: str, path: Path) -> Path:
    figure, axes = _axes(title)
    for codec, facts in details.items():
        if isinstance(facts, Mapping) and "rates" in facts:
            x = _numbers(facts["full-reference index by rung, median"])
            y = _numbers(facts["quality by rung, median"])
            axes.plot(x, y, marker="o", markersize=3, label=codec)
    axes.set(xlabel="full-reference index, median", ylabel="score, median", ylim=(0, 100))
    axes.legend()
    return _saved(figure, path)


def _axes(title: str, side: float | None = None) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(side, side) if side else SIZE, dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=9)
    return figure, axes


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path)
    return path


def _numbers(values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if it is None else it for it in values], np.float64)
