"""START HERE: from a clip and what was found wrong with it to a rendition that is better, or none.

findings ─▶ diagnosis ─▶ search on short pieces ─▶ best recipe on the whole clip ─▶ verdict
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from vqmon import Assessment, Finding, VqmonError
from vqmon_enhancement.clip import Clip, examine, times
from vqmon_enhancement.judging import (
    Bar,
    Judge,
    Measured,
    Verdict,
    gain_of,
    outside,
    paired,
    verdict,
)
from vqmon_enhancement.remedies import Diagnosis, Recipe, diagnosed
from vqmon_enhancement.rendering import ROUGH, Cancelled, never, pieces, render, suffix_for
from vqmon_enhancement.searching import Budget, Search, Trial, search

PIECES, PIECE_SECONDS, PIECE_EVERY = 3, 0.5, 0.2
"""What a recipe is tried on: three half seconds, a picture every fifth of a second."""

JUDGED_PICTURES = 24
"""Of the whole clip, about; more say little more, as neighbours resemble each other."""


@dataclass(frozen=True, slots=True)
class Wish:
    """How a clip is to be enhanced.

    keep_all: keep the rendition whatever the verdict. slowest: seconds of work per second of
    media that a recipe may take, None for any.
    """

    bar: Bar = field(default_factory=Bar)
    budget: Budget = field(default_factory=Budget)
    keep_all: bool = False
    slowest: float | None = None
    told: Callable[[str], None] = field(default=lambda _text: None)
    watched: Callable[[float, float], None] = field(default=lambda _done, _all: None)
    cancelled: Callable[[], bool] = never


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. kept: the enhanced file, None when the original stays alone.

    reason: for people. trials: recipes tried. seconds: of work.
    """

    source: Path
    reason: str
    kept: Path | None = None
    recipe: Recipe | None = None
    verdict: Verdict | None = None
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    trials: tuple[Trial, ...] = ()
    exhausted: bool = False
    measured: Measured | None = None
    dropped: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def preferred(self) -> bool:
        return self.verdict is not None and self.verdict.preferred


def enhance(
    path: Path,
    target: Callable[[str], Path],
    findings: Iterable[Finding],
    judge: Judge,
    wish: Wish | None = None,
) -> Outcome:
    """Make a better rendition of a clip, if there is one.

    target: from the suffix (.mp4 or .mkv) to where the rendition goes; beside it the decision is
    written as JSON, also when the original stays. Raises Unfit for a clip that cannot be worked
    on, Cancelled, and VqmonError for what else went wrong; nothing is left behind then.
    """
    began = time.monotonic()
    clip = examine(path)
    diagnosis = diagnosed(findings, interlaced=bool(clip.fields))
    if not diagnosis.mendable:
        return Outcome(path, _nothing_to_mend(diagnosis), diagnosis=diagnosis)
    with tempfile.TemporaryDirectory(prefix="vqmon-enhance-") as folder:
        bench = _Bench(clip, judge, Path(folder), wish or Wish())
        found = bench.search(diagnosis)
        best = found.best
        if best is None:
            outcome = Outcome(
                path,
                f"The original stays: {bench.why_none(found)}.{_beyond(diagnosis)}",
                diagnosis=diagnosis,
                trials=tuple(found.trials),
                exhausted=found.exhausted,
            )
        else:
            outcome = _whole(bench, found, best.recipe, target(suffix_for(path)), diagnosis)
    return _timed(outcome, time.monotonic() - began)


def _whole(
    bench: _Bench, found: Search, recipe: Recipe, file: Path, diagnosis: Diagnosis
) -> Outcome:
    """The whole clip by the best recipe, judged; only what is preferred stays."""
    wish, clip = bench.wish, bench.clip
    wish.told(f"{recipe}: the whole clip")
    made = render(
        clip,
        recipe,
        file,
        watched=lambda done: wish.watched(done, clip.seconds),
        cancelled=wish.cancelled,
    )
    try:
        said, apart = bench.judged(clip.path, file)
        measured = Measured(made.likeness, made.grid_before, made.grid_after)
        found_verdict = verdict(said, bench.judge, wish.bar, measured, apart=apart)
    except VqmonError:
        file.unlink(missing_ok=True)
        raise
    keep = found_verdict.preferred or wish.keep_all
    if not keep:
        file.unlink(missing_ok=True)
    return Outcome(
        clip.path,
        f"{found_verdict.reason} {_told(recipe)}.{_beyond(diagnosis)}",
        kept=file if keep else None,
        recipe=recipe,
        verdict=found_verdict,
        diagnosis=diagnosis,
        trials=tuple(found.trials),
        exhausted=found.exhausted,
        measured=measured,
        dropped=made.dropped,
    )


class _Bench:
    """Where recipes are tried on pieces of one clip."""

    def __init__(self, clip: Clip, judge: Judge, folder: Path, wish: Wish) -> None:
        self.judge, self.wish = judge, wish
        self.clip, self._folder = clip, folder
        self._pieces: list[tuple[Clip, list[Assessment]]] = []
        self._windows: list[tuple[float, float]] = []
        self._too_slow = 0

    def search(self, diagnosis: Diagnosis) -> Search:
        """Cut the pieces, then try."""
        for start, path in pieces(self.clip, self._folder, count=PIECES, seconds=PIECE_SECONDS):
            cut = _as_piece(self.clip, path)
            with suppress(VqmonError):
                self._pieces.append((cut, self.judge.score(path, every=PIECE_EVERY)))
                self._windows.append((start - PIECE_EVERY, start + PIECE_SECONDS + PIECE_EVERY))
        if not self._pieces:
            raise VqmonError(f"{self.clip.path}: no piece of it has a score to begin with")
        return search(diagnosis, self.attempt, self.wish.budget)

    def attempt(self, recipe: Recipe) -> Trial:
        """The mean gain on all pieces."""
        self.wish.told(f"trying {recipe}")
        began, pictures = time.monotonic(), 0
        gains: list[float] = []
        for index, (piece, before) in enumerate(self._pieces):
            file = self._folder / f"trial-{index}.mkv"
            try:
                made = render(piece, recipe, file, coding=ROUGH, cancelled=self.wish.cancelled)
                pictures += made.pictures
                after = self.judge.score(file, every=PIECE_EVERY)
            except Cancelled:
                raise
            except VqmonError:
                return Trial(recipe, None)
            finally:
                file.unlink(missing_ok=True)
            gains += [gain_of(it) for it in paired(before, after)]
        cost = (time.monotonic() - began) / max(1, pictures)
        if self.wish.slowest is not None and cost * self.clip.rate > self.wish.slowest:
            self._too_slow += 1
            return Trial(recipe, None, cost)
        return Trial(recipe, fmean(gains) if gains else None, cost)

    def judged(self, before: Path, after: Path) -> Any:
        """(pairs, whether they are others than the pieces' pictures) of the whole clip."""
        every = min(1.0, max(0.04, self.clip.seconds / JUDGED_PICTURES))
        pairs = paired(
            self.judge.score(before, every=every),
            self.judge.score(after, every=every),
            apart=every / 2,
        )
        return outside(pairs, self._windows)

    def why_none(self, found: Search) -> str:
        """Why no recipe is worth a whole clip."""
        tried = len(found.trials)
        known = [it.gain for it in found.trials if it.gain is not None]
        if not known and self._too_slow:
            return f"each of {tried} recipes would take longer than allowed"
        if not known:
            return f"none of {tried} recipes could be scored"
        return f"none of {tried} recipes scores higher on pieces of it (best {max(known):+.1f})"


def _as_piece(clip: Clip, path: Path) -> Clip:
    """Cut from an examined clip: its size and fields are known."""
    start, seconds = times(path)
    return replace(clip, path=path, start=start, seconds=seconds)


def _timed(outcome: Outcome, seconds: float) -> Outcome:
    return replace(outcome, seconds=seconds)


def _nothing_to_mend(diagnosis: Diagnosis) -> str:
    if not diagnosis.beyond:
        return "The original stays: nothing is wrong with it that filters could mend."
    return f"The original stays: no filter mends what is wrong.{_beyond(diagnosis)}"


def _beyond(diagnosis: Diagnosis) -> str:
    return "".join(
        f" Not mended: {name.replace('_', ' ')}, as {why}."
        for name, why in diagnosis.beyond.items()
    )


def _told(recipe: Recipe) -> str:
    return f"The recipe ({recipe}) {recipe.does}"


def as_json(outcome: Outcome) -> dict[str, Any]:
    """The decision with its numbers, JSON values only."""
    said = outcome.verdict
    return {
        "source": str(outcome.source),
        "kept": None if outcome.kept is None else str(outcome.kept),
        "preferred": outcome.preferred,
        "reason": outcome.reason,
        "recipe": None if outcome.recipe is None else str(outcome.recipe),
        "filters": None
        if outcome.recipe is None
        else [f"{name}={arguments}" for name, arguments in outcome.recipe.filters()],
        "verdict": None if said is None else _rounded(asdict(said)),
        "mended": dict(outcome.diagnosis.mendable),
        "not_mended": dict(outcome.diagnosis.beyond),
        "trials": [
            {"recipe": str(it.recipe), "gain": None if it.gain is None else round(it.gain, 2)}
            for it in outcome.trials
        ],
        "exhausted": outcome.exhausted,
        "measured": None if outcome.measured is None else _rounded(asdict(outcome.measured)),
        "dropped": list(outcome.dropped),
        "seconds": round(outcome.seconds, 2),
    }


def write_decision(outcome: Outcome, path: Path) -> None:
    """Beside the rendition. Raises VqmonError."""
    try:
        path.write_text(json.dumps(as_json(outcome), indent=2) + "\n")
    except OSError as error:
        raise VqmonError(f"{path}: cannot be written: {error.strerror}") from error


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        key: round(value, 4) if isinstance(value, float) else value for key, value in values.items()
    }
