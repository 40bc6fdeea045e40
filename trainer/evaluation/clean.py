"""Clean photographs: how often one is accused, and whether a smaller copy scores the same."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.asis import clean_at_all_sizes
from trainer.evaluation.judging import Judge, Verdicts
from trainer.evaluation.shelf import Shelf
from trainer.evaluation.tables import Goal, Row, Table
from vqmon.domain import DEGRADATIONS

FALSE_ALARMS = Goal(0.10, 0.05, low=True)
SAME_PICTURE = Goal(8, 4, low=True)
TRAINED_ON = "clic2025 validation"
"""A source of training pictures, so its figure stands apart."""


def photographs(root: Path) -> list[Path]:
    """CID22 validation, both parts of CLIC 2025, Kodak, below `root` in their published layout.

    Raises FileNotFoundError when none of them is there.
    """
    folders = (
        root / "CID22" / "CID22-512" / "validation",
        root / "clic2025" / "validation",
        root / "clic2025" / "final-test",
        root / "kodak",
    )
    found = [path for folder in folders for path in sorted(folder.glob("*.[pj][np]*g"))]
    if not found:
        raise FileNotFoundError(f"no clean photographs below {root}: see trainer/README.md")
    return found


def alarm_table(judge: Judge, shelf: Shelf, paths: Sequence[Path]) -> Table:
    """Share of clean pictures with any finding, at the thresholds of the model's card."""
    verdicts = judge.of(shelf.kept("clean", paths, clean_at_all_sizes))
    corpus, size = verdicts.fact("corpus"), verdicts.fact("size")
    accused = verdicts.strongest_severity > 0
    unseen = corpus != TRAINED_ON
    table = Table("clean", "Clean photographs with any finding, at the shipped thresholds")
    table.rows = [_row("held out, all sizes", accused, unseen, FALSE_ALARMS)]
    if not unseen.all():
        table.rows.append(
            _row("with the sources of training", accused, unseen | True, FALSE_ALARMS)
        )
    for name in dict.fromkeys(corpus.tolist()):
        for one in np.unique(size[corpus == name]):
            what = f"{name}{f' at {one} px' if one else ''}"
            what += " (sources of training)" if name == TRAINED_ON else ""
            table.rows.append(_row(what, accused, (corpus == name) & (size == one)))
    table.notes.append(
        f"{TRAINED_ON} photographs are sources of training and validation pictures; the first "
        "row is without them, the second with them."
    )
    table.details = {
        "findings by name, held out": {
            name: int((verdicts.severity[unseen, i] > 0).sum())
            for i, name in enumerate(DEGRADATIONS)
        },
        "accused, held out": _accused(verdicts, accused & unseen),
        "quality, percentiles 5 50 95": np.nanpercentile(
            verdicts.quality[unseen], [5, 50, 95]
        ).tolist(),
    }
    return table


def size_table(judge: Judge, shelf: Shelf, paths: Sequence[Path]) -> Table:
    """Largest difference of score between one clean photograph and its reductions."""
    verdicts = judge.of(shelf.kept("clean", paths, clean_at_all_sizes))
    table = Table("sizes", "The same clean CLIC photograph at 2048, 1024 and 512 px")
    for name, goal in (
        ("clic2025 final-test", SAME_PICTURE),
        (TRAINED_ON, Goal()),
        ("clic2025", SAME_PICTURE),
    ):
        apart = differences(verdicts, name)
        if not len(apart):
            continue
        what = {"clic2025": "all of them", TRAINED_ON: f"{name} (sources of training)"}
        low, high = _median_interval(apart)
        table.rows.append(
            Row(
                f"largest difference, median, points: {what.get(name, name)}",
                float(np.median(apart)),
                len(apart),
                goal,
                (low, high),
                digits=1,
            )
        )
    sizes, large = verdicts.fact("size").astype(int), _large(verdicts)
    table.details["median quality by size (0: its own)"] = {
        str(size): float(np.nanmedian(verdicts.quality[large & (sizes == size)]))
        for size in np.unique(sizes[large]).tolist()
    }
    return table


def differences(verdicts: Verdicts, corpus: str) -> NDArray[np.float64]:
    """Points between the best and the worst of one photograph's sizes, for photographs of the
    corpus that come in several.
    """
    names = verdicts.fact("photograph")
    inside = np.char.startswith(verdicts.fact("corpus").astype(str), corpus)
    several = [
        verdicts.quality[rows]
        for name in dict.fromkeys(names[inside].tolist())
        if (rows := inside & (names == name)).sum() > 1
    ]
    return np.array([float(np.ptp(each)) for each in several])


def _large(verdicts: Verdicts) -> NDArray[np.bool_]:
    """Pictures of photographs that come in several sizes."""
    names = verdicts.fact("photograph")
    several = {str(name) for name in names[verdicts.fact("size").astype(int) > 0]}
    return np.array([str(name) in several for name in names])


def _row(
    what: str, accused: NDArray[np.bool_], rows: NDArray[Any], goal: Goal | None = None
) -> Row:
    some = accused[rows]
    rng = np.random.default_rng(4)
    drawn = [float(some[rng.integers(0, len(some), len(some))].mean()) for _ in range(1000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Row(what, float(some.mean()), len(some), goal or Goal(), (float(low), float(high)))


def _median_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    rng = np.random.default_rng(7)
    drawn = [float(np.median(rng.choice(values, len(values)))) for _ in range(1000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _accused(verdicts: Verdicts, rows: NDArray[np.bool_]) -> list[str]:
    """What is said of whom."""
    said = []
    for place in np.flatnonzero(rows).tolist():
        facts, name = verdicts.facts[place], str(verdicts.strongest[place])
        level = int(verdicts.strongest_severity[place])
        sure = float(verdicts.confidence[place].max())
        said.append(
            f"{facts['corpus']} {facts['photograph']} at {facts['size'] or 'its own'} px: "
            f"{name} {level} ({sure:.2f})"
        )
    return said
