"""The whole evaluation on tiny trees in the published layouts, for both kinds of model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")
pytest.importorskip("matplotlib")
pytest.importorskip("onnxruntime")

import torch
from PIL import Image

from trainer import evaluate
from trainer.evaluation import contests, footnote, opinions, running, speed
from trainer.evaluation.judging import Judge
from trainer.evaluation.shelf import Shelf
from trainer.export import Described, export
from trainer.extract import made_up
from trainer.policies.lite import lite
from vqmon.domain import DEGRADATIONS
from vqmon.measures import MEASURES
from vqmon.scorers import model_folder

torch.set_num_threads(1)

SIDE = (96, 144)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clean")
    rng = np.random.default_rng(0)
    for place in (
        "CID22/CID22-512/training/t0.png",
        "CID22/CID22-512/training/t1.png",
        "CID22/CID22-512/validation/v0.png",
        "clic2025/validation/cv.png",
        "clic2025/final-test/ct.png",
        "kodak/k.png",
    ):
        file = root / place
        file.parent.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(made_up(rng, *SIDE))
        picture.save(file, icc_profile=b"a profile that nobody reads" * 8)
    return root


@pytest.fixture(scope="module")
def biq(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("biq")
    (root / "Images").mkdir()
    rng = np.random.default_rng(1)
    for split, count in (("Train", 3), ("Test", 12)):
        lines = ["Images,MOS"]
        for i in range(count):
            name = f"ss0{i % 3 + 1} ({split} {i}).jpg"
            Image.fromarray(made_up(rng, *SIDE)).save(root / "Images" / name, quality=75)
            lines.append(f"{name},{rng.uniform(0.1, 0.9):.3f}")
        (root / f"{split} (Images and MOS).csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture(scope="module")
def naming(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained network of the shipped shape, that calls nearly everything something."""
    torch.manual_seed(0)
    network = lite().eval()
    outputs: dict[str, dict[str, Any]] = {
        "score": {"kind": "distribution", "values": network.heads.bins.tolist()},
        "levels": {"kind": "levels"},
        "regions": {"kind": "regions"},
    }
    facts = {
        "calibration": {
            "quality": {"from": [0, 100], "to": [0, 100]},
            "uncertainty": {"scale": 1.0, "floor": 2.0},
        },
        "findings": {
            "thresholds": dict.fromkeys(DEGRADATIONS, 0.5),
            "region_threshold": 0.5,
            "costs": {name: [1, 2, 3, 4, 5] for name in DEGRADATIONS},
        },
    }
    example = {
        "patches": torch.zeros((2, 36, 40, 40), dtype=torch.uint8),
        "view": torch.zeros((2, 3, 96, 96), dtype=torch.uint8),
        "measures": torch.zeros((2, len(MEASURES))),
    }
    folder = tmp_path_factory.mktemp("models") / "untrained"
    inputs = {"patches": (), "view": (), "measures": MEASURES}
    export(network, example, Described("untrained", "0", inputs, outputs, facts), folder)
    return folder


def test_every_table_of_the_shipped_model(
    clean: Path, biq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that needs no moving pictures, in seconds; kept as JSON, Markdown and PNG."""
    for module in (opinions, contests):
        monkeypatch.setattr(module, "RESAMPLES", 50)
    monkeypatch.setattr(running, "QUICK_FRAMES", 4)
    monkeypatch.setattr(speed, "WARM_UP", 1)
    predictions = tmp_path / "other.npy"
    np.save(predictions, np.linspace(10, 90, 12))
    model, out = str(model_folder("measures")), tmp_path / "out"
    given = ["--model", model, "--biq", str(biq), "--clean", str(clean), "--out", str(out)]
    given += ["--cache", str(tmp_path / "cache"), "--processes", "0", "--quick"]
    given += ["--tables", "opinions,five,clean,speed,contests,leave-out,cross"]
    given += [
        "--contest",
        f"ours={model},{model}",
        "--contest",
        f"line={predictions},{predictions}",
    ]
    given += [f"--leave-out=ours/ss0{i}={model}" for i in (1, 2, 3)]
    given += ["--set", f"biq2021={biq}"]

    assert evaluate.main(given) == 0

    stored = json.loads((out / "evaluation.json").read_text())
    assert list(stored["tables"]) == [
        "opinions",
        "five",
        "clean",
        "speed",
        "contests",
        "leave-out",
        "cross",
    ]
    rows = {row["figure"]: row for row in stored["tables"]["opinions"]["rows"]}
    assert rows["PLCC"]["n"] == 12
    assert {"opinions-scatter.png", "opinions-reliability.png", "five-confusion.png"} <= {
        path.name for path in out.glob("*.png")
    }
    assert "## Five-class test" in (out / "evaluation.md").read_text()


def test_a_second_run_makes_nothing_anew(
    clean: Path, naming: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures are kept whatever the model; tables of the same model stay, another's do not."""
    common = ["--clean", str(clean), "--out", str(tmp_path / "out"), "--processes", "0", "--quick"]
    common += ["--cache", str(tmp_path / "cache")]
    shipped, untrained = ["--model", str(model_folder("measures"))], ["--model", str(naming)]
    evaluate.main([*shipped, *common, "--tables", "five"])
    monkeypatch.setattr(Shelf, "_make", _must_not_be_called)

    evaluate.main([*shipped, *common, "--tables", "five"])
    assert _tables(tmp_path) == ["five"]

    evaluate.main([*untrained, *common, "--tables", "five"])
    assert _tables(tmp_path) == ["five"]
    facts = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert facts["model"] == "untrained@0"
    assert sum(map(sum, facts["tables"]["five"]["details"]["confusion"])) == 51


def test_a_model_that_names_degradations_is_taken_at_its_word(
    clean: Path, naming: Path, tmp_path: Path
) -> None:
    """Its findings, not those of the measured signals beside it."""
    shelf, source = Shelf(tmp_path, 0), clean / "kodak" / "k.png"
    (kept,) = shelf.kept("five", [source], footnote.shots)

    own, measured = Judge(naming), Judge(model_folder("measures"))

    said = own.of([kept])
    levels = [it.outputs["levels"] for it in own.scorer.assess(kept.pictures())]
    presence = 1 - np.array(levels).reshape(len(said), 8, 6)[:, :, 0]
    assert said.presence == pytest.approx(presence)
    assert ((said.severity > 0) == (presence >= 0.5)).all()
    assert (measured.of([kept]).severity == kept.measured).all()


@pytest.mark.slow
def test_ladders_and_moving_pictures(clean: Path, naming: Path, tmp_path: Path) -> None:
    """Our own degradations, and rate ladders of every codec."""
    given = ["--model", str(naming), "--clean", str(clean), "--out", str(tmp_path / "out")]
    given += ["--cache", str(tmp_path / "cache"), "--processes", "0", "--quick"]

    evaluate.main([*given, "--tables", "nine,ladders,rates,sizes"])

    stored = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert list(stored["tables"]) == ["nine", "ladders", "rates", "sizes"]
    kinds = {row["figure"] for row in stored["tables"]["ladders"]["rows"]}
    assert {f"… {name}" for name in DEGRADATIONS} <= kinds
    assert (tmp_path / "out" / "rates.png").is_file()


def _must_not_be_called(*_: object, **__: object) -> None:
    raise AssertionError("pictures were made anew")


def _tables(tmp_path: Path) -> list[str]:
    return list(json.loads((tmp_path / "out" / "evaluation.json").read_text())["tables"])
