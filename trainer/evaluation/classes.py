"""How well classes and levels are told apart, and whether more damage always scores lower.

One picture gets one class: that of its strongest finding, in the order in which the product shows
findings (severest first, of these the surest); a picture without a finding is clean. A finding of a
class that a test does not have counts as wrong, under OTHER.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.degrade.codecs import ENCODERS
from trainer.degrade.corruption import level_of_area
from trainer.evaluation import footnote, ours
from trainer.evaluation.judging import CLEAN, Judge, Verdicts
from trainer.evaluation.shelf import Shelf
from trainer.evaluation.tables import NO_GOAL, Goal, Row, Table
from trainer.likeness import EXPONENT, VISIBLE, WEIGHTS
from trainer.synthesise import CODED, EXPOSURE
from vqmon.domain import DEGRADATIONS

OTHER = "other"
UNKNOWN = -1

SEEN_CHANGE = 6.0
"""Of 255, on average: less darkening or brightening is not seen."""

DOUBT = 6.0
"""Full-reference points below VISIBLE in which a codec's damage is seen by some only."""

CLIPS = frozenset(ENCODERS)
"""Variants that are made from a clip."""

FIVE: Mapping[str, str] = {
    "noise": "noise",
    "blur": "blur",
    "compression": "jpeg",
    "underexposed": "darken",
    CLEAN: CLEAN,
}
"""Our names -> those of the five-class test."""

NINE: Mapping[str, str] = {name: name for name in (*DEGRADATIONS, CLEAN)}


@dataclass(frozen=True, slots=True)
class Answers:
    """true, said: (n,) classes; level: (n,) true, 0 for clean; severity: (n,) said."""

    true: NDArray[np.str_]
    said: NDArray[np.str_]
    level: NDArray[np.int64]
    severity: NDArray[np.int64]
    photograph: NDArray[np.str_]

    def recalls(self) -> dict[str, float]:
        """Share found, by class."""
        return {
            name: float((self.said[rows] == name).mean())
            for name in dict.fromkeys(self.true.tolist())
            if (rows := self.true == name).any()
        }

    def mean_recall(self) -> float:
        return float(np.mean(list(self.recalls().values())))

    def exact(self) -> float:
        """Class and level both right, of the degraded."""
        return self.within(0)

    def within(self, steps: int) -> float:
        """Class right and level off by at most so many steps, of the degraded."""
        rows = self.level > 0
        near = np.abs(self.severity[rows] - self.level[rows]) <= steps
        return float(((self.said[rows] == self.true[rows]) & near).mean())

    def confusion(self, names: Sequence[str]) -> NDArray[np.int64]:
        """(true, said) counts over `names`, and OTHER behind the last column."""
        columns = [*names, OTHER]
        table = np.zeros((len(names), len(columns)), np.int64)
        for true, said in zip(self.true.tolist(), self.said.tolist(), strict=True):
            table[names.index(true), columns.index(said)] += 1
        return table

    def some(self, rows: NDArray[Any]) -> Answers:
        return Answers(
            self.true[rows],
            self.said[rows],
            self.level[rows],
            self.severity[rows],
            self.photograph[rows],
        )


def five_table(judge: Judge, shelf: Shelf, photographs: Sequence[Path]) -> Table:
    verdicts = judge.of(shelf.kept("five", photographs, footnote.shots))
    goals = (Goal(0.95, 0.98), Goal(0.55, 0.70), Goal(0.90, 0.95))
    table = Table("five", "Five-class test: noise, blur, JPEG, darken, clean")
    given = answers(verdicts, FIVE, verdicts.fact("rung").astype(int))
    _fill(table, given, goals, list(FIVE.values()))
    table.details["by variant"] = _by_variant(verdicts, given)
    shares = _ladder_shares(verdicts, "variant")
    table.rows.append(Row("ladders of this test, neighbours strictly falling", *_mean(shares)))
    table.details["ladders in order, by variant"] = {k: _share(v) for k, v in shares.items()}
    return table


def nine_table(judge: Judge, shelf: Shelf, photographs: Sequence[Path]) -> Table:
    verdicts = judge.of(shelf.kept("ours", photographs, ours.shots, ours.MADE_BY))
    goals = (Goal(0.85, 0.92), Goal(0.50, 0.60), NO_GOAL)
    table = Table("nine", "All nine classes, at our own levels")
    known_of = zip(verdicts.facts, verdicts.numbers, strict=True)
    levels = np.array([level(facts, numbers) for facts, numbers in known_of])
    known = np.flatnonzero(levels != UNKNOWN)
    verdicts = verdicts.some(known)
    given = answers(verdicts, NINE, levels[known])
    _fill(table, given, goals, list(NINE))
    apart = given.some(verdicts.fact("variant") != ours.LOST_PACKETS)
    table.rows += [
        Row("lost packets apart: mean of per-class recalls", apart.mean_recall(), len(apart.true)),
        Row("… exact level", apart.exact(), int((apart.level > 0).sum())),
    ]
    table.notes.append(f"{len(levels) - len(known)} pictures with hardly visible damage left out.")
    table.notes.append(
        "Lost packets count by the area in which a picture differs from the intact one; where the "
        "decoder hides the loss with the picture before, little of that shows in a single picture."
    )
    table.details["by variant"] = _by_variant(verdicts, given)
    return table


def ladder_table(judge: Judge, shelf: Shelf, photographs: Sequence[Path]) -> Table:
    """Every ladder of our own degradations on held-out photographs, clean and five levels."""
    verdicts = judge.of(shelf.kept("ours", photographs, ours.shots, ours.MADE_BY))
    shares = _ladder_shares(verdicts, "kind")
    table = Table("ladders", "Ladders on held-out photographs, clean and five levels")
    worst = min(shares, key=lambda kind: _share(shares[kind]))
    table.rows = [
        Row("neighbours strictly falling, all types", *_mean(shares), Goal(0.95, 0.99)),
        Row(
            f"… the worst type ({worst})",
            _share(shares[worst]),
            shares[worst].size,
            Goal(0.85, 0.95),
        ),
    ]
    table.rows += [Row(f"… {kind}", _share(each), each.size) for kind, each in shares.items()]
    table.notes.append("n counts pairs of neighbouring rungs.")
    table.details["median quality, clean and level 1 to 5"] = _medians(verdicts)
    by_variant = _ladder_shares(verdicts, "variant")
    table.details["in order, by variant"] = {k: _share(v) for k, v in by_variant.items()}
    return table


def level(facts: Mapping[str, Any], numbers: NDArray[np.floating]) -> int:
    """What one of our own pictures shows: 0 nothing, 1 to 5, UNKNOWN where hardly anything can be
    seen. facts, numbers: as `ours.shots` gives them.

    Strengths are levels of their own; video codecs are judged by what they cost, lost packets by
    the damaged area, all as in training.
    """
    kind, rung = str(facts["kind"]), int(facts["rung"])
    losses, change, area = numbers[:12], numbers[12], numbers[13]
    index = 100 - 10 * float(losses @ np.asarray(WEIGHTS)) ** EXPONENT
    if kind == CLEAN:
        return 0
    if facts["variant"] == ours.LOST_PACKETS:
        return level_of_area(float(area)) or UNKNOWN
    if kind in EXPOSURE:
        return rung if change > SEEN_CHANGE else UNKNOWN
    if facts["variant"] in CLIPS:
        nearest = 1 + int(np.argmin(np.abs(np.array(CODED) - index)))
        return nearest if index < VISIBLE - DOUBT else UNKNOWN
    return rung if index < VISIBLE else UNKNOWN


def answers(verdicts: Verdicts, names: Mapping[str, str], levels: NDArray[np.integer]) -> Answers:
    """names: our findings -> classes of the test. levels: (n,) true ones, 0 for clean."""
    given = [names.get(str(it), OTHER) for it in verdicts.strongest]
    return Answers(
        np.array([str(it["kind"]) for it in verdicts.facts]),
        np.array(given),
        np.asarray(levels, np.int64),
        verdicts.strongest_severity.astype(np.int64),
        np.array([str(it["photograph"]) for it in verdicts.facts]),
    )


def rungs(verdicts: Verdicts, by: str) -> dict[str, NDArray[np.float64]]:
    """(ladders, 6) qualities, clean first, by kind or variant. A codec's ladder begins with the
    clip's own frame, all others with the photograph; what does not come at all five levels is none.
    """
    places: dict[tuple[str, str, str], dict[int, float]] = {}
    for facts, quality in zip(verdicts.facts, verdicts.quality.tolist(), strict=True):
        key = (str(facts["photograph"]), str(facts["kind"]), str(facts["variant"]))
        places.setdefault(key, {})[int(facts["rung"])] = quality
    found: dict[str, list[list[float]]] = {}
    for (photograph, kind, variant), levels in places.items():
        if kind == CLEAN or variant == ours.LOST_PACKETS or len(levels) != len(ours.LEVELS):
            continue
        own_clip = places.get((photograph, CLEAN, ours.OWN_CLIP), {})
        whole = places[photograph, CLEAN, CLEAN]
        start = own_clip if variant in CLIPS and own_clip else whole
        ladder = [start[0], *(levels[level] for level in ours.LEVELS)]
        found.setdefault(kind if by == "kind" else variant, []).append(ladder)
    return {name: np.array(ladders) for name, ladders in found.items()}


def _fill(table: Table, given: Answers, goals: Sequence[Goal], names: Sequence[str]) -> None:
    figures: Mapping[str, Callable[[Answers], float]] = {
        "mean of per-class recalls": Answers.mean_recall,
        "exact level, class also right, degraded only": Answers.exact,
        "… within one level": lambda it: it.within(1),
    }
    drawn = [given.some(rows) for rows in _drawn(given.photograph)]
    degraded = int((given.level > 0).sum())
    for (name, figure), goal in zip(figures.items(), goals, strict=True):
        low, high = np.nanpercentile([figure(it) for it in drawn], [2.5, 97.5])
        n = len(given.true) if figure is Answers.mean_recall else degraded
        table.rows.append(Row(name, figure(given), n, goal, (float(low), float(high))))
    table.rows += [
        Row(f"recall of {name}", value, int((given.true == name).sum()))
        for name, value in given.recalls().items()
    ]
    table.notes.append("A picture's class is that of its strongest finding; none is clean.")
    table.notes.append("Intervals: photographs drawn anew, each with all that was made from it.")
    table.details["classes"] = list(names)
    table.details["confusion"] = given.confusion(names).tolist()


def _drawn(photograph: NDArray[np.str_], resamples: int = 200) -> Iterable[NDArray[np.int64]]:
    rng = np.random.default_rng(5)
    rows = [np.flatnonzero(photograph == name) for name in np.unique(photograph)]
    for _ in range(resamples):
        yield np.concatenate([rows[i] for i in rng.integers(0, len(rows), len(rows))])


def _by_variant(verdicts: Verdicts, given: Answers) -> dict[str, Any]:
    """Recall, by level too, exact level, and what was said in place of the class."""
    variant = verdicts.fact("variant")
    found = {}
    for name in dict.fromkeys(variant.tolist()):
        some = given.some(variant == name)
        right = some.said == some.true
        found[str(name)] = {
            "n": len(some.true),
            "recall": float(right.mean()),
            "recall by level": {
                int(level): float(right[some.level == level].mean())
                for level in np.unique(some.level)
            },
            "exact": some.exact() if (some.level > 0).any() else None,
            "said instead": dict(Counter(some.said[~right].tolist())),
        }
    return found


def _ladder_shares(verdicts: Verdicts, by: str) -> dict[str, NDArray[np.bool_]]:
    """(ladders, 5) whether each step strictly falls."""
    return {name: np.diff(each, axis=1) < 0 for name, each in rungs(verdicts, by).items()}


def _medians(verdicts: Verdicts) -> dict[str, list[float]]:
    found = rungs(verdicts, "kind")
    return {kind: np.nanmedian(each, axis=0).tolist() for kind, each in found.items()}


def _share(steps: NDArray[np.bool_]) -> float:
    return float(steps.mean())


def _mean(shares: Mapping[str, NDArray[np.bool_]]) -> tuple[float, int]:
    """Over all steps of all ladders, and how many there are."""
    steps = np.concatenate([each.ravel() for each in shares.values()])
    return float(steps.mean()), len(steps)
