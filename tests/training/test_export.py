"""From torch to a model folder: what serves must score as what was trained."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnx")

import torch
from torch import Tensor, nn

from trainer.export import PARITY_POINTS, Described, batch_spread, export, parity, prepared
from trainer.measured import BINS, Lessons, MeasuredQuality, Recipe
from vqmon.errors import ScorerError
from vqmon.measures import MEASURES
from vqmon.scorers.onnx import OnnxScorer

torch.set_num_threads(1)

FACTS = {
    "calibration": {
        "quality": {"from": [0, 100], "to": [0, 100]},
        "uncertainty": {"scale": 1.5, "floor": 3.0},
    }
}
SCORE = {"score": {"kind": "distribution", "values": list(BINS)}}


@pytest.fixture(scope="module")
def measured() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(300, len(MEASURES))).astype(np.float32)


@pytest.fixture(scope="module")
def network(measured: np.ndarray) -> MeasuredQuality:
    """Untrained, with large weights, so that scores spread over the scale."""
    torch.manual_seed(0)
    values = torch.from_numpy(measured)[:, None]
    lessons = Lessons(values, torch.zeros(300), values[None, :6], values[:1])
    network = MeasuredQuality(lessons, [0, 1], Recipe(members=4, hidden=16))
    with torch.no_grad():
        for weight in network.layers:
            weight.mul_(3)
    return network.eval()


@pytest.fixture(scope="module")
def folder(
    network: MeasuredQuality, measured: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("models") / "made"
    described = Described("made", "7", {"measures": MEASURES}, SCORE, FACTS)
    export(network, {"measures": torch.from_numpy(measured[:2])}, described, folder)
    return folder


def test_the_folder_scores_as_the_network_does(
    network: MeasuredQuality, measured: np.ndarray, folder: Path
) -> None:
    """Proved with the very scorer that will serve it."""
    qualities = [a.quality for a in OnnxScorer(folder).assess(prepared(measures=measured))]

    assert np.ptp(np.array(qualities)) > 20
    assert parity(network, folder, prepared(measures=measured)) < PARITY_POINTS


def test_parity_notices_a_difference(measured: np.ndarray, folder: Path) -> None:
    """A check that cannot fail proves nothing: another network is not this folder."""
    torch.manual_seed(5)
    values = torch.from_numpy(measured)[:, None]
    lessons = Lessons(values, torch.zeros(300), values[None, :6], values[:1])
    other = MeasuredQuality(lessons, [0, 1], Recipe(members=4, hidden=16))

    assert parity(other, folder, prepared(measures=measured)) > 1


def test_a_batch_changes_no_score(measured: np.ndarray, folder: Path) -> None:
    """Any batch size, and each picture alone."""
    assert batch_spread(folder, prepared(measures=measured[:64])) < PARITY_POINTS


def test_the_card_says_what_goes_in_and_out(folder: Path) -> None:
    """Shapes without the batch axis, names in the order of the vector."""
    card = json.loads((folder / "card.json").read_text())

    assert card["inputs"]["measures"]["shape"] == [len(MEASURES)]
    assert card["inputs"]["measures"]["names"] == list(MEASURES)
    assert card["outputs"]["score"]["shape"] == [len(BINS)]
    assert card["outputs"]["score"]["dtype"] == "float32"


def test_uncertainty_is_calibrated_as_the_card_says(
    measured: np.ndarray, network: MeasuredQuality, folder: Path
) -> None:
    """sqrt((1.5 spread)^2 + 3^2), with the spread of the distribution itself."""
    with torch.no_grad():
        p = network(torch.from_numpy(measured[:1]))[0].double().numpy()
    values = np.array(BINS, float)
    spread = np.sqrt((p * (values - p @ values) ** 2).sum())

    [assessment] = OnnxScorer(folder).assess(prepared(measures=measured[:1]))

    assert assessment.uncertainty == pytest.approx(np.hypot(1.5 * spread, 3.0), abs=1e-3)


class TwoEyes(nn.Module):
    """Stands for a learned network: reads a view and measures, says more than a score."""

    def forward(self, measures: Tensor, view: Tensor) -> tuple[Tensor, Tensor]:
        bright = view.float().mean((1, 2, 3)) / 255 + 0 * measures.sum(1)
        score = torch.stack([1 - bright, bright], 1)
        return score, bright[:, None, None].expand(-1, 2, 6)


def test_a_network_with_more_inputs_and_outputs_fits_the_same_format(tmp_path: Path) -> None:
    """The learned model to come: further inputs by name, further outputs kept as they are."""
    measured = torch.zeros(2, len(MEASURES))
    view = torch.full((2, 3, 8, 8), 51, dtype=torch.uint8)
    outputs: dict[str, dict[str, object]] = {
        "score": {"kind": "distribution", "values": [0, 100]},
        "degradations": {"kind": "severity", "names": ["blur", "noise"]},
    }
    described = Described("eyes", "1", {"measures": MEASURES, "view": ()}, outputs, FACTS)
    export(TwoEyes(), {"measures": measured, "view": view}, described, tmp_path)

    scorer = OnnxScorer(tmp_path)
    [assessment] = scorer.assess(prepared(measures=measured[:1].numpy(), view=view[:1].numpy()))

    assert scorer.inputs == ("measures", "view")
    assert assessment.quality == pytest.approx(20, abs=0.01)
    assert len(assessment.outputs["degradations"]) == 12


def test_a_network_that_says_nonsense_gets_no_score(tmp_path: Path) -> None:
    """A not-a-number from inside must not reach a report."""

    class Broken(nn.Module):
        def forward(self, measures: Tensor) -> Tensor:
            first = measures[:, :1]
            return torch.cat([first / first, first], 1)

    values = np.ones((2, len(MEASURES)), np.float32)
    values[1] = 0
    outputs = {"score": {"kind": "distribution", "values": [0, 100]}}
    described = Described("broken", "1", {"measures": MEASURES}, outputs, FACTS)
    export(Broken(), {"measures": torch.from_numpy(values)}, described, tmp_path)

    sane, insane = OnnxScorer(tmp_path).assess(prepared(measures=values))

    assert sane.quality == pytest.approx(50)
    assert insane.quality is None
    assert insane.no_score_reason == "scorer_failed"


def test_a_card_that_hides_an_input_is_refused(folder: Path, tmp_path: Path) -> None:
    """The network's own signature decides, not the card."""
    card = json.loads((folder / "card.json").read_text())
    card["inputs"] = {}
    (tmp_path / "card.json").write_text(json.dumps(card))
    (tmp_path / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())

    with pytest.raises(ScorerError, match="the network reads"):
        OnnxScorer(tmp_path)
