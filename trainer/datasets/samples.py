"""What readers give, and what they share: scales, folders whose names differ in case, tables."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NAMED = 3
"""Missing files named in one complaint."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what people said of it.

    quality: mean opinion 0..100. subset: the part of its set that it comes from (how it was
    damaged, which camera or generator). split: "train", "validation" or "test" as the set's owner
    divided it, "" where the owner did not.
    std: standard deviation of the opinions on one picture, points of the same scale; None where
    none is published. group: what it shows, for sets in which several pictures show the same (the
    reference, the prompt); "" for a picture that is its own content.
    """

    path: Path
    quality: float
    subset: str
    split: str
    std: float | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """A set's own scale: `worst` becomes 0, `best` 100. DMOS has its worst above its best."""

    worst: float
    best: float

    def quality(self, opinion: float) -> float:
        """Clipped to 0..100: realigned scales run a little beyond their ends."""
        value = 100 * (opinion - self.worst) / (self.best - self.worst)
        return min(100.0, max(0.0, value))

    def std(self, spread: float) -> float:
        return abs(100 * spread / (self.best - self.worst))


class Folder:
    """Pictures of a folder by name, whatever the case of the letters on disk."""

    def __init__(self, *places: Path) -> None:
        """The first of `places` that is a folder; raises FileNotFoundError when none is."""
        self.path = first_folder(*places)
        self._files = {path.name.lower(): path for path in self.path.iterdir()}
        self._missing: list[str] = []

    def __getitem__(self, name: str) -> Path:
        """The picture, or where it ought to be; see `check`."""
        found = self._files.get(name.lower())
        if found is None:
            self._missing.append(name)
            return self.path / name
        return found

    def check(self, table: Path) -> None:
        """Raise FileNotFoundError when `table` named pictures that are not there."""
        complain(table, [str(self.path / name) for name in self._missing])


def complain(table: Path, missing: list[str]) -> None:
    """Raise FileNotFoundError naming the first of the pictures that a table names in vain."""
    if missing:
        more = f" and {len(missing) - NAMED} more" if len(missing) > NAMED else ""
        raise FileNotFoundError(f"{table} names {', '.join(missing[:NAMED])}{more}: missing")


def first_folder(*places: Path) -> Path:
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise FileNotFoundError(f"no folder {' or '.join(map(str, places))}")
    return found


def first_file(*places: Path) -> Path:
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(f"no file {' or '.join(map(str, places))}")
    return found


def rows_of_csv(path: Path, *needed: str) -> Iterator[dict[str, str]]:
    """Rows by column name, blanks stripped; raises ValueError naming a column that is missing."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        names = [(name or "").strip() for name in rows.fieldnames or ()]
        _check_columns(path, names, needed)
        rows.fieldnames = names
        for row in rows:
            yield {name: (value or "").strip() for name, value in row.items() if name}


def rows_of_sheet(path: Path, *needed: str, sheet: str | None = None) -> list[dict[str, Any]]:
    """Rows of a spreadsheet below the line that holds all of `needed`; empty rows left out.

    sheet: its name; None takes the first.
    """
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True, data_only=True)
    try:
        lines = list((book[sheet] if sheet else book.worksheets[0]).iter_rows(values_only=True))
    finally:
        book.close()
    for place, line in enumerate(lines):
        names = [str(cell).strip() if cell is not None else "" for cell in line]
        if set(needed) <= set(names):
            rows = [dict(zip(names, cells, strict=False)) for cells in lines[place + 1 :]]
            return [row for row in rows if all(row[name] is not None for name in needed)]
    raise ValueError(f"{path}: no line with the columns {', '.join(needed)}")


def matlab(path: Path, *names: str) -> dict[str, NDArray[Any]]:
    """Variables of a MATLAB file, each as one flat array; raises ValueError for one that lacks."""
    from scipy.io import loadmat

    content = loadmat(path)
    _check_columns(path, content, names)
    return {name: np.ravel(content[name]) for name in names}


def texts(cells: Iterable[Any]) -> list[str]:
    """A MATLAB cell array of strings, flat, as strings."""
    return [str(np.ravel(cell)[0]) for cell in cells]


def _check_columns(
    path: Path, names: Iterable[str] | Mapping[str, Any], needed: Iterable[str]
) -> None:
    lacking = [name for name in needed if name not in set(names)]
    if lacking:
        raise ValueError(f"{path} lacks {', '.join(lacking)}; it has {', '.join(names)}")
