"""A segment in plain words: a chain of numbered steps, each from numbers in the segment.

1. what was watched   2. .. what is seen, where, how strong, when, and what it does
n. what is likely behind it   n + 1. the conclusion: the score, or why there is none
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vqmon.domain import DEGRADATIONS, SELF_FAULTS, Finding, Segment
from vqmon.explain.causes import causes
from vqmon.explain.words import (
    FINDINGS,
    REASONS,
    Reason,
    Words,
    listed,
    number,
    region_words,
    score_word,
    title,
)

__all__ = ["FINDINGS", "REASONS", "Reason", "Words", "explain", "score_word", "sentence"]

LOW_SCORE = 60.0
"""Below it, degradations are named as what pulls the score down."""

SURE_SCORE = 80.0
WHOLE_SHARE = 0.95
NAMED_IN_SENTENCE = 3

LASTING = frozenset({"black", "freeze", "slate", "audio_silence"})
"""Findings whose value is how long they have lasted so far."""


def explain(segment: Segment) -> str:
    """Numbered steps, one a line."""
    groups = _grouped(segment.findings)
    steps = [_watched(segment)]
    poorest = next((group for group in groups if group[0].name in DEGRADATIONS), None)
    steps += [_seen(group, segment, worst=group is poorest) for group in groups]
    if not groups:
        steps.append(_nothing_seen(segment))
    steps += [f"Likely cause: {cause}" for cause in causes(segment)]
    steps.append(_conclusion(segment))
    return "\n".join(f"{place}. {step}" for place, step in enumerate(steps, 1))


def sentence(segment: Segment) -> str:
    """The same in one line."""
    named = [_short(group) for group in _grouped(segment.findings)]
    rest = len(named) - NAMED_IN_SENTENCE
    told = named[:NAMED_IN_SENTENCE] + ([f"{rest} more"] if rest > 0 else [])
    findings = listed(told) if told else "nothing wrong found"
    if segment.quality is None:
        why = _reason(segment).because
        return f"No score: {why}." if not told else f"No score: {why}; {findings}."
    return f"{_score(segment).capitalize()}: {findings}."


def _grouped(findings: Sequence[Finding]) -> list[list[Finding]]:
    """Findings of one name together, worst group first; the worst of each group in front."""
    groups: dict[str, list[Finding]] = {}
    for finding in findings:
        groups.setdefault(finding.name, []).append(finding)
    for group in groups.values():
        group.sort(key=lambda f: (-f.severity, -f.seconds))
    return sorted(groups.values(), key=lambda g: (-g[0].severity, -_seconds(g), g[0].name))


def _watched(segment: Segment) -> str:
    facts = segment.facts
    parts = [f"Watched {number(segment.seconds)} s"]
    if made := _format(facts):
        parts.append(made)
    if (rate := facts.get("bitrate_kbps")) is not None:
        parts.append(f"{number(rate)} kb/s")
    decoded = facts.get("frames_decoded", facts.get("pictures"))
    seen = "" if decoded is None else f"{decoded} pictures decoded, "
    return f"{', '.join(parts)}: {seen}{segment.frames_scored} scored.{_closeness(facts)}"


def _format(facts: Any) -> str:
    """Like `h264 1920x1080 at 25 frames a second`, as far as it is known."""
    size = f"{facts['width']}x{facts['height']}" if facts.get("width") else ""
    rate = facts.get("frame_rate") or facts.get("nominal_frame_rate")
    speed = f"at {number(rate)} frames a second" if rate else ""
    return " ".join(part for part in (facts.get("codec") or "", size, speed) if part)


def _closeness(facts: Any) -> str:
    """How closely vqmon looked, where that matters for what it can have seen."""
    said = []
    if facts.get("burst_reason"):
        said.append(f"Looked closer because of {facts['burst_reason']}.")
    elif facts.get("keyframes_only"):
        said.append("Only keyframes were looked at.")
    if facts.get("coarser_by"):
        said.append(f"Sampling was {facts['coarser_by']} times coarser, for want of time.")
    if lost := facts.get("lost"):
        words = [REASONS[r].because if r in REASONS else str(r) for r in lost]
        often = "once" if len(lost) == 1 else f"{len(lost)} times"
        said.append(f"The connection was lost {often} ({listed(_unique(words))}).")
    return "".join(f" {text}" for text in said)


def _seen(group: list[Finding], segment: Segment, *, worst: bool) -> str:
    """One step: what, how strong, where, when, how sure, and what it does."""
    finding = group[0]
    parts = [f"{FINDINGS[finding.name].seen}{_strength(finding)}"]
    if finding.name in DEGRADATIONS:
        parts.append(region_words(finding.region))
    parts.append(_when(group, segment))
    parts.append(f"confidence {round(100 * finding.confidence)} %")
    head = f"{title(finding.name).capitalize()}, {finding.severity_word}"
    return f"{head}: {', '.join(parts)}. {_effect(group, segment, worst=worst)}"


def _strength(finding: Finding) -> str:
    """Like `(measured 8.1 s, limit 2 s)`; nothing where nothing was measured."""
    if finding.value is None:
        return ""
    unit = f" {finding.unit}" if finding.unit else ""
    if finding.limit is None:
        return f" (measured {number(finding.value)}{unit})"
    word = "before" if finding.name == "format_changed" else "limit"
    return (
        f" (measured {number(finding.value)}{unit}, {word} {number(finding.limit)}{_again(unit)})"
    )


def _again(unit: str) -> str:
    """The unit once more, short: "% of packets" is "%" the second time."""
    return " %" if unit.startswith(" %") else unit


def _when(group: list[Finding], segment: Segment) -> str:
    total = _seconds(group)
    if len(group) > 1:
        return f"{len(group)} times for {number(round(total, 2))} s in all, first {_at(group, segment)}"
    finding = group[0]
    begins = max(0.0, finding.start - segment.start)
    if not finding.seconds:
        return f"at {number(round(begins, 2))} s"
    before = ", having begun before" if not begins and _began_before(finding) else ""
    if finding.seconds >= WHOLE_SHARE * segment.seconds:
        return f"throughout ({number(round(finding.seconds, 2))} s){before}"
    ends = begins + finding.seconds
    return f"from {number(round(begins, 2))} s to {number(round(ends, 2))} s{before}"


def _began_before(finding: Finding) -> bool:
    """Durations are measured from where a fault began, be it in an earlier segment."""
    measures_time = finding.unit == "s" and finding.name in LASTING
    return measures_time and (finding.value or 0.0) > finding.seconds + 0.1


def _at(group: list[Finding], segment: Segment) -> str:
    first = min(f.start for f in group)
    return f"at {number(round(max(0.0, first - segment.start), 2))} s"


def _effect(group: list[Finding], segment: Segment, *, worst: bool) -> str:
    name = group[0].name
    if name in SELF_FAULTS:
        return "This is about vqmon itself, not about the stream."
    if name in DEGRADATIONS:
        return _effect_on_score(segment, worst=worst and group[0].severity > 1)
    seconds = _seconds(group)
    lasting = f" for {number(round(seconds, 2))} s" if seconds else ""
    listener = "Listeners" if name.startswith("audio") else "Viewers"
    return f"{listener} {FINDINGS[name].viewer}{lasting}; this stands beside the score."


def _effect_on_score(segment: Segment, *, worst: bool) -> str:
    if segment.quality is None:
        return "There is no score that it could lower."
    if segment.quality < LOW_SCORE:
        return (
            "This is the likeliest to pull the score down."
            if worst
            else "It may add to the low score."
        )
    if segment.quality < SURE_SCORE:
        return "It costs some of the score."
    return "It hardly lowers the score."


def _nothing_seen(segment: Segment) -> str:
    if segment.quality is None:
        return "Nothing was measured beyond its limit."
    if segment.quality < LOW_SCORE:
        return (
            "No single fault or degradation was measured beyond its limit; the model judges the "
            "picture as a whole."
        )
    return "No fault and no degradation was found."


def _conclusion(segment: Segment) -> str:
    if segment.quality is None:
        reason = _reason(segment)
        return f"Conclusion: there is no score because {reason.because}. {reason.remedy}"
    worst = segment.quality_worst
    told = "" if worst is None else f"; the worst picture has {number(round(worst, 1))}"
    return f"Conclusion: quality is {_score(segment)}{told}."


def _score(segment: Segment) -> str:
    """Like `fair, 52 of 100 (give or take 8)`."""
    assert segment.quality is not None
    spread = segment.uncertainty
    told = "" if spread is None else f" (give or take {number(round(spread, 1))})"
    return f"{score_word(segment.quality)}, {number(round(segment.quality, 1))} of 100{told}"


def _reason(segment: Segment) -> Reason:
    name = segment.no_score_reason or "no_frames"
    return REASONS.get(name) or Reason(title(name), "See the log for more.")


def _short(group: list[Finding]) -> str:
    seconds = _seconds(group)
    lasting = f" for {number(round(seconds, 1))} s" if seconds else ""
    return f"{group[0].severity_word} {title(group[0].name)}{lasting}"


def _seconds(group: list[Finding]) -> float:
    return sum(f.seconds for f in group)


def _unique(words: list[str]) -> list[str]:
    return list(dict.fromkeys(words))
