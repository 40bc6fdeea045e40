"""Sets of pictures as they were taken or generated: each picture is its own content."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from trainer.datasets.samples import (
    Folder,
    Sample,
    Scale,
    first_file,
    matlab,
    rows_of_csv,
    rows_of_sheet,
    texts,
)

VOTES = ("c1", "c2", "c3", "c4", "c5")
KONIQ_SPLITS = {"training": "train", "validation": "validation", "test": "test"}


def biq2021(root: Path) -> list[Sample]:
    """BIQ2021: 12,000 pictures of 512x512, MOS 0..1 from 30 observers each -> 0..100.

    `root` holds `Images/` and the two CSV files as published. Subsets: ss01 (gallery, mixed
    faults), ss02 (faults made while taking), ss03 (from Unsplash). No spreads. One file is `.JPG`
    on disk and `.jpg` in the table. Raises FileNotFoundError naming what is missing.
    """
    pictures, scale = Folder(root / "Images"), Scale(worst=0, best=1)
    samples = []
    for split in ("Train", "Test"):
        table = first_file(root / f"{split} (Images and MOS).csv")
        samples += [
            Sample(pictures[name], scale.quality(mos), name[:4], split.lower())
            for name, mos in _biq_rows(table)
        ]
        pictures.check(table)
    return samples


def _biq_rows(path: Path) -> Iterable[tuple[str, float]]:
    """Some rows carry empty columns behind the two that count."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for row in rows:
            if row and row[0].strip():
                yield row[0].strip(), float(row[1])


def koniq10k(root: Path) -> list[Sample]:
    """KonIQ-10k: 10,073 pictures from the wild, about 120 votes of 1 (worst) .. 5 (best) each.

    `root` holds `1024x768/` or `512x384/` (the first that is there) and one of two tables.
    `koniq10k_distributions_sets.csv`: image_name, c1..c5 (votes), c_total, MOS, SD, set (training,
    validation, test); its MOS is already 0..100. `koniq10k_scores_and_distributions.csv`: the
    same without set and with MOS 1..5 and MOS_zscore 0..100; MOS is taken. Spreads are those of
    the votes, which are on one scale in both. No subsets. Split: as in the first table.
    """
    table = first_file(
        root / "koniq10k_distributions_sets.csv",
        root / "koniq10k_scores_and_distributions.csv",
    )
    divided = table.name == "koniq10k_distributions_sets.csv"
    scale = Scale(worst=0, best=100) if divided else Scale(worst=1, best=5)
    pictures = Folder(root / "1024x768", root / "512x384")
    needed = ("image_name", *VOTES, "MOS", *(("set",) if divided else ()))
    samples = [
        Sample(
            pictures[row["image_name"]],
            scale.quality(float(row["MOS"])),
            "",
            KONIQ_SPLITS[row["set"]] if divided else "",
            _spread_of_votes([float(row[name]) for name in VOTES]),
        )
        for row in rows_of_csv(table, *needed)
    ]
    pictures.check(table)
    return samples


def _spread_of_votes(votes: list[float]) -> float:
    """Standard deviation of votes 1..5, given as counts or shares, in points of 0..100."""
    total = sum(votes)
    mean = sum((i + 1) * n for i, n in enumerate(votes)) / total
    variance = sum((i + 1 - mean) ** 2 * n for i, n in enumerate(votes)) / total
    return Scale(worst=1, best=5).std(variance**0.5)


def spaq(root: Path) -> list[Sample]:
    """SPAQ: 11,125 pictures of 66 smartphones. MOS 0 (worst) .. 100 (best).

    `root` holds `Annotations/MOS and Image attribute scores.xlsx` (Image name, MOS, Brightness,
    Colorfulness, Contrast, Noisiness, Sharpness) and `TestImage/`. No spreads, subsets or split.
    """
    table = first_file(root / "Annotations" / "MOS and Image attribute scores.xlsx")
    pictures = Folder(root / "TestImage")
    samples = [
        Sample(pictures[str(row["Image name"]).strip()], float(row["MOS"]), "", "")
        for row in rows_of_sheet(table, "Image name", "MOS")
    ]
    pictures.check(table)
    return samples


def livec(root: Path) -> list[Sample]:
    """LIVE In the Wild Challenge: 1,162 pictures of mobile cameras. MOS 0 (worst) .. 100 (best).

    `root` (`ChallengeDB_release`) holds `Images/` and `Data/` with `AllImages_release.mat`,
    `AllMOS_release.mat` and `AllStdDev_release.mat`, variables of the same names. The first seven
    pictures, `t1.bmp` .. `t7.bmp` in `Images/trainingImages/`, trained the observers and are left
    out. No subsets or split.
    """
    names, opinions, spreads = (
        matlab(first_file(root / "Data" / f"{it}.mat"), it)[it]
        for it in ("AllImages_release", "AllMOS_release", "AllStdDev_release")
    )
    pictures = Folder(root / "Images")
    samples = [
        Sample(pictures[name], float(mos), "", "", float(spread))
        for name, mos, spread in zip(texts(names), opinions, spreads, strict=True)
        if not (name[:1] == "t" and Path(name).stem[1:].isdecimal())
    ]
    pictures.check(root / "Data" / "AllImages_release.mat")
    return samples


def agiqa3k(root: Path) -> list[Sample]:
    """AGIQA-3K: 2,982 generated pictures. MOS of quality 0 (worst) .. 5 (best).

    `root` holds `data.csv` (name, prompt, adj1, adj2, style, mos_quality, std_quality, mos_align,
    std_align) and the pictures, in `images/`, `Images/` or beside it. Subset: the generator, with
    which the name begins. Group: the prompt, since pictures of one prompt look alike. No split.
    """
    table = first_file(root / "data.csv")
    pictures, scale = Folder(root / "images", root / "Images", root), Scale(worst=0, best=5)
    needed = ("name", "prompt", "mos_quality", "std_quality")
    samples = [
        Sample(
            pictures[row["name"]],
            scale.quality(float(row["mos_quality"])),
            row["name"].split("_")[0],
            "",
            scale.std(float(row["std_quality"])),
            " ".join(row["prompt"].lower().split()),
        )
        for row in rows_of_csv(table, *needed)
    ]
    pictures.check(table)
    return samples
