"""Two models, one after the other: the scorer looks at everything, the writer where it pays.

    segments, alert events ─▶ questions ─▶ queue in SQL ─▶ writer ─▶ Opinion ─▶ disagreement

Which segments the writer is asked about, and what to make of its answer. Pure: time is that of
the segments, so that the same history asks the same questions again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from vqmon.domain import (
    ASK_CAUSES,
    DEGRADATIONS,
    AlertEvent,
    AskCause,
    Disagreement,
    Finding,
    Opinion,
    Question,
    Segment,
)

BUDGET_PERIOD = timedelta(hours=1)
KEPT_FOR_PEOPLE = 4
"""One part in so many of the budget is kept for questions on demand."""

TOO_LATE = "It was not asked in time: the budget was used up, or the writer was away."

LEAST_APART = 10.0
"""Points of quality that are no disagreement, however sure both are of themselves: half a grade."""

SIGMAS = 2.0
PLAIN = 3
"""Severity from which a degradation is too plain to be missed by the other one."""


@dataclass(frozen=True, slots=True)
class Policy:
    """When the writer is asked.

    instance: of the daemon. causes: some of ASK_CAUSES. uncertainty: points, from which a score
    is a weak one. pause: seconds of a stream between two questions for that reason. max_age:
    seconds for which an answer is worth having.
    """

    instance: str
    causes: frozenset[AskCause]
    uncertainty: float
    pause: float
    max_age: float

    def uncertain(self, segment: Segment) -> bool:
        """Whether the scorer itself is not sure."""
        return segment.uncertainty is not None and segment.uncertainty >= self.uncertainty


def rank(cause: AskCause) -> int:
    """0 is the most urgent."""
    return ASK_CAUSES.index(cause)


def for_machines(per_hour: int) -> int:
    """How much of the budget alerts and weak scores may use, so that people are not kept waiting."""
    return per_hour - per_hour // KEPT_FOR_PEOPLE


def on_demand(policy: Policy, segment: Segment, now: datetime) -> Question:
    """Somebody wants to know."""
    expires_at = now + timedelta(seconds=policy.max_age)
    return Question(segment.id, segment.stream, policy.instance, "demand", now, expires_at)


def questions(
    policy: Policy,
    segments: Iterable[Segment],
    events: Iterable[AlertEvent],
    asked: Mapping[str, datetime],
) -> list[Question]:
    """What follows from new segments and alerts; only segments with pictures are asked about.

    asked: when the writer was last asked about a stream because of a weak score.
    """
    found = list(_about_alerts(policy, events))
    if "low_confidence" in policy.causes:
        found += _about_weak_scores(policy, segments, asked)
    return found


def _about_alerts(policy: Policy, events: Iterable[AlertEvent]) -> Iterator[Question]:
    for event in events:
        segment = event.segment
        if event.kind == "firing" and segment and segment.evidence and "alert" in policy.causes:
            yield _question(policy, segment, "alert", event.alert.id)


def _about_weak_scores(
    policy: Policy, segments: Iterable[Segment], asked: Mapping[str, datetime]
) -> Iterator[Question]:
    last = dict(asked)
    for segment in segments:
        before = last.get(segment.stream)
        soon = before is not None and _end(segment) < before + timedelta(seconds=policy.pause)
        if segment.evidence and policy.uncertain(segment) and not soon:
            last[segment.stream] = _end(segment)
            yield _question(policy, segment, "low_confidence")


def _question(
    policy: Policy, segment: Segment, cause: AskCause, alert: str | None = None
) -> Question:
    at = _end(segment)
    return Question(
        segment=segment.id,
        stream=segment.stream,
        instance=policy.instance,
        cause=cause,
        asked_at=at,
        expires_at=at + timedelta(seconds=policy.max_age),
        alert=alert,
    )


def _end(segment: Segment) -> datetime:
    return segment.started_at + timedelta(seconds=segment.seconds)


def disagreement(segment: Segment, opinion: Opinion) -> Disagreement:
    """How far the two are apart: on the quality, and on what is wrong.

    They differ on quality beyond both uncertainties together (and LEAST_APART), and on what is
    wrong when both name something and nothing in common, or when only one of them does and finds
    it plain.
    """
    apart = _points_apart(segment, opinion)
    theirs, ours = _plain_names(opinion.findings), _plain_names(segment.findings)
    only_scorer = tuple(it for it in ours if it not in theirs)
    only_writer = tuple(it for it in theirs if it not in ours)
    on_quality = apart is not None and abs(apart) > _margin(segment, opinion)
    on_causes = _other_causes(segment.findings, opinion.findings)
    return Disagreement(
        differs=on_quality or on_causes,
        quality=apart,
        only_scorer=only_scorer,
        only_writer=only_writer,
        sentence=_sentence(apart, ours, theirs, on_quality=on_quality, on_causes=on_causes),
    )


def _points_apart(segment: Segment, opinion: Opinion) -> float | None:
    """Against the score of what the writer saw: the worst frame when that was all."""
    only_worst = len(opinion.pictures) == 1 and "-worst." in opinion.pictures[0]
    ours = segment.quality_worst if only_worst else segment.quality
    if ours is None or opinion.quality is None:
        return None
    return round(opinion.quality - ours, 2)


def _margin(segment: Segment, opinion: Opinion) -> float:
    both = math.hypot(segment.uncertainty or 0.0, opinion.uncertainty or 0.0)
    return max(LEAST_APART, SIGMAS * both)


def _plain_names(findings: Sequence[Finding]) -> tuple[str, ...]:
    """Degradations named, the gravest first. Faults such as black are measured, not judged."""
    judged = [it for it in findings if it.name in DEGRADATIONS]
    ordered = sorted(judged, key=lambda it: -it.severity)
    return tuple(dict.fromkeys(it.name for it in ordered))


def _other_causes(ours: Sequence[Finding], theirs: Sequence[Finding]) -> bool:
    a, b = _plain_names(ours), _plain_names(theirs)
    if a and b:
        return not set(a) & set(b)
    return any(it.severity >= PLAIN for it in (*ours, *theirs) if it.name in DEGRADATIONS)


def _sentence(
    apart: float | None,
    ours: Sequence[str],
    theirs: Sequence[str],
    *,
    on_quality: bool,
    on_causes: bool,
) -> str:
    if not on_quality and not on_causes:
        return "The writer agrees."
    parts = []
    if on_quality and apart is not None:
        parts.append(f"finds it {abs(apart):.0f} points {'better' if apart > 0 else 'worse'}")
    if on_causes:
        parts.append(f"names {_listed(theirs)} where the scorer names {_listed(ours)}")
    return f"The writer {' and '.join(parts)}."


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "nothing"
