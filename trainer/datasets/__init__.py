"""Pictures with human opinions, and clean photographs. Splits are by content, never by file.

    READERS[name](root) -> [Sample, ...]        one reader for each set, in its published layout

MOS of every set is mapped linearly to quality 0..100, its scale and direction stated at its
reader, and so is the opinions' spread where one is published. A table that names a picture which
is not there raises FileNotFoundError: a set that silently gets shorter changes every figure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from trainer.datasets.damaged import csiq, kadid10k, live, pipal, tid2013
from trainer.datasets.instructions import (
    Damaged,
    Preference,
    deqa,
    qinsight_comparison,
    qinsight_degradation,
    qinsight_score,
)
from trainer.datasets.photographs import (
    PICTURES,
    CleanPhotographs,
    clean_photographs,
)
from trainer.datasets.samples import Sample
from trainer.datasets.splits import (
    NEAR,
    content_groups,
    dhash,
    divided,
    near_duplicates,
    validation_part,
)
from trainer.datasets.tables import csv_table
from trainer.datasets.taken import agiqa3k, biq2021, koniq10k, livec, spaq

__all__ = [
    "NEAR",
    "PICTURES",
    "READERS",
    "CleanPhotographs",
    "Damaged",
    "Preference",
    "Sample",
    "agiqa3k",
    "biq2021",
    "clean_photographs",
    "content_groups",
    "csiq",
    "csv_table",
    "deqa",
    "dhash",
    "divided",
    "kadid10k",
    "koniq10k",
    "live",
    "livec",
    "near_duplicates",
    "pipal",
    "qinsight_comparison",
    "qinsight_degradation",
    "qinsight_score",
    "spaq",
    "tid2013",
    "validation_part",
]

READERS: Mapping[str, Callable[[Path], list[Sample]]] = {
    "agiqa3k": agiqa3k,
    "biq2021": biq2021,
    "csiq": csiq,
    "csv": csv_table,
    "deqa": deqa,
    "kadid10k": kadid10k,
    "koniq10k": koniq10k,
    "live": live,
    "livec": livec,
    "pipal": pipal,
    "qinsight": qinsight_score,
    "spaq": spaq,
    "tid2013": tid2013,
}
"""By the names that recipes use. `csv`, `deqa` and `qinsight` take a file, the others a folder."""
