"""Which of two is better, from what was already scored."""

from __future__ import annotations

import math
from collections.abc import Sequence

from vqmon.domain import Assessment, Comparison
from vqmon.errors import ScorerError

SHARED_ERROR = 0.9
"""The share of two errors that is common when both sides show the same content.

What a model misjudges (a scene it takes for soft, grain that is meant) it misjudges alike in every
rendition. Measured by `python -m trainer.calibrate_comparison` on rate ladders of seven real clips
(x264, CRF 18 to 48 in steps of 6; model `measures`): at .9 an order was dared for 71 % of the
neighbouring rungs, with a probability of 85 % on average, and 96 % of these were right; at 0 for
49 %. Even .98 claimed no more than it kept; seven clips are too few to rely on that. A card may
state its model's own value.
"""

SIMILAR = 0.6
"""A preference less probable than this is called similar: a viewer would not dare to choose."""


def compare(a: Sequence[Assessment], b: Sequence[Assessment], *, shared: float = 0.0) -> Comparison:
    """Compare mean qualities as normal variables: P(a better) = Phi(margin / spread).

    A model errs alike on all frames of one scene, so the uncertainty u of a mean over frames is
    the mean uncertainty, not its n-th part. Errors on both sides are independent when the
    content differs; of the same content the share `shared` (0..1) is common and cancels:
    spread^2 = u_a^2 + u_b^2 - 2 shared u_a u_b. Raises ScorerError when one side has no score.
    """
    quality_a, spread_a = _summary(a, "a")
    quality_b, spread_b = _summary(b, "b")
    margin = quality_a - quality_b
    spread = math.sqrt(spread_a**2 + spread_b**2 - 2 * shared * spread_a * spread_b)
    probability = _normal_cdf(margin, spread)
    if max(probability, 1 - probability) < SIMILAR:
        words = _words_similar(margin, spread)
        return Comparison("similar", margin, probability, words, spread, shared)
    if margin > 0:
        words = _words("a", quality_a, quality_b, probability)
        return Comparison("a", margin, probability, words, spread, shared)
    words = _words("b", quality_b, quality_a, 1 - probability)
    return Comparison("b", margin, probability, words, spread, shared)


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
