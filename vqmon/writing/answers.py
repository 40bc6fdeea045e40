"""What a writing model's text means, and how such a text is written.

    <think>
    why
    </think>
    <answer>
    {"rating": 4.25}                                           score, 1.00 to 5.00
    {"distortion_class": "blur", "severity": "obvious"}        degradation; "null" for none
    Image A                                                    comparison; Image B; Similar
    </answer>

These are the keys and words of the published Q-Insight weights. Reading forgives layout (line
breaks, code fences, capitals, a missing closing tag), never meaning: two answers, a key given
twice, a word that is not known or a rating outside its range make a text unreadable.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vqmon.domain import DEGRADATIONS, SEVERITY_WORDS

Task = Literal["score", "degradation", "comparison"]
TASKS: tuple[Task, ...] = ("score", "degradation", "comparison")

RATING, CLASS, SEVERITY = "rating", "distortion_class", "severity"
"""Keys of the answers."""

LOWEST, HIGHEST = 1.0, 5.0
"""Ratings; quality 0 and 100."""

NONE = "null"
"""The class and the severity of a picture without fault."""

CLASSES: Mapping[str, str] = {
    "noise": "noise",
    "compression": "compression",
    "blur": "blur",
    "darken": "underexposed",
}
"""The published weights' words -> vqmon.domain.DEGRADATIONS. Prompts may name others."""

PREFERENCES: Mapping[str, int] = {"Image A": 1, "Similar": 0, "Image B": -1}

_SPELLINGS = {
    "jpeg": "compression",
    "jpeg compression": "compression",
    "gaussian noise": "noise",
    "gaussian blur": "blur",
    "dark": "underexposed",
    "darkening": "underexposed",
    "brighten": "overexposed",
    **{name: name for name in DEGRADATIONS},
}
"""Other words for the same, as models are found to write them."""

_CLEAN = ("null", "none", "clean", "")
_CHOICES = {"image a": 1, "a": 1, "similar": 0, "image b": -1, "b": -1}
_THOUGHTS = ("think", "reasoning", "explanation")
"""Keys of the reasoning where a server was made to write nothing but JSON."""

_FENCE = re.compile(r"```(?:json)?\s*(.*?)\s*```", re.DOTALL)
_OBJECT = re.compile(r"\{[^{}]*\}")
_ANSWER = re.compile(r"<answer>(.*?)(?:</answer>|\Z)", re.DOTALL)
_TAG = r"</?(?:think|answer)>"
_TIDY = re.compile(
    rf"\s*<think>(?:(?!{_TAG}).)*</think>\s*<answer>(?:(?!{_TAG}).)*</answer>\s*", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one text says. Fields that were not asked for, or cannot be read, are None.

    readable: it says what its task asks for, in one way only; else `why_unreadable` tells.
    tidy: it has the form that was asked for to the letter, so that training can reward that.
    think: the reasoning, None where there is none.
    quality: 0..100. rating: the same as written, 1..5.
    levels: of vqmon.domain.DEGRADATIONS, 0 absent, 1..5; those that were not asked are left out.
    preference: 1 when the first picture is better, 0 similar, -1 when the second is.
    """

    readable: bool
    think: str | None = None
    quality: float | None = None
    rating: float | None = None
    levels: Mapping[str, int] | None = None
    preference: int | None = None
    why_unreadable: str | None = None
    tidy: bool = False


class _Unreadable(Exception):
    """Its text says why."""


def parse(task: Task, text: str, classes: Mapping[str, str] = CLASSES) -> Answer:
    """Read a model's whole text. classes: word of the prompt -> degradation. Never raises."""
    think = _thought(text)
    try:
        said = _said(text)
        if think is None and isinstance(said, dict):
            think = next((str(said[key]).strip() for key in _THOUGHTS if key in said), None)
        found = _READERS[task](said, classes)
    except _Unreadable as why:
        return Answer(readable=False, think=think, why_unreadable=str(why))
    return Answer(readable=True, think=think, tidy=bool(_TIDY.fullmatch(text)), **found)


def phrase(
    task: Task,
    *,
    think: str,
    quality: float | None = None,
    degradation: str | None = None,
    level: int = 0,
    preference: int | None = None,
    classes: Mapping[str, str] = CLASSES,
) -> str:
    """The text of an answer, as a model is taught to write it; `parse` reads it back.

    quality: 0..100, for a score. degradation: one of DEGRADATIONS with a level 1..5, or None.
    preference: 1, 0 or -1. Raises ValueError when the task's value is missing or has no word.
    """
    if task == "score":
        answer = _rating_text(quality)
    elif task == "degradation":
        answer = _degradation_text(degradation, level, classes)
    else:
        answer = _preference_text(preference)
    return f"<think>\n{think}\n</think>\n<answer>\n{answer}\n</answer>"


def quality_of(rating: float) -> float:
    """A rating 1..5 as quality 0..100."""
    return (rating - LOWEST) / (HIGHEST - LOWEST) * 100


def rating_of(quality: float) -> float:
    """Quality 0..100 as a rating 1..5."""
    return LOWEST + quality / 100 * (HIGHEST - LOWEST)


def _thought(text: str) -> str | None:
    """What stands before the last </think>, tags left out; a template may have opened it."""
    before, closed, _ = text.rpartition("</think>")
    if not closed:
        _, opened, before = text.partition("<think>")
        if not opened:
            return None
        before = before.partition("<answer>")[0]
    return re.sub(_TAG, "", before).strip()


def _said(text: str) -> Any:
    """The answer itself: what its JSON holds, else its words."""
    rest = text.rpartition("</think>")[2]
    answers = _ANSWER.findall(rest)
    if len(answers) > 1:
        raise _Unreadable(f"it has {len(answers)} answers")
    inner = (answers[0] if answers else _only_object(rest)).strip()
    fenced = _FENCE.fullmatch(inner)
    inner = fenced[1] if fenced else inner
    return _object(inner) if inner.startswith("{") else inner


def _only_object(text: str) -> str:
    """The one JSON object in a text without tags; models that were not trained so write that."""
    objects = _OBJECT.findall(text)
    if len(objects) > 1:
        raise _Unreadable(f"it has no <answer>, and {len(objects)} objects that could be one")
    if not objects:
        raise _Unreadable("it has no <answer>")
    found: str = objects[0]
    return found


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise _Unreadable(f"its answer is no JSON: {error}") from error
    return dict(found)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        name = key.strip().lower()
        if name in found:
            raise _Unreadable(f"it gives {name} twice")
        found[name] = value
    return found


def _refused(text: str) -> float:
    raise _Unreadable(f"{text} is no number")


def _value(said: Any, key: str) -> Any:
    if not isinstance(said, dict):
        raise _Unreadable("its answer is no JSON object")
    if key not in said:
        raise _Unreadable(f"its answer lacks {key}")
    return said[key]


def _score(said: Any, _classes: Mapping[str, str]) -> dict[str, Any]:
    written = _value(said, RATING)
    try:
        rating = float(written) if not isinstance(written, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        rating = math.nan
    if math.isnan(rating):
        raise _Unreadable(f"rating {_short(written)} is no number")
    if not LOWEST <= rating <= HIGHEST:
        raise _Unreadable(f"rating {_short(written)} is not within {LOWEST:g} to {HIGHEST:g}")
    return {"rating": rating, "quality": quality_of(rating)}


def _degradation(said: Any, classes: Mapping[str, str]) -> dict[str, Any]:
    word, severity = (_word(_value(said, key)) for key in (CLASS, SEVERITY))
    levels = dict.fromkeys(classes.values(), 0)
    if word in _CLEAN:
        if severity not in _CLEAN:
            raise _Unreadable(f"it finds nothing, but {severity}")
        return {"levels": levels}
    name = {key.lower(): value for key, value in classes.items()}.get(word) or _SPELLINGS.get(word)
    if name is None:
        raise _Unreadable(f"{CLASS} {_short(word)} is not known")
    if severity not in SEVERITY_WORDS:
        raise _Unreadable(f"{SEVERITY} {_short(severity)} is not known")
    return {"levels": {**levels, name: 1 + SEVERITY_WORDS.index(severity)}}


def _comparison(said: Any, _classes: Mapping[str, str]) -> dict[str, Any]:
    if isinstance(said, dict):
        left = {key: value for key, value in said.items() if key not in _THOUGHTS}
        if len(left) != 1:
            raise _Unreadable("its answer names no picture")
        said = next(iter(left.values()))
    word = _word(said).strip("\"'.*` ")
    if word not in _CHOICES:
        raise _Unreadable(f"{_short(said)} is none of {', '.join(PREFERENCES)}")
    return {"preference": _CHOICES[word]}


def _word(value: Any) -> str:
    return "" if value is None else str(value).strip().lower()


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


_READERS = {"score": _score, "degradation": _degradation, "comparison": _comparison}


def _rating_text(quality: float | None) -> str:
    if quality is None:
        raise ValueError("a score needs a quality")
    return f'{{"{RATING}": {rating_of(quality):.2f}}}'


def _degradation_text(name: str | None, level: int, classes: Mapping[str, str]) -> str:
    word, severity = (NONE, NONE) if name is None else _words(name, level, classes)
    return f'{{"{CLASS}": "{word}", "{SEVERITY}": "{severity}"}}'


def _words(name: str, level: int, classes: Mapping[str, str]) -> tuple[str, str]:
    word = next((word for word, meant in classes.items() if meant == name), None)
    if word is None or not 1 <= level <= len(SEVERITY_WORDS):
        raise ValueError(f"there is no word for {name} at level {level}")
    return word, SEVERITY_WORDS[level - 1]


def _preference_text(preference: int | None) -> str:
    words = {value: word for word, value in PREFERENCES.items()}
    if preference not in words:
        raise ValueError(f"a comparison needs a preference of 1, 0 or -1, not {preference}")
    return words[preference]
