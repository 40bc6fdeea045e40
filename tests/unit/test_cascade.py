"""Which segments the writer is asked about, and whether its answer agrees."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vqmon.cascade import Policy, disagreement, for_machines, on_demand, questions
from vqmon.domain import ASK_CAUSES, Alert, AlertEvent, Finding, Opinion, Segment

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
POLICY = Policy("here", frozenset(ASK_CAUSES), uncertainty=20.0, pause=60.0, max_age=3600.0)
NOTHING: dict[str, datetime] = {}


def segment(number: int = 0, **fields: Any) -> Segment:
    given: dict[str, Any] = {
        "stream": "news",
        "started_at": NOON + timedelta(seconds=10 * number),
        "start": 10.0 * number,
        "seconds": 10.0,
        "quality": 50.0,
        "quality_worst": 30.0,
        "uncertainty": 5.0,
        "evidence": ("news/a-worst.jpg",),
        "id": f"s{number}",
    }
    return Segment(**given | fields)


def firing(about: Segment | None, kind: Any = "firing") -> AlertEvent:
    alert = Alert("news", "black", "critical", NOON, "It is black.", id="a1")
    return AlertEvent(kind, alert, NOON, segment=about)


def found(name: str, severity: int = 3) -> Finding:
    return Finding(name, severity, 1.0, None, None)


def opinion(**fields: Any) -> Opinion:
    given: dict[str, Any] = {"quality": 50.0, "uncertainty": 5.0, "pictures": ("a-1.jpg", "b")}
    return Opinion(model="big@1", at=NOON, **given | fields)


def test_the_segment_that_raises_an_alert_is_asked_about() -> None:
    """Once, when it begins to fire; the question is worth an answer for a while."""
    one = segment()

    [asked] = questions(POLICY, [one], [firing(one)], NOTHING)

    assert (asked.segment, asked.cause, asked.alert, asked.instance) == (
        "s0",
        "alert",
        "a1",
        "here",
    )
    assert asked.asked_at == NOON + timedelta(seconds=10)
    assert asked.expires_at == asked.asked_at + timedelta(hours=1)
    assert questions(POLICY, [], [firing(one, "repeat"), firing(one, "resolved")], NOTHING) == []


def test_without_pictures_there_is_nothing_to_look_at() -> None:
    """A stream that is down, or an alert about vqmon itself."""
    bare = segment(evidence=(), uncertainty=50.0)

    assert questions(POLICY, [bare], [firing(bare), firing(None)], NOTHING) == []


def test_weak_scores_of_a_stream_are_asked_about_once_in_a_while() -> None:
    """They come in runs; other streams have their own turn."""
    weak = [segment(number, uncertainty=20.0) for number in range(8)]
    other = segment(1, stream="sport", uncertainty=25.0, id="other")

    asked = questions(POLICY, [*weak, other, segment(9)], [], NOTHING)

    assert [it.segment for it in asked] == ["s0", "s6", "other"]
    assert {it.cause for it in asked} == {"low_confidence"}


def test_what_was_asked_before_a_restart_is_remembered() -> None:
    """The pause goes on."""
    weak = segment(uncertainty=30.0)

    assert questions(POLICY, [weak], [], {"news": NOON - timedelta(seconds=30)}) == []
    assert questions(POLICY, [weak], [], {"news": NOON - timedelta(seconds=50)})


def test_only_wanted_causes_ask() -> None:
    """`ask_on` is the operator's."""
    weak = segment(uncertainty=30.0)
    quiet = replace(POLICY, causes=frozenset({"demand"}))

    assert questions(quiet, [weak], [firing(weak)], NOTHING) == []
    assert on_demand(quiet, weak, NOON).cause == "demand"


@pytest.mark.parametrize(("budget", "machines"), [(1, 1), (3, 3), (4, 3), (30, 23)])
def test_a_quarter_of_the_budget_is_for_people(budget: int, machines: int) -> None:
    """A budget too small to share is not shared."""
    assert for_machines(budget) == machines


@pytest.mark.parametrize(
    ("quality", "uncertainty", "differs"),
    [(60.0, 0.0, False), (60.5, 0.0, True), (38.0, None, True), (70.0, 12.0, False)],
)
def test_they_differ_on_quality_beyond_what_both_are_unsure_of(
    quality: float, uncertainty: float | None, *, differs: bool
) -> None:
    """And by half a grade at least."""
    apart = disagreement(
        segment(uncertainty=2.0), opinion(quality=quality, uncertainty=uncertainty)
    )

    assert apart.quality == quality - 50.0
    assert apart.differs is differs
    assert ("agrees" in apart.sentence) is not differs


@pytest.mark.parametrize(
    ("ours", "theirs", "differs"),
    [
        ([], [], False),
        ([found("blur")], [found("blur", 5)], False),
        ([found("blur"), found("noise")], [found("noise")], False),
        ([found("blur")], [found("noise")], True),
        ([found("blur", 2)], [], False),
        ([], [found("noise", 3)], True),
        ([found("freeze", 5)], [], False),
    ],
)
def test_they_differ_on_causes_when_one_names_what_the_other_cannot_have_missed(
    ours: list[Finding], theirs: list[Finding], *, differs: bool
) -> None:
    """A slight blur may be overlooked, and a freeze is no judgement."""
    apart = disagreement(segment(findings=tuple(ours)), opinion(findings=tuple(theirs)))

    assert apart.differs is differs


def test_a_disagreement_is_told_in_words() -> None:
    """For whoever decides which of the two is right."""
    apart = disagreement(
        segment(findings=(found("blur"),)), opinion(quality=12.0, findings=(found("noise", 4),))
    )

    assert apart.only_scorer == ("blur",)
    assert apart.only_writer == ("noise",)
    assert apart.sentence == (
        "The writer finds it 38 points worse and names noise where the scorer names blur."
    )


def test_the_worst_picture_alone_is_compared_with_the_worst_frame() -> None:
    """Its score says nothing of the rest of the segment."""
    apart = disagreement(segment(), opinion(quality=30.0, pictures=("news/a-worst.jpg",)))

    assert apart.quality == 0.0


def test_without_a_score_there_are_no_points_between_them() -> None:
    """A black segment has none."""
    apart = disagreement(segment(quality=None, no_score_reason="black"), opinion())

    assert (apart.quality, apart.differs) == (None, False)
