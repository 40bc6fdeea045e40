"""Readers of published sets, on tiny trees of the same layout: scales, directions, what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")
pytest.importorskip("openpyxl")

from openpyxl import Workbook
from scipy.io import savemat

from trainer.datasets import (
    READERS,
    Damaged,
    Preference,
    Sample,
    agiqa3k,
    csiq,
    csv_table,
    deqa,
    kadid10k,
    koniq10k,
    live,
    livec,
    pipal,
    qinsight_comparison,
    qinsight_degradation,
    qinsight_score,
    spaq,
    tid2013,
)

Told = tuple[str, float, str, str, float | None, str]


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def told(samples: Iterable[Sample]) -> list[Told]:
    return [
        (it.path.name, round(it.quality, 2), it.subset, it.split, _rounded(it.std), it.group)
        for it in samples
    ]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def cells(names: Sequence[str], *, row: bool) -> Any:
    """A MATLAB cell array of strings, lying or standing, as the sets hold theirs."""
    made = np.empty(len(names), object)
    made[:] = names
    return made[None] if row else made[:, None]


def sheet(path: Path, lines: Sequence[Sequence[object]], title: str = "Sheet1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    book.active.title = title
    for line in lines:
        book.active.append(list(line))
    book.save(path)


# LIVE ---------------------------------------------------------------------------------------------


def make_live(root: Path) -> Path:
    """Two pictures of JPEG 2000, one of every other kind; the second is a copy of its reference."""
    touch(root, "jp2k/img1.bmp", "jp2k/img2.bmp", "jp2k/info.txt")
    touch(root, *(f"{it}/img1.bmp" for it in ("jpeg", "wn", "gblur", "fastfading")))
    names = ["bikes.bmp", "Sailing.bmp", "bikes.bmp", "bikes.bmp", "ocean.bmp", "ocean.bmp"]
    savemat(root / "refnames_all.mat", {"refnames_all": cells(names, row=True)})
    savemat(
        root / "dmos_realigned.mat",
        {
            "dmos_new": np.array([[30.0, 0.0, 75.5, 111.8, -2.6, 50.0]]),
            "dmos_std": np.array([[5.0, 0.0, 8.25, 6.0, 4.0, 7.0]]),
            "orgs": np.array([[0, 1, 0, 0, 0, 0]], np.uint8),
        },
    )
    return root


def test_live_turns_its_differences_round_and_leaves_references_out(tmp_path: Path) -> None:
    """DMOS grows with damage; realigned it goes a little beyond both ends."""
    assert told(live(make_live(tmp_path))) == [
        ("img1.bmp", 70.0, "jp2k", "", 5.0, "bikes.bmp"),
        ("img1.bmp", 24.5, "jpeg", "", 8.25, "bikes.bmp"),
        ("img1.bmp", 0.0, "wn", "", 6.0, "bikes.bmp"),
        ("img1.bmp", 100.0, "gblur", "", 4.0, "ocean.bmp"),
        ("img1.bmp", 50.0, "fastfading", "", 7.0, "ocean.bmp"),
    ]


def test_live_is_read_without_the_realigned_table_too(tmp_path: Path) -> None:
    """The first release had no other; it states no spreads."""
    root = make_live(tmp_path)
    (root / "dmos_realigned.mat").unlink()
    table = {"dmos": np.array([[40.0, 0, 1, 2, 3, 4]]), "orgs": np.array([[0, 1, 0, 0, 0, 0]])}
    savemat(root / "dmos.mat", table)

    [first, *_] = live(root)

    assert (first.quality, first.std) == (60.0, None)


def test_a_hole_in_a_folder_of_live_is_noticed(tmp_path: Path) -> None:
    """Opinions are told apart by place alone: one lost file would shift all that follow."""
    root = make_live(tmp_path)
    (root / "jp2k" / "img1.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"jp2k/img1\.bmp"):
        live(root)

    (root / "fastfading" / "img1.bmp").unlink()
    with pytest.raises(FileNotFoundError, match=r"6 values.*5 pictures"):
        live(root)


# TID2013, KADID-10k, CSIQ, PIPAL ------------------------------------------------------------------


def make_tid(root: Path) -> Path:
    touch(root / "distorted_images", "i01_01_1.bmp", "I01_24_5.BMP", "i25_08_3.bmp")
    (root / "mos_with_names.txt").write_text(
        "5.51429 I01_01_1.bmp\n0.90000 i01_24_5.bmp\n9.00000 I25_08_3.bmp\n"
    )
    (root / "mos_std.txt").write_text("0.09\n0.18\n0.27\n")
    return root


def test_tid_maps_nine_to_a_hundred_whatever_the_case_on_disk(tmp_path: Path) -> None:
    assert told(tid2013(make_tid(tmp_path))) == [
        ("i01_01_1.bmp", 61.27, "01", "", 1.0, "i01"),
        ("I01_24_5.BMP", 10.0, "24", "", 2.0, "i01"),
        ("i25_08_3.bmp", 100.0, "08", "", 3.0, "i25"),
    ]


def test_tables_of_different_lengths_are_refused(tmp_path: Path) -> None:
    root = make_tid(tmp_path)
    (root / "mos_std.txt").write_text("0.09\n0.18\n")

    with pytest.raises(ValueError, match=r"3 lines, mos_std\.txt 2"):
        tid2013(root)


def make_kadid(root: Path) -> Path:
    touch(root / "images", "I01_01_01.png", "I81_25_05.png", "I01.png")
    (root / "dmos.csv").write_text(
        "dist_img,ref_img,dmos,var\n"
        "I01_01_01.png,I01.png,4.57,0.496\nI81_25_05.png,I81.png,1.0,0.2\n"
    )
    return root


def test_kadid_is_better_where_its_dmos_is_higher(tmp_path: Path) -> None:
    """The column's name says the opposite."""
    assert told(kadid10k(make_kadid(tmp_path))) == [
        ("I01_01_01.png", 89.25, "01", "", 12.4, "i01"),
        ("I81_25_05.png", 0.0, "25", "", 5.0, "i81"),
    ]


def make_csiq(root: Path) -> Path:
    """The table begins with blank lines and an empty column; names of pictures come as numbers."""
    touch(root / "dst_imgs", "awgn/1600.AWGN.1.png", "jpeg2000/trolley.jpeg2000.5.png")
    head = (None, None, None, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos")
    sheet(
        root / "csiq.DMOS.xlsx",
        [
            (None,),
            ("CSIQ",),
            (None,),
            head,
            (None, None, None, 1600, 1, "noise", 1, 0.061, 0.062),
            (None, None, None, "trolley", 6, "jpeg 2000", 5.0, 0.1, 0.9),
            (None,) * 9,
        ],
        title="all_by_image",
    )
    return root


def test_csiq_is_read_from_its_spreadsheet_and_turned_round(tmp_path: Path) -> None:
    assert told(csiq(make_csiq(tmp_path))) == [
        ("1600.AWGN.1.png", 93.8, "awgn", "", 6.1, "1600"),
        ("trolley.jpeg2000.5.png", 10.0, "jpeg2000", "", 10.0, "trolley"),
    ]


def make_pipal(root: Path) -> Path:
    touch(
        root, "Distortion_1/A0001_00_00.bmp", "Distortion_4/A0200_03_01.bmp", "Train_Ref/A0001.bmp"
    )
    (root / "Train_Label").mkdir()
    (root / "Train_Label" / "A0001.txt").write_text("A0001_00_00.bmp,1375.0\n")
    (root / "Train_Label" / "A0200.txt").write_text("A0200_03_01.bmp,1850.5\n")
    return root


def test_pipal_maps_its_ratings_and_clips_them(tmp_path: Path) -> None:
    assert told(pipal(make_pipal(tmp_path))) == [
        ("A0001_00_00.bmp", 50.0, "00", "train", None, "a0001"),
        ("A0200_03_01.bmp", 100.0, "03", "train", None, "a0200"),
    ]


# KonIQ-10k, SPAQ, LIVE Challenge, AGIQA-3K --------------------------------------------------------


def make_koniq(root: Path) -> Path:
    touch(root / "1024x768", "1.jpg", "2.jpg")
    (root / "koniq10k_scores_and_distributions.csv").write_text(
        '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n'
        '"1.jpg",0,0,50,50,0,100,3.5,0.5,70.1\n"2.jpg",100,0,0,0,0,100,1,0,2\n'
    )
    return root


def test_koniq_is_read_from_either_table(tmp_path: Path) -> None:
    """One has MOS 1..5 and no split, the other 0..100 and the owner's; votes give both spreads."""
    root = make_koniq(tmp_path)
    whole = told(koniq10k(root))

    (root / "koniq10k_distributions_sets.csv").write_text(
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
        "1.jpg,0,0,50,50,0,100,70.1,0.5,training\n2.jpg,100,0,0,0,0,100,2.0,0,test\n"
    )

    assert whole == [("1.jpg", 62.5, "", "", 12.5, ""), ("2.jpg", 0.0, "", "", 0.0, "")]
    assert told(koniq10k(root)) == [
        ("1.jpg", 70.1, "", "train", 12.5, ""),
        ("2.jpg", 2.0, "", "test", 0.0, ""),
    ]


def make_spaq(root: Path) -> Path:
    touch(root / "TestImage", "00001.jpg", "00002.jpg")
    sheet(
        root / "Annotations" / "MOS and Image attribute scores.xlsx",
        [
            ("Image name", "MOS", "Brightness", "Colorfulness"),
            ("00001.jpg", 35.23, 41, 40),
            ("00002.jpg", 78, 60, 61),
        ],
    )
    return root


def test_spaq_is_already_on_our_scale(tmp_path: Path) -> None:
    assert told(spaq(make_spaq(tmp_path))) == [
        ("00001.jpg", 35.23, "", "", None, ""),
        ("00002.jpg", 78.0, "", "", None, ""),
    ]


def make_livec(root: Path) -> Path:
    touch(root / "Images", "trainingImages/t1.bmp", "3.bmp", "1089.JPG", "t-bone.bmp")
    names = cells(["t1.bmp", "3.bmp", "1089.JPG", "t-bone.bmp"], row=False)
    (root / "Data").mkdir()
    savemat(root / "Data" / "AllImages_release.mat", {"AllImages_release": names})
    opinions = np.array([[63.96, 35.5, 80.0, 10.0]])
    savemat(root / "Data" / "AllMOS_release.mat", {"AllMOS_release": opinions})
    savemat(root / "Data" / "AllStdDev_release.mat", {"AllStdDev_release": opinions / 4})
    return root


def test_live_challenge_leaves_out_what_observers_were_trained_with(tmp_path: Path) -> None:
    assert told(livec(make_livec(tmp_path))) == [
        ("3.bmp", 35.5, "", "", 8.88, ""),
        ("1089.JPG", 80.0, "", "", 20.0, ""),
        ("t-bone.bmp", 10.0, "", "", 2.5, ""),
    ]


def make_agiqa(root: Path) -> Path:
    touch(root / "images", "AttnGAN_normal_000.jpg", "midjourney_lowstep_001.jpg")
    (root / "data.csv").write_text(
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        'AttnGAN_normal_000.jpg,"Statue, of a man",,,,1.0,0.25,2.0,0.2\n'
        'midjourney_lowstep_001.jpg,"statue,  of a man",,,,4.0,0.2,2.0,0.2\n'
    )
    return root


def test_pictures_generated_from_one_prompt_are_one_content(tmp_path: Path) -> None:
    """They look alike; the quality is taken, not how well the picture fits its prompt."""
    assert told(agiqa3k(make_agiqa(tmp_path))) == [
        ("AttnGAN_normal_000.jpg", 20.0, "AttnGAN", "", 5.0, "statue, of a man"),
        ("midjourney_lowstep_001.jpg", 80.0, "midjourney", "", 4.0, "statue, of a man"),
    ]


# Any table ----------------------------------------------------------------------------------------


def make_table(root: Path) -> Path:
    touch(root, "a/1.png", "2.png")
    path = root / "own.csv"
    path.write_text("path,mos,std,group,split\na/1.png,2.0,0.5,lake,test\n2.png,5,,,\n")
    return path


def test_any_set_is_read_from_a_table_on_its_own_scale(tmp_path: Path) -> None:
    table = make_table(tmp_path)

    assert told(csv_table(table, worst=1, best=5)) == [
        ("1.png", 25.0, "", "test", 12.5, "lake"),
        ("2.png", 100.0, "", "", None, ""),
    ]
    assert [it.quality for it in csv_table(table, worst=5, best=0)] == [60.0, 0.0]
    with pytest.raises(ValueError, match="no length"):
        csv_table(table, worst=5, best=5)


def test_a_column_that_is_missing_is_named(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("path,score\n1.png,2\n")

    with pytest.raises(ValueError, match=r"own\.csv lacks mos; it has path, score"):
        csv_table(tmp_path / "own.csv")


# JSON of vision-language models -------------------------------------------------------------------


def make_deqa(root: Path) -> Path:
    touch(root, "KADID10K/images/I01_02_03.png", "KADID10K/images/x.png")
    path = root / "KADID10K" / "metas" / "train_kadid_8k.json"
    path.parent.mkdir(parents=True)
    rows = [
        {
            "id": "I01_02_03.png->4.1",
            "image": "KADID10K/images/I01_02_03.png",
            "gt_score": 4.1,
            "gt_score_norm": 4.0,
            "level_probs": [0.1, 0.8, 0.1, 0, 0],
            "std": 0.3,
            "std_norm": 0.4,
            "conversations": [],
        },
        {"image": "KADID10K/images/x.png", "gt_score_norm": 1.0},
    ]
    path.write_text(json.dumps(rows))
    return path


def test_deqa_files_are_read_with_their_pictures_found_above_them(tmp_path: Path) -> None:
    """1..5 on every set, spreads too; the reference is told by names that have one."""
    expected = [
        ("I01_02_03.png", 75.0, "KADID10K", "train", 10.0, "i01"),
        ("x.png", 0.0, "KADID10K", "train", None, ""),
    ]

    path = make_deqa(tmp_path)

    assert told(deqa(path)) == told(deqa(path, tmp_path)) == told(qinsight_score(path)) == expected


def test_what_a_json_file_lacks_is_named(tmp_path: Path) -> None:
    path = make_deqa(tmp_path)
    (tmp_path / "KADID10K" / "images" / "x.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"train_kadid_8k\.json names .*x\.png: missing"):
        deqa(path)

    path.write_text(json.dumps([{"image": "KADID10K/images/x.png"}]))
    with pytest.raises(ValueError, match="entry 0 lacks gt_score_norm"):
        deqa(path)


def degradations(root: Path, *rows: tuple[str, str | None, str | None]) -> Path:
    path = root / "KADIS700K" / "refA_sd_brief" / "metas" / "train_dist.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [f"KADIS700K/refA_sd_brief/dist_imgs/{name}" for name, _, _ in rows]
    touch(root, *names)
    path.write_text(
        json.dumps(
            [
                {"image": name, "distortion_class": kind, "severity": severity}
                for name, (_, kind, severity) in zip(names, rows, strict=True)
            ]
        )
    )
    return path


def test_degradations_of_qinsight_are_told_in_our_words(tmp_path: Path) -> None:
    """Darken is underexposed; clean is the word null or JSON's own."""
    rows = (
        ("1.jpg", "darken", "slight"),
        ("2.jpg", "compression", "catastrophic"),
        ("3.jpg", "null", "null"),
        ("4.jpg", None, None),
    )

    read = qinsight_degradation(degradations(tmp_path, *rows))

    folder = tmp_path / "KADIS700K" / "refA_sd_brief" / "dist_imgs"
    assert read == [
        Damaged(folder / "1.jpg", "underexposed", 1),
        Damaged(folder / "2.jpg", "compression", 5),
        Damaged(folder / "3.jpg", None, None),
        Damaged(folder / "4.jpg", None, None),
    ]


@pytest.mark.parametrize(
    ("kind", "severity"), [("haze", "slight"), ("blur", "huge"), ("blur", "null"), (None, "slight")]
)
def test_labels_that_make_no_sense_are_refused(
    tmp_path: Path, kind: str | None, severity: str
) -> None:
    """A mask of unknown labels would hide that the file is of another kind."""
    with pytest.raises(ValueError, match=r"1\.jpg"):
        qinsight_degradation(degradations(tmp_path, ("1.jpg", kind, severity)))


def test_comparisons_of_qinsight_are_read_with_their_references(tmp_path: Path) -> None:
    root = tmp_path / "DiffIQA" / "ValidationImage"
    names = ("Original/x.png", "03/x_03.png", "05/x_05.png")
    touch(root / "images", *names)
    path = root / "train_comparison.json"
    row = dict(zip(("ref_image", "ImageA", "ImageB"), names, strict=True))
    path.write_text(json.dumps([row | {"result": it} for it in ("Image B", "Similar")]))

    read = qinsight_comparison(path)

    reference, a, b = (root / "images" / name for name in names)
    assert read == [Preference(a, b, "b", reference), Preference(a, b, "similar", reference)]
    assert qinsight_comparison(path, root / "images") == read
    path.write_text(json.dumps([row | {"result": "Image C"}]))
    with pytest.raises(ValueError, match="'Image C' is none of Image A"):
        qinsight_comparison(path)


def test_json_lines_are_read_too(tmp_path: Path) -> None:
    touch(tmp_path, "1.png", "2.png")
    path = tmp_path / "test.jsonl"
    rows = [{"image": f"{i}.png", "gt_score_norm": i + 1} for i in (1, 2)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")

    assert [(it.quality, it.split) for it in deqa(path)] == [(25.0, "test"), (50.0, "test")]


# All of them --------------------------------------------------------------------------------------


def make_biq(root: Path) -> Path:
    touch(root / "Images", "ss01 (1).jpg", "ss03 (7).jpg")
    for split, row in (("Train", "ss01 (1).jpg,0.25"), ("Test", "ss03 (7).jpg,0.5")):
        (root / f"{split} (Images and MOS).csv").write_text(f"Image Name,MOS\n{row}\n")
    return root


TREES: dict[str, Callable[[Path], Path]] = {
    "agiqa3k": make_agiqa,
    "biq2021": make_biq,
    "csiq": make_csiq,
    "csv": make_table,
    "deqa": make_deqa,
    "kadid10k": make_kadid,
    "koniq10k": make_koniq,
    "live": make_live,
    "livec": make_livec,
    "pipal": make_pipal,
    "qinsight": make_deqa,
    "spaq": make_spaq,
    "tid2013": make_tid,
}
PICTURES = {".png", ".jpg", ".bmp"}


def test_every_reader_has_a_tree_here() -> None:
    assert TREES.keys() == READERS.keys()


@pytest.mark.parametrize("name", READERS)
def test_every_reader_gives_pictures_on_our_scale(name: str, tmp_path: Path) -> None:
    samples = READERS[name](TREES[name](tmp_path))

    assert samples
    for sample in samples:
        assert sample.path.exists()
        assert 0 <= sample.quality <= 100
        assert sample.split in ("", "train", "validation", "test")
        assert sample.std is None or 0 <= sample.std < 50


@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_a_picture_that_is_missing(name: str, tmp_path: Path) -> None:
    """The published code of others takes another picture in its place, without a word."""
    root = TREES[name](tmp_path)
    lost = READERS[name](root)[0].path
    lost.unlink()

    with pytest.raises(FileNotFoundError, match=f"(?i){re.escape(lost.name)}"):
        READERS[name](root)


@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_a_folder_or_table_that_is_missing(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        READERS[name](tmp_path / "nothing here")
