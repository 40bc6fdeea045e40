"""Whether an enhanced clip is to be preferred, and how sure that is. Pure.

Two renditions of one clip are judged in pairs: picture by picture, each against itself before the
filters. What the model misjudges about the scene (a soft lens, grain that is meant) it misjudges
on both sides, so most of its error cancels in the difference. Two doubts remain and add up:

- what the model misjudges about one side only. `Scorer.compare(same_content=True)` says how large
  that is, from the model's own uncertainty and the share of it that was measured to be common.
- whether the gain holds for the rest of the clip: the standard error of the mean difference over
  the pictures, with fewer pictures counted where neighbours resemble each other.

The pictures that chose the recipe are left out where others suffice: the best of many candidates
is partly the luckiest, and its luck must not count twice. A filter may also please a model
without pleasing a viewer, so that a preferred score alone is not enough: see `objections`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import NormalDist, fmean, stdev
from typing import Protocol

from vqmon import Assessment, Comparison, Finding, VqmonError

LEAST_PAIRS = 4
"""Pictures without which nothing is said about a clip."""

GRID_GROWTH, GRID_UNSEEN = 1.1, 0.1
"""How much the steps at block borders may grow, times and levels of 255."""

APART = 0.1
"""Seconds by which positions of one picture in two files may differ (rounded time stamps)."""


class Judge(Protocol):
    """What looks at files and compares; every `vqmon.PluginContext` is one."""

    def score(self, path: Path, *, every: float = 1.0) -> list[Assessment]:
        """One assessment per sampled picture. Raises VqmonError."""
        ...

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """As `vqmon.Scorer.compare`."""
        ...


Pair = tuple[Assessment, Assessment]
"""One picture before and after, both with a score."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What an enhanced clip must reach. certainty: 0.5..1. gain: points of quality.

    better: share of pictures that must score higher than before. likeness: see `Rendition`.
    """

    certainty: float = 0.8
    gain: float = 1.0
    better: float = 2 / 3
    likeness: float = 0.9


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured without the model; see `vqmon_enhancement.rendering.Rendition`."""

    likeness: float = 1.0
    grid_before: float = 0.0
    grid_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Verdict:
    """preferred: whether to keep it. reason: a sentence or two, for people.

    before, after: mean quality of the compared pictures. gain: points. spread: one standard
    deviation of the gain, points; from_model and from_pictures are its two parts. probability:
    that the gain is above 0. better: share of pictures with a higher score. apart: whether the
    pictures are others than those that chose the recipe.
    """

    preferred: bool
    reason: str
    before: float
    after: float
    gain: float
    spread: float
    from_model: float
    from_pictures: float
    probability: float
    better: float
    pictures: int
    apart: bool
    model: str | None = None


def paired(
    before: Iterable[Assessment], after: Iterable[Assessment], *, apart: float = APART
) -> list[Pair]:
    """Scored pictures of both that belong together, by position."""
    waiting = [it for it in after if it.quality is not None]
    pairs = []
    for one in before:
        if one.quality is None or not waiting:
            continue
        nearest = min(waiting, key=lambda it: abs(it.position - one.position))
        if abs(nearest.position - one.position) <= apart:
            pairs.append((one, nearest))
            waiting.remove(nearest)
    return pairs


def outside(
    pairs: Sequence[Pair], windows: Sequence[tuple[float, float]]
) -> tuple[list[Pair], bool]:
    """The pairs that lie in none of the windows (begin, end), and True; all of them and False
    where too few would be left.
    """
    left = [it for it in pairs if not any(begin <= it[0].position < end for begin, end in windows)]
    return (left, True) if len(left) >= LEAST_PAIRS else (list(pairs), False)


def verdict(
    pairs: Sequence[Pair], judge: Judge, bar: Bar, measured: Measured, *, apart: bool = True
) -> Verdict:
    """Judge an enhanced clip. Raises VqmonError when too few pictures could be compared."""
    if len(pairs) < LEAST_PAIRS:
        raise VqmonError(
            f"only {len(pairs)} pictures have a score before and after; {LEAST_PAIRS} are needed"
        )
    before, after = [it for it, _ in pairs], [it for _, it in pairs]
    found = judge.compare(after, before, same_content=True)
    gains = [gain_of(it) for it in pairs]
    gain = fmean(gains)
    from_pictures = _standard_error(gains)
    from_model = _model_spread(found, gain)
    spread = math.hypot(from_model, from_pictures)
    probability = _normal(gain, spread)
    better = sum(it > 0 for it in gains) / len(gains)
    against = objections(
        pairs, bar, gain=gain, probability=probability, better=better, measured=measured
    )
    known = Verdict(
        preferred=not against,
        reason="",
        before=fmean(it.quality or 0.0 for it in before),
        after=fmean(it.quality or 0.0 for it in after),
        gain=gain,
        spread=spread,
        from_model=from_model,
        from_pictures=from_pictures,
        probability=probability,
        better=better,
        pictures=len(pairs),
        apart=apart,
        model=after[0].model,
    )
    return _told(known, against)


def objections(
    pairs: Sequence[Pair],
    bar: Bar,
    *,
    gain: float,
    probability: float,
    better: float,
    measured: Measured,
) -> list[str]:
    """Why it must not be kept, each in words; empty when nothing speaks against it."""
    against = []
    if gain < bar.gain:
        against.append(f"the gain is {gain:+.1f} points and must be at least {bar.gain:g}")
    elif probability < bar.certainty:
        against.append(
            f"it is only {100 * probability:.0f} % certain that there is a gain, "
            f"{100 * bar.certainty:.0f} % are asked for"
        )
    if better < bar.better:
        against.append(f"only {100 * better:.0f} % of the pictures score higher")
    if measured.likeness < bar.likeness:
        against.append(
            f"its pictures no longer show the same (likeness {measured.likeness:.2f}, "
            f"at least {bar.likeness:g})"
        )
    if measured.grid_after > GRID_GROWTH * measured.grid_before + GRID_UNSEEN:
        against.append(
            f"its coding blocks stand out more (steps of {measured.grid_after:.2f} levels "
            f"after {measured.grid_before:.2f})"
        )
    against += [f"it brings in {name}" for name in _new(pairs)]
    return against


def gain_of(pair: Pair) -> float:
    """Points of quality that one picture won."""
    return (pair[1].quality or 0.0) - (pair[0].quality or 0.0)


def _new(pairs: Sequence[Pair]) -> list[str]:
    """Findings that at least half of the pictures show after, and a level more grave than before
    on average.
    """
    names = sorted({it.name for _, after in pairs for it in after.findings})
    found = []
    for name in names:
        before = [_severity(it.findings, name) for it, _ in pairs]
        after = [_severity(it.findings, name) for _, it in pairs]
        shown = sum(it > 0 for it in after) >= len(pairs) / 2
        if shown and fmean(after) - fmean(before) >= 1:
            found.append(name)
    return found


def _severity(findings: Iterable[Finding], name: str) -> int:
    return max((it.severity for it in findings if it.name == name), default=0)


def _standard_error(gains: Sequence[float]) -> float:
    """Of the mean; neighbours that resemble each other count as fewer (lag-one correlation)."""
    count = len(gains)
    mean, deviation = fmean(gains), stdev(gains)
    if deviation == 0:
        return 0.0
    lagged = sum((a - mean) * (b - mean) for a, b in pairwise(gains))
    lagged /= sum((it - mean) ** 2 for it in gains)
    alike = min(0.9, max(0.0, lagged))
    return deviation / math.sqrt(max(1.0, count * (1 - alike) / (1 + alike)))


def _model_spread(found: Comparison, gain: float) -> float:
    """One standard deviation of what the model misjudges about one side only."""
    if found.spread is not None:
        return found.spread
    # A comparison without one tells it by its certainty.
    sure = min(0.999, max(0.501, found.probability, 1 - found.probability))
    return abs(gain) / _quantile(sure)


def _quantile(probability: float) -> float:
    return NormalDist().inv_cdf(probability)


def _normal(gain: float, spread: float) -> float:
    if spread == 0:
        return 0.5 if gain == 0 else float(gain > 0)
    return 0.5 * (1 + math.erf(gain / (spread * math.sqrt(2))))


def _told(known: Verdict, against: list[str]) -> Verdict:
    scores = f"{known.after:.1f} of 100 after {known.before:.1f}"
    doubt = f"{known.gain:+.1f} ± {known.spread:.1f} points over {known.pictures} pictures"
    if against:
        return replace(known, reason=f"The original stays: {', and '.join(against)} ({scores}).")
    return replace(
        known,
        reason=f"The enhanced one is preferred with {100 * known.probability:.0f} % certainty: "
        f"{scores}, {doubt}, of which {100 * known.better:.0f} % score higher.",
    )
