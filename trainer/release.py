"""A trained network becomes the model folder that ships: calibrated, described, proved.

    python -m trainer.release --network WARMUP.pt --heads HEADS.pt --features F.npz --biq DIR \
        --views FOLDER --levels levels.pt --synthetic FOLDER --out vqmon/models/lite \
        [--figures evaluation.json]

What ships is the mean of two: of the network, and of perceptrons on measures alone, which learned
another way and err elsewhere; for the score those of `trainer.measured` (the folder
`models/measures`), for the levels of degradations those of `trainer.levels`. Regions are the
network's.

Everything that is chosen here is chosen on training-side pictures: calibration of score and
uncertainty on the validation part of BIQ2021's train split, the thresholds of findings on clean
synthetic pictures, the cost of a finding on ladders. Figures come from `trainer.evaluate`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from trainer import evaluate, synthesise
from trainer import levels as level_files
from trainer.checkpoints import load as load_checkpoint
from trainer.export import Described, batch_spread, export, parity, prepared, write_card
from trainer.extract import probe_measures
from trainer.groups import Pictures, load
from trainer.levels import MeasuredLevels
from trainer.measured import Lessons, MeasuredQuality, Recipe
from trainer.policies import heads as head_files
from trainer.policies.lite import Lite, served
from trainer.warmup import load_network, opinions
from vqmon.domain import DEGRADATIONS
from vqmon.measures import MEASURES
from vqmon.scorers import MODELS
from vqmon.scorers.card import MODEL_FILE, read_card

NAME = "lite"
FALSE_ALARMS = 0.03
"""Share of clean training-side pictures that may show any finding at the thresholds."""

LEAST_CLEAN = 200
"""Clean validation pictures from which on thresholds are chosen on them alone."""

LEAST_THRESHOLD = 0.5

NETWORK_LEVELS = 0.25
"""Share of the network in the levels, chosen on validation contents."""

LICENCE = "Apache-2.0"
TERMS = {
    "BIQ2021": "terms not stated by its owner; its subset 3 comes from Unsplash",
    "CID22": "CC BY-SA 4.0",
    "CLIC 2025": "Unsplash licence",
    "BSDS500": "research and education",
    "Kodak": "unrestricted; evaluation only",
}
LIMITS = [
    "It sees one picture: freezes, stutter, black and lost media come from signals, beside it.",
    "Opinions are of 512x512 photographs; for larger pictures and video it learned order only.",
    "Wanted blur, grain or darkness may count as faults.",
    "Screen content, animation, text and medical or infrared pictures were not in its data.",
    "PQ and HLG pictures are refused; pictures under 32 pixels a side cannot be measured.",
]


class Blend(nn.Module):
    """What ships: half of the score and NETWORK_LEVELS of the levels from the network, the rest
    from the perceptrons on measures.
    """

    def __init__(self, network: Lite, measured: MeasuredQuality, levels: MeasuredLevels) -> None:
        super().__init__()
        self.network, self.measured, self.levels = network, measured, levels

    def forward(self, patches: Tensor, view: Tensor, measures: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of score (B, bins), levels (B, 8, 6) and regions (B, 9)."""
        score, levels, regions = self.network(patches, view, measures)
        return *self.blended(score, levels, measures), regions

    def blended(self, score: Tensor, levels: Tensor, measures: Tensor) -> tuple[Tensor, Tensor]:
        """Of the network's (B, bins) and (B, 8, 6), and the measures (B, M)."""
        share = NETWORK_LEVELS
        mixed = share * levels + (1 - share) * self.levels(measures)
        return (score + self.measured(measures)) / 2, mixed


def measured_quality(folder: Path) -> MeasuredQuality:
    """The network of a model folder that `trainer.fit_measures` wrote, as it was exported."""
    stored = {
        it.name: torch.from_numpy(numpy_helper.to_array(it).copy())
        for it in onnx.load(str(folder / MODEL_FILE)).graph.initializer
    }
    members, _, hidden = stored["layers.0"].shape
    nothing = torch.zeros(4, 1, len(stored["low"]))
    lessons = Lessons(nothing, torch.zeros(4), nothing[None], nothing)
    recipe = Recipe(members=members, hidden=hidden)
    network = MeasuredQuality(lessons, stored["coding"].tolist(), recipe)
    network.load_state_dict(stored)
    return network.eval()


def read(blend: Blend, features: NDArray[Any], measures: NDArray[Any]) -> tuple[NDArray[Any], ...]:
    """Raw quality and spread (n,), level probabilities (n, 8, 6), at the offsets of serving."""
    heads = blend.network.heads.eval()
    with torch.no_grad():
        score, levels, _ = heads(torch.from_numpy(features).float())
        score, levels = blend.blended(score, levels, torch.from_numpy(measures))
        quality = score @ heads.bins
        spread = (score * (heads.bins - quality[:, None]).square()).sum(-1).sqrt()
    return quality.numpy(), spread.numpy(), levels.numpy()


def quality_calibration(raw: NDArray[Any], said: NDArray[Any]) -> dict[str, list[float]]:
    """The straight line of least squares, as points of a rising line from 0 to 100."""
    slope, offset = np.polyfit(raw, said, 1)
    ends = [float(np.clip(offset + slope * it, 0, 100)) for it in (0, 100)]
    where = [float(np.clip((end - offset) / slope, 0, 100)) for end in ends]
    return {"from": [round(it, 3) for it in where], "to": [round(it, 3) for it in ends]}


def uncertainty_calibration(
    quality: NDArray[Any], spread: NDArray[Any], said: NDArray[Any]
) -> dict[str, float]:
    """sqrt((scale spread)^2 + floor^2): of the pairs that make an 80 % interval hold 80 % of the
    validation opinions, the likeliest.
    """
    error, found = np.abs(quality - said), []
    for floor in (0.0, 2.0, 4.0, 6.0, 8.0):
        scales = np.linspace(0.05, 3.0, 296)
        held = [evaluate.coverage(quality, np.hypot(s * spread, floor), said) for s in scales]
        scale = float(scales[int(np.argmin(np.abs(np.array(held) - 0.8)))])
        sigma = np.hypot(scale * spread, floor)
        surprise = float(np.mean(np.log(sigma) + 0.5 * (error / sigma) ** 2))
        found.append((surprise, scale, floor))
    _, scale, floor = min(found)
    return {"scale": round(scale, 3), "floor": floor}


def thresholds(levels: NDArray[Any], clean: NDArray[np.bool_]) -> dict[str, float]:
    """Probability of presence from which each degradation is a finding: one share of false
    alarms for all of them, as high as keeps the share of clean pictures with any of them below
    FALSE_ALARMS.
    """
    present = 1 - levels[clean][:, :, 0]  # (c, 8)
    for share in np.geomspace(FALSE_ALARMS, FALSE_ALARMS / 50, 60):
        least = np.maximum(np.quantile(present, 1 - share, axis=0), LEAST_THRESHOLD)
        if (present > least).any(1).mean() <= FALSE_ALARMS:
            break
    return {
        name: round(float(min(value, 0.98)), 3)
        for name, value in zip(DEGRADATIONS, least, strict=True)
    }


def _unseen(chosen: NDArray[np.bool_], split: NDArray[np.str_]) -> NDArray[np.bool_]:
    """Of the chosen, those of the validation part where they are enough: on pictures that were
    learned there are fewer false alarms than on new ones.
    """
    unseen = chosen & (split == "validation")
    return unseen if np.count_nonzero(unseen) >= LEAST_CLEAN else chosen


def costs(pictures: Pictures, quality: NDArray[Any]) -> dict[str, list[float]]:
    """Points that a degradation of level 1..5 takes off: medians over training-side ladders,
    made to rise; only pictures with that degradation alone, against the clean rung.
    """
    drops: dict[tuple[int, int], list[float]] = {}
    for number in np.unique(pictures.ladder[pictures.ladder >= 0]):
        rows = np.flatnonzero(pictures.ladder == number)
        start = rows[np.argmin(pictures.rung[rows])]
        for row in rows:
            present = np.flatnonzero(pictures.levels[row] > 0)
            if len(present) == 1:
                key = (int(present[0]), int(pictures.levels[row, present[0]]))
                drops.setdefault(key, []).append(float(quality[start] - quality[row]))
    table = {}
    for place, name in enumerate(DEGRADATIONS):
        each = [np.median(drops.get((place, level), [np.nan])) for level in range(1, 6)]
        known = np.isfinite(each)
        filled = (
            np.interp(range(5), np.flatnonzero(known), np.array(each)[known])
            if known.any()
            else np.zeros(5)
        )
        table[name] = [round(max(0.0, float(it)), 1) for it in np.maximum.accumulate(filled)]
    return table


def release(
    blend: Blend,
    pictures: Pictures,
    measures_of: NDArray[Any],
    damaged: synthesise.Synthetic,
    *,
    out: Path,
    facts: Mapping[str, Any],
) -> None:
    """Calibrate on the training side, write the folder and prove it.

    measures_of: (n, M) of `pictures`, at the offsets of serving.
    """
    network = blend.network
    quality, spread, levels = read(blend, pictures.features[:, 0], measures_of)
    judged = (pictures.split == "validation") & np.isfinite(pictures.mos)
    said = pictures.mos[judged]
    line = quality_calibration(quality[judged], said)
    calibrated = np.interp(quality, line["from"], line["to"])
    clean = _unseen((pictures.levels == 0).all(1), pictures.split)
    measures = damaged.measures[:, 0]
    card_facts = {
        "description": "Quality, degradations and regions of one picture; the default of vqmon.",
        "scale": "0..100; 100 x the mean opinion 0..1 of BIQ2021, so that MOS 1..5 = 1 + quality / 25",
        "licence": LICENCE,
        "calibration": {
            "quality": line,
            "uncertainty": uncertainty_calibration(calibrated[judged], spread[judged], said),
        },
        "findings": {
            "thresholds": thresholds(levels, clean),
            "region_threshold": 0.5,
            "costs": costs(pictures, calibrated),
        },
        **facts,
        "limits": LIMITS,
    }
    bins = network.heads.bins.tolist()
    example = {
        "patches": torch.from_numpy(damaged.patches[:2, 0]),
        "view": torch.from_numpy(damaged.view[:2, 0]),
        "measures": torch.from_numpy(measures[:2]),
    }
    outputs: dict[str, dict[str, Any]] = {
        "score": {
            "kind": "distribution",
            "meaning": "probability of each quality value; quality is the expectation",
            "values": bins,
        },
        "levels": {
            "kind": "levels",
            "meaning": f"probability of absent and of level 1 to 5, of {', '.join(DEGRADATIONS)}",
        },
        "regions": {
            "kind": "regions",
            "meaning": "probability that each of the nine cells is damaged",
        },
    }
    described = Described(
        NAME,
        str(facts["training"]["version"]),
        {"patches": (), "view": (), "measures": MEASURES},
        outputs,
        card_facts,
    )
    export(Blend(served(network), blend.measured, blend.levels), example, described, out)
    _prove(blend, damaged, out)


def _prove(blend: Blend, damaged: synthesise.Synthetic, out: Path) -> None:
    """Parity with torch, alone and in batches; and a probe of the measures."""
    rows = slice(0, 256)
    pictures = prepared(
        patches=damaged.patches[rows, 0],
        view=damaged.view[rows, 0],
        measures=damaged.measures[rows, 0],
    )
    card = dict(read_card(out).raw)
    backbone = blend.network.backbone
    card["inputs"]["measures"] |= {
        "low": backbone.low.tolist(),
        "high": backbone.high.tolist(),
        "probe": probe_measures().tolist(),
    }
    card["proof"] = {
        "largest difference from torch, points": round(parity(blend, out, pictures), 5),
        "largest difference alone or in a batch, points": round(batch_spread(out, pictures), 5),
    }
    write_card(out, card)


def _figures(evaluation: Path) -> dict[str, Any]:
    """The tables of trainer.evaluate without their details, which are long."""
    tables = json.loads(evaluation.read_text())["tables"]
    kept = ("title", "rows", "notes")
    return {name: {key: table[key] for key in kept} for name, table in tables.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.release", description=__doc__)
    parser.add_argument("--network", type=Path, required=True, help="of trainer.warmup")
    parser.add_argument("--heads", type=Path, required=True, help="of trainer.supervised or grpo")
    parser.add_argument("--features", type=Path, required=True, help="of trainer.supervised")
    parser.add_argument("--biq", type=Path, required=True, help="BIQ2021 as published")
    parser.add_argument("--views", type=Path, required=True, help="folder of trainer.views, train")
    parser.add_argument("--measured", type=Path, default=MODELS / "measures")
    parser.add_argument("--levels", type=Path, required=True, help="of trainer.levels")
    parser.add_argument("--synthetic", type=Path, required=True, help="of trainer.synthesise")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("--version", default="1")
    parser.add_argument("--figures", type=Path, help="JSON of trainer.evaluate, for the card")
    given = parser.parse_args(arguments)
    network = load_network(given.network)
    network.heads = head_files.load(given.heads)
    pictures = load(given.features)
    trained = load_checkpoint(given.network)
    facts = {
        "training": {
            "version": given.version,
            "commands": "see trainer/README.md",
            "warm-up steps": trained["step"],
            "terms of the data": TERMS,
            "pictures": {
                name: int((pictures.split == name).sum()) for name in ("train", "validation")
            },
            "split": "validation from the published train split by subset, near-duplicates "
            "(256-bit dHash, 10 bits) undivided; the published test split is only for figures",
        },
        "figures": _figures(given.figures) if given.figures else {},
    }
    damaged = synthesise.load(given.synthetic)
    parts = [it.views.measures[:, 0] for it in opinions(given.biq, given.views)]
    measures_of = np.concatenate([*parts, damaged.measures[:, 0]])  # in the order of `pictures`
    levels = level_files.load(given.levels)
    blend = Blend(network, measured_quality(given.measured), levels).eval()
    release(blend, pictures, measures_of, damaged, out=given.out, facts=facts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
