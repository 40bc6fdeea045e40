"""The exact expectation of a number that a model writes digit by digit.

Reading the likeliest digits gives a coarse number that jumps; multiplying along one path gives a
wrong one (a model that means 2.9 or 3.1 with equal chances means 3.00). So the whole tree is
followed: E = sum P(a) (a + sum P(b|a) b/10 + sum P(c|a.b) c/100), over numbers of 1.00 to 5.00
with at most two decimals.

Tokens are texts. One token may hold several characters (".5", "25", "4.", " 4", "5}"): the tree
branches by tokens and reads the characters. What may stand behind a number ends it (see `ends`);
anything else makes it none.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Tokens = tuple[str, ...]
"""Tokens written since the number began."""

Follow = Callable[[Sequence[Tokens]], Sequence[Mapping[str, float] | None]]
"""For each beginning, the probability of every token that may come next, by its text.

Probabilities of tokens that end the number may be given together, under any text that does. None
for a beginning that cannot be followed; that of the number itself, (), must be known.
"""

LOWEST, HIGHEST = 100, 500
"""Numbers that count, in hundredths."""

END = "}"
"""A text that ends a number, for callers that add up what does."""

_ENDS = frozenset('}],"<`')

_NUMBER = re.compile(r"\d*(?:\.\d*)?")
_LONGEST = 8
"""Tokens of one number or word; a tree that is deeper is none of these."""


@dataclass(frozen=True, slots=True)
class Expected:
    """rating, deviation: mean and one standard deviation, 1..5; None when nothing counted.

    lost: probability of everything that is no number of 1.00 to 5.00; the rest was renormalised.
    unfollowed: probability of beginnings that were too unlikely to be followed to their second
        decimal, or could not be; they count with the middle of what they can become.
    chances: number in hundredths -> probability, renormalised.
    """

    rating: float | None
    deviation: float | None
    lost: float
    unfollowed: float
    chances: Mapping[int, float]


def ends(text: str) -> bool:
    """Whether a number is complete when this comes next: a bracket, a comma, a quote, a space."""
    return text[:1] in _ENDS or text[:1].isspace()


def expect(follow: Follow, *, least: float = 1e-6) -> Expected:
    """Follow every beginning that is likelier than `least`, those of one length as one batch."""
    tree = _Tree()
    waiting: dict[Tokens, float] = {(): 1.0}
    for _ in range(_LONGEST):
        if not waiting:
            break
        beginnings = list(waiting)
        grown: dict[Tokens, float] = defaultdict(float)
        for tokens, chances in zip(beginnings, follow(beginnings), strict=True):
            if chances is None:
                tree.leave({tokens: waiting[tokens]})
                continue
            for token, chance in chances.items():
                tree.take((*tokens, token), waiting[tokens] * chance, grown)
        waiting = {tokens: p for tokens, p in grown.items() if p > least}
        tree.leave({tokens: p for tokens, p in grown.items() if p <= least})
    tree.leave(waiting)
    return tree.expected()


def choose(follow: Follow, words: Sequence[str], *, least: float = 1e-6) -> dict[str, float]:
    """How probable each of the words is, among them; empty when none was.

    None of the words begins another one.
    """
    found: dict[str, float] = defaultdict(float)
    waiting: dict[Tokens, float] = {(): 1.0}
    for _ in range(_LONGEST):
        if not waiting:
            break
        beginnings = list(waiting)
        grown: dict[Tokens, float] = defaultdict(float)
        for tokens, chances in zip(beginnings, follow(beginnings), strict=True):
            for token, chance in (chances or {}).items():
                longer, p = (*tokens, token), waiting[tokens] * chance
                text = "".join(longer).lstrip()
                said = next((word for word in words if text.startswith(word)), None)
                if said is not None:
                    found[said] += p
                elif p > least and token and any(word.startswith(text) for word in words):
                    grown[longer] += p
        waiting = grown
    kept = math.fsum(found.values())
    return {word: found[word] / kept for word in words} if kept > 0 else {}


class _Tree:
    """Where probability went so far."""

    def __init__(self) -> None:
        self.chances: dict[float, float] = defaultdict(float)
        self.unfollowed = 0.0

    def take(self, tokens: Tokens, chance: float, grown: dict[Tokens, float]) -> None:
        """A number that is complete counts; a beginning of one grows on; the rest is lost."""
        if chance <= 0:
            return
        text = "".join(tokens).lstrip()
        number = _NUMBER.match(text)
        written = number[0] if number else ""
        rest = text[len(written) :]
        hundredths = _hundredths(written)
        if hundredths is None:
            if len(tokens) == 1 and tokens[0].isspace():
                grown[tokens] += chance  # the number may begin after one token of spaces
        elif _decimals(written) >= 2 or ends(rest):
            self._count(hundredths, chance)
        elif not rest and _may_count(written):
            grown[tokens] += chance

    def leave(self, beginnings: Mapping[Tokens, float]) -> None:
        for tokens, chance in beginnings.items():
            span = _span("".join(tokens).lstrip())
            if span is not None:
                self.unfollowed += chance
                self.chances[(span[0] + span[1]) / 2] += chance

    def _count(self, hundredths: int, chance: float) -> None:
        if LOWEST <= hundredths <= HIGHEST:
            self.chances[hundredths] += chance

    def expected(self) -> Expected:
        kept = math.fsum(self.chances.values())
        if kept <= 0:
            return Expected(None, None, 1.0, 0.0, {})
        shares = {value: p / kept for value, p in self.chances.items()}
        mean = math.fsum(p * value for value, p in shares.items())
        variance = math.fsum(p * (value - mean) ** 2 for value, p in shares.items())
        whole: dict[int, float] = defaultdict(float)
        for value, share in shares.items():
            whole[round(value)] += share
        lost = min(1.0, max(0.0, 1 - kept))
        chances = dict(sorted(whole.items()))
        return Expected(mean / 100, math.sqrt(variance) / 100, lost, self.unfollowed, chances)


def _hundredths(written: str) -> int | None:
    """The number so far, decimals beyond the second left out; None for no number."""
    whole, _, decimals = written.partition(".")
    return int(whole) * 100 + int(decimals[:2].ljust(2, "0")) if whole else None


def _decimals(written: str) -> int:
    return len(written.partition(".")[2])


def _span(written: str) -> tuple[int, int] | None:
    """The least and the most hundredths that a beginning can become, within the limits."""
    low = _hundredths(written)
    if low is None:
        return None
    more = (99, 9, 0)[min(2, _decimals(written))]
    low, high = max(low, LOWEST), min(low + more, HIGHEST)
    return (low, high) if low <= high else None


def _may_count(written: str) -> bool:
    return _span(written) is not None
