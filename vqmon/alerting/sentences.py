"""Why an alert was raised, and why it was cleared: a sentence with what was measured."""

from __future__ import annotations

from vqmon.alerting.rules import DROP, NO_SCORE, NO_SIGNAL, QUALITY, WORST, Rule
from vqmon.alerting.states import Episode
from vqmon.domain import DOWN_REASONS, Finding, Segment
from vqmon.explain.phrases import points, strength
from vqmon.explain.words import FINDINGS, REASONS, number, title

NEW_MODEL = "Another quality model scores now, so what is usual is learnt anew."
RULE_GONE = "The rule was removed, switched off or changed."
STREAM_GONE = "The stream is no longer watched."


def raised(rule: Rule, episode: Episode, segment: Segment, usual: float | None) -> str:
    """Like `Black picture for 30 s: the picture is black (measured 30.4 s, limit 0.5 s).`"""
    lasting = f"for {_seconds(max(rule.raise_seconds, 0.0) or episode.bad)}"
    if rule.on == NO_SIGNAL and segment.no_score_reason in DOWN_REASONS:
        return f"No signal {lasting}: {_because(segment)} (limit {_seconds(rule.raise_seconds)})."
    if rule.on == NO_SCORE:
        return f"No score {lasting}: {_because(segment)} (limit {_seconds(rule.raise_seconds)})."
    if rule.on in (QUALITY, WORST, DROP):
        return _score(rule, episode, usual, lasting)
    if not episode.bad:
        lasting = "seen"
    name = title(rule.on)
    found = Finding(rule.on, 1, 1.0, episode.value, episode.limit, episode.unit)
    return f"{name[:1].upper()}{name[1:]} {lasting}: {FINDINGS[rule.on].seen}{strength(found)}."


def cleared(rule: Rule, value: float | None) -> str:
    """Like `No black picture for 10 s.`"""
    lasting = f"for {_seconds(rule.clear_seconds)}"
    now = "" if value is None else f" ({number(value)})"
    match rule.on:
        case "quality":
            return f"Quality is {number(rule.clear_limit)} or better {lasting}{now}."
        case "quality_worst":
            return f"The worst picture has {number(rule.clear_limit)} or more {lasting}{now}."
        case "quality_drop":
            return f"Quality is within {points(rule.clear_limit)} of what is usual {lasting}."
        case "no_score":
            return f"Scored again {lasting}."
        case "no_signal":
            return f"The signal is back {lasting}."
    if rule.clear_limit > 1:
        return f"No {title(rule.on)} worth naming {lasting}."
    return f"No {title(rule.on)} {lasting}."


def not_measured(seconds: float, segment: Segment) -> str:
    """Like `Not measured for 30 s: the server refused the connection.`"""
    return f"Not measured for {_seconds(seconds)}: {_because(segment)}."


def _score(rule: Rule, episode: Episode, usual: float | None, lasting: str) -> str:
    """Like `Quality below 25 for 60 s: it fell to 18.2 of 100 (limit 25).`"""
    measured = number(round(episode.value or 0.0, 1))
    limit = number(rule.limit)
    if rule.on == DROP:
        against = "" if usual is None else f" of {number(round(usual, 1))}"
        return (
            f"Quality far below its usual{against} {lasting}: it fell by {measured} points "
            f"(limit {limit})."
        )
    what = "Worst picture" if rule.on == WORST else "Quality"
    return f"{what} below {limit} {lasting}: it fell to {measured} of 100 (limit {limit})."


def _because(segment: Segment) -> str:
    if segment.no_score_reason in REASONS:
        return REASONS[segment.no_score_reason].because
    return "the measurement says nothing about it"


def _seconds(value: float) -> str:
    """Like `30 s`, `5 min`."""
    whole = round(value)
    if whole >= 120 and whole % 60 == 0:
        return f"{whole // 60} min"
    return f"{number(round(value, 1))} s"
