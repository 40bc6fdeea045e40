"""What every writing model shares: from what it says to an `Assessment`, or a `Comparison`.

    Voice.say(task, pictures) ─▶ Said ─▶ answers.parse ─▶ quality, findings, reasoning

A voice is a model on this machine (`scorers.writer`) or behind a server (`scorers.remote`).

The score is the expectation over everything the model might have written in the place of its
number, so that it is the same on every run. Where a server tells too little for that, the number
that was written counts; then "rating" is missing from the outputs, and the uncertainty from the
assessment.

Outputs: "rating" (1..5, the expectation), "written" (1..5, the number in the text), "lost" (the
probability of everything that is no rating), "ratings" (41: of 1.0, 1.1 .. 5.0), "levels" (48:
for each degradation absent and level 1..5, all 0 where it was not asked about), "seconds".
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from vqmon.domain import DEGRADATIONS, Assessment, Comparison, Finding
from vqmon.errors import PictureUnsupported, ScorerError, ScorerUnavailable
from vqmon.preprocess import Prepared
from vqmon.scorers.comparison import SHARED_ERROR, SIMILAR, compare
from vqmon.writing.answers import PREFERENCES, Answer, Task, parse, quality_of
from vqmon.writing.expectation import Expected
from vqmon.writing.prompts import Picture

log = logging.getLogger("vqmon.scorers")

UNSURE = 12.5
"""Points: the standard deviation assumed of a score whose model does not tell it; half a grade."""

SAID_SO = 0.5
"""Confidence of a finding of a server that does not tell how probable its words were."""

LOST = 0.5
"""A number is none when more than this share of what might have been written is no rating."""


NO_RATING = "most of what it might have written in the place of its rating is none"


@dataclass(frozen=True, slots=True)
class Limits:
    """tokens: of one answer. seconds: of everything that is asked about one set of pictures."""

    tokens: int = 512
    seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """One answer. text: all of it, as written.

    expected: over what might have been written instead of the number, None where nobody knows.
    choices: word of a comparison -> probability, empty where nobody knows.
    confidence: probability of the words of a degradation, None where nobody knows.
    cut: why the text ends before its end, empty when it does not.
    """

    text: str
    expected: Expected | None = None
    choices: Mapping[str, float] = field(default_factory=dict)
    confidence: float | None = None
    cut: str = ""


class Voice(Protocol):
    """Something that answers questions about pictures. Used by one thread at a time."""

    @property
    def model(self) -> str:
        """name@version"""
        ...

    @property
    def classes(self) -> Mapping[str, str]:
        """Words of the degradation task -> degradation."""
        ...

    def say(self, task: Task, pictures: Sequence[Picture], until: Deadline) -> Said:
        """Raises ScorerUnavailable when it cannot answer now, PictureUnsupported, ScorerError."""
        ...

    def close(self) -> None: ...


class Deadline:
    """A moment after which nothing more is written."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds; 0 when it has passed."""
        return max(0.0, self._until - time.monotonic())


def judged(
    voice: Voice, pictures: Sequence[Picture], limits: Limits, position: float
) -> Assessment:
    """What the model says of pictures that show one thing: one frame, or a segment in order."""
    begun, until = time.monotonic(), Deadline(limits.seconds)
    rated, named = voice.say("score", pictures, until), None
    if until.left:
        named = voice.say("degradation", pictures, until)
    found = _assessed(voice, rated, named, position)
    seconds = (round(time.monotonic() - begun, 3),)
    return replace(found, outputs={**found.outputs, "seconds": seconds})


def preferred(
    voice: Voice, a: Sequence[Picture], b: Sequence[Picture], limits: Limits
) -> Comparison:
    """Which is better, by looking at both, in both orders: models favour a place.

    Sequences are compared picture by picture; the probabilities are averaged. Raises ScorerError
    when the sequences are not equally long, or nothing could be read.
    """
    if not a or len(a) != len(b):
        raise ScorerError(f"{len(a)} and {len(b)} pictures: a comparison needs pairs")
    until, chances, reasons, puzzles = Deadline(limits.seconds), list[float](), "", ""
    for one, other in zip(a, b, strict=True):
        for pair, first in (((one, other), True), ((other, one), False)):
            said = voice.say("comparison", pair, until)
            answer = parse("comparison", said.text)
            chance = _chance(said, answer)
            if chance is None:
                puzzles = _puzzle(said, answer)
                continue
            chances.append(chance if first else 1 - chance)
            if first and not reasons:
                reasons = answer.think or ""
    if not chances:
        raise ScorerError(f"{voice.model} did not compare: {puzzles}")
    return _comparison(sum(chances) / len(chances), reasons)


def compared(a: Sequence[Assessment], b: Sequence[Assessment], *, same_content: bool) -> Comparison:
    """From scores, as every scorer compares; a score of unknown spread has a usual one."""
    sides = [
        [x if x.quality is None or x.uncertainty else replace(x, uncertainty=UNSURE) for x in side]
        for side in (a, b)
    ]
    return compare(*sides, shared=SHARED_ERROR if same_content else 0.0)


class WritingScorer:
    """A `Scorer` over a voice; besides, it looks at several pictures at once, and compares them.

    Takes seconds for a picture: nothing for every frame of a stream.
    """

    inputs = ("picture",)
    """What it reads of `Prepared.inputs`."""

    def __init__(self, voice: Voice, limits: Limits) -> None:
        self.voice, self.limits = voice, limits

    @property
    def model(self) -> str:
        return self.voice.model

    def write(self, pictures: Sequence[Picture], position: float = 0.0) -> Assessment:
        """One assessment of all pictures together: frames of one stretch of video, in order.

        Raises ScorerUnavailable when the model cannot answer now, ScorerError when it never will,
        PictureUnsupported for pictures that it cannot see.
        """
        if not pictures:
            raise ScorerError("there is no picture to write about")
        return judged(self.voice, pictures, self.limits, position)

    def prefer(self, a: Sequence[Picture], b: Sequence[Picture]) -> Comparison:
        """By looking at both: pairs of pictures, as many of `a` as of `b`. Raises as `write`."""
        return preferred(self.voice, a, b, self.limits)

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        """One assessment per picture, in order; each is asked about alone, so that neighbours
        change nothing. Raises ScorerError when the pictures themselves were not prepared.
        """
        return [self._assessed(one) for one in pictures]

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """From what `assess` said of both; raises ScorerError when one has no score."""
        return compared(a, b, same_content=same_content)

    def close(self) -> None:
        """Let go of the model, or of the connection."""
        self.voice.close()

    def _assessed(self, one: Prepared) -> Assessment:
        picture = one.inputs.get("picture")
        if picture is None:
            raise ScorerError(
                f"{self.model} looks at whole pictures, which do not cross to a scoring process: "
                "watch streams with the shipped model, and name this one as `writer`"
            )
        try:
            return self.write([np.asarray(picture, np.uint8)], one.position)
        except PictureUnsupported as error:
            return _silent(one.position, self.model, "unsupported_picture", str(error))
        except ScorerUnavailable as error:
            log.warning("writer_unavailable", extra={"model": self.model, "error": str(error)})
            return _silent(one.position, self.model, "scorer_unavailable", str(error))


def _assessed(voice: Voice, rated: Said, named: Said | None, position: float) -> Assessment:
    score = parse("score", rated.text)
    quality, uncertainty, outputs = _quality(rated, score)
    faults = parse("degradation", named.text, voice.classes) if named else None
    found, levels = _findings(named, faults, position)
    return Assessment(
        position=position,
        quality=quality,
        uncertainty=uncertainty,
        findings=found if quality is not None else (),
        outputs={**outputs, **levels},
        model=voice.model,
        no_score_reason=None if quality is not None else "scorer_failed",
        explanation=_explained(rated, score, named, faults, scored=quality is not None),
    )


def _quality(
    rated: Said, score: Answer
) -> tuple[float | None, float | None, dict[str, tuple[float, ...]]]:
    """Quality, its deviation, and what they come from."""
    outputs: dict[str, tuple[float, ...]] = {}
    if score.rating is not None:
        outputs["written"] = (round(score.rating, 4),)
    expected = rated.expected
    if expected is None or not score.readable:
        return score.quality, None, outputs
    outputs["lost"] = (round(expected.lost, 5),)
    if expected.rating is None or expected.deviation is None or expected.lost > LOST:
        return None, None, outputs
    outputs |= {"rating": (round(expected.rating, 5),), "ratings": _tenths(expected.chances)}
    return quality_of(expected.rating), expected.deviation * 25, outputs


def _tenths(chances: Mapping[int, float]) -> tuple[float, ...]:
    """(41,) probabilities of 1.0, 1.1 .. 5.0."""
    sums = [0.0] * 41
    for hundredths, chance in chances.items():
        sums[min(40, max(0, (hundredths - 95) // 10))] += chance
    return tuple(round(value, 5) for value in sums)


def _findings(
    named: Said | None, answer: Answer | None, position: float
) -> tuple[tuple[Finding, ...], dict[str, tuple[float, ...]]]:
    if named is None or answer is None or answer.levels is None:
        return (), {}
    confidence = SAID_SO if named.confidence is None else named.confidence
    found = [
        Finding(
            name=name,
            severity=level,
            confidence=round(confidence, 3),
            value=float(level),
            limit=1.0,
            unit="of 5",
            start=position,
        )
        for name, level in answer.levels.items()
        if level
    ]
    return tuple(found), {"levels": _levels(answer.levels)}


def _levels(levels: Mapping[str, int]) -> tuple[float, ...]:
    """(48,) 1 where it stands; nothing at all for what was not asked about."""
    return tuple(float(step == levels.get(name)) for name in DEGRADATIONS for step in range(6))


def _explained(
    rated: Said, score: Answer, named: Said | None, faults: Answer | None, *, scored: bool
) -> str:
    """The model's own words, and in brackets what could not be read."""
    parts = []
    if not scored:
        why = NO_RATING if score.readable else _puzzle(rated, score)
        parts.append(f"(There is no score: {why}.)")
    parts += [answer.think for answer in (score, faults) if answer and answer.think]
    if named is None:
        parts.append("(It was not asked what is wrong: the time was used up.)")
    elif faults and not faults.readable:
        parts.append(f"(What is wrong could not be read: {_puzzle(named, faults)}.)")
    return "\n\n".join(dict.fromkeys(parts))


def _puzzle(said: Said, answer: Answer) -> str:
    why = answer.why_unreadable or "it gave no answer"
    return f"{why}, {said.cut}" if said.cut else why


def _chance(said: Said, answer: Answer) -> float | None:
    """That the first picture is better; half of what is similar."""
    if said.choices:
        return math.fsum(
            chance * (1 + PREFERENCES[word]) / 2 for word, chance in said.choices.items()
        )
    return None if answer.preference is None else (1 + answer.preference) / 2


def _comparison(probability: float, reason: str) -> Comparison:
    """margin: the points that a usual spread would make of the probability."""
    held = min(0.999, max(0.001, probability))
    margin = UNSURE * math.sqrt(2) * _normal_quantile(held)
    if max(probability, 1 - probability) < SIMILAR:
        return Comparison("similar", margin, probability, reason)
    return Comparison("a" if probability > 0.5 else "b", margin, probability, reason)


def _normal_quantile(probability: float) -> float:
    from statistics import NormalDist

    return NormalDist().inv_cdf(probability)


def _silent(position: float, model: str, reason: str, why: str) -> Assessment:
    return Assessment(
        position,
        quality=None,
        uncertainty=None,
        model=model,
        no_score_reason=reason,
        explanation=f"({why})",
    )
