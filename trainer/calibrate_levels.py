"""Chooses the weights of `trainer.likeness`, and shows what each level of each damage costs.

    python -m trainer.calibrate_levels --clean DIR [--photographs 24] [--seed 1]

Needs the package `ssimulacra2` (pure Python, seconds per picture), which nothing else here does.
Clean training photographs, 320 pixels of each, are damaged in every way at random strengths; the
weights are the non-negative least squares fit, halved into fitted and checked photographs. Then
the median index of every variant at its levels is printed, on the checked ones.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import nnls
from scipy.stats import spearmanr

from trainer.datasets import clean_photographs
from trainer.degrade import STRENGTHS, VARIANTS, Picture, amount
from trainer.degrade.codecs import ENCODERS, through_codec
from trainer.likeness import EXPONENT, Original

SIDE = 320

NO_DETAIL_LOST = ("underexposed", "overexposed", "corrupted")
"""Judged on scales of their own, so the index need not fit them."""


@dataclass(frozen=True, slots=True)
class Pair:
    photograph: int
    kind: str
    variant: str
    strength: float
    losses: NDArray[np.float64]
    truth: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.calibrate_levels", description=__doc__)
    parser.add_argument("--clean", type=Path, required=True, help="clean photographs")
    parser.add_argument("--photographs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    rng = np.random.default_rng(given.seed)
    paths = clean_photographs(given.clean).train
    chosen = [paths[i] for i in rng.permutation(len(paths))[: given.photographs]]
    pairs = [pair for i, path in enumerate(chosen) for pair in _pairs(i, _piece(path, rng), rng)]
    weights = _fitted([pair for pair in pairs if pair.photograph % 2])
    print("WEIGHTS = (" + ", ".join(f"{w:.4g}" for w in weights) + ")")
    _report([pair for pair in pairs if not pair.photograph % 2], weights)
    return 0


def _piece(path: Path, rng: np.random.Generator) -> Picture:
    picture = np.asarray(Image.open(path).convert("RGB"))
    top, left = (int(rng.integers(max(1, n - SIDE + 1))) for n in picture.shape[:2])
    return picture[top : top + SIDE, left : left + SIDE]


def _pairs(photograph: int, picture: Picture, rng: np.random.Generator) -> Iterator[Pair]:
    original = Original(picture)
    for kind, name, strength, damaged in _damaged(picture, rng):
        truth = _ssimulacra2(picture, damaged)
        yield Pair(photograph, kind, name, strength, original.losses(damaged), truth)


def _damaged(
    picture: Picture, rng: np.random.Generator
) -> Iterator[tuple[str, str, float, Picture]]:
    for kind, variants in VARIANTS.items():
        for variant in variants:
            if kind not in NO_DETAIL_LOST:
                strength = float(rng.choice(STRENGTHS[1:]) if rng.random() < 0.8 else 0.4)
                yield kind, variant.name, strength, variant(picture, strength, rng)
    name = list(ENCODERS)[int(rng.integers(len(ENCODERS)))]
    strength = float(rng.choice(STRENGTHS[1:]))
    clip = [np.roll(picture, 3 * i, axis=1) for i in range(4)]
    coded = through_codec(clip, name, amount(strength, ENCODERS[name].rates))[-1]
    yield "compression", name, strength, np.roll(_whole(coded, picture), -9, axis=1)


def _whole(coded: Picture, picture: Picture) -> Picture:
    """Encoders drop an odd last row or column: take it from the picture."""
    out = picture.copy()
    out[: coded.shape[0], : coded.shape[1]] = coded
    return out


def _ssimulacra2(picture: Picture, damaged: Picture) -> float:
    from ssimulacra2 import (  # type: ignore[import-not-found, unused-ignore]
        compute_ssimulacra2_with_alpha,
    )

    with tempfile.TemporaryDirectory() as folder:
        files = [str(Path(folder) / name) for name in ("original.png", "damaged.png")]
        for file, content in zip(files, (picture, damaged), strict=True):
            Image.fromarray(content).save(file, compress_level=1)
        return float(compute_ssimulacra2_with_alpha(*files))


def _fitted(pairs: Sequence[Pair]) -> NDArray[np.float64]:
    """Least squares of the error below the last step, where 0..100 counts as much everywhere."""
    truth = np.clip([pair.truth for pair in pairs], -30, 99.5)
    wanted = ((100 - truth) / 10) ** (1 / EXPONENT)
    slope = 10 * EXPONENT * wanted ** (EXPONENT - 1)
    losses = np.stack([pair.losses for pair in pairs])
    return np.asarray(nnls(losses * slope[:, None], wanted * slope)[0])


def _report(pairs: Sequence[Pair], weights: NDArray[np.float64]) -> None:
    found = np.array([100 - 10 * (pair.losses @ weights) ** EXPONENT for pair in pairs])
    truth = np.array([pair.truth for pair in pairs])
    seen = truth > 0
    rank = spearmanr(found, truth).statistic
    error = np.median(np.abs(found - truth)[seen])
    print(f"checked: {len(pairs)} pairs, SRCC {rank:.3f}, median error above 0: {error:.1f}")
    for key in dict.fromkeys((pair.kind, pair.variant) for pair in pairs):
        rows = np.array([(pair.kind, pair.variant) == key for pair in pairs])
        offset = np.median((found - truth)[rows & seen]) if (rows & seen).any() else float("nan")
        print(f"{key[0]:12} {key[1]:10} ours - SSIMULACRA2: {offset:6.1f}")
        for strength in sorted({pair.strength for pair in pairs}):
            some = rows & np.array([pair.strength == strength for pair in pairs])
            if some.any():
                medians = np.median(truth[some]), np.median(found[some])
                print(f"    {strength:.1f}: {medians[0]:6.1f} ours {medians[1]:6.1f}")


if __name__ == "__main__":
    sys.exit(main())
