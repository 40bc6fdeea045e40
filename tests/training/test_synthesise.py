"""Synthetic samples: labels must be true, and the same seed must give the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("scipy")

from PIL import Image

from trainer import synthesise
from trainer.degrade import Picture
from trainer.extract import JPEG_COLOUR, made_up
from trainer.likeness import VISIBLE, Original
from trainer.synthesise import Sample, Source, Sources
from vqmon.domain import DEGRADATIONS


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Two made-up photographs, one of them for validation."""
    folder = tmp_path_factory.mktemp("clean")
    rng = np.random.default_rng(2)
    made = []
    for split in range(2):
        path = folder / f"{split}.png"
        Image.fromarray(made_up(rng, 320, 352)).save(path)
        made.append(Source(str(path), split, split))
    return Sources(((1.0, tuple(made)),))


@pytest.fixture(scope="module")
def picture() -> Picture:
    return made_up(np.random.default_rng(4), 320, 352)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_ladders_begin_clean_and_get_worse(kind: str, picture: Picture) -> None:
    """Rungs rise, and so do the levels that are known; no rung stands twice."""
    samples = synthesise._ladder(kind, picture, np.random.default_rng(5))
    levels = [s.levels[kind] for s in samples[1:] if s.levels[kind] != synthesise.UNKNOWN]

    assert samples[0].rung == 0
    assert all(level <= 0 for level in samples[0].levels.values())
    assert [s.rung for s in samples] == sorted({s.rung for s in samples})
    assert levels == sorted(levels)
    assert levels
    assert set(levels) <= {0, 1, 2, 3, 4, 5}


@pytest.mark.parametrize("seed", range(12))
def test_single_pictures_are_labelled_with_what_was_done_to_them(
    seed: int, picture: Picture
) -> None:
    """A clean one has nothing; others have at most three kinds, of the known names."""
    sample = synthesise._single(picture, np.random.default_rng(seed))
    present = {name for name, level in sample.levels.items() if level > 0}

    assert set(sample.levels) <= set(DEGRADATIONS)
    assert len(present) <= 3
    if sample.kind.startswith("clean"):
        assert not present
        assert sample.regions is not None
        assert not sample.regions.any()


def test_a_local_fault_has_its_cells(picture: Picture) -> None:
    """Some cells are hit, some are not, and those between are unknown."""
    found = [synthesise._local(picture, np.random.default_rng(seed)) for seed in range(8)]
    regions = [s.regions for s in found if s.regions is not None]

    assert len(regions) > 4
    assert all((cells == 1).any() for cells in regions)
    assert any((cells == 0).any() for cells in regions)


def test_cells_follow_the_damaged_area() -> None:
    """Damage in the top right third is a one there, and zeros elsewhere."""
    where = np.zeros((90, 90), bool)
    where[:30, 60:] = True

    cells = synthesise._cells(where, least=0.06, none=0.004)

    assert cells.tolist() == [0, 0, 1, 0, 0, 0, 0, 0, 0]


def test_only_the_asked_kinds_are_made(sources: Sources) -> None:
    """All six of a group belong to a ladder of one of them."""
    for number in range(4):
        samples = synthesise.made(number, sources, 7, ("underexposed", "overexposed"))[0]

        assert [s.rung for s in samples] == list(range(6))
        assert {s.kind.split(":")[0] for s in samples[1:]} in ({"underexposed"}, {"overexposed"})


def test_a_seed_is_of_one_mix(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Parts are numbered by seed, so that another mix would count as made already."""
    monkeypatch.setattr(synthesise, "find_sources", lambda *_: sources)
    asked = ["--clean", str(tmp_path), "--out", str(tmp_path / "out"), "--samples", "6"]
    asked += ["--processes", "1"]
    assert synthesise.main([*asked, "--only", "banding"]) == 0
    assert synthesise.main([*asked, "--only", "banding"]) == 0

    assert synthesise.main(asked) == 2
    assert "--seed of their own" in capsys.readouterr().err
    assert synthesise.main([*asked, "--seed", "2"]) == 0
    assert len(synthesise.parts(tmp_path / "out")) == 2


def test_exposure_alone_is_known_of_a_picture_that_is_only_well_lit(sources: Sources) -> None:
    """Nobody said that it is sharp or free of noise, so that nothing else is learned from it."""
    lit = Source(sources.pools[0][1][0].path, 9, 0, reduced=True, lit=True)
    samples = synthesise._exposure_ladder("underexposed", lit, np.random.default_rng(3))
    others = set(DEGRADATIONS) - set(synthesise.EXPOSURE)

    assert {samples[0].levels[name] for name in synthesise.EXPOSURE} == {0}
    assert samples[-1].levels["underexposed"] == 5
    assert all(s.levels[name] == synthesise.UNKNOWN for s in samples for name in others)
    assert all(s.regions is None and np.isnan(s.index) for s in samples)


def test_a_component_that_hides_behind_another_is_unknown(picture: Picture) -> None:
    """Nobody can see whether it is there, so nobody is punished for either answer."""
    level = synthesise._level("blur", 1, VISIBLE + 1, picture, picture)

    assert level == synthesise.UNKNOWN


def test_groups_are_the_same_for_the_same_seed(sources: Sources) -> None:
    """An interrupted run that goes on makes what an uninterrupted one makes."""
    one, two = (synthesise.group(3, sources, 7) for _ in range(2))

    assert one.keys() == two.keys()
    assert all(
        np.array_equal(one[name], two[name], equal_nan=one[name].dtype.kind == "f") for name in one
    )


def test_what_is_written_can_be_loaded_and_goes_on(sources: Sources, tmp_path: Path) -> None:
    """Parts that are there are left alone; the loaded arrays have one row for each sample."""
    synthesise._write(
        tmp_path / "part-7-000000.npz", [synthesise.group(n, sources, 7) for n in range(2)]
    )
    before = (tmp_path / "part-7-000000.npz").read_bytes()

    synthesise.synthesise(sources, tmp_path, samples=12, seed=7, processes=1)
    held = synthesise.load(tmp_path)

    assert (tmp_path / "part-7-000000.npz").read_bytes() == before
    assert {len(getattr(held, name)) for name in held.__slots__} == {len(held)}
    assert held.patches.shape[1:] == (synthesise.DRAWS, 36, 40, 40)
    assert held.view.shape[1:] == (synthesise.DRAWS, 3, 96, 96)
    assert held.levels.shape[1] == len(DEGRADATIONS)
    assert np.array_equal(held.split, held.content)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    """Training on nothing would look like training."""
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        synthesise.load(tmp_path)


def test_held_out_photographs_and_the_test_split_are_never_sources(tmp_path: Path) -> None:
    """The final figures stand on pictures that nobody trained on."""
    cid = tmp_path / "CID22" / "CID22-512"
    for folder in (cid / "training", cid / "validation", tmp_path / "kodak"):
        folder.mkdir(parents=True)
        for i in range(9):
            Image.fromarray(np.full((64, 64, 3), i, np.uint8)).save(folder / f"{i}.png")

    found = synthesise.find_sources(tmp_path, None, None)

    paths = [Path(source.path) for _, pool in found.pools for source in pool]
    assert {path.parent for path in paths} == {cid / "training"}
    assert {source.split for _, pool in found.pools for source in pool} == {0, 1}


def test_the_index_falls_with_damage(picture: Picture) -> None:
    """100 for the picture itself; a blur that all can see is far below what nobody sees."""
    original = Original(picture)
    noisy = np.clip(picture + np.random.default_rng(1).normal(0, 20, picture.shape), 0, 255)

    assert original.index(picture) == pytest.approx(100)
    assert original.index(noisy.astype(np.uint8)) < VISIBLE - 20


def test_a_sample_keeps_every_array_that_serving_prepares(sources: Sources) -> None:
    """A network may ask for any of them by name."""
    sample = Sample(made_up(np.random.default_rng(1), 200, 240), "clean", regions=None)
    source = sources.pools[0][1][0]

    row = synthesise._row(sample, JPEG_COLOUR, source, 0, np.random.default_rng(1))

    assert {"measures", "patches", "view"} <= row.keys()
    assert (row["regions"] == synthesise.UNKNOWN).all()
