"""What the writer said of a segment, or why it said nothing, for people and programs."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from vqmon.domain import Asked, Segment
from vqmon.report import words

CAUSES = {
    "demand": "somebody asked",
    "alert": "it raised an alert",
    "low_confidence": "the score is uncertain",
}


def scorer_said(segment: Segment) -> str:
    """The scorer's verdict in a line."""
    who = segment.model or "vqmon"
    if segment.quality is None:
        return f"{who}: no score, {words.reason(segment.no_score_reason or 'no_frames')}"
    return f"{who}: {_score(segment.quality, segment.uncertainty)}"


def writer_said(asked: Asked) -> str:
    """The writer's verdict in a line, or how its question stands."""
    because = f"asked because {CAUSES[asked.question.cause]}"
    opinion = asked.opinion
    if opinion is not None:
        score = "no score" if opinion.quality is None else ""
        score = score or _score(opinion.quality or 0.0, opinion.uncertainty)
        return f"{opinion.model}: {score} ({because}, took {words.lasting(opinion.seconds)})"
    if asked.state == "unanswered":
        return f"no answer of the writer ({because}): {asked.reason}"
    waits = f"the writer has not answered yet ({because})"
    return f"{waits}: {asked.reason}" if asked.reason else waits


def as_json(asked: Asked) -> dict[str, Any]:
    """A question and its answer as JSON values."""
    question, opinion = asked.question, asked.opinion
    return {
        "state": asked.state,
        "cause": question.cause,
        "alert": question.alert,
        "asked_at": question.asked_at.isoformat(),
        "attempts": asked.attempts,
        "reason": asked.reason,
        "opinion": asdict(opinion) | {"at": opinion.at.isoformat()} if opinion else None,
        "disagreement": asdict(asked.disagreement) if asked.disagreement else None,
    }


def _score(quality: float, uncertainty: float | None) -> str:
    give = f", give or take {uncertainty:.0f}" if uncertainty is not None else ""
    return f"{quality:.0f} of 100 ({words.grade(quality)}){give}"
