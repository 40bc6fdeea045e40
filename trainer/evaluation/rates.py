"""Rate ladders: is a sequence that lost more put below one that lost less, by every codec?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation import moving
from trainer.evaluation.judging import Judge, Verdicts
from trainer.evaluation.shelf import Shelf
from trainer.evaluation.tables import Goal, Row, Table
from trainer.likeness import EXPONENT, WEIGHTS

APART = 2.0
"""Neighbours nearer than this in full-reference points have no order that anybody could see."""

REAL_CLIPS = ("corridor.mp4", "cars-from-above.mp4", "friday.mp4")
LARGE_CORPUS = Path("clic2025") / "final-test"


@dataclass(frozen=True, slots=True)
class Ladder:
    """One sequence through one codec: means over the judged frames, first rung best.

    index: full-reference points of each rung. key_offset: points by which keyframes score above
    the other frames, the original's own difference taken off, of each rung.
    """

    sequence: str
    codec: str
    quality: NDArray[np.float64]
    index: NDArray[np.float64]
    key_offset: NDArray[np.float64]

    def steps(self) -> NDArray[np.bool_]:
        """Of neighbours that are APART, whether the worse scores strictly lower."""
        down = -np.diff(self.index)
        right = np.sign(np.diff(self.quality)) == -np.sign(down)
        return np.asarray(right[np.abs(down) >= APART])


def sources(clean: Path, clips: Path | None) -> list[Path]:
    """CLIC's held-out photographs, to move over, and REAL_CLIPS where their folder is given."""
    real = [clips / name for name in REAL_CLIPS if (clips / name).is_file()] if clips else []
    return [*real, *sorted((clean / LARGE_CORPUS).glob("*.png"))]


def rate_table(judge: Judge, shelf: Shelf, paths: Sequence[Path]) -> Table:
    """Raises ValueError when no sequence was given."""
    verdicts = judge.of(shelf.kept("rates", paths, moving.shots, moving.MADE_BY))
    found = ladders(verdicts)
    table = Table("rates", "Rate ladders: moving sequences through four codecs at seven rates")
    steps = [it.steps() for it in found]
    value, n = _share(steps)
    interval = _interval(found)
    table.rows.append(Row("neighbours in order", value, n, Goal(0.95, 0.99), interval))
    for codec in moving.RATES:
        value, n = _share([it.steps() for it in found if it.codec == codec])
        table.rows.append(Row(f"… {codec}", value, n))
    for codec in moving.RATES:
        offsets = np.concatenate([it.key_offset for it in found if it.codec == codec])
        spread = 1.96 * float(offsets.std()) / np.sqrt(len(offsets))
        mean = float(offsets.mean())
        table.rows.append(
            Row(
                f"keyframes above other frames, points: {codec}",
                mean,
                len(offsets),
                interval=(mean - spread, mean + spread),
                digits=2,
            )
        )
    table.notes = [
        f"Sequences: {', '.join(dict.fromkeys(it.sequence for it in found))}.",
    ]
    table.notes.append(
        f"Mean of {len(moving.JUDGED)} frames; n counts neighbouring rungs at least {APART:g} "
        "points apart in the full-reference index of trainer.likeness."
    )
    table.details = {
        codec: {
            "quality by rung, median": _median(found, codec, "quality"),
            "full-reference index by rung, median": _median(found, codec, "index"),
            "keyframe offset by rung, median": _median(found, codec, "key_offset"),
            "rates": list(rates),
        }
        for codec, rates in moving.RATES.items()
    }
    table.details["original, median quality"] = float(
        np.nanmedian(verdicts.quality[verdicts.fact("codec") == moving.ORIGINAL])
    )
    table.details["out of order"] = _disorder(found)
    return table


def ladders(verdicts: Verdicts) -> list[Ladder]:
    sequence, codec = verdicts.fact("sequence"), verdicts.fact("codec")
    rung, key = verdicts.fact("rung").astype(int), verdicts.fact("key").astype(bool)
    index = likeness(verdicts.numbers)
    found = []
    for name in dict.fromkeys(sequence.tolist()):
        own = verdicts.quality[(sequence == name) & (codec == moving.ORIGINAL)]
        for one in moving.RATES:
            rows = [
                np.flatnonzero((sequence == name) & (codec == one) & (rung == i))
                for i in range(len(moving.RATES[one]))
            ]
            quality = np.array([verdicts.quality[it] for it in rows])  # (rungs, frames)
            keys = np.array([key[it] for it in rows])
            lost = quality - own
            offset = _mean_where(lost, keys) - _mean_where(lost, ~keys)
            found.append(
                Ladder(
                    str(name),
                    one,
                    quality.mean(axis=1),
                    np.array([index[it].mean() for it in rows]),
                    offset,
                )
            )
    return found


def likeness(losses: NDArray[np.floating]) -> NDArray[np.float64]:
    """(n, 12) losses -> full-reference points, with the weights that are in force now."""
    error = losses @ np.asarray(WEIGHTS)
    return np.asarray(100 - 10 * error**EXPONENT)


def _mean_where(values: NDArray[np.floating], rows: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of each line over the places where `rows` holds."""
    return np.asarray((values * rows).sum(axis=1) / np.maximum(rows.sum(axis=1), 1))


def _share(steps: Sequence[NDArray[np.bool_]]) -> tuple[float, int]:
    every = np.concatenate(steps)
    return (float(every.mean()) if len(every) else float("nan")), len(every)


def _interval(found: Sequence[Ladder]) -> tuple[float, float]:
    """Over sequences."""
    rng, names = np.random.default_rng(6), sorted({it.sequence for it in found})
    by_name = {
        name: np.concatenate([it.steps() for it in found if it.sequence == name]) for name in names
    }
    drawn = [
        _share([by_name[names[i]] for i in rng.integers(0, len(names), len(names))])[0]
        for _ in range(1000)
    ]
    low, high = np.nanpercentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def _median(found: Sequence[Ladder], codec: str, what: str) -> list[float]:
    rows = [getattr(it, what) for it in found if it.codec == codec]
    return [float(it) for it in np.nanmedian(np.array(rows), axis=0)]


def _disorder(found: Sequence[Ladder]) -> Mapping[str, Any]:
    """Steps in the wrong order, by sequence and codec."""
    return {
        f"{it.sequence} {it.codec}": int((~it.steps()).sum())
        for it in found
        if not it.steps().all()
    }
