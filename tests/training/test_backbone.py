"""Heads on a frozen vision-language model, from pictures to the scorer that serves them.

The model is a tiny one of the real classes with random weights: it knows nothing, but every number
takes the way that it takes through the large one.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnx")

import torch
import yaml
from PIL import Image

from tests import tiny_writer
from trainer import backbone, recipe, supervised
from trainer.backbone import Cache, key
from trainer.extract import made_up, read_picture
from trainer.groups import load
from trainer.policies import heads as head_files
from vqmon.domain import Frame
from vqmon.errors import ScorerError
from vqmon.files import score_file
from vqmon.preprocess import prepare
from vqmon.scorers import load_scorer
from vqmon.scorers.backbone import SKETCH, Backbone, BackboneScorer, pooled
from vqmon.scorers.card import read_card
from vqmon.scorers.writer import found
from vqmon.writing.prompts import save_prompts

torch.set_num_threads(1)

COUNT = 60
SHORT = {
    "train": {"steps": 4, "answers": 4, "lr": 0.01, "look_every": 2, "save_every": 2},
    "groups": {"pictures": 16},
    "rewards": {"closeness": 1.0, "ordering": 1, "class": 0.5, "level": 0.5, "region": 0.2},
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with its prompts beside it: pictures of at most 112 x 112."""
    folder = tiny_writer.checkpoint(tmp_path_factory.mktemp("large") / "tiny")
    pixels = {"least": 3136, "most": 12544, "together": 25088, "grid": 28}
    short = tiny_writer.prompts()
    save_prompts(folder, short.model_copy(update={"pixels": type(short.pixels)(**pixels)}))
    return folder


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures with opinions, as a table: the coarser, the worse."""
    folder = tmp_path_factory.mktemp("set")
    rng, lines = np.random.default_rng(1), ["path,mos,subset,split"]
    for i in range(COUNT):
        picture = Image.fromarray(made_up(rng, 96, 128))
        factor = 1 + i % 5
        small = picture.resize((128 // factor, 96 // factor)).resize((128, 96))
        small.save(folder / f"{i}.png")
        lines.append(f"{i}.png,{90 - 15 * (i % 5)},{'ab'[i % 2]},train")
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


@pytest.fixture(scope="module")
def run(
    large: Path, opinions: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path, Path]:
    """(run, cache, model folder): features, heads, GRPO, release, each by its own command."""
    place = tmp_path_factory.mktemp("run")
    folder, cache, model = place / "run", place / "cache", place / "model"
    clean = _clean(place / "clean")
    given = ["features", "--model", str(large), "--set", f"csv={opinions}", "--out", str(folder)]
    given += ["--clean", str(clean), "--groups", "8", "--cache", str(cache)]
    assert backbone.main(given) == 0
    short = ["--teachers", "0", "--steps", "20"]
    assert supervised.main(["--out", str(folder), *short]) == 0
    (place / "short.yaml").write_text(yaml.safe_dump(SHORT))
    recipe.main(
        [
            *(str(place / "short.yaml"), "--features", str(folder / "features.npz")),
            *("--heads", str(folder / "heads.pt"), "--out", str(folder / "grpo")),
        ]
    )
    trained = ["--heads", str(folder / "grpo" / "heads.pt")]
    assert backbone.main(["release", "--run", str(folder), *trained, "--out", str(model)]) == 0
    return folder, cache, model


def test_the_scorer_gives_the_numbers_of_torch(
    large: Path, opinions: Path, run: tuple[Path, Path, Path]
) -> None:
    """From a file on disk, through the very path of serving, against the trained network."""
    folder, _, model = run
    heads = head_files.load(folder / "grpo" / "heads.pt")
    frames = [read_picture(opinions.parent / f"{i}.png") for i in range(4)]

    scorer = load_scorer(model)
    said = scorer.assess([prepare(frame, picture=True) for frame in frames])

    seen = Backbone(str(large))
    features = np.stack([seen.features(_shown(frame)) for frame in frames])
    reading = heads.read(torch.from_numpy(features))
    calibration = read_card(model).calibration
    wanted = np.interp(reading.quality.numpy(), calibration.quality_from, calibration.quality_to)
    assert [it.quality for it in said] == pytest.approx(wanted, abs=0.01)
    assert {it.model for it in said} == {"heads@1"}
    assert all(len(it.outputs["levels"]) == 48 for it in said)
    assert read_card(model).raw["proof"]["largest difference from torch, points"] <= 0.01


def test_files_are_scored_with_it(opinions: Path, run: tuple[Path, Path, Path]) -> None:
    """`vqmon score --model FOLDER`, as with any other model."""
    result = score_file(str(opinions.parent / "0.png"), load_scorer(run[2]))

    scorer = load_scorer(run[2])
    (said,) = scorer.assess([prepare(read_picture(opinions.parent / "0.png"), picture=True)])
    assert result.model == "heads@1"
    assert result.quality == pytest.approx(_quality(said), abs=0.01)


def test_features_of_training_are_those_of_serving(
    large: Path, opinions: Path, run: tuple[Path, Path, Path]
) -> None:
    """One copy of the path from file to features; training keeps them in half precision."""
    known = load(run[0] / "features.npz")

    served = Backbone(str(large)).features(_shown(read_picture(opinions.parent / "0.png")))

    assert known.features[0, 0] == pytest.approx(served, abs=2e-3)
    assert known.mos[0] == 90


def test_what_is_learned_from_is_labelled(run: tuple[Path, Path, Path]) -> None:
    """A tenth of the set is for choosing; damage made from photographs has levels and order."""
    known = load(run[0] / "features.npz")
    told, made = known.dataset == "csv", known.dataset == "synthetic"

    assert told.sum() == COUNT
    assert (known.split[told] == "validation").sum() in (5, 6, 7)
    assert (known.levels[told] == -1).all()
    assert np.isnan(known.mos[made]).all()
    assert (known.levels[made] > 0).any()
    assert (known.ladder[made] >= 0).any()


def test_a_picture_scores_the_same_whatever_stands_beside_it(
    opinions: Path, run: tuple[Path, Path, Path]
) -> None:
    """A fast monitor must not blur what it sees into its neighbours."""
    scorer = load_scorer(run[2])
    shots = [prepare(read_picture(opinions.parent / f"{i}.png"), picture=True) for i in (0, 4)]

    together = scorer.assess(shots)

    alone = [scorer.assess([it])[0] for it in shots]
    pairs = zip(together, alone, strict=True)
    assert max(abs(_quality(a) - _quality(b)) for a, b in pairs) < 0.01
    assert scorer.assess([]) == []


def test_a_second_extraction_asks_the_model_nothing(
    large: Path, opinions: Path, run: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours on a GPU are not spent twice; a run that was cut off goes on behind its last part."""
    _, cache, _ = run
    kept = Cache(cache, Backbone(str(large)))
    before = backbone.extract(kept, {"csv": opinions})
    monkeypatch.setattr(Backbone, "features", _must_not_be_called)

    again = backbone.extract(kept, {"csv": opinions})

    assert (again.features == before.features).all()


def test_another_question_or_size_is_another_cache(large: Path) -> None:
    """Features of two questions must never meet in one set."""
    seen = Backbone(str(large))
    before = key(seen)
    asked = seen.prompts
    seen.prompts = asked.model_copy(update={"score": "<pictures>Is it sharp?"})
    other = key(seen)
    pixels = asked.pixels.model_copy(update={"most": 9408})
    seen.prompts = asked.model_copy(update={"pixels": pixels})

    assert len({before, other, key(seen)}) == 3


@pytest.mark.parametrize("kind", tiny_writer.KINDS)
def test_every_family_of_models_gives_features(kind: str, tmp_path: Path) -> None:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL, of one size whatever the picture's."""
    folder = tiny_writer.checkpoint(tmp_path / kind, kind)
    seen = Backbone(str(folder), prompts=tiny_writer.prompts())
    rng = np.random.default_rng(0)
    wide, tall = made_up(rng, 64, 128), made_up(rng, 160, 64)

    rows = [seen.features(picture) for picture in (wide, tall)]

    assert {len(row) for row in rows} == {4 * tiny_writer.WIDTH + 9 * SKETCH}
    assert all(np.isfinite(row).all() for row in rows)
    assert np.abs(rows[0] - rows[1]).max() > 0.01


def test_cells_of_the_features_are_those_of_the_picture() -> None:
    """What changes in one corner changes that corner's features alone, in a grid of any shape."""
    rng = np.random.default_rng(0)
    states = torch.from_numpy(rng.standard_normal((5 + 24, 80))).float()
    shown = torch.arange(29) >= 5
    shown[-1] = True
    changed = states.clone()
    changed[5] += 3.0  # the first token of the picture: top left of 4 x 6

    before, after = (pooled(it, it, shown, (4, 6)) for it in (states, changed))

    cells = slice(4 * 80, None)
    differs = (before[cells] != after[cells]).reshape(9, SKETCH).any(1)
    assert differs.tolist() == [True] + [False] * 8


def test_giant_channels_do_not_drown_the_others() -> None:
    """Large models have some that are a thousand times the rest; half precision must hold them."""
    states = torch.ones(9, 64)
    states[:, 3] = 1e6

    features = pooled(states, states, torch.arange(9) < 9, (3, 3))

    assert features.abs().max() < 64


def test_other_weights_are_refused(run: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Heads on another model would score nonsense, silently."""
    other = tiny_writer.checkpoint(tmp_path / "tiny", seed=5)

    with pytest.raises(ScorerError, match=r"trained on tiny@\w+, and tiny@\w+ is another"):
        load_scorer(f"backbone:{run[2]}#{other}")


def test_a_model_that_moved_is_named_at_its_new_place(
    large: Path, run: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    """The card says where it was; the operator says where it is."""
    card = json.loads((run[2] / "card.json").read_text())
    card["backbone"]["place"] = "/nowhere/at/all"
    moved = tmp_path / "model"
    moved.mkdir()
    (moved / "model.onnx").write_bytes((run[2] / "model.onnx").read_bytes())
    (moved / "card.json").write_text(json.dumps(card))

    with pytest.raises(ScorerError, match="nowhere/at/all"):
        load_scorer(moved)
    assert load_scorer(f"backbone:{moved}#{large}").model == "heads@1"


@pytest.mark.parametrize(
    ("changed", "said"),
    [({"pooling": 0}, "features of pooling 0"), ({"fingerprint": None}, "fingerprint")],
)
def test_a_folder_that_does_not_fit_says_why(
    run: tuple[Path, Path, Path], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    """Before the large model is loaded, which takes minutes."""
    card = json.loads((run[2] / "card.json").read_text())
    facts = {**card["backbone"], **changed}
    card["backbone"] = {name: value for name, value in facts.items() if value is not None}
    (tmp_path / "model.onnx").write_bytes((run[2] / "model.onnx").read_bytes())
    (tmp_path / "card.json").write_text(json.dumps(card))

    with pytest.raises(ScorerError, match=said):
        BackboneScorer(tmp_path)


def test_pictures_that_cannot_be_seen_get_no_score(
    opinions: Path, run: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Too flat for the model; their neighbours keep their scores. Nothing without pixels."""
    scorer = load_scorer(run[2])
    good = prepare(read_picture(opinions.parent / "0.png"), picture=True)
    flat = replace(good, inputs={"picture": np.zeros((32, 6400, 3), np.uint8)})

    said = scorer.assess([flat, good])

    assert said[0].no_score_reason == "unsupported_picture"
    assert said[1].quality is not None
    with pytest.raises(ScorerError, match="whole pictures"):
        scorer.assess([prepare(read_picture(opinions.parent / "0.png"))])


def test_mistakes_are_named(
    large: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A set without a reader, a checkpoint that is none, nothing to learn from."""
    common = ["features", "--out", str(tmp_path), "--cache", str(tmp_path)]

    assert backbone.main([*common, "--model", str(large), "--set", "nothing=here"]) == 2
    assert "with a NAME of" in capsys.readouterr().err
    assert backbone.main([*common, "--model", str(large)]) == 2
    assert "at least one --set" in capsys.readouterr().err
    assert backbone.main([*common, "--model", str(tmp_path), "--set", "csv=x.csv"]) == 2
    assert "no checkpoint" in capsys.readouterr().err
    assert found(str(large)).name == "tiny"


def _clean(root: Path) -> Path:
    rng = np.random.default_rng(0)
    places = [f"CID22/CID22-512/training/t{i}.png" for i in range(4)] + ["kodak/k.png"]
    for place in places:
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(made_up(rng, 144, 192)).save(file)
    return root


def _shown(frame: Frame) -> Any:
    return prepare(frame, picture=True).inputs["picture"]


def _quality(said: Any) -> float:
    assert said.quality is not None
    return float(said.quality)


def _must_not_be_called(*_: object) -> None:
    raise AssertionError("the model was asked again")
