"""A segment as one rule sees it: stretches that are bad, good, in between, or unknown."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from vqmon.alerting.rules import DROP, EXPECTED, NO_SCORE, NO_SIGNAL, QUALITY, WORST, Rule
from vqmon.domain import DEGRADATIONS, DOWN_REASONS, Finding, Segment, Stream
from vqmon.summing import NOT_UP

Grade = Literal["bad", "between", "good", "unknown"]

PICTURE_FAULTS = frozenset({"black", "freeze", "slate", "stutter"})
NO_PICTURE = frozenset({"no_frames", "no_video"})
NOT_MISSED = frozenset({*DOWN_REASONS, "black", "stopped"})
"""Reasons for no score that other rules speak of, or that are nobody's fault."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a segment. begin: seconds into it. value, limit, unit: as measured there."""

    grade: Grade
    begin: float
    seconds: float
    value: float | None = None
    limit: float | None = None
    unit: str = ""


def stretches(
    rule: Rule, stream: Stream, segment: Segment, usual: float | None
) -> Iterator[Stretch]:
    """In order, without holes. usual: the baseline of the stream's quality, when it has one."""
    if rule.on == NO_SCORE:
        yield _whole(segment, _missing(segment))
    elif rule.on in (QUALITY, WORST, DROP):
        yield _score(rule, segment, usual)
    elif rule.on == NO_SIGNAL and segment.no_score_reason in DOWN_REASONS:
        yield _whole(segment, "bad")
    elif any(rule.on in EXPECTED.get(it, ()) for it in stream.expect):
        yield _whole(segment, "good")
    else:
        yield from _found(rule, segment)


def _whole(segment: Segment, grade: Grade) -> Stretch:
    return Stretch(grade, 0.0, segment.seconds)


def _missing(segment: Segment) -> Grade:
    if segment.scored:
        return "good"
    return "unknown" if segment.no_score_reason in NOT_MISSED else "bad"


def _score(rule: Rule, segment: Segment, usual: float | None) -> Stretch:
    """The segment's score speaks for all of it."""
    measured = segment.quality_worst if rule.on == WORST else segment.quality
    if measured is None or segment.quality is None or (rule.on == DROP and usual is None):
        return _whole(segment, "unknown")
    if rule.on == DROP and usual is not None:
        measured = usual - measured
        grade = _graded(measured >= rule.limit, measured < rule.clear_limit)
    else:
        grade = _graded(measured < rule.limit, measured >= rule.clear_limit)
    return Stretch(grade, 0.0, segment.seconds, round(measured, 1), rule.limit, "points")


def _graded(bad: bool, good: bool) -> Grade:
    return "bad" if bad else "good" if good else "between"


def _found(rule: Rule, segment: Segment) -> Iterator[Stretch]:
    """Cut where findings of this name begin and end; the worst at each moment counts."""
    found = [it for it in segment.findings if it.name == rule.on]
    if not found:
        yield _whole(segment, "good" if _known(rule, segment) else "unknown")
        return
    spans = [(_span(it, segment), it) for it in found]
    moments = [_of(it, rule, begin, 0.0) for (begin, end), it in spans if begin == end]
    lasting = list(_lasting(rule, segment, spans))
    yield from sorted([*moments, *lasting], key=lambda it: (it.begin, it.seconds))


def _lasting(
    rule: Rule, segment: Segment, spans: list[tuple[tuple[float, float], Finding]]
) -> Iterator[Stretch]:
    borders = {0.0, segment.seconds, *(edge for span, _ in spans for edge in span)}
    for begin, end in pairwise(sorted(borders)):
        here = [it for (since, to), it in spans if since <= begin and end <= to]
        worst = max(here, key=lambda it: (it.severity, it.value or 0.0), default=None)
        if worst is None:
            yield Stretch("good", begin, end - begin)
        else:
            yield _of(worst, rule, begin, end - begin)


def _of(finding: Finding, rule: Rule, begin: float, seconds: float) -> Stretch:
    grade = _graded(finding.severity >= rule.limit, finding.severity < rule.clear_limit)
    return Stretch(grade, begin, seconds, finding.value, finding.limit, finding.unit)


def _span(finding: Finding, segment: Segment) -> tuple[float, float]:
    """Inside its segment, whatever it says."""
    seconds = min(max(0.0, finding.seconds), segment.seconds)
    begin = min(max(0.0, finding.start - segment.start), segment.seconds - seconds)
    return begin, begin + seconds


def _known(rule: Rule, segment: Segment) -> bool:
    """Whether finding nothing means that nothing is there."""
    if segment.no_score_reason in NOT_UP or segment.no_score_reason == "stopped":
        return rule.on in ("overload", "storage_low")
    if rule.on in DEGRADATIONS:
        return segment.scored or rule.on == "corrupted"
    return rule.on not in PICTURE_FAULTS or segment.no_score_reason not in NO_PICTURE
