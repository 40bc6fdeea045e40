"""How sure the order of two renditions is: the share of a model's error that both have in common.

    python -m trainer.calibrate_comparison CLIP... [--model FOLDER]

Encodes the beginning of each clip at rising quantisers, scores the rungs with the very scorer that
serves, and asks of neighbouring rungs whether the model dares an order, how sure it says it is, and
how often it is right. The printed value belongs into the card as `calibration.uncertainty.shared`;
`vqmon.scorers.comparison.SHARED_ERROR` stands in where a card has none. Also printed: how far hashes
of one scene, and of different scenes, lie apart, between which `vqmon.likeness.LIKE` has its place.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

from vqmon.domain import Assessment
from vqmon.files import score_file
from vqmon.likeness import Bits, Glimpses, distances
from vqmon.ports import Scorer
from vqmon.scorers import load_scorer
from vqmon.scorers.comparison import compare

QUANTISERS = (18, 24, 30, 36, 42, 48)
SECONDS = 4.0
SHARES = (0.0, 0.25, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98)

ROOM = 0.05
"""By how much orders must be right more often than claimed: ladders of a few clips are few."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One rendition of a clip, as it was scored."""

    clip: str
    quality: float
    uncertainty: float
    hashes: Sequence[Bits]


@dataclass(frozen=True, slots=True)
class Row:
    """What a share of common error makes of pairs whose order is known.

    dared: share of pairs of which an order is told. claimed: mean probability of these; right:
    share of these whose order is right. NaN where none is dared.
    """

    shared: float
    dared: float
    claimed: float
    right: float

    @property
    def honest(self) -> bool:
        return self.right >= self.claimed + ROOM


def judged(pairs: Sequence[tuple[Rung, Rung]], shared: float) -> Row:
    """pairs: (better, worse)."""
    found = [compare([_assessed(a)], [_assessed(b)], shared=shared) for a, b in pairs]
    dared = [it for it in found if it.better != "similar"]
    if not dared:
        return Row(shared, 0.0, float("nan"), float("nan"))
    claimed = float(np.mean([max(it.probability, 1 - it.probability) for it in dared]))
    right = float(np.mean([it.better == "a" for it in dared]))
    return Row(shared, len(dared) / len(found), claimed, right)


def chosen(rows: Sequence[Row]) -> float:
    """The largest share up to which every smaller one is honest too; 0 when none is."""
    best = 0.0
    for row in sorted(rows, key=lambda it: it.shared):
        if row.dared and not row.honest:
            break
        best = row.shared
    return best


def _assessed(rung: Rung) -> Assessment:
    return Assessment(0.0, rung.quality, rung.uncertainty)


def ladders(clips: Sequence[Path], scorer: Scorer) -> list[list[Rung]]:
    """Rungs of each clip, best first; those of a clip that cannot be scored are left out."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for number, clip in enumerate(clips):
            rungs = list(_rungs(clip, Path(folder) / str(number), scorer))
            if rungs:
                found.append(rungs)
                print(clip.name, *(f"{it.quality:.1f}" for it in rungs))
    return found


def _rungs(clip: Path, stem: Path, scorer: Scorer) -> Iterator[Rung]:
    for quantiser in QUANTISERS:
        path = stem.with_name(f"{stem.name}-{quantiser}.mp4")
        encode(clip, path, quantiser)
        glimpses = Glimpses()
        result = score_file(str(path), scorer, evidence=glimpses)
        path.unlink()
        if result.quality is not None:
            yield Rung(clip.name, result.quality, result.uncertainty or 0.0, glimpses.hashes)


def encode(clip: Path, path: Path, quantiser: int, seconds: float = SECONDS) -> None:
    """The clip's beginning as H.264 at a constant rate factor; pictures are taken one by one, so
    that a variable frame rate becomes the mean one.
    """
    with av.open(str(clip)) as source, av.open(str(path), "w") as target:
        video = source.streams.video[0]
        rate = max(1, round(float(video.average_rate or 25)))
        output: Any = None
        for number, frame in enumerate(source.decode(video)):
            if number >= seconds * rate:
                break
            width, height = frame.width // 2 * 2, frame.height // 2 * 2
            if output is None:
                output = target.add_stream("libx264", rate=rate)
                output.width, output.height, output.pix_fmt = width, height, "yuv420p"
                output.options = {"crf": str(quantiser), "preset": "veryfast"}
            picture = frame.reformat(width, height, format="yuv420p")
            picture.pts, picture.time_base = number, Fraction(1, rate)
            target.mux(output.encode(picture))
        if output is not None:
            target.mux(output.encode(None))


def apart(some: Sequence[Rung]) -> tuple[list[float], list[float]]:
    """Nearest distances of pictures in renditions of (one clip, different clips), bits."""
    same: list[float] = []
    other: list[float] = []
    for a, b in combinations(some, 2):
        (same if a.clip == b.clip else other).extend(distances(a.hashes, b.hashes).min(1).tolist())
    return same, other


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", help="model folder; without it the shipped one")
    arguments = parser.parse_args()
    found = ladders(arguments.clips, load_scorer(arguments.model))
    neighbours = [pair for rungs in found for pair in pairwise(rungs)]
    rows = [judged(neighbours, shared) for shared in SHARES]
    print(f"\n{len(neighbours)} neighbouring rungs\nshared  dared  claimed  right")
    for row in rows:
        print(f"{row.shared:6.2f} {row.dared:6.2f} {row.claimed:8.3f} {row.right:6.3f}")
    print(f"calibration.uncertainty.shared: {chosen(rows)}")
    same, other = apart([rung for rungs in found for rung in rungs])
    if same and other:
        print(
            f"bits apart: one scene 50 % within {np.percentile(same, 50):.0f}, 98 % within "
            f"{np.percentile(same, 98):.0f}; different scenes from {min(other):.0f}"
        )


if __name__ == "__main__":
    main()
