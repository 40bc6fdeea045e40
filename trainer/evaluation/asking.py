"""Models that look at whole pictures, on the same tables as those that read prepared inputs.

A writer takes seconds for an answer. Every answer is on disk as soon as it is given, one file a
source and model, so that a run that was interrupted asks nothing twice.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from trainer.asking import Asked, known
from trainer.evaluation.judging import Judge, Verdicts
from trainer.evaluation.shelf import Kept, Shot
from trainer.evaluation.tables import Goal, Row, Table
from vqmon.domain import Assessment, Finding
from vqmon.errors import ScorerUnavailable

UNREADABLE = Goal(0.02, 0.0, low=True)
"""Share of answers that nobody can read."""

UNREAD = "unreadable"
"""In the place of a picture's strongest finding."""

AWAY = "scorer_unavailable"


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer as it was given. seconds: that it took."""

    said: Assessment
    seconds: float

    @property
    def no_score(self) -> bool:
        """The score could not be read; a picture that cannot be seen at all does not count."""
        return self.said.no_score_reason == "scorer_failed"

    @property
    def no_class(self) -> bool:
        """What is wrong could not be read, or there was no time to ask."""
        return not self.unseen and not known(self.said).any()

    @property
    def unseen(self) -> bool:
        return self.said.no_score_reason == "unsupported_picture"

    @property
    def by_writing(self) -> bool:
        """The score is the number as it was written: there was no expectation to be had."""
        return self.said.quality is not None and "rating" not in self.said.outputs


class AskingJudge(Judge):
    """Any scorer by its spec, asked about every shot once. Raises ScorerError when it cannot be
    had.
    """

    def __init__(self, asked: Asked, cache: Path) -> None:
        self.asked = asked
        self.folder = cache / "answers" / _folder(asked)
        self._answers: dict[str, list[Answered]] = {}

    @property
    def answers(self) -> list[Answered]:
        """All that were needed so far; of a picture that several tables look at, one."""
        return [it for answers in self._answers.values() for it in answers]

    @property
    def model(self) -> str:
        return self.asked.model

    @property
    def identity(self) -> Mapping[str, str]:
        """The place is not part of it: a checkpoint may move, its name holds its weights."""
        return {"policy": self.asked.spec.partition(":")[0]}

    @property
    def names_degradations(self) -> bool:
        return True

    def said(self, kept: Kept) -> list[Assessment]:
        """Of every shot, in order. Raises ScorerUnavailable when the model is away: what was
        answered is kept.
        """
        if kept.again is None:
            raise ValueError("these pictures are known by their inputs only")
        file = self.folder / f"{kept.key}.jsonl"
        found = _read(file)
        if len(found) < len(kept.facts):
            file.parent.mkdir(parents=True, exist_ok=True)
            _write(file, found)
            for answered in self._asked(islice(kept.again(), len(found), None)):
                with file.open("a", encoding="utf-8") as opened:
                    opened.write(_line(answered))
                found.append(answered)
        self._answers[kept.key] = found
        return [it.said for it in found]

    def _part(self, kept: Kept) -> Verdicts:
        verdicts = super()._part(kept)
        unread = [it.no_class for it in self._answers[kept.key]]
        return replace(verdicts, strongest=np.where(unread, UNREAD, verdicts.strongest))

    def _asked(self, shots: Iterable[Shot]) -> Iterable[Answered]:
        for shot in shots:
            begun = time.monotonic()
            (said,) = self.asked.of([shot.frame])
            if said.no_score_reason == AWAY:
                raise ScorerUnavailable(
                    f"{self.model} does not answer {said.explanation}: see to it, then run again "
                    "to go on"
                )
            yield Answered(said, round(time.monotonic() - begun, 3))


def answer_table(judge: AskingJudge) -> Table:
    """How the answers were that the other tables are made of."""
    answers = judge.answers
    seen = [it for it in answers if not it.unseen]
    table = Table("answers", "Answers: what could be read, and what they took")
    n = max(1, len(seen))
    scored = [it for it in seen if it.said.quality is not None]
    table.rows = [
        _share("scores that could not be read", [it.no_score for it in seen], UNREADABLE),
        _share("classes that could not be read", [it.no_class for it in seen], UNREADABLE),
        _share("scores by the written number alone", [it.by_writing for it in scored]),
        Row("seconds for a picture, median", _median([it.seconds for it in seen]), n),
    ]
    lost = [it.said.outputs["lost"][0] for it in scored if "lost" in it.said.outputs]
    if lost:
        what = "probability that is no number of 1 to 5, median"
        table.rows.append(Row(what, _median(lost), len(lost), digits=5))
    table.notes = [
        f"{len(answers)} answers, {len(answers) - len(seen)} of pictures that the model cannot see.",
        "A score that cannot be read is no score, never a guess; agreement is over the others.",
        "A class that cannot be read counts as wrong, and as no finding where pictures are clean.",
    ]
    table.details["why there is no score"] = dict(
        Counter(_why(it.said) for it in seen if it.no_score).most_common(10)
    )
    return table


def _share(what: str, those: list[bool], goal: Goal | None = None) -> Row:
    value = float(np.mean(those)) if those else float("nan")
    return Row(what, value, len(those), goal or Goal())


def _median(values: list[float]) -> float:
    return float(np.median(values)) if values else float("nan")


def _why(said: Assessment) -> str:
    """The bracket in the explanation that says it, without what differs from answer to answer."""
    found = re.search(r"\(There is no score: (.*?)\.\)", said.explanation, re.DOTALL)
    return re.sub(r"\d+", "n", found[1]) if found else "unknown"


def _folder(asked: Asked) -> str:
    """Readable, and other for other prompts or limits of size."""
    prompts = getattr(getattr(asked.scorer, "voice", None), "prompts", None)
    facts = json.dumps(prompts.model_dump(), sort_keys=True) if prompts is not None else ""
    digest = hashlib.sha256(f"{asked.model} {facts}".encode()).hexdigest()[:10]
    return f"{re.sub(r'[^A-Za-z0-9.@_-]+', '-', asked.model)}-{digest}"


def _line(answered: Answered) -> str:
    facts = {"seconds": answered.seconds, **asdict(answered.said)}
    return json.dumps(facts, ensure_ascii=False) + "\n"


def _write(file: Path, found: list[Answered]) -> None:
    """Without the line that was cut off, if there is one."""
    unfinished = file.with_suffix(".unfinished")
    unfinished.write_text("".join(map(_line, found)), encoding="utf-8")
    unfinished.replace(file)


def _read(file: Path) -> list[Answered]:
    """Whole lines."""
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    return [_answered(json.loads(line)) for line in lines if line.endswith("\n")]


def _answered(facts: dict[str, Any]) -> Answered:
    seconds = float(facts.pop("seconds"))
    facts["findings"] = tuple(_finding(it) for it in facts["findings"])
    facts["outputs"] = {name: tuple(values) for name, values in facts["outputs"].items()}
    return Answered(Assessment(**facts), seconds)


def _finding(facts: dict[str, Any]) -> Finding:
    region = facts["region"]
    return Finding(**{**facts, "region": None if region is None else tuple(region)})
