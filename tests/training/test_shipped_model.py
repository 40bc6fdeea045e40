"""The model in the wheel: that it fits the running code, and is what its card says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

pytest.importorskip("scipy")

from trainer.degrade import DEGRADATIONS, Picture
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
    assert sum(file.stat().st_size for file in folder.iterdir()) < 10 << 20
    assert {file.name for file in folder.iterdir()} == {"model.onnx", "card.json"}


def figure(table: str, name: str) -> dict[str, Any]:
    rows = read_card(model_folder()).raw["figures"][table]["rows"]
    [row] = [row for row in rows if row["figure"] == name]
    return dict(row)


def test_its_card_holds_what_a_user_must_know() -> None:
    """Figures with intervals, the data and their terms, and what it cannot do."""
    card = read_card(model_folder()).raw

    for name in ("PLCC", "SRCC", "KRCC", "RMSE", "without near-duplicates of train: SRCC"):
        row = figure("opinions", name)
        low, high = row["interval"]
        assert low < row["value"] < high
    assert figure("opinions", "PLCC")["n"] == 2000
    assert card["training"]["terms of the data"]
    assert card["limits"]
    assert card["licence"]
    assert max(card["proof"].values()) < 0.01


def test_it_is_at_least_as_good_as_the_bar() -> None:
    """What the first model had on the published test split, and rare false alarms."""
    assert figure("opinions", "PLCC")["value"] >= 0.79
    assert figure("opinions", "SRCC")["value"] >= 0.74
    assert figure("opinions", "coverage of the nominal 80 % interval")["value"] == pytest.approx(
        0.8, abs=0.05
    )
    assert figure("clean", "held out, all sizes")["value"] <= 0.1


def landscape() -> Picture:
    """(360, 640, 3) R'G'B' of the painted scene, which has a photograph's statistics."""
    planes = make_scene(640, 360).render(0.0)
    picture = av.VideoFrame(640, 360, "yuv420p")
    for plane, values in zip(picture.planes, planes, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = values
        plane.update(padded.tobytes())
    return np.asarray(picture.to_ndarray(format="rgb24"), np.uint8)


LADDERS = ("blur", "noise", "compression", "upscaled")
"""Exposure and faults in single places are found, but cost a made-up landscape little."""


@pytest.mark.parametrize("name", LADDERS)
def test_more_damage_scores_lower_on_a_picture_it_has_never_seen(name: str) -> None:
    """The least that anybody will try; ends of the ladder, on made-up texture."""
    scorer = OnnxScorer(Path(model_folder()))
    pictures = [landscape()] * 12
    rungs = [
        DEGRADATIONS[name](pictures, strength, np.random.default_rng(1))[-1] for strength in (0, 5)
    ]

    for colour in (JPEG_COLOUR, VIDEO_COLOUR):
        scores = [a.quality for a in scorer.assess([prepare(frame_of(r, colour)) for r in rungs])]

        assert scores[0] is not None
        assert scores[-1] is not None
        assert scores[0] - scores[-1] > 5


@pytest.mark.parametrize("name", ["blur", "noise", "compression"])
def test_it_names_strong_damage(name: str) -> None:
    """What is plain to see has a name, a severity and a cost."""
    scorer = OnnxScorer(Path(model_folder()))
    damaged = DEGRADATIONS[name]([landscape()] * 12, 5, np.random.default_rng(1))[-1]

    [assessment] = scorer.assess([prepare(frame_of(damaged, JPEG_COLOUR))])

    [found] = [it for it in assessment.findings if it.name == name]
    assert found.severity >= 3
    assert found.cost is not None
    assert found.cost > 5


def test_it_lets_an_intact_picture_pass() -> None:
    """A false alarm is what makes people switch monitoring off."""
    [assessment] = OnnxScorer(Path(model_folder())).assess(
        [prepare(frame_of(landscape(), VIDEO_COLOUR))]
    )

    assert assessment.findings == ()
    assert assessment.names_degradations
