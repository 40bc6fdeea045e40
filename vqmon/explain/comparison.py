"""The reason of a comparison: what each side shows, where they differ, what that costs, who wins."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from vqmon.domain import DEGRADATIONS, SELF_FAULTS, Comparison, Segment
from vqmon.explain.chain import numbered, people
from vqmon.explain.phrases import (
    LEAST_COST,
    Group,
    cost_of_score,
    grouped,
    keyframes_alone,
    lasted,
    noun,
    place,
    points,
    score,
    seconds,
    strength,
    watched,
    when,
)
from vqmon.explain.words import FINDINGS, listed, number

REASONS_NAMED = 2
"""Findings named in the conclusion."""

UNLIKE_RATE = 0.9
"""Bitrates closer than this share are told as the same."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Findings of one name on both sides; empty where a side has none."""

    name: str
    a: Group
    b: Group

    @property
    def severity(self) -> int:
        return max(group[0].severity for group in (self.a, self.b) if group)


def comparison(
    a: Segment,
    b: Segment,
    found: Comparison,
    *,
    names: tuple[str, str] = ("A", "B"),
    alike: tuple[int, int] | None = None,
) -> str:
    """Numbered steps, one a line. Both sides must have a score.

    names: what the sides are called outside. alike: how many pictures of the side with fewer
    show what a picture of the other shows, and of how many; None when no pictures were at hand.
    """
    pairs = _pairs(a, b)
    steps = [_side("A", names[0], a), _side("B", names[1], b)]
    steps += _rates(a.facts, b.facts)
    steps += _keyframes(a.facts, b.facts)
    steps += [_both(it, a, b) if it.a and it.b else _only(it, a, b) for it in pairs]
    if not pairs:
        steps.append("Neither shows a fault or a degradation.")
    steps.append(_scores(a, b, pairs))
    steps.append(_certainty(a, b, found, alike))
    steps.append(_conclusion(a, b, found, pairs))
    return numbered(steps)


def _pairs(a: Segment, b: Segment) -> list[Pair]:
    """The gravest first; what is about vqmon itself is left out."""
    left, right = ({group[0].name: group for group in grouped(it.findings)} for it in (a, b))
    names = [name for name in {**left, **right} if name not in SELF_FAULTS]
    pairs = [Pair(name, left.get(name, []), right.get(name, [])) for name in names]
    return sorted(pairs, key=lambda it: (-it.severity, it.name))


def _side(letter: str, name: str, segment: Segment) -> str:
    called = f"{letter} is {name}: " if name != letter else f"{letter}: "
    return f"{called}{watched(segment)} Quality is {score(segment)}."


def _rates(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """What the encoders were given to work with, where that differs."""
    if rates := _less_first(a, b, "video_bitrate_kbps"):
        poorer, less, more = rates
        if less < UNLIKE_RATE * more:
            yield (
                f"{poorer} has {round(100 * less / more)} % of the other's video bitrate "
                f"({number(less)} against {number(more)} kb/s){_quantisers(a, b)}."
            )
    if lines := _less_first(a, b, "height"):
        fewer, less, more = lines
        if less < more:
            yield f"{fewer} has fewer lines ({number(less)} against {number(more)})."


def _keyframes(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    """Keyframes are coded otherwise than the rest; by how much the score differs is in the card."""
    alone = [keyframes_alone(facts) for facts in (a, b)]
    if alone[0] != alone[1]:
        letter = "A" if alone[0] else "B"
        yield (
            f"Only {letter} was scored from keyframes alone, which may score a point or two above or "
            "below the pictures between them: a small difference means nothing."
        )


def _less_first(
    a: Mapping[str, Any], b: Mapping[str, Any], fact: str
) -> tuple[str, float, float] | None:
    """(the side with less, less, more); None where it is not known of both."""
    of_a, of_b = a.get(fact), b.get(fact)
    if not of_a or not of_b:
        return None
    return ("A", of_a, of_b) if of_a < of_b else ("B", of_b, of_a)


def _quantisers(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    if a.get("qp") is None or b.get("qp") is None or round(a["qp"]) == round(b["qp"]):
        return ""
    return f"; the quantiser is {number(a['qp'])} in A and {number(b['qp'])} in B, of 51"


def _both(pair: Pair, a: Segment, b: Segment) -> str:
    """Like `Both show blur: obvious in A (measured ..), .., slight in B ..: A is 2 levels worse.`"""
    sides = [
        f"{group[0].severity_word} in {letter}{strength(group[0])}{_where(group)}, "
        f"{when(group, segment)}"
        for letter, group, segment in (("A", pair.a, a), ("B", pair.b, b))
    ]
    return f"Both show {noun(pair.a)}: {'; '.join(sides)}. {_balance(pair)} {_toll(pair, a, b)}"


def _balance(pair: Pair) -> str:
    apart = pair.a[0].severity - pair.b[0].severity
    if not apart:
        return "Neither is a level worse."
    levels = "a level" if abs(apart) == 1 else f"{abs(apart)} levels"
    return f"{'A' if apart > 0 else 'B'} is {levels} worse."


def _only(pair: Pair, a: Segment, b: Segment) -> str:
    """Like `Only A shows noise, serious: grain lies over the picture (measured ..), .. .`"""
    letter, group, segment = ("A", pair.a, a) if pair.a else ("B", pair.b, b)
    finding = group[0]
    return (
        f"Only {letter} shows {noun(group)}, {finding.severity_word}: "
        f"{FINDINGS[finding.name].seen}{strength(finding)}{_where(group)}, "
        f"{when(group, segment)}. {_toll(pair, a, b)}"
    )


def _where(group: Group) -> str:
    return f", {place(group)}" if group[0].name in DEGRADATIONS else ""


def _toll(pair: Pair, a: Segment, b: Segment) -> str:
    """What it costs each side in score; beside the score for faults, which it does not know."""
    if pair.name not in DEGRADATIONS:
        return f"{people(pair.name)} {FINDINGS[pair.name].viewer}; the scores do not count it."
    stated = _costs(pair, a, b)
    if stated is None:
        return f"It speaks for {_favoured(pair)}." if _favoured(pair) else "It decides nothing."
    of_a, of_b = stated
    if not pair.a or not pair.b:
        return f"It costs {'A' if pair.a else 'B'} {points(of_a or of_b)}."
    return f"It costs A {points(of_a)} and B {points(of_b)}."


def _costs(pair: Pair, a: Segment, b: Segment) -> tuple[float, float] | None:
    """Points of each score; None when a side that shows it does not state any."""
    of_a = cost_of_score(pair.a, a) if pair.a else 0.0
    of_b = cost_of_score(pair.b, b) if pair.b else 0.0
    return None if of_a is None or of_b is None else (of_a, of_b)


def _favoured(pair: Pair) -> str:
    """The side that shows it less strongly; "" when both show it alike."""
    levels = [group[0].severity if group else 0 for group in (pair.a, pair.b)]
    if levels[0] == levels[1]:
        return ""
    return "A" if levels[0] < levels[1] else "B"


def _scores(a: Segment, b: Segment, pairs: list[Pair]) -> str:
    """Both scores, and what the stated costs make of the distance."""
    margin = _quality(a) - _quality(b)
    text = f"A has {_points_of(a)} points, B {_points_of(b)}: "
    text += (
        "they are level"
        if not round(margin, 1)
        else f"{'A' if margin > 0 else 'B'} is {number(round(abs(margin), 1))} ahead"
    )
    stated = [it for pair in pairs if pair.name in DEGRADATIONS if (it := _costs(pair, a, b))]
    of_a, of_b = (sum(costs) for costs in zip(*stated, strict=True)) if stated else (0.0, 0.0)
    if max(of_a, of_b) < LEAST_COST:
        return f"{text}."
    return f"{text}. What was found costs A {points(of_a)} and B {points(of_b)}."


def _certainty(a: Segment, b: Segment, found: Comparison, alike: tuple[int, int] | None) -> str:
    """From both uncertainties to a probability, as the scorer calculated it."""
    chance = _percent(max(found.probability, 1 - found.probability))
    ahead = "A" if found.probability >= 0.5 else "B"
    verdict = f"{ahead} is better with a probability of {chance}"
    if found.spread is None or a.uncertainty is None or b.uncertainty is None:
        return f"{_content(alike, found)} The model holds that {verdict}."
    spreads = f"{number(round(a.uncertainty, 1))} and {number(round(b.uncertainty, 1))} points"
    return (
        f"{_content(alike, found)} The uncertainties of {spreads} then make one standard deviation "
        f"of the difference {number(round(found.spread, 1))} points: {verdict}."
    )


def _content(alike: tuple[int, int] | None, found: Comparison) -> str:
    if alike is None:
        seen = "There were no pictures to tell whether both show the same content"
    elif alike[1] == 1:
        seen = f"The only picture {'has a' if alike[0] else 'has no'} counterpart on the other side"
    else:
        seen = f"{alike[0]} of {alike[1]} pictures have a counterpart on the other side"
    if found.shared:
        share = round(100 * found.shared)
        return (
            f"{seen}: the content is the same, so {share} % of the model's error is common to both."
        )
    if alike is None:
        return f"{seen}, so the model's errors count as independent."
    return f"{seen}: the content differs, so the model's errors are independent."


def _conclusion(a: Segment, b: Segment, found: Comparison, pairs: list[Pair]) -> str:
    apart = number(round(abs(found.margin), 1))
    apart += " point" if apart == "1" else " points"
    if found.better == "similar":
        limit = (
            ""
            if found.spread is None
            else f" where one standard deviation is {number(round(found.spread, 1))}"
        )
        return f"Conclusion: both are similar; {apart} is too little to tell{limit}."
    better = found.better.upper()
    chance = _percent(max(found.probability, 1 - found.probability))
    why, mind = _why(better, a, b, pairs), _mind(better, pairs)
    return f"Conclusion: {better} is better by {apart} ({chance} sure){why}.{mind}"


def _why(better: str, a: Segment, b: Segment, pairs: list[Pair]) -> str:
    """The findings that tell most between them in favour of the better one."""
    weighed = [
        (_weight(pair, a, b), noun(pair.a or pair.b)) for pair in pairs if pair.name in DEGRADATIONS
    ]
    sign = 1 if better == "A" else -1
    speaking = sorted(((sign * w, name) for w, name in weighed if sign * w > 0), reverse=True)
    if not speaking:
        return ", though no single finding tells them apart"
    return f", mainly because of less {listed([name for _, name in speaking[:REASONS_NAMED]])}"


def _weight(pair: Pair, a: Segment, b: Segment) -> float:
    """How much it speaks for A: points of score where stated, else levels of severity."""
    if (stated := _costs(pair, a, b)) is not None:
        return stated[1] - stated[0] if abs(stated[1] - stated[0]) >= LEAST_COST else 0.0
    levels = [group[0].severity if group else 0 for group in (pair.a, pair.b)]
    return float(levels[1] - levels[0])


def _mind(better: str, pairs: list[Pair]) -> str:
    """Faults of the better side that its score does not know of."""
    faults = [
        f"{noun(group)} for {seconds(lasted(group))}" if lasted(group) else noun(group)
        for pair in pairs
        if pair.name not in DEGRADATIONS
        and (group := pair.a if better == "A" else pair.b)
        and lasted(group) > lasted(pair.b if better == "A" else pair.a)
    ]
    return f" Mind that {better} has {listed(faults)}, which no score counts." if faults else ""


def _percent(probability: float) -> str:
    """Like `84 %`; never 100."""
    return "over 99 %" if probability > 0.99 else f"{round(100 * probability)} %"


def _quality(segment: Segment) -> float:
    assert segment.quality is not None
    return segment.quality


def _points_of(segment: Segment) -> str:
    return number(round(_quality(segment), 1))
