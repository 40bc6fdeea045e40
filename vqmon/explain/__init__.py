"""Segments, and comparisons of two, in plain words: chains of numbered steps.

Every statement comes from a number in the segment, so that it can be checked. One segment:

1. what was watched   2. .. what is seen, where, how strong, when, and what it costs
n. what is likely behind it   n + 1. the conclusion: the score, or why there is none

Two: what was watched of each, where they differ, what that costs, and the conclusion.
"""

from __future__ import annotations

from vqmon.explain.chain import explain, sentence
from vqmon.explain.comparison import comparison
from vqmon.explain.words import FINDINGS, REASONS, Reason, Words, score_word

__all__ = [
    "FINDINGS",
    "REASONS",
    "Reason",
    "Words",
    "comparison",
    "explain",
    "score_word",
    "sentence",
]
