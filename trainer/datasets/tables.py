"""Any other set, as a table that its owner writes."""

from __future__ import annotations

from pathlib import Path

from trainer.datasets.samples import Sample, Scale, complain, rows_of_csv


def csv_table(table: Path, *, worst: float = 0.0, best: float = 100.0) -> list[Sample]:
    """A CSV file with the columns path, mos and, where known, std, group, subset and split.

    Paths count from the file's folder. worst, best: the ends of the scale of mos and std; a
    scale on which lower is better has its worst above its best. Cells may be empty. Raises
    ValueError for a scale without length.
    """
    if worst == best:
        raise ValueError(f"a scale from {worst} to {best} has no length")
    scale = Scale(worst, best)
    samples = [
        Sample(
            table.parent / row["path"],
            scale.quality(float(row["mos"])),
            row.get("subset", ""),
            row.get("split", ""),
            scale.std(float(row["std"])) if row.get("std") else None,
            row.get("group", ""),
        )
        for row in rows_of_csv(table, "path", "mos")
    ]
    complain(table, [str(it.path) for it in samples if not it.path.exists()])
    return samples
