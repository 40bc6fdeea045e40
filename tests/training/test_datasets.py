"""Readers and splits: a picture that leaks from test to training makes every figure a lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("scipy")

from trainer.datasets import (
    Sample,
    biq2021,
    clean_photographs,
    content_groups,
    dhash,
    divided,
    near_duplicates,
    validation_part,
)


@pytest.fixture
def biq(tmp_path: Path) -> Path:
    """A tiny tree laid out as BIQ2021 is published, its quirks included."""
    (tmp_path / "Images").mkdir()
    for name in ("ss01 (1).jpg", "ss02 (1014).JPG", "ss03 (7).jpg"):
        (tmp_path / "Images" / name).touch()
    (tmp_path / "Train (Images and MOS).csv").write_text(
        "Image Name,MOS,,\nss01 (1).jpg,0.25,,\nss02 (1014).jpg,0.5,,\n", encoding="utf-8-sig"
    )
    (tmp_path / "Test (Images and MOS).csv").write_text("Image Name,MOS\nss03 (7).jpg,0.8471\n")
    return tmp_path


def test_biq_opinions_are_read_on_our_scale(biq: Path) -> None:
    """MOS 0..1 becomes quality 0..100; one file's name differs in case from the table."""
    samples = biq2021(biq)

    assert [(s.path.name, s.quality, s.subset, s.split) for s in samples] == [
        ("ss01 (1).jpg", 25.0, "ss01", "train"),
        ("ss02 (1014).JPG", 50.0, "ss02", "train"),
        ("ss03 (7).jpg", pytest.approx(84.71), "ss03", "test"),
    ]


def test_a_picture_missing_from_disk_is_named(biq: Path) -> None:
    """A silently shorter data set would change every figure."""
    (biq / "Images" / "ss03 (7).jpg").unlink()

    with pytest.raises(FileNotFoundError, match=r"ss03 \(7\).jpg"):
        biq2021(biq)


def test_held_out_photographs_are_never_trained_on(tmp_path: Path) -> None:
    """The corpora's own validation and final-test folders are for final figures."""
    layout = {
        "CID22/CID22-512/training": 16,
        "CID22/CID22-512/validation": 2,
        "clic2025/validation": 8,
        "clic2025/final-test": 2,
        "kodak": 3,
        "BSDS500/data/images/train": 2,
    }
    for folder, count in layout.items():
        (tmp_path / folder).mkdir(parents=True)
        for i in range(count):
            (tmp_path / folder / f"{i}.png").touch()
        (tmp_path / folder / "README.md").touch()

    clean = clean_photographs(tmp_path)

    assert len(clean.train) == 21 + 2
    assert len(clean.validation) == 3
    assert {p.parent.name for p in clean.held_out} == {"validation", "final-test", "kodak"}
    assert len(clean.held_out) == 7
    assert not set(clean.train) & set(clean.validation)
    assert not {*clean.train, *clean.validation} & set(clean.held_out)


def _scene(seed: int, shape: tuple[int, int] = (256, 256)) -> np.ndarray:
    coarse = np.random.default_rng(seed).uniform(0, 255, (20, 20))
    return np.kron(coarse, np.ones((16, 16)))[: shape[0], : shape[1]]


def test_a_hash_survives_what_does_not_change_the_content() -> None:
    """Scaled, brightened or slightly noisy copies are the duplicates found in the wild."""
    scene = _scene(1)
    noisy = scene * 0.8 + 20 + np.random.default_rng(2).normal(0, 3, scene.shape)
    half = scene[::2, ::2]

    hashes = [dhash(picture) for picture in (scene, noisy, half, _scene(3))]
    apart = [int((hashes[0] ^ h).sum()) for h in hashes]

    assert apart[0] == 0
    assert apart[1] <= 10
    assert apart[2] <= 10
    assert apart[3] > 60


def test_near_duplicates_are_those_within_the_limit() -> None:
    """The limit is in bits; both ends are checked."""
    base = np.random.default_rng(1).integers(0, 2, 256).astype(bool)
    ten, eleven = base.copy(), base.copy()
    ten[:10] ^= True
    eleven[:11] ^= True

    pairs = near_duplicates(base[None], np.stack([ten, eleven]))

    assert pairs.tolist() == [[0, 0]]


def test_duplicates_of_duplicates_are_one_group() -> None:
    """Bursts of one scene drift: first and last may differ by more than the limit."""
    first = np.zeros(256, bool)
    chain = np.stack([first, first, first, ~first])
    chain[1, :8] = True
    chain[2, :16] = True

    groups = content_groups(chain)

    assert groups[0] == groups[1] == groups[2] != groups[3]


def test_what_a_set_calls_one_content_is_one_group() -> None:
    """A reference and its damaged versions hash differently once the damage is heavy."""
    far = np.random.default_rng(1).integers(0, 2, (4, 256)).astype(bool)
    far = np.concatenate([far, far[3:]])  # the last is a duplicate of the fourth

    groups = content_groups(far, ["lake", "", "lake", "", "wood"])

    assert groups[0] == groups[2]
    assert groups[3] == groups[4]
    assert len(set(groups.tolist())) == 3


def test_splits_drawn_by_content_share_none() -> None:
    """Sets without their owner's split are divided by reference, never by file."""
    samples = [Sample(Path(f"{i}.png"), 50.0, "", "", group=str(i // 25)) for i in range(1000)]
    groups = content_groups(
        np.random.default_rng(0).integers(0, 2, (1000, 256)).astype(bool),
        [it.group for it in samples],
    )

    shares = {"train": 0.7, "validation": 0.1, "test": 0.2}
    drawn = [divided(samples, groups, shares, np.random.default_rng(seed)) for seed in (1, 1, 2)]

    by_split = {name: [it for it in drawn[0] if it.split == name] for name in shares}
    assert [len(some) for some in by_split.values()] == [700, 100, 200]
    contents = [{it.group for it in some} for some in by_split.values()]
    assert sum(map(len, contents)) == 40
    assert drawn[0] == drawn[1] != drawn[2]


def test_the_validation_part_divides_no_group_and_keeps_proportions() -> None:
    """Validation pictures must be as new as test pictures, and of the same kinds."""
    rng = np.random.default_rng(5)
    subsets = ["ss01"] * 200 + ["ss02"] * 200 + ["ss03"] * 600
    groups = np.arange(1000) // 2

    chosen = validation_part(subsets, groups, 100, rng)

    by_subset = [
        int(chosen[[s == name for s in subsets]].sum()) for name in ("ss01", "ss02", "ss03")
    ]
    assert by_subset == [20, 20, 60]
    assert (chosen[::2] == chosen[1::2]).all()
