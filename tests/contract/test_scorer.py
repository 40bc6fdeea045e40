"""What every scorer keeps to, whether it runs here, in another process, or is a fake."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from vqmon.errors import ScorerError
from vqmon.preprocess import Prepared, prepare
from vqmon.scorers import load_scorer
from vqmon.testing import FakeScorer, textured_frame

if TYPE_CHECKING:
    from vqmon.ports import Scorer


REAL = pytest.mark.parametrize("scorer", ["onnx", "shared"], indirect=True)
"""The fake compares anything and scores by any function."""


@pytest.fixture(params=["onnx", "shared", "fake"], scope="module")
def scorer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scorer]:
    if request.param == "fake":
        yield FakeScorer()
    elif request.param == "onnx":
        yield load_scorer()
    else:
        yield from _shared(tmp_path_factory.mktemp("scoring") / "scorer.sock")


def _shared(address: Path) -> Iterator[Scorer]:
    from multiprocessing import get_context

    from vqmon.scorers.shared import SharedScorer, serve

    process = get_context("spawn").Process(target=serve, args=(None, address))
    process.start()
    try:
        with SharedScorer(address, deadline=30) as scorer:
            yield scorer
    finally:
        process.kill()
        process.join()


@pytest.fixture(scope="module")
def pictures() -> list[Prepared]:
    """Twelve pictures of rising brightness, each at its own position."""
    return [
        prepare(textured_frame(float(i), brightness=8 * i + 5, size=(320, 180), seed=i))
        for i in range(12)
    ]


def test_order_is_kept(scorer: Scorer, pictures: list[Prepared]) -> None:
    """Assessments are matched to frames by place; a swap would blame the wrong moment."""
    assessed = scorer.assess(pictures)

    assert [a.position for a in assessed] == [p.position for p in pictures]
    assert len({a.quality for a in assessed}) > 6


def test_quality_is_on_the_scale_with_an_uncertainty(
    scorer: Scorer, pictures: list[Prepared]
) -> None:
    """Everything downstream counts on 0..100 and on a standard deviation in points."""
    for assessment in scorer.assess(pictures):
        assert assessment.quality is not None
        assert assessment.uncertainty is not None
        assert 0 <= assessment.quality <= 100
        assert 0 < assessment.uncertainty < 50
        assert assessment.no_score_reason is None


def test_an_empty_batch_gives_an_empty_list(scorer: Scorer) -> None:
    """A segment may end before anything was sampled."""
    assert scorer.assess([]) == []


def test_the_model_is_named_with_its_version(scorer: Scorer, pictures: list[Prepared]) -> None:
    """Baselines and comparisons are kept per model version."""
    [assessment] = scorer.assess(pictures[:1])

    name, _, version = scorer.model.partition("@")
    assert name
    assert version
    assert assessment.model == scorer.model


def test_a_picture_scores_the_same_alone_and_in_any_batch(
    scorer: Scorer, pictures: list[Prepared]
) -> None:
    """Batches form by chance, from whatever streams ask at once; scores must not follow."""
    together = scorer.assess(pictures * 5)
    alone = [scorer.assess([picture])[0] for picture in pictures]

    for i, assessment in enumerate(together):
        assert assessment.quality == pytest.approx(alone[i % len(alone)].quality, abs=0.01)
        assert assessment.uncertainty == pytest.approx(alone[i % len(alone)].uncertainty, abs=0.01)


def test_many_threads_each_get_their_own_answers(scorer: Scorer, pictures: list[Prepared]) -> None:
    """Every stream has a thread, and all streams of a process share one scorer."""
    expected = [a.quality for a in scorer.assess(pictures)]

    def ask(number: int) -> list[tuple[float, float | None]]:
        shifted = [replace(p, position=p.position + 1000 * number) for p in pictures]
        return [(a.position, a.quality) for _ in range(10) for a in scorer.assess(shifted)]

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(ask, range(8)))

    for number, found in enumerate(answers):
        assert [position for position, _ in found] == [
            p.position + 1000 * number for p in pictures
        ] * 10
        assert [quality for _, quality in found] == pytest.approx(expected * 10, abs=0.01)


def test_comparing_agrees_with_the_scores(scorer: Scorer, pictures: list[Prepared]) -> None:
    """`a` is better exactly when it scores higher; swapping sides swaps the answer."""
    assessed = sorted(scorer.assess(pictures), key=lambda a: a.quality or 0)
    low, high = assessed[:1], assessed[-1:]

    forth, back = scorer.compare(high, low), scorer.compare(low, high)

    assert forth.margin == pytest.approx(-back.margin)
    assert forth.margin > 0
    assert forth.better in ("a", "similar")
    assert forth.probability > 0.5 > back.probability
    assert forth.reason


def test_a_picture_is_similar_to_itself(scorer: Scorer, pictures: list[Prepared]) -> None:
    """Noise of a comparison must not become a preference."""
    assessed = scorer.assess(pictures)

    comparison = scorer.compare(assessed, assessed)

    assert comparison.better == "similar"
    assert comparison.margin == 0


@REAL
def test_the_order_of_two_renditions_is_surer_than_of_two_scenes(
    scorer: Scorer, pictures: list[Prepared]
) -> None:
    """What the model misjudges about a scene it misjudges in both renditions of it."""
    assessed = sorted(scorer.assess(pictures), key=lambda a: a.quality or 0)
    low, high = assessed[:1], assessed[-1:]

    scenes, renditions = scorer.compare(high, low), scorer.compare(high, low, same_content=True)

    assert renditions.margin == scenes.margin
    assert renditions.probability > scenes.probability


@REAL
def test_comparing_with_nothing_scored_is_refused(scorer: Scorer, pictures: list[Prepared]) -> None:
    """ "Similar" would be a lie where one side has no score; the reason is passed on."""
    scored = scorer.assess(pictures[:1])
    unscored = [replace(scored[0], quality=None, no_score_reason="scorer_unavailable")]

    with pytest.raises(ScorerError, match=r"b has no scored picture.*scorer_unavailable"):
        scorer.compare(scored, unscored)


@REAL
def test_a_picture_that_is_not_finite_gets_no_score_and_spoils_no_other(
    scorer: Scorer, pictures: list[Prepared]
) -> None:
    """A broken measure must neither become a number nor take its batch along."""
    broken = np.full_like(pictures[1].inputs["measures"], np.nan)
    batch = [
        pictures[0],
        replace(pictures[1], inputs={**pictures[1].inputs, "measures": broken}),
        pictures[2],
    ]

    first, second, third = scorer.assess(batch)

    assert second.quality is None
    assert second.no_score_reason == "scorer_failed"
    assert second.position == pictures[1].position
    assert first.quality == pytest.approx(scorer.assess(pictures[:1])[0].quality, abs=0.01)
    assert third.quality is not None
