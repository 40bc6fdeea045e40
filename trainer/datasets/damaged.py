"""Sets made of few references, each damaged in many ways: their group is the reference."""

from __future__ import annotations

import csv
from pathlib import Path

from trainer.datasets.samples import (
    Folder,
    Sample,
    Scale,
    complain,
    first_file,
    first_folder,
    matlab,
    rows_of_csv,
    rows_of_sheet,
    texts,
)

LIVE_FOLDERS = ("jp2k", "jpeg", "wn", "gblur", "fastfading")
"""In the order in which the arrays of LIVE are laid end to end."""

CSIQ_TYPES = {
    "noise": ("awgn", "AWGN"),
    "blur": ("blur", "BLUR"),
    "contrast": ("contrast", "contrast"),
    "fnoise": ("fnoise", "fnoise"),
    "jpeg": ("jpeg", "JPEG"),
    "jpeg 2000": ("jpeg2000", "jpeg2000"),
}
"""dst_type of the table -> folder, and the middle of the file's name."""


def live(root: Path) -> list[Sample]:
    """LIVE release 2: 779 pictures of 29 references. DMOS 0 (best) .. 100 (worst) -> 100..0.

    `root` holds `jp2k/`, `jpeg/`, `wn/`, `gblur/` and `fastfading/` with `img1.bmp` onwards,
    `refnames_all.mat` (refnames_all: the reference of each) and `dmos_realigned.mat` (dmos_new,
    dmos_std, orgs) or, without spreads, the older `dmos.mat` (dmos, orgs). The arrays are those of
    the five folders end to end; where `orgs` is 1 the picture is an undamaged copy of its
    reference, which is left out. Realigned values run a little beyond both ends. Subset: the
    folder. No split.
    """
    table = first_file(root / "dmos_realigned.mat", root / "dmos.mat")
    realigned = table.name == "dmos_realigned.mat"
    names = ("dmos_new", "dmos_std", "orgs") if realigned else ("dmos", "orgs")
    values = matlab(table, *names)
    opinions = values[names[0]]
    references = texts(matlab(root / "refnames_all.mat", "refnames_all")["refnames_all"])
    pictures = _live_pictures(root)
    if not len(pictures) == len(opinions) == len(references):
        raise FileNotFoundError(
            f"{table} has {len(opinions)} values, refnames_all.mat {len(references)}, and the "
            f"folders {', '.join(LIVE_FOLDERS)} hold {len(pictures)} pictures: some are missing"
        )
    complain(table, [str(it) for it in pictures if not it.exists()])
    scale = Scale(worst=100, best=0)
    return [
        Sample(
            path,
            scale.quality(float(opinions[i])),
            path.parent.name,
            "",
            scale.std(float(values["dmos_std"][i])) if realigned else None,
            references[i].lower(),
        )
        for i, path in enumerate(pictures)
        if not values["orgs"][i]
    ]


def _live_pictures(root: Path) -> list[Path]:
    """`img1.bmp` up to the highest number of each folder, those between that are missing too."""
    pictures = []
    for name in LIVE_FOLDERS:
        folder = first_folder(root / name)
        numbers = [int(it.stem[3:]) for it in folder.glob("img*.bmp") if it.stem[3:].isdecimal()]
        pictures += [folder / f"img{i}.bmp" for i in range(1, max(numbers, default=0) + 1)]
    return pictures


def tid2013(root: Path) -> list[Sample]:
    """TID2013: 3,000 pictures of 25 references. MOS 0 (worst) .. 9 (best).

    `root` holds `mos_with_names.txt` (a line `5.51429 I01_01_1.bmp` each: reference, type 01..24,
    level 1..5), `mos_std.txt` with the spreads in the same order, and `distorted_images/`, where
    names differ in case. Subset: the type. No split.
    """
    table = first_file(root / "mos_with_names.txt")
    lines = [line.split() for line in table.read_text().splitlines() if line.strip()]
    spreads = [float(it) for it in first_file(root / "mos_std.txt").read_text().split()]
    if len(lines) != len(spreads):
        raise ValueError(f"{table} has {len(lines)} lines, mos_std.txt {len(spreads)}")
    pictures, scale = Folder(root / "distorted_images"), Scale(worst=0, best=9)
    samples = []
    for (mos, name), spread in zip(lines, spreads, strict=True):
        reference, kind, _level = name.split(".")[0].lower().split("_")
        quality = scale.quality(float(mos))
        samples.append(Sample(pictures[name], quality, kind, "", scale.std(spread), reference))
    pictures.check(table)
    return samples


def kadid10k(root: Path) -> list[Sample]:
    """KADID-10k: 10,125 pictures of 81 references. Opinion 1 (worst) .. 5 (best).

    `root` holds `dmos.csv` (dist_img, ref_img, dmos, var) and `images/` with names such as
    `I01_01_01.png`: reference, type 01..25, level 01..05. Despite its name `dmos` is better where
    it is higher, and `var` is a standard deviation. Subset: the type. No split.
    """
    table = first_file(root / "dmos.csv")
    pictures, scale = Folder(root / "images"), Scale(worst=1, best=5)
    samples = [
        Sample(
            pictures[row["dist_img"]],
            scale.quality(float(row["dmos"])),
            row["dist_img"].split("_")[1],
            "",
            scale.std(float(row["var"])),
            Path(row["ref_img"]).stem.lower(),
        )
        for row in rows_of_csv(table, "dist_img", "ref_img", "dmos", "var")
    ]
    pictures.check(table)
    return samples


def csiq(root: Path) -> list[Sample]:
    """CSIQ: 866 pictures of 30 references. DMOS 0 (best) .. 1 (worst) -> 100..0.

    `root` holds `csiq.DMOS.xlsx`, whose sheet `all_by_image` has the columns image, dst_idx,
    dst_type, dst_lev, dmos_std, dmos, and `dst_imgs/` with a folder for each type (`awgn`,
    `blur`, `contrast`, `fnoise`, `jpeg`, `jpeg2000`; they may also lie in `root`). Names such as
    `1600.AWGN.1.png`: reference, type, level. Subset: the type. No split.
    """
    table = first_file(root / "csiq.DMOS.xlsx")
    base, scale = root / "dst_imgs" if (root / "dst_imgs").is_dir() else root, Scale(1, 0)
    needed = ("image", "dst_type", "dst_lev", "dmos_std", "dmos")
    folders: dict[str, Folder] = {}
    samples = []
    for row in rows_of_sheet(table, *needed, sheet="all_by_image"):
        kind, middle = CSIQ_TYPES[str(row["dst_type"]).strip().lower()]
        pictures = folders.setdefault(kind, Folder(base / kind))
        reference = _whole(row["image"])
        samples.append(
            Sample(
                pictures[f"{reference}.{middle}.{_whole(row['dst_lev'])}.png"],
                scale.quality(float(row["dmos"])),
                kind,
                "",
                scale.std(float(row["dmos_std"])),
                reference.lower(),
            )
        )
    for pictures in folders.values():
        pictures.check(table)
    return samples


def _whole(cell: object) -> str:
    """Spreadsheets turn `1600` into 1600.0."""
    return str(int(cell)) if isinstance(cell, int | float) else str(cell).strip()


def pipal(root: Path) -> list[Sample]:
    """PIPAL: 23,200 pictures of 200 references, those with published labels. Elo, higher is better.

    `root` holds `Train_Label/` with a file for each reference (`A0001.txt`, lines
    `A0001_00_00.bmp,1520.0648`) and the pictures in `Distortion_1/` .. `Distortion_4/` (also
    written `Distortion1`), or all in `Train_Dis/`. Elo ratings have no ends of their own; nearly
    all lie in 900..1850, which becomes 0..100, clipped. No spreads. Subset: the kind of damage
    (the first number). Split: train.
    """
    tables = sorted(first_folder(root / "Train_Label").glob("*.txt"))
    places = [it for it in sorted(root.glob("Distortion*")) if it.is_dir()]
    places += [it for it in (root / "Train_Dis", root / "Train_Dist") if it.is_dir()]
    on_disk = {it.name.lower(): it for place in places for it in place.rglob("*.bmp")}
    scale, samples = Scale(worst=900, best=1850), []
    for table in tables:
        with table.open(newline="") as file:
            rows = [(row[0].strip(), float(row[1])) for row in csv.reader(file) if row]
        complain(table, [name for name, _ in rows if name.lower() not in on_disk])
        samples += [
            Sample(
                on_disk[name.lower()],
                scale.quality(elo),
                name.split("_")[1],
                "train",
                None,
                table.stem.lower(),
            )
            for name, elo in rows
        ]
    if not samples:
        raise FileNotFoundError(f"no labels in {root / 'Train_Label'}")
    return samples
