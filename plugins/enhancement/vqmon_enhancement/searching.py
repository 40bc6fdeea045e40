"""Which recipe is best for a clip: tried on a few short pieces, within a budget. No I/O.

    each remedy against the gravest finding ─▶ against the next ─▶ ... ─▶ the best of each together
        ─▶ the best one's neighbours: weaker, stronger, with one remedy less, sharpened ─▶ again

The order depends on nothing but findings and gains: the same budget *in steps* gives the same
recipe. A budget in seconds ends the same list earlier or later.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from vqmon_enhancement.remedies import Diagnosis, Recipe, neighbours, singles, together

MOST_STEPS = 40


@dataclass(frozen=True, slots=True)
class Budget:
    """seconds: of wall clock, None for as long as it takes. steps: recipes tried at most."""

    seconds: float | None = 60.0
    steps: int = MOST_STEPS


@dataclass(frozen=True, slots=True)
class Trial:
    """A recipe that was tried. gain: mean points on the pieces, None when it failed.

    cost: seconds of work per picture.
    """

    recipe: Recipe
    gain: float | None
    cost: float = 0.0


@dataclass(slots=True)
class Search:
    """trials: in the order in which they were made. exhausted: nothing was left to try."""

    trials: list[Trial] = field(default_factory=list)
    exhausted: bool = False

    @property
    def best(self) -> Trial | None:
        """The highest gain above 0; of equals the first."""
        won = [it for it in self.trials if it.gain is not None and it.gain > 0]
        return max(won, key=lambda it: it.gain or 0.0, default=None)


def search(
    diagnosis: Diagnosis,
    attempt: Callable[[Recipe], Trial],
    budget: Budget,
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Search:
    """Try recipes until the budget is spent; the first is always tried."""
    done = Search()
    tried: set[Recipe] = set()
    ends = None if budget.seconds is None else clock() + budget.seconds
    longest = 0.0
    for recipe in _candidates(diagnosis, done):
        if recipe in tried or not recipe.steps:
            continue
        now = clock()
        # What would end too late is not begun: the next one takes about as long as the longest.
        if done.trials and ends is not None and now + longest > ends:
            return done
        if len(done.trials) >= budget.steps:
            return done
        tried.add(recipe)
        done.trials.append(attempt(recipe))
        longest = max(longest, clock() - now)
    done.exhausted = True
    return done


def _candidates(diagnosis: Diagnosis, done: Search) -> Iterator[Recipe]:
    """Looks at what was tried so far whenever the next one is asked for."""
    best_of_each = []
    for _, recipes in singles(diagnosis):
        yield from recipes
        won = [it for it in done.trials if it.recipe in recipes and (it.gain or 0) > 0]
        if won:
            best_of_each.append(max(won, key=lambda it: it.gain or 0.0).recipe)
    if len(best_of_each) > 1:
        yield together(best_of_each)
    while True:
        best = done.best
        if best is None:
            yield from _weaker(diagnosis)
            return
        yield from neighbours(best.recipe, diagnosis)
        if done.best is best:
            return


def _weaker(diagnosis: Diagnosis) -> Iterator[Recipe]:
    """Nothing helped: perhaps it was too much of it."""
    gentle = Diagnosis(dict.fromkeys(diagnosis.mendable, 1))
    for _, recipes in singles(gentle):
        yield from recipes
