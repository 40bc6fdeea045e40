"""Does the score hold for a kind of picture that the heads never learned from?

    python -m trainer.leave_out --features F.npz --network BEST.pt --views FOLDER --biq DIR \
        --out FOLDER [--seeds 1,2,3]

Heads are trained on the training pictures without one subset, chosen on the validation pictures
without it, and judged on that subset's part of the published test split; so for each subset. The
same heads trained on everything stand beside them. FOLDER gets `leave-out.json`, the table in
words, and the predictions `SUBSET-SEED.npy` that `trainer.evaluate --leave-out` reads as well.

Only the heads are trained anew: a backbone that was warmed up on all subsets has seen pictures
like those left out, and their opinions, so that the figure flatters it. It is an upper bound of
what a backbone trained without the subset would give.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import trainer.views
from trainer.datasets import Sample, biq2021
from trainer.evaluation.contests import leave_out_table
from trainer.evaluation.tables import Table, printed
from trainer.groups import Pictures, load
from trainer.policies.heads import Heads
from trainer.supervised import Course, featured, learn, new_heads
from trainer.warmup import load_network

NOTHING = "nothing"
"""Left out by the heads that the others are compared with."""

HONEST = (
    "Heads alone are trained without the subset: the backbone learned from all subsets, so that "
    "these figures are an upper bound."
)

Values = NDArray[np.floating[Any]]


@dataclass(frozen=True, slots=True)
class Judged:
    """The published test split. features: (n, F) at the offsets of serving; quality: (n,) 0..100;
    subset: (n,).
    """

    features: Values
    quality: NDArray[np.float64]
    subset: NDArray[np.str_]

    @classmethod
    def of(cls, samples: Sequence[Sample], features: Values) -> Judged:
        """Raises ValueError when the features are of other pictures."""
        seen = features[:, 0] if features.ndim == 3 else features
        if len(seen) != len(samples):
            raise ValueError(
                f"features of {len(seen)} pictures for a test split of {len(samples)}: "
                "delete them to have them made again"
            )
        return cls(
            seen,
            np.array([it.quality for it in samples], np.float64),
            np.array([it.subset for it in samples]),
        )


def without(known: Pictures, subset: str) -> Pictures:
    """All pictures but those of the subset; made pictures stay, whatever they were made from."""
    return known.rows(np.flatnonzero(known.subset != subset))


def predictions(
    known: Pictures, test: Judged, subset: str, course: Course, seeds: Sequence[int]
) -> Values:
    """(seeds, n) qualities of all test pictures, by heads that never saw `subset`."""
    left = without(known, subset)
    rows = []
    for seed in seeds:
        own = replace(course, seed=seed)
        rows.append(_said(learn(new_heads(left, own), left, own, told=False), test))
    return np.stack(rows)


def judge(known: Pictures, test: Judged, course: Course, seeds: Sequence[int], out: Path) -> Table:
    """Every subset of the test split left out in turn. Predictions that `out` holds are kept, so
    that a run that was interrupted goes on with the next subset.
    """
    out.mkdir(parents=True, exist_ok=True)
    names = [str(name) for name in np.unique(test.subset)]
    found = {name: _kept(known, test, name, course, seeds, out=out) for name in [*names, NOTHING]}
    whole = dict.fromkeys(names, found[NOTHING])
    left = {name: found[name] for name in names}
    table = leave_out_table(
        left, test.quality, test.subset, whole, ("left out", "nothing left out")
    )
    table.notes.append(HONEST)
    return table


def _kept(
    known: Pictures, test: Judged, subset: str, course: Course, seeds: Sequence[int], *, out: Path
) -> Values:
    rows = []
    for seed in seeds:
        file = out / f"{subset}-{seed}.npy"
        if not file.is_file():
            print(f"without {subset}, seed {seed}", flush=True)
            found = predictions(known, test, subset, course, [seed])
            unfinished = file.with_suffix(".unfinished.npy")
            np.save(unfinished, found[0])
            unfinished.replace(file)
        rows.append(np.load(file))
    return np.stack(rows)


@torch.no_grad()
def _said(heads: Heads, test: Judged) -> Values:
    score = heads.eval()(torch.from_numpy(test.features).float())[0]
    return np.asarray((score @ heads.bins).numpy())


def _test_features(given: argparse.Namespace, samples: Sequence[Sample]) -> Values:
    """Of the test split through the frozen backbone; made once."""
    file = given.test_features or given.out / "test_features.npy"
    if not file.is_file():
        if given.network is None or given.views is None:
            raise ValueError(f"{file} is not there: name --network and --views to have it made")
        seen = trainer.views.views([it.path for it in samples], given.views / "test", draws=1)
        network = load_network(given.network)
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, featured(network, seen.patches, seen.view, seen.measures))
    found: Values = np.load(file)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.leave_out", description=__doc__)
    parser.add_argument("--features", type=Path, required=True, help="of trainer.supervised")
    parser.add_argument("--biq", type=Path, required=True, help="BIQ2021 as published")
    parser.add_argument("--network", type=Path, help="of trainer.warmup, the features' own")
    parser.add_argument("--views", type=Path, help="folder of trainer.views")
    parser.add_argument("--test-features", type=Path, help="(n, 1, F) .npy, instead of those two")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--steps", type=int, default=Course().steps)
    parser.add_argument("--seeds", default="1", help="one set of heads each, such as 1,2,3")
    given = parser.parse_args(arguments)
    samples = [it for it in biq2021(given.biq) if it.split == "test"]
    try:
        test = Judged.of(samples, _test_features(given, samples))
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    seeds = [int(it) for it in given.seeds.split(",")]
    table = judge(load(given.features), test, Course(steps=given.steps), seeds, given.out)
    facts = table.as_json() | {"seeds": seeds, "steps": given.steps}
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    (given.out / "leave-out.json").write_text(text + "\n", encoding="utf-8")
    print(printed(facts["rows"], table.title), *table.notes, sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
