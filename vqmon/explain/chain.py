"""The reason of one segment: what was seen, where, how strong, what it costs, and the conclusion."""

from __future__ import annotations

from vqmon.domain import DEGRADATIONS, SELF_FAULTS, Segment
from vqmon.explain.causes import causes
from vqmon.explain.phrases import (
    LEAST_COST,
    WHOLE_SHARE,
    Group,
    cost,
    cost_of_score,
    grouped,
    lasted,
    noun,
    place,
    points,
    score,
    strength,
    watched,
    when,
)
from vqmon.explain.words import FINDINGS, REASONS, Reason, listed, number, title

LOW_SCORE = 60.0
"""Below it, degradations are named as what pulls the score down."""

SURE_SCORE = 80.0
NAMED_IN_SENTENCE = 3


def explain(segment: Segment) -> str:
    """Numbered steps, one a line; behind them the words of a model that writes, if it was one."""
    groups = grouped(segment.findings)
    steps = [_begun(watched(segment))]
    poorest = next((group for group in groups if group[0].name in DEGRADATIONS), None)
    steps += [_seen(group, segment, worst=group is poorest) for group in groups]
    if not groups:
        steps.append(_nothing_seen(segment))
    steps += [f"Likely cause: {cause}" for cause in causes(segment)]
    steps.append(_conclusion(groups, segment))
    return "\n\n".join([numbered(steps), *_own_words(segment)])


def _own_words(segment: Segment) -> list[str]:
    words = dict.fromkeys(segment.facts.get("words", ()))
    return [f"In the words of {segment.model}:\n{said}" for said in words]


def numbered(steps: list[str]) -> str:
    return "\n".join(f"{place}. {step}" for place, step in enumerate(steps, 1))


def sentence(segment: Segment) -> str:
    """The same in one line."""
    named = [_short(group) for group in grouped(segment.findings)]
    rest = len(named) - NAMED_IN_SENTENCE
    told = named[:NAMED_IN_SENTENCE] + ([f"{rest} more"] if rest > 0 else [])
    findings = listed(told) if told else "nothing wrong found"
    if segment.quality is None:
        why = _reason(segment).because
        return f"No score: {why}." if not told else f"No score: {why}; {findings}."
    return f"{_begun(score(segment))}: {findings}."


def _begun(clause: str) -> str:
    """With a capital in front; unlike `capitalize`, it leaves the rest alone."""
    return clause[:1].upper() + clause[1:]


def _seen(group: Group, segment: Segment, *, worst: bool) -> str:
    """One step: what, how strong, where, when, how sure, and what it does."""
    finding = group[0]
    parts = [f"{FINDINGS[finding.name].seen}{strength(finding)}"]
    if finding.name in DEGRADATIONS:
        parts.append(place(group))
    parts.append(when(group, segment))
    parts.append(f"confidence {round(100 * finding.confidence)} %")
    head = f"{_begun(noun(group))}, {finding.severity_word}"
    return f"{head}: {', '.join(parts)}. {_effect(group, segment, worst=worst)}"


def _effect(group: Group, segment: Segment, *, worst: bool) -> str:
    name = group[0].name
    if name in SELF_FAULTS:
        return "This is about vqmon itself, not about the stream."
    if name in DEGRADATIONS:
        return _effect_on_score(group, segment, worst=worst and group[0].severity > 1)
    return f"{people(name)} {FINDINGS[name].viewer}; this stands beside the score."


def people(name: str) -> str:
    """Who notices a fault."""
    return "Listeners" if name.startswith("audio") else "Viewers"


def _effect_on_score(group: Group, segment: Segment, *, worst: bool) -> str:
    """A figure where the scorer gave one; else how the fault goes with the height of the score."""
    if segment.quality is None:
        return "There is no score that it could lower."
    if cost(group) is not None:
        return _stated_cost(group, segment)
    if any(finding.cost is not None for finding in segment.findings):
        return "The model states no cost for it."
    if segment.quality < LOW_SCORE:
        return (
            "This is the likeliest to pull the score down."
            if worst
            else "It may add to the low score."
        )
    if segment.quality < SURE_SCORE:
        return "It costs some of the score."
    return "It hardly lowers the score."


def _stated_cost(group: Group, segment: Segment) -> str:
    """`It costs about 14 points.`, and what is left of that in a score of more than its time."""
    while_there, of_score = cost(group), cost_of_score(group, segment)
    assert while_there is not None
    assert of_score is not None
    if while_there < LEAST_COST or of_score >= WHOLE_SHARE * while_there:
        return f"It costs {points(while_there)}."
    return f"It costs {points(while_there)} while it lasts, {points(of_score)} of this score."


def _nothing_seen(segment: Segment) -> str:
    if segment.quality is None:
        return "Nothing was measured beyond its limit."
    if segment.quality < LOW_SCORE:
        return (
            "No single fault or degradation was measured beyond its limit; the model judges the "
            "picture as a whole."
        )
    return "No fault and no degradation was found."


def _conclusion(groups: list[Group], segment: Segment) -> str:
    if segment.quality is None:
        reason = _reason(segment)
        return f"Conclusion: there is no score because {reason.because}. {reason.remedy}"
    worst = segment.quality_worst
    told = "" if worst is None else f"; the worst picture has {number(round(worst, 1))}"
    return f"Conclusion: quality is {score(segment)}{told}.{_accounted(groups, segment)}"


def _accounted(groups: list[Group], segment: Segment) -> str:
    """How much of what is missing to 100 the stated costs make up; nothing where none is stated."""
    stated = [(noun(group), cost_of_score(group, segment)) for group in groups]
    costs = [(round(value), name) for name, value in stated if value is not None]
    costs = sorted((it for it in costs if it[0] > 0), reverse=True)
    if not costs or segment.quality is None:
        return ""
    missing, found = round(100 - segment.quality), sum(value for value, _ in costs)
    parts = listed([f"{name} {value}" for value, name in costs])
    if found >= missing:
        return f" What was found accounts for all that is missing to 100 ({parts})."
    return (
        f" Of the {missing} points missing to 100, what was found costs {points(found)} "
        f"({parts}); the other {missing - found} lie in the picture as a whole."
    )


def _reason(segment: Segment) -> Reason:
    name = segment.no_score_reason or "no_frames"
    return REASONS.get(name) or Reason(title(name), "See the log for more.")


def _short(group: Group) -> str:
    total = lasted(group)
    lasting = f" for {number(round(total, 1))} s" if total else ""
    return f"{group[0].severity_word} {noun(group)}{lasting}"
