"""JSON files of vision-language models: Q-Insight's three tasks, and DeQA-Score's."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from trainer.datasets.samples import Sample, Scale, complain
from vqmon.domain import SEVERITY_WORDS

FIVE = Scale(worst=1, best=5)

CLASSES = {
    "blur": "blur",
    "compression": "compression",
    "darken": "underexposed",
    "noise": "noise",
    "null": None,
}
"""Q-Insight's word for a degradation -> ours; None is clean."""

ANSWERS: dict[str, Literal["a", "b", "similar"]] = {
    "Image A": "a",
    "Image B": "b",
    "Similar": "similar",
}

_REFERENCE = re.compile(
    r"(?P<made>[IA]\d+)_\d+_\d+\.\w+"
    r"|(?P<csiq>\w+)\.(?:awgn|blur|contrast|fnoise|jpeg|jpeg2000)\.\d\.png",
    re.IGNORECASE,
)
"""Names of KADID, TID and PIPAL (`I01_01_01.png`, `A0001_00_00.bmp`) and of CSIQ."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """One picture and what was done to it. degradation: one of ours, None for clean; level: 1..5,
    None for clean.
    """

    path: Path
    degradation: str | None
    level: int | None


@dataclass(frozen=True, slots=True)
class Preference:
    """Two versions of one picture, and which of them people prefer. reference: what both were
    made from, None where the file names none.
    """

    a: Path
    b: Path
    better: Literal["a", "b", "similar"]
    reference: Path | None = None


def deqa(path: Path, images: Path | None = None) -> list[Sample]:
    """DeQA-Score's meta files: `Data-DeQA-Score/KONIQ/metas/train_koniq_7k.json` and the like.

    A list of objects with `image`, `gt_score_norm` (1 worst .. 5 best), and where known `std_norm`
    on the same scale; `gt_score` and `std` are on each set's own scale and are not read. images:
    the folder from which `image` counts; None looks for it above the file. Subset: the first
    folder of `image` (the set). Group: the reference, from names of KADID, TID2013, PIPAL and
    CSIQ. Split: train or test, as the file's name begins, else "".
    """
    rows = _rows(path, "image", "gt_score_norm")
    paths = _paths(path, images, [row["image"] for row in rows])
    split = next((it for it in ("train", "test") if path.stem.startswith(it)), "")
    return [
        Sample(
            picture,
            FIVE.quality(float(row["gt_score_norm"])),
            Path(row["image"]).parts[0] if len(Path(row["image"]).parts) > 1 else "",
            split,
            FIVE.std(float(row["std_norm"])) if row.get("std_norm") is not None else None,
            _reference(picture.name),
        )
        for picture, row in zip(paths, rows, strict=True)
    ]


def qinsight_score(path: Path, images: Path | None = None) -> list[Sample]:
    """Q-Insight's score task reads DeQA-Score's files as they are, `gt_score_norm` 1..5."""
    return deqa(path, images)


def qinsight_degradation(path: Path, images: Path | None = None) -> list[Damaged]:
    """Q-Insight's degradation task: `KADIS-700K/refA_sd_brief/metas/train_dist.json`.

    A list of objects with `image`, `distortion_class` (noise, compression, blur, darken, null) and
    `severity` (slight, moderate, obvious, serious, catastrophic, null); null may be the word or
    JSON's own. images: as for `deqa`. Raises ValueError naming a word that is none of these.
    """
    rows = _rows(path, "image", "distortion_class", "severity")
    paths = _paths(path, images, [row["image"] for row in rows])
    return [Damaged(picture, *_damage(path, row)) for picture, row in zip(paths, rows, strict=True)]


def _damage(path: Path, row: dict[str, Any]) -> tuple[str | None, int | None]:
    kind, severity = (
        str(row[name] or "null").strip().lower() for name in ("distortion_class", "severity")
    )
    if kind not in CLASSES or (severity not in SEVERITY_WORDS and severity != "null"):
        raise ValueError(f"{path}: {row['image']} is {kind!r}, {severity!r}; neither is known")
    if (CLASSES[kind] is None) is not (severity == "null"):
        raise ValueError(f"{path}: {row['image']} is {kind!r}, {severity!r}; one of both is null")
    return CLASSES[kind], None if severity == "null" else SEVERITY_WORDS.index(severity) + 1


def qinsight_comparison(path: Path, images: Path | None = None) -> list[Preference]:
    """Q-Insight's comparison task: `DiffIQA/ValidationImage/train_comparison.json`.

    A list of objects with `ref_image`, `ImageA`, `ImageB` and `result` (Image A, Image B,
    Similar). images: the folder from which the names count (`ValidationImage/images`); None looks
    for it above the file and in an `images` folder there. Content is the reference: split by it.
    Raises ValueError naming another result.
    """
    rows = _rows(path, "ImageA", "ImageB", "result")
    for row in rows:
        if row["result"] not in ANSWERS:
            raise ValueError(f"{path}: result {row['result']!r} is none of {', '.join(ANSWERS)}")
    root = images or _root(path, rows[0]["ImageA"] if rows else "")
    preferences = [
        Preference(
            root / row["ImageA"],
            root / row["ImageB"],
            ANSWERS[row["result"]],
            root / row["ref_image"] if row.get("ref_image") else None,
        )
        for row in rows
    ]
    _check_there(
        path, [it for pair in preferences for it in (pair.a, pair.b, pair.reference) if it]
    )
    return preferences


def _rows(path: Path, *needed: str) -> list[dict[str, Any]]:
    """Objects of a JSON array, or of JSON lines."""
    text = path.read_text(encoding="utf-8")
    lines = path.suffix == ".jsonl"
    rows = [json.loads(it) for it in text.splitlines() if it.strip()] if lines else json.loads(text)
    for place, row in enumerate(rows):
        lacking = [name for name in needed if name not in row]
        if lacking:
            raise ValueError(f"{path}: entry {place} lacks {', '.join(lacking)}")
    return list(rows)


def _paths(path: Path, images: Path | None, names: Sequence[str]) -> list[Path]:
    root = images or _root(path, names[0] if names else "")
    paths = [root / name for name in names]
    _check_there(path, paths)
    return paths


def _root(path: Path, name: str) -> Path:
    """The nearest folder above a file, or `images` in it, from which a name leads to a picture."""
    places = [it for above in path.absolute().parents for it in (above, above / "images")]
    found = next((place for place in places if (place / name).exists()), None)
    if found is None:
        raise FileNotFoundError(f"{path} names {name}, which is below none of its folders")
    return found


def _check_there(path: Path, paths: Sequence[Path]) -> None:
    complain(path, [str(it) for it in dict.fromkeys(paths) if not it.exists()])


def _reference(name: str) -> str:
    found = _REFERENCE.fullmatch(name)
    return (found["made"] or found["csiq"]).lower() if found else ""
