"""Fit the shipped model: quality from measured signals, on BIQ2021 and on damaged photographs.

    python -m trainer.fit_measures --biq DIR --clean DIR --out vqmon/models/measures

Read top to bottom: data, fit, calibrate, judge, export. Nothing is chosen by the test split; it
is looked at once, at the end, for the figures in the card.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer import evaluate
from trainer.datasets import (
    CleanPhotographs,
    Sample,
    biq2021,
    clean_photographs,
    content_groups,
    near_duplicates,
    validation_part,
)
from trainer.export import Described, batch_spread, export, parity, prepared, write_card
from trainer.extract import Extraction, Ladders, Opinions, probe_measures
from trainer.measured import BINS, Lessons, MeasuredQuality, Recipe, predict, train
from vqmon.measures import MEASURES
from vqmon.scorers.card import read_card

NAME, VERSION = "measures", "1"
VALIDATION = 1000
SEED = 20210
CODING = tuple(name for name in MEASURES if name.startswith("block"))
"""Measures of coding damage, left out of the fit to opinions (see `trainer.measured`)."""

LICENCE = "Apache-2.0"
TERMS = {
    "BIQ2021": "terms not stated by its owner; its subset 3 comes from Unsplash",
    "CID22": "CC BY-SA 4.0",
    "CLIC 2025": "Unsplash licence",
    "BSDS500": "research and education",
    "Kodak": "unrestricted; evaluation only",
}


@dataclass(frozen=True, slots=True)
class Data:
    """Everything measured. `part` is train, validation or test for each sample."""

    samples: list[Sample]
    opinions: Opinions
    part: NDArray[np.str_]
    seen_before: NDArray[np.bool_]
    ladders: dict[str, Ladders]

    @property
    def quality(self) -> NDArray[np.float32]:
        return np.array([s.quality for s in self.samples], np.float32)

    @property
    def subset(self) -> NDArray[np.str_]:
        return np.array([s.subset for s in self.samples])


@dataclass(frozen=True, slots=True)
class Spread:
    """Uncertainty = sqrt((scale * spread)^2 + floor^2), points."""

    scale: float
    floor: float

    def of(self, raw: NDArray[np.floating]) -> NDArray[np.floating]:
        return np.asarray(np.hypot(self.scale * raw, self.floor))


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    begun = time.monotonic()
    extraction = Extraction(options.cache, processes=options.processes)
    data = collect(biq2021(options.biq), clean_photographs(options.clean), extraction)
    network = fit(data, Recipe(seed=options.seed))
    spread = calibrate(network, data)
    figures = judge(network, spread, data)
    write(network, spread, figures, data, options.out)
    _print(figures)
    print(f"{options.out}: done in {(time.monotonic() - begun) / 60:.1f} minutes")
    return 0


def collect(samples: list[Sample], clean: CleanPhotographs, extraction: Extraction) -> Data:
    """Measure all pictures and divide them; near-duplicates are never divided."""
    print("measuring pictures with opinions")
    opinions = extraction.opinions([s.path for s in samples])
    print("measuring damaged photographs")
    ladders = {
        "train": extraction.ladders(clean.train),
        "validation": extraction.ladders(clean.validation),
        "held out": extraction.ladders(clean.held_out),
    }
    part = np.array([s.split for s in samples], dtype="<U10")
    train_rows = np.flatnonzero(part == "train")
    chosen = validation_part(
        [samples[i].subset for i in train_rows],
        content_groups(opinions.hashes[train_rows]),
        VALIDATION,
        np.random.default_rng(SEED),
    )
    part[train_rows[chosen]] = "validation"
    return Data(samples, opinions, part, _seen_before(opinions.hashes, part), ladders)


def _seen_before(hashes: NDArray[np.bool_], part: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Test pictures with a near-duplicate that was trained or validated on."""
    test = np.flatnonzero(part == "test")
    pairs = near_duplicates(hashes[test], hashes[part != "test"])
    seen = np.zeros(len(part), bool)
    seen[test[np.unique(pairs[:, 0])]] = True
    return seen


def fit(data: Data, recipe: Recipe) -> MeasuredQuality:
    """Train; keep the step that agrees best with the validation pictures and ladders."""
    lessons = lessons_of(data)
    torch.manual_seed(recipe.seed)
    network = MeasuredQuality(lessons, [MEASURES.index(name) for name in CODING], recipe)

    def look(step: int) -> float:
        found = merit(network, data)
        print(f"  step {step}: " + " ".join(f"{k} {v:.4f}" for k, v in found.items()))
        return sum(found.values())

    train(network, lessons, recipe, look)
    return network


def lessons_of(data: Data) -> Lessons:
    rows = data.part == "train"
    ladders = data.ladders["train"]
    clean = np.array(["BSDS500" not in source for source in ladders.sources])
    return Lessons(
        opinions=torch.from_numpy(data.opinions.values[rows]),
        quality=torch.from_numpy(data.quality[rows]),
        ladders=torch.from_numpy(ladders.values),
        clean=torch.from_numpy(ladders.values[clean][:, 0]),
    )


def merit(network: MeasuredQuality, data: Data) -> dict[str, float]:
    """What a choice is made by: agreement on validation pictures, order on its ladders."""
    rows = data.part == "validation"
    quality, _ = predict(network, data.opinions.values[rows, 0])
    said = data.quality[rows]
    return {
        "plcc": evaluate.plcc(quality, said),
        "srcc": evaluate.srcc(quality, said),
        "ordered": 0.3 * evaluate.ordered(ladder_scores(network, data.ladders["validation"])),
    }


def ladder_scores(network: MeasuredQuality, ladders: Ladders) -> NDArray[np.float32]:
    """(ladders, strengths) raw quality at the offsets of serving."""
    values = ladders.values[:, :, 0]
    quality, _ = predict(network, values.reshape(-1, values.shape[-1]))
    return quality.reshape(values.shape[:2])


def calibrate(network: MeasuredQuality, data: Data) -> Spread:
    """Of the scales that make an 80 % interval hold 80 % of the validation opinions, one for
    each floor, the likeliest.
    """
    rows = data.part == "validation"
    quality, raw = predict(network, data.opinions.values[rows, 0])
    error = np.abs(quality - data.quality[rows])
    found = []
    for floor in (0.0, 2.0, 4.0, 6.0, 8.0):
        scales = np.linspace(0.1, 3.0, 291)
        held = [
            evaluate.coverage(quality, Spread(s, floor).of(raw), data.quality[rows]) for s in scales
        ]
        scale = float(scales[int(np.argmin(np.abs(np.array(held) - 0.8)))])
        sigma = Spread(scale, floor).of(raw)
        surprise = float(np.mean(np.log(sigma) + 0.5 * (error / sigma) ** 2))
        found.append((surprise, scale, floor))
    _, scale, floor = min(found)
    return Spread(round(scale, 3), floor)


def judge(network: MeasuredQuality, spread: Spread, data: Data) -> dict[str, Any]:
    """All figures of the card, from pictures that nothing was fitted or chosen on."""
    rng = np.random.default_rng(SEED)
    test = data.part == "test"
    quality, raw = predict(network, data.opinions.values[:, 0])
    said = data.quality

    def over(rows: NDArray[np.bool_]) -> dict[str, Any]:
        figures = evaluate.agreement(quality[rows], said[rows], rng)
        return {"n": int(rows.sum())} | {k: f.rounded() for k, f in figures.items()}

    uncertainty = spread.of(raw)
    return {
        "test": over(test),
        "test without near-duplicates of training pictures": over(test & ~data.seen_before),
        "test within subsets": {
            name: over(test & (data.subset == name)) for name in sorted(set(data.subset))
        },
        "validation": over(data.part == "validation"),
        "coverage of the nominal 80 % interval": {
            "test": round(evaluate.coverage(quality[test], uncertainty[test], said[test]), 4),
            "validation": 0.8,
        },
        "pair accuracy by distance of opinions, test": {
            k: round(v, 4) for k, v in evaluate.pair_accuracy(quality[test], said[test]).items()
        },
        "held-out photographs": _ladder_figures(network, data.ladders["held out"]),
        "unreadable answers": int((~np.isfinite(quality[test])).sum()),
    }


def _ladder_figures(network: MeasuredQuality, ladders: Ladders) -> dict[str, Any]:
    """Order of neighbouring rungs, and where the rungs lie on the scale."""
    scores = ladder_scores(network, ladders)
    clean = scores[ladders.kinds == ladders.kinds[0]][:, 0]
    return {
        "photographs": len(clean),
        "clean, 5th percentile": round(float(np.percentile(clean, 5)), 1),
        "clean, median": round(float(np.median(clean)), 1),
        "neighbours strictly ordered": round(evaluate.ordered(scores), 4),
        "by damage": {
            str(kind): {
                "neighbours strictly ordered": round(evaluate.ordered(scores[rows]), 4),
                "median quality by strength 0..5": [
                    round(float(v), 1) for v in np.median(scores[rows], axis=0)
                ],
            }
            for kind in dict.fromkeys(ladders.kinds.tolist())
            if (rows := ladders.kinds == kind).any()
        },
    }


def write(
    network: MeasuredQuality, spread: Spread, figures: dict[str, Any], data: Data, folder: Path
) -> None:
    """Export, then prove that the folder scores as the network does."""
    test = data.opinions.values[data.part == "test", 0]
    described = Described(
        name=NAME,
        version=VERSION,
        inputs={"measures": MEASURES},
        outputs={
            "score": {
                "kind": "distribution",
                "meaning": "probability of each quality value; quality is the expectation",
                "values": list(BINS),
            }
        },
        facts=_facts(network, spread, figures, data),
    )
    export(network, {"measures": torch.from_numpy(test[:2])}, described, folder)
    card = dict(read_card(folder).raw)
    card["inputs"]["measures"] |= {
        "low": network.low.tolist(),
        "high": network.high.tolist(),
        "probe": probe_measures().tolist(),
    }
    card["figures"]["largest difference from torch, points"] = round(
        parity(network, folder, prepared(measures=test)), 5
    )
    card["figures"]["largest difference alone or in a batch, points"] = round(
        batch_spread(folder, prepared(measures=test[:256])), 5
    )
    write_card(folder, card)


def _facts(
    network: MeasuredQuality, spread: Spread, figures: dict[str, Any], data: Data
) -> dict[str, Any]:
    parts = {name: int((data.part == name).sum()) for name in ("train", "validation", "test")}
    return {
        "description": "Quality of one picture from measured signals; the first model of vqmon.",
        "scale": "0..100; 100 x the mean opinion 0..1 of BIQ2021, so that MOS 1..5 = 1 + quality / 25",
        "licence": LICENCE,
        "calibration": {
            "quality": {"from": [0, 100], "to": [0, 100]},
            "uncertainty": {"scale": spread.scale, "floor": spread.floor},
        },
        "training": {
            "command": "python -m trainer.fit_measures",
            "recipe": asdict(network.recipe),
            "terms of the data": TERMS,
            "BIQ2021 pictures": parts,
            "split": "validation from the published train split by subset, near-duplicates "
            "(256-bit dHash, 10 bits) undivided; the published test split is only for figures",
            "ladders": {name: len(ladders) for name, ladders in data.ladders.items()},
            "measures left to ladders alone": list(CODING),
        },
        "figures": figures,
        "limits": LIMITS,
    }


LIMITS = [
    "It sees one picture: freezes, stutter, black and lost media come from signals, beside it.",
    "It knows measured statistics, not content, so wanted blur, grain or darkness count as faults.",
    "Opinions are of 512x512 photographs; for larger pictures and video it learned order only.",
    "Screen content, animation, text and medical or infrared pictures were not in its data.",
    "PQ and HLG pictures are refused; pictures under 32 pixels a side cannot be measured.",
]


def _print(figures: dict[str, Any]) -> None:
    for name in ("validation", "test", "test without near-duplicates of training pictures"):
        _print_row(name, figures[name])
    for name, row in figures["test within subsets"].items():
        _print_row(f"test, {name}", row)
    print(f"coverage of 80 %: {figures['coverage of the nominal 80 % interval']['test']:.3f}")
    photographs = figures["held-out photographs"]
    print(f"ladders in order: {photographs['neighbours strictly ordered']:.3f}")
    for name, row in photographs["by damage"].items():
        values = " ".join(f"{v:5.1f}" for v in row["median quality by strength 0..5"])
        print(f"  {name:13} {row['neighbours strictly ordered']:.3f}  {values}")


def _print_row(name: str, row: dict[str, Any]) -> None:
    cells = (
        f"{k} {row[k]['value']:.3f} [{row[k]['low']:.3f}, {row[k]['high']:.3f}]"
        for k in ("plcc", "srcc", "krcc", "rmse")
    )
    print(f"{name} (n = {row['n']}): " + ", ".join(cells))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m trainer.fit_measures", description=__doc__)
    parser.add_argument("--biq", type=Path, required=True, help="BIQ2021 as published")
    parser.add_argument("--clean", type=Path, required=True, help="clean photographs, see README")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--cache", type=Path, default=Path("trainer/data/measured"))
    parser.add_argument("--processes", type=int, default=2, help="for measuring pictures")
    parser.add_argument("--seed", type=int, default=Recipe().seed)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
