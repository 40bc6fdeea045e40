"""What a model that writes is asked, and what is known of the answer: three tasks in one run.

    score        one picture, quality wanted: sets with opinions (trainer.datasets.READERS)
    degradation  one picture, class and level wanted: Q-Insight's JSON, or photographs damaged
                 here, which costs nothing and is exact
    comparison   two pictures, the better one wanted: Q-Insight's JSON, or two strengths of one
                 damage on one photograph

A step's groups are 3 to 5 questions of one task and one set. Every batch is a function of
(seed, step) alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, cast, overload

import numpy as np
import torch

from trainer.datasets import Damaged, Preference, Sample
from trainer.degrade import VARIANTS, Picture
from trainer.policies.writer import PICTURES, Meaning, Prompt
from vqmon.domain import CELLS, DEGRADATIONS
from vqmon.writing import Prompts, encode, parse
from vqmon.writing.answers import TASKS, Task
from vqmon.writing.pictures import read_picture
from vqmon.writing.prompts import fitted, grid_of

NAMED = ("noise", "compression", "blur", "underexposed")
"""The classes that the answer format has words for; the rest stays unknown."""

LEVELS = (1, 2, 3, 4, 5)

SIMILAR = 0.5
"""How likely viewers are to prefer the first of two that are alike."""

PREFERRED = {"a": 1.0, "b": 0.0, "similar": SIMILAR}


@dataclass(frozen=True, slots=True)
class Shown:
    """A picture as it is shown: of a file, cut out of it, and damaged.

    crop: side of a square cut out at a place that `seed` chooses, 0 for the whole picture.
    kind, strength: of trainer.degrade; strength 0 is undamaged. The same seed at another strength
    is the same damage, only more of it. variant: the name of one way to do it; "" for any.
    """

    path: Path
    crop: int = 0
    kind: str = "noise"
    strength: float = 0.0
    seed: int = 0
    variant: str = ""

    def picture(self) -> Picture:
        """(h, w, 3) uint8 R'G'B'.

        Raises PictureUnsupported, nothing stands in for a picture; ValueError for no variant.
        """
        rng = np.random.default_rng(self.seed)
        whole = read_picture(self.path)
        cut = _cut(whole, self.crop, rng) if self.crop else whole
        if not self.strength:
            return cut
        variants = [v for v in VARIANTS[self.kind] if self.variant in ("", v.name)]
        if not variants:
            raise ValueError(f"{self.kind} has no variant {self.variant!r}")
        weights = np.array([variant.weight for variant in variants])
        variant = variants[int(rng.choice(len(variants), p=weights / weights.sum()))]
        return variant(cut, self.strength, np.random.default_rng((self.seed, 1)))


@dataclass(frozen=True, slots=True)
class Question:
    """One row: what is asked of which pictures, and what is known. None where it is not.

    quality: 0..100, sigma: between viewers, points. levels: of each of NAMED, 0 absent, 1..5.
    preferred: how likely viewers are to prefer the first picture, 0..1. order: rank known exactly.
    """

    task: Task
    pictures: tuple[Shown, ...]
    quality: float | None = None
    sigma: float | None = None
    levels: Mapping[str, int] | None = None
    preferred: float | None = None
    order: float | None = None


class Source(Protocol):
    """Where questions of one task and one set come from."""

    @property
    def task(self) -> Task: ...

    def draw(self, size: int, rng: np.random.Generator) -> list[Question]:
        """A group of `size`."""
        ...


@dataclass(frozen=True, slots=True)
class Listed:
    """A set as a file lists it."""

    task: Task
    questions: Sequence[Question]

    def __post_init__(self) -> None:
        if not self.questions:
            raise ValueError(f"the set for {self.task} is empty")

    def draw(self, size: int, rng: np.random.Generator) -> list[Question]:
        chosen = rng.choice(len(self.questions), min(size, len(self.questions)), replace=False)
        return [self.questions[i] for i in chosen.tolist()]


@dataclass(frozen=True, slots=True)
class Made:
    """Clean photographs, damaged here at known levels, a third of them as often left clean.

    levels: to draw from. crop: as of `Shown`. variants: of a kind, the only one. quality_of: level (0 clean) -> quality, for a
    score task on a scale that was calibrated; without it no question has a quality.
    """

    task: Task
    photographs: Sequence[Path]
    kinds: Sequence[str] = NAMED
    levels: Sequence[int] = LEVELS
    crop: int = 0
    clean_share: float = 0.2
    quality_of: Mapping[int, float] | None = None
    variants: Mapping[str, str] = field(default_factory=dict)

    def draw(self, size: int, rng: np.random.Generator) -> list[Question]:
        makers: dict[str, Callable[[np.random.Generator], Question]] = {
            "score": self._one,
            "degradation": self._one,
            "comparison": self._two,
        }
        return [makers[self.task](rng) for _ in range(size)]

    def _one(self, rng: np.random.Generator) -> Question:
        shown = self._shown(
            rng, 0.0 if rng.random() < self.clean_share else rng.choice(self.levels)
        )
        level = round(shown.strength)
        asked: dict[str, Any] = (
            {"quality": self._quality(level)}
            if self.task == "score"
            else {"levels": {name: level * (name == shown.kind) for name in self.kinds}}
        )
        return Question(self.task, (shown,), **asked)

    def _two(self, rng: np.random.Generator) -> Question:
        weak, strong = sorted(rng.choice((0, *self.levels), 2, replace=False).tolist())
        first = self._shown(rng, weak)
        second = replace(first, strength=float(strong))
        if rng.random() < 0.5:
            return Question(self.task, (first, second), preferred=1.0)
        return Question(self.task, (second, first), preferred=0.0)

    def _shown(self, rng: np.random.Generator, strength: float) -> Shown:
        path = self.photographs[int(rng.integers(len(self.photographs)))]
        kind = self.kinds[int(rng.integers(len(self.kinds)))]
        seed = int(rng.integers(1 << 31))
        return Shown(path, self.crop, kind, float(strength), seed, self.variants.get(kind, ""))

    def _quality(self, level: int) -> float:
        if self.quality_of is None:
            raise ValueError("damaged photographs have no opinions: give a calibrated scale")
        return self.quality_of[level]


def opinions(samples: Sequence[Sample]) -> Listed:
    """Score questions of a set with opinions."""
    return Listed(
        "score",
        [Question("score", (Shown(s.path),), quality=s.quality, sigma=s.std) for s in samples],
    )


def degradations(damaged: Sequence[Damaged]) -> Listed:
    """Degradation questions of Q-Insight's JSON."""
    return Listed(
        "degradation",
        [
            Question(
                "degradation",
                (Shown(one.path),),
                levels={n: (one.level or 0) * (n == one.degradation) for n in NAMED},
            )
            for one in damaged
        ],
    )


def comparisons(preferences: Sequence[Preference]) -> Listed:
    """Comparison questions of Q-Insight's JSON."""
    return Listed(
        "comparison",
        [
            Question("comparison", (Shown(p.a), Shown(p.b)), preferred=PREFERRED[p.better])
            for p in preferences
        ],
    )


@dataclass(frozen=True, slots=True)
class Asking:
    """What a step asks. questions: at least so many; the last group may go beyond.

    smallest, largest: of a group. score, degradation, comparison: shares of the groups.
    """

    questions: int = 16
    smallest: int = 3
    largest: int = 5
    score: float = 1.0
    degradation: float = 1.0
    comparison: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.smallest <= self.largest:
            raise ValueError("a group needs 1 <= smallest <= largest")
        if self.questions < 1:
            raise ValueError(f"questions is {self.questions}; it must be at least 1")
        if min(self.shares) < 0 or not sum(self.shares):
            raise ValueError("shares must not be negative, and one of them must be positive")

    @property
    def shares(self) -> tuple[float, float, float]:
        return self.score, self.degradation, self.comparison


@dataclass(frozen=True, slots=True)
class Questions:
    """The batches of a run: step -> batch, always the same for the same step.

    prepare: (task, pictures) -> prompt, the very one of serving.
    """

    sources: Sequence[Source]
    asking: Asking
    prepare: Callable[[Task, Sequence[Picture]], Prompt]
    seed: int
    _by_task: dict[str, list[Source]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        by_task = {task: [s for s in self.sources if s.task == task] for task in TASKS}
        object.__setattr__(self, "_by_task", by_task)
        for task, share in zip(TASKS, self.asking.shares, strict=True):
            if share and not by_task[task]:
                raise ValueError(f"no data for the task {task}: name some, or set its share to 0")

    def __call__(self, step: int) -> dict[str, Any]:
        return batch(self.drawn(step), self.prepare)

    def drawn(self, step: int) -> list[list[Question]]:
        """The groups of a step."""
        rng = np.random.default_rng([self.seed, step])
        shares = np.array(self.asking.shares) / sum(self.asking.shares)
        groups: list[list[Question]] = []
        while sum(map(len, groups)) < self.asking.questions:
            sources = self._by_task[TASKS[int(rng.choice(len(TASKS), p=shares))]]
            size = int(rng.integers(self.asking.smallest, self.asking.largest + 1))
            groups.append(sources[int(rng.integers(len(sources)))].draw(size, rng))
        return groups


def batch(
    groups: Sequence[Sequence[Question]], prepare: Callable[[Task, Sequence[Picture]], Prompt]
) -> dict[str, Any]:
    """What `trainer.rewards` and `trainer.policies.writer` need of these questions."""
    rows = [question for group in groups for question in group]
    numbers = [number for number, group in enumerate(groups) for _ in group]
    return {
        "group": torch.tensor(numbers),
        "task": [row.task for row in rows],
        "question": rows,
        "prompt": Lazily(rows, prepare),
        "mos": _floats([row.quality for row in rows]),
        "sigma": _floats([row.sigma for row in rows]),
        "order": _floats([row.order for row in rows]),
        "preferred": _floats([row.preferred for row in rows]),
        "partner": torch.zeros(len(rows), dtype=torch.long),
        "levels": torch.tensor([_levels(row) for row in rows]),
        "regions": torch.full((len(rows), len(CELLS)), -1),
    }


class Lazily(Sequence[Prompt]):
    """Prompts, made when they are looked at: of several processes each makes only its own."""

    def __init__(
        self,
        rows: Sequence[Question],
        prepare: Callable[[Task, Sequence[Picture]], Prompt],
    ) -> None:
        self.rows, self.prepare = rows, prepare
        self._made: dict[int, Prompt] = {}

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, place: int) -> Prompt: ...
    @overload
    def __getitem__(self, place: slice) -> Lazily: ...
    def __getitem__(self, place: int | slice) -> Prompt | Lazily:
        if isinstance(place, slice):
            return Lazily(self.rows[place], self.prepare)
        if place not in self._made:
            row = self.rows[place]
            self._made[place] = self.prepare(row.task, [s.picture() for s in row.pictures])
        return self._made[place]


def prepared(processor: Any, prompts: Prompts) -> Callable[[Task, Sequence[Picture]], Prompt]:
    """What makes prompts, as in serving; the pictures that are seen stay beside them."""

    def prepare(task: Task, pictures: Sequence[Picture]) -> Prompt:
        seen = fitted(prompts, pictures, grid_of(processor))
        return {**encode(processor, prompts, task, seen), PICTURES: seen}

    return prepare


def reading(prompts: Prompts) -> Callable[[str, str], Meaning]:
    """What reads answers, as in serving; only the very form that was asked for keeps the format.

    What can be read in spite of another form earns what it says.
    """

    def read(task: str, text: str) -> Meaning:
        said = parse(cast("Task", task), text, prompts.classes)
        found = said.levels
        levels = None if found is None else [found.get(name, -1) for name in DEGRADATIONS]
        return Meaning(said.tidy, said.quality, levels, said.preference)

    return read


def _levels(row: Question) -> list[int]:
    known = row.levels or {}
    return [known.get(name, -1) for name in DEGRADATIONS]


def _floats(values: Sequence[float | None]) -> torch.Tensor:
    return torch.tensor([np.nan if v is None else v for v in values], dtype=torch.float32)


def _cut(picture: Picture, side: int, rng: np.random.Generator) -> Picture:
    """A square of `side`, or what there is of it."""
    height, width = picture.shape[:2]
    top = int(rng.integers(max(height - side, 0) + 1))
    left = int(rng.integers(max(width - side, 0) + 1))
    return np.ascontiguousarray(picture[top : top + side, left : left + side])
