"""What the explanations of one segment and of two have in common: clauses made of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vqmon.domain import Finding, Segment
from vqmon.explain.words import REASONS, listed, number, region_words, score_word, title

Group = list[Finding]
"""Findings of one name, the worst in front."""

WHOLE_SHARE = 0.95

LASTING = frozenset({"black", "freeze", "slate", "audio_silence"})
"""Findings whose value is how long they have lasted so far."""

JUDGED = "of 5"
"""The unit of a value that a model estimates on the scale of severities, instead of measuring."""

LEAST_COST = 0.5
"""Points of quality; less is not worth a figure."""


def grouped(findings: Sequence[Finding]) -> list[Group]:
    """Findings of one name together, worst group first; the worst of each group in front."""
    groups: dict[str, Group] = {}
    for finding in findings:
        groups.setdefault(finding.name, []).append(finding)
    for group in groups.values():
        group.sort(key=lambda f: (-f.severity, -f.seconds))
    return sorted(groups.values(), key=lambda g: (-g[0].severity, -lasted(g), g[0].name))


def lasted(group: Group) -> float:
    """Seconds, all of the group together."""
    return sum(f.seconds for f in group)


def cost(group: Group) -> float | None:
    """Points of quality while it lasts, by the findings that state any; None when none does."""
    stated = [(f.cost, max(f.seconds, 1e-3)) for f in group if f.cost is not None]
    if not stated:
        return None
    return sum(points * seconds for points, seconds in stated) / sum(s for _, s in stated)


def cost_of_score(group: Group, segment: Segment) -> float | None:
    """Points of the quality of the whole segment: less than `cost` where it lasts a part of it."""
    points = cost(group)
    if points is None or not segment.seconds:
        return points
    stated = sum(f.seconds for f in group if f.cost is not None)
    return points * min(1.0, stated / segment.seconds) if stated else points


def points(value: float) -> str:
    """Like `about 14 points`, `about 1 point`, `less than a point`."""
    whole = round(value)
    if value < LEAST_COST:
        return "less than a point"
    return f"about {whole} point{'' if whole == 1 else 's'}"


def watched(segment: Segment) -> str:
    """Like `watched 10 s, h264 1920x1080 at 25 frames a second: 250 pictures decoded, 5 scored.`"""
    facts = segment.facts
    parts = [f"watched {number(segment.seconds)} s"]
    if made := _format(facts):
        parts.append(made)
    if (rate := facts.get("bitrate_kbps")) is not None:
        parts.append(f"{number(rate)} kb/s")
    decoded = facts.get("frames_decoded", facts.get("pictures"))
    seen = "" if decoded is None else f"{decoded} pictures decoded, "
    return f"{', '.join(parts)}: {seen}{segment.frames_scored} scored.{_closeness(facts)}"


def _format(facts: Mapping[str, Any]) -> str:
    """Like `h264 1920x1080 at 25 frames a second`, as far as it is known."""
    size = f"{facts['width']}x{facts['height']}" if facts.get("width") else ""
    rate = facts.get("frame_rate") or facts.get("nominal_frame_rate")
    speed = f"at {number(rate)} frames a second" if rate else ""
    return " ".join(part for part in (facts.get("codec") or "", size, speed) if part)


def _closeness(facts: Mapping[str, Any]) -> str:
    """How closely vqmon looked, where that matters for what it can have seen."""
    said = []
    if facts.get("burst_reason"):
        said.append(f"Looked closer because of {facts['burst_reason']}.")
    elif keyframes_alone(facts):
        said.append("Only keyframes were looked at.")
    if facts.get("coarser_by"):
        said.append(f"Sampling was {facts['coarser_by']} times coarser, for want of time.")
    if lost := facts.get("lost"):
        words = [REASONS[r].because if r in REASONS else str(r) for r in lost]
        often = "once" if len(lost) == 1 else f"{len(lost)} times"
        said.append(f"The connection was lost {often} ({listed(list(dict.fromkeys(words)))}).")
    return "".join(f" {text}" for text in said)


def keyframes_alone(facts: Mapping[str, Any]) -> bool:
    """Whether other pictures were passed over; a file may have nothing but keyframes."""
    return bool(facts.get("keyframes_only")) and facts.get("sampling") != "every"


def strength(finding: Finding) -> str:
    """Like `(measured 8.1 s, limit 2 s)` or, of a model's own, `(level 3.2 of 5)`; nothing where
    nothing was measured.
    """
    if finding.value is None:
        return ""
    if finding.unit == JUDGED:
        return f" (level {number(round(finding.value, 1))} {JUDGED})"
    unit = f" {finding.unit}" if finding.unit else ""
    if finding.limit is None:
        return f" (measured {number(finding.value)}{unit})"
    word = "before" if finding.name == "format_changed" else "limit"
    limit = f"{number(finding.limit)}{_again(unit)}"
    return f" (measured {number(finding.value)}{unit}, {word} {limit})"


def _again(unit: str) -> str:
    """The unit once more, short: "% of packets" is "%" the second time."""
    return " %" if unit.startswith(" %") else unit


def place(group: Group) -> str:
    """Where in the picture the worst of them is."""
    return region_words(group[0].region)


def when(group: Group, segment: Segment) -> str:
    """Like `throughout (10 s)`, `from 2 s to 8.5 s` or `3 times for 1.5 s in all, first at 0 s`."""
    total = lasted(group)
    if len(group) > 1:
        return f"{len(group)} times for {seconds(total)} in all, first {_at(group, segment)}"
    finding = group[0]
    begins = max(0.0, finding.start - segment.start)
    if not finding.seconds:
        return f"at {seconds(begins)}"
    before = ", having begun before" if not begins and _began_before(finding) else ""
    if finding.seconds >= WHOLE_SHARE * segment.seconds:
        return f"throughout ({seconds(finding.seconds)}){before}"
    return f"from {seconds(begins)} to {seconds(begins + finding.seconds)}{before}"


def seconds(value: float) -> str:
    return f"{number(round(value, 2))} s"


def _began_before(finding: Finding) -> bool:
    """Durations are measured from where a fault began, be it in an earlier segment."""
    measures_time = finding.unit == "s" and finding.name in LASTING
    return measures_time and (finding.value or 0.0) > finding.seconds + 0.1


def _at(group: Group, segment: Segment) -> str:
    first = min(f.start for f in group)
    return f"at {seconds(max(0.0, first - segment.start))}"


def noun(group: Group) -> str:
    """Like `blur`, `damaged pictures`."""
    return title(group[0].name)


def score(segment: Segment) -> str:
    """Like `fair, 52 of 100 (give or take 8)`."""
    assert segment.quality is not None
    spread = segment.uncertainty
    told = "" if spread is None else f" (give or take {number(round(spread, 1))})"
    return f"{score_word(segment.quality)}, {number(round(segment.quality, 1))} of 100{told}"
