"""Which of two is better, from what was already scored."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vqmon.domain import Assessment, Comparison
from vqmon.errors import ScorerError

SIMILAR = 0.6
"""A preference less probable than this is called similar: a viewer would not dare to choose."""


def compare(a: Sequence[Assessment], b: Sequence[Assessment]) -> Comparison:
    """Compare mean qualities, each with its uncertainty, as independent normal variables.

    A model errs alike on all frames of one scene, so the uncertainty of a mean over frames is
    the mean uncertainty, not its n-th part. Raises ScorerError when one side has no score.
    """
    quality_a, spread_a = _summary(a, "a")
    quality_b, spread_b = _summary(b, "b")
    margin = quality_a - quality_b
    spread = math.hypot(spread_a, spread_b)
    probability = _normal_cdf(margin, spread)
    if max(probability, 1 - probability) < SIMILAR:
        return Comparison("similar", margin, probability, _words_similar(margin, spread))
    if margin > 0:
        return Comparison("a", margin, probability, _words("a", quality_a, quality_b, probability))
    return Comparison("b", margin, probability, _words("b", quality_b, quality_a, 1 - probability))


def _summary(assessed: Sequence[Assessment], side: str) -> tuple[float, float]:
    """Mean quality and its standard deviation."""
    scored = [(x.quality, x.uncertainty or 0.0) for x in assessed if x.quality is not None]
    if not scored:
        reasons = sorted({x.no_score_reason for x in assessed if x.no_score_reason})
        why = f" ({', '.join(reasons)})" if reasons else ""
        raise ScorerError(f"{side} has no scored picture{why}: there is nothing to compare")
    qualities, uncertainties = zip(*scored, strict=True)
    return sum(qualities) / len(scored), sum(uncertainties) / len(scored)


def _normal_cdf(margin: float, spread: float) -> float:
    if spread == 0:
        return 0.5 if margin == 0 else float(margin > 0)
    return 0.5 * (1 + math.erf(margin / (spread * math.sqrt(2))))


def _words(better: str, high: float, low: float, probability: float) -> str:
    return (
        f"{better} scores {high:.1f} of 100, the other {low:.1f}: "
        f"{high - low:.1f} points better with {100 * probability:.0f} % probability"
    )


def _words_similar(margin: float, spread: float) -> str:
    return (
        f"{abs(margin):.1f} points apart, too little to tell: "
        f"one standard deviation of the difference is {spread:.1f}"
    )
