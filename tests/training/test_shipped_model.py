"""The model in the wheel: that it fits the running code, and is what its card says."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("scipy")

from trainer.degrade import DEGRADATIONS, STRENGTHS, Picture
from trainer.extract import JPEG_COLOUR, VIDEO_COLOUR, frame_of, probe_measures
from vqmon.measures import MEASURES
from vqmon.preprocess import prepare
from vqmon.scorers import model_folder
from vqmon.scorers.card import read_card, verify_files
from vqmon.scorers.onnx import OnnxScorer
from vqmon.sources.scene import make_scene


def test_its_measures_are_measured_as_they_were_when_it_was_fitted() -> None:
    """Names may stay while the code behind them changes; then the model must be fitted again:
    see trainer/README.md.
    """
    card = read_card(model_folder())
    probed = np.array(card.raw["inputs"]["measures"]["probe"])
    usual = np.ptp(
        [card.raw["inputs"]["measures"]["low"], card.raw["inputs"]["measures"]["high"]], axis=0
    )

    moved = np.abs(probe_measures() - probed) > 0.01 * usual + 1e-4

    assert not moved.any(), [MEASURES[i] for i in np.flatnonzero(moved.any(0))]


def test_it_is_small_and_whole() -> None:
    """It is shipped in the wheel and loaded at every start."""
    folder = model_folder()

    verify_files(read_card(folder))
    assert sum(file.stat().st_size for file in folder.iterdir()) < 5 << 20
    assert {file.name for file in folder.iterdir()} == {"model.onnx", "card.json"}


def test_its_card_holds_what_a_user_must_know() -> None:
    """Figures with intervals, the data and their terms, and what it cannot do."""
    card = read_card(model_folder()).raw
    figures = card["figures"]

    for name in ("test", "test without near-duplicates of training pictures"):
        for figure in ("plcc", "srcc", "krcc", "rmse"):
            row = figures[name][figure]
            assert row["low"] < row["value"] < row["high"]
    assert figures["test"]["n"] == 2000
    assert set(figures["test within subsets"]) == {"ss01", "ss02", "ss03"}
    assert card["training"]["terms of the data"]
    assert card["limits"]
    assert card["licence"]
    assert figures["largest difference from torch, points"] < 0.01


def test_it_is_at_least_as_good_as_the_bar() -> None:
    """PLCC .75 and SRCC .68 on the published test split; four of five opinions inside 80 %."""
    figures = read_card(model_folder()).raw["figures"]

    assert figures["test"]["plcc"]["value"] >= 0.75
    assert figures["test"]["srcc"]["value"] >= 0.68
    assert figures["coverage of the nominal 80 % interval"]["test"] == pytest.approx(0.8, abs=0.04)


def landscape() -> Picture:
    """(360, 640, 3) R'G'B' of the painted scene, which has a photograph's statistics."""
    planes = make_scene(640, 360).render(0.0)
    picture = av.VideoFrame(640, 360, "yuv420p")
    for plane, values in zip(picture.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = values
        plane.update(padded.tobytes())
    return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)


@pytest.mark.parametrize("name", list(DEGRADATIONS))
def test_more_damage_scores_lower_on_a_picture_it_has_never_seen(name: str) -> None:
    """The least that anybody will try; ends of the ladder, on made-up texture."""
    scorer = OnnxScorer(Path(model_folder()))
    picture = landscape()
    rungs = [
        DEGRADATIONS[name]([picture], strength, np.random.default_rng(1))[-1]
        for strength in STRENGTHS
    ]

    for colour in (JPEG_COLOUR, VIDEO_COLOUR):
        scores = [a.quality for a in scorer.assess([prepare(frame_of(r, colour)) for r in rungs])]

        assert scores[0] is not None
        assert scores[-1] is not None
        assert scores[0] - scores[-1] > 5
