"""Heads on a frozen vision-language model: its hidden states as features, and what is released.

    python -m trainer.backbone features --model PLACE --set NAME=PLACE [--set ...] --out RUN \
        [--clean DIR --groups 400] [--device cuda] [--prompts FILE] [--cache FOLDER]
    python -m trainer.supervised --out RUN
    python -m trainer.grpo trainer/recipes/lite.yaml --features RUN/features.npz \
        --heads RUN/heads.pt --out RUN/grpo
    python -m trainer.backbone release --run RUN --heads RUN/grpo/heads.pt --out MODEL

`features` shows every picture to the model as serving shows it and keeps what it saw: RUN gets
`features.npz` and `backbone.json`. Pictures with opinions come from sets that have a reader, their
training part only; damage with exact labels is made from clean photographs, as for the default
model (`trainer.synthesise`), whole. Kept in parts of some pictures under a key of weights, prompts
and precision: a run that was interrupted goes on where it stopped, and another model, question or
limit of size begins anew.

The heads, their losses and their GRPO are those of the default model: only the features differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainer import synthesise
from trainer.datasets import READERS, Sample, content_groups, dhash, validation_part
from trainer.export import Described, batch_spread, export, parity, prepared, write_card
from trainer.extract import frame_of, read_picture
from trainer.groups import UNKNOWN, Pictures, load
from trainer.policies import heads as head_files
from trainer.policies.heads import Headed, Heads, trainable
from trainer.release import costs, quality_calibration, thresholds, uncertainty_calibration
from vqmon.domain import DEGRADATIONS, Frame
from vqmon.errors import VqmonError
from vqmon.patches.shown import shown
from vqmon.scorers.backbone import Backbone
from vqmon.scorers.card import read_card
from vqmon.writing.prompts import read_prompts

PART = 64
"""Pictures in one file of the cache."""

MOST_VALIDATION, SHARE = 1000, 10
"""Pictures of a set that choices are made on: a tenth, up to this."""

SPLIT_SEED = 20210

LIMITS = [
    "It sees one picture: freezes, stutter, black and lost media come from signals, beside it.",
    "Pictures are scaled to the limits of size that its card names before the model sees them.",
    "It needs the large model that it was trained on, the very weights.",
    "PQ and HLG pictures are refused; pictures under 32 pixels a side cannot be measured.",
]


@dataclass(frozen=True, slots=True)
class Part:
    """Some pictures as features; rows as in `trainer.groups.Pictures`, one draw each."""

    features: NDArray[np.float16]
    hashes: NDArray[np.bool_]
    levels: NDArray[np.int8]
    regions: NDArray[np.int8]
    ladder: NDArray[np.int64]
    rung: NDArray[np.float32]
    validation: NDArray[np.bool_]


class Cache:
    """Features on disk, by what made them."""

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.backbone = backbone
        self.folder = folder / key(backbone)
        self.folder.mkdir(parents=True, exist_ok=True)

    def opinions(self, samples: Sequence[Sample]) -> Iterator[Part]:
        """Of the pictures in order, PART at a time. Raises what `read_picture` raises: a set that
        silently gets shorter changes every figure.
        """
        for start in range(0, len(samples), PART):
            some = samples[start : start + PART]
            names = " ".join(f"{it.path.name} {it.path.stat().st_size}" for it in some)
            digest = hashlib.sha256(names.encode()).hexdigest()[:16]
            file = self.folder / f"pictures-{digest}.npz"
            if not file.is_file():
                _keep(file, self._seen([it.path for it in some]))
                print(f"  {start + len(some)} of {len(samples)}", flush=True)
            yield _part(file)

    def made(self, groups: int, sources: synthesise.Sources, seed: int) -> Iterator[Part]:
        """So many groups of damaged pictures, the same for the same seed and sources."""
        names = " ".join(it.path for _, pool in sources.pools for it in pool)
        digest = hashlib.sha256(names.encode()).hexdigest()[:8]
        for number in range(groups):
            file = self.folder / f"made-{digest}-{seed}-{number:05}.npz"
            if not file.is_file():
                _keep(file, self._damaged(number, sources, seed))
                if number % 10 == 9:
                    print(f"  {number + 1} of {groups} groups", flush=True)
            yield _part(file)

    def _seen(self, paths: Sequence[Path]) -> Part:
        frames = [read_picture(path) for path in paths]
        n = len(frames)
        return Part(
            self._features(frames),
            np.stack([dhash(it.planes[0].astype(np.float64)) for it in frames]),
            np.full((n, 8), UNKNOWN, np.int8),
            np.full((n, 9), UNKNOWN, np.int8),
            np.full(n, UNKNOWN, np.int64),
            np.zeros(n, np.float32),
            np.zeros(n, bool),
        )

    def _damaged(self, number: int, sources: synthesise.Sources, seed: int) -> Part:
        samples, colour, source, _ = synthesise.made(number, sources, seed)
        frames, n = [frame_of(it.picture, colour) for it in samples], len(samples)
        regions = [np.full(9, UNKNOWN) if it.regions is None else it.regions for it in samples]
        levels = [[it.levels.get(name, 0) for name in DEGRADATIONS] for it in samples]
        rungs = np.array([it.rung for it in samples])
        return Part(
            self._features(frames),
            np.zeros((n, 256), bool),
            np.array(levels, np.int8),
            np.stack(regions).astype(np.int8),
            np.where(rungs >= 0, number, UNKNOWN).astype(np.int64),
            rungs.astype(np.float32),
            np.full(n, bool(source.split)),
        )

    def _features(self, frames: Sequence[Frame]) -> NDArray[np.float16]:
        rows = [self.backbone.features(np.asarray(shown(it), np.uint8)) for it in frames]
        return np.stack(rows).astype(np.float16)


def key(backbone: Backbone) -> str:
    """Changes with weights, prompts, limits of size, pooling and precision."""
    facts = {name: value for name, value in backbone.facts.items() if name != "place"}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def extract(
    cache: Cache, sets: Mapping[str, Path], made: Sequence[Part] | Iterator[Part] = ()
) -> Pictures:
    """Training and validation pictures of all sets, then made ones. Raises ValueError when there
    is nothing with opinions.
    """
    parts = [_told(cache, name, place) for name, place in sets.items()]
    if not parts:
        raise ValueError("name at least one --set: heads learn from opinions first of all")
    parts += [_synthetic(part) for part in made]
    return Pictures(
        **{name: np.concatenate([it[name] for it in parts]) for name in parts[0]},
    )


def _told(cache: Cache, name: str, place: Path) -> dict[str, NDArray[Any]]:
    """The part of a set that may be learned from, and of it what is chosen by."""
    samples = READERS[name](place)
    ours = [it for it in samples if it.split in ("train", "validation")] or samples
    print(f"{name}: {len(ours)} pictures", flush=True)
    parts = list(cache.opinions(ours))
    held = _held_out(ours, np.concatenate([it.hashes for it in parts]))
    n = len(ours)
    spread = [np.nan if it.std is None else it.std for it in ours]
    return {
        "features": np.concatenate([it.features for it in parts])[:, None],
        "mos": np.array([it.quality for it in ours], np.float32),
        "sigma": np.array(spread, np.float32),
        "dataset": np.full(n, name),
        "subset": np.array([it.subset for it in ours]),
        "split": np.where(held, "validation", "train"),
        "levels": np.concatenate([it.levels for it in parts]),
        "regions": np.concatenate([it.regions for it in parts]),
        "ladder": np.concatenate([it.ladder for it in parts]),
        "rung": np.concatenate([it.rung for it in parts]),
    }


def _held_out(samples: Sequence[Sample], hashes: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(n,) what choices are made on: the set's own validation part, else a tenth that shares no
    content with the rest.
    """
    own = np.array([it.split == "validation" for it in samples])
    if own.any():
        return own
    groups = content_groups(hashes, [it.group for it in samples])
    size = min(MOST_VALIDATION, max(3, len(samples) // SHARE))
    rng = np.random.default_rng(SPLIT_SEED)
    return validation_part([it.subset for it in samples], groups, size, rng)


def _synthetic(part: Part) -> dict[str, NDArray[Any]]:
    n = len(part.rung)
    return {
        "features": part.features[:, None],
        "mos": np.full(n, np.nan, np.float32),
        "sigma": np.full(n, np.nan, np.float32),
        "dataset": np.full(n, "synthetic"),
        "subset": np.full(n, "synthetic"),
        "split": np.where(part.validation, "validation", "train"),
        "levels": part.levels,
        "regions": part.regions,
        "ladder": part.ladder,
        "rung": part.rung,
    }


def release(
    heads: Heads, pictures: Pictures, backbone: Mapping[str, Any], out: Path, described: Described
) -> dict[str, float]:
    """Calibrate on the validation pictures, write the model folder, and prove that it scores the
    features as torch does; the largest differences, points.

    backbone: facts of the large model. described: name, version and facts beside these.
    """
    quality, spread, levels = _read(heads, pictures)
    judged = (pictures.split == "validation") & np.isfinite(pictures.mos)
    line = quality_calibration(quality[judged], pictures.mos[judged])
    calibrated = np.interp(quality, line["from"], line["to"])
    clean = (pictures.levels == 0).all(1)
    if not clean.any():
        raise ValueError(
            "no clean picture among the features, which say from where on a fault is one: extract "
            "them again with --clean"
        )
    facts = {
        "kind": "backbone",
        "description": "Heads on a frozen vision-language model.",
        "scale": "0..100; MOS 1..5 = 1 + quality / 25",
        "backbone": dict(backbone),
        "calibration": {
            "quality": line,
            "uncertainty": uncertainty_calibration(
                calibrated[judged], spread[judged], pictures.mos[judged]
            ),
        },
        "findings": {
            "thresholds": thresholds(levels, clean),
            "region_threshold": 0.5,
            "costs": costs(pictures, calibrated),
        },
        **described.facts,
        "limits": LIMITS,
    }
    network = Headed(nn.Identity(), heads).eval()
    rows = pictures.features[:256, 0].astype(np.float32)
    whole = Described(described.name, described.version, described.inputs, described.outputs, facts)
    export(network, {"features": torch.from_numpy(rows[:2])}, whole, out)
    asked = prepared(features=rows)
    proof = {
        "largest difference from torch, points": round(parity(network, out, asked), 5),
        "largest difference alone or in a batch, points": round(batch_spread(out, asked), 5),
    }
    write_card(out, dict(read_card(out).raw) | {"proof": proof})
    return proof


def _read(heads: Heads, pictures: Pictures) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Raw quality and spread (n,), level probabilities (n, 8, 6)."""
    features = torch.from_numpy(pictures.features[:, 0]).float()
    with torch.no_grad():
        score, levels, _ = heads.eval()(features)
        quality = score @ heads.bins
        spread = (score * (heads.bins - quality[:, None]).square()).sum(-1).sqrt()
    return quality.numpy(), spread.numpy(), levels.numpy()


def _outputs(heads: Heads) -> dict[str, dict[str, Any]]:
    return {
        "score": {
            "kind": "distribution",
            "meaning": "probability of each quality value; quality is the expectation",
            "values": heads.bins.tolist(),
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


def _keep(file: Path, part: Part) -> None:
    unfinished = file.with_suffix(".unfinished.npz")
    np.savez(unfinished, allow_pickle=False, **{n: getattr(part, n) for n in Part.__slots__})
    unfinished.replace(file)


def _part(file: Path) -> Part:
    with np.load(file) as stored:
        return Part(**{name: stored[name] for name in Part.__slots__})


def main(arguments: Sequence[str] | None = None) -> int:
    """0; 2 with a message when something that was named cannot be used."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except (VqmonError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.backbone", description=__doc__)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("features", help="show pictures to the model, keep what it saw")
    one.add_argument("--model", required=True, help="checkpoint folder or hub name")
    one.add_argument("--set", action="append", default=[], metavar="NAME=PLACE", help="opinions")
    one.add_argument("--clean", type=Path, help="clean photographs, see README")
    one.add_argument("--groups", type=int, default=400, help="groups of six made pictures")
    one.add_argument("--seed", type=int, default=1, help="of the made pictures")
    one.add_argument("--prompts", type=Path, help="YAML, instead of those beside the checkpoint")
    one.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    one.add_argument("--threads", type=int, default=1, help="of the CPU")
    one.add_argument("--cache", type=Path, default=Path("trainer/data/backbone"))
    one.add_argument("--out", type=Path, required=True, help="folder of the run")
    one.set_defaults(run=_features)
    two = commands.add_parser("release", help="heads to a model folder")
    two.add_argument("--run", dest="folder", type=Path, required=True, help="of `features`")
    two.add_argument("--heads", type=Path, required=True, help="of trainer.supervised or grpo")
    two.add_argument("--out", type=Path, required=True, help="model folder to write")
    two.add_argument("--name", default="heads")
    two.add_argument("--version", default="1")
    two.add_argument("--licence", default="that of the large model and of the data")
    two.set_defaults(run=_release)
    return parser


def _features(given: argparse.Namespace) -> None:
    sets = dict(_pair(text) for text in given.set)
    prompts = read_prompts(given.prompts) if given.prompts else None
    backbone = Backbone(given.model, prompts=prompts, device=given.device, threads=given.threads)
    cache = Cache(given.cache, backbone)
    made: Sequence[Part] | Iterator[Part] = ()
    if given.clean:
        sources = synthesise.find_sources(given.clean, None, None)
        made = cache.made(given.groups, sources, given.seed)
    found = extract(cache, sets, made)
    found.save(given.out / "features.npz")
    text = json.dumps(backbone.facts, indent=1, ensure_ascii=False)
    (given.out / "backbone.json").write_text(text + "\n", encoding="utf-8")
    print(f"{backbone.name}: {len(found)} pictures, {found.features.shape[2]} features each")


def _release(given: argparse.Namespace) -> None:
    heads, pictures = head_files.load(given.heads), load(given.folder / "features.npz")
    backbone = json.loads((given.folder / "backbone.json").read_text(encoding="utf-8"))
    names = sorted(set(pictures.dataset.tolist()))
    training = {
        "pictures": {
            f"{name}, {split}": int(((pictures.dataset == name) & (pictures.split == split)).sum())
            for name in names
            for split in ("train", "validation")
        },
        "trained parameters": trainable(heads),
        "commands": "see trainer/README.md",
    }
    facts = {"licence": given.licence, "training": training, "figures": {}}
    described = Described(given.name, given.version, {"features": ()}, _outputs(heads), facts)
    proof = release(heads, pictures, backbone, given.out, described)
    print(f"{given.out}: {trainable(heads):,} trained parameters", *proof.items(), sep="\n  ")


def _pair(text: str) -> tuple[str, Path]:
    name, _, place = text.partition("=")
    if name not in READERS or not place:
        raise ValueError(f"{text!r} is not NAME=PLACE with a NAME of {', '.join(sorted(READERS))}")
    return name, Path(place)


if __name__ == "__main__":
    sys.exit(main())
