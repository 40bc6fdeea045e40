"""Heads on the frozen backbone, supervised: the start of GRPO, and what it is compared with.

    python -m trainer.supervised --network WARMUP.pt --biq DIR --views FOLDER \
        --synthetic FOLDER --out FOLDER [--teachers 4] [--more STEPS] [--targets FILE]
    python -m trainer.supervised --out FOLDER

FOLDER gets `features.npz` (every training and validation picture as features of the frozen
backbone, through several draws of offsets) and `heads.pt`. The heads begin anew: `--teachers`
sets learn apart, from other draws, and their mean distributions teach the shipped set, which also
learns what they learned. The second form takes the `features.npz` that FOLDER holds, of whatever backbone.
`--targets` adds what a large model says of further pictures (`trainer.distil`), as lessons half
as heavy; nothing is chosen by them. `--more` goes on with the supervised losses from `heads.pt` for so many
steps and writes `heads-more.pt`: the fair comparison of a GRPO run of as many steps.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer import distil, synthesise
from trainer.distil import Lessons, Taught
from trainer.groups import UNKNOWN, Pictures, load
from trainer.policies import heads as head_files
from trainer.policies.heads import Heads, Shape
from trainer.policies.lite import Lite
from trainer.recipe import held_out
from trainer.warmup import (
    WEIGHTS,
    Opinions,
    damage_losses,
    load_network,
    opinion_losses,
    opinions,
    taught_loss,
)

BATCH = 256
"""Pictures with opinions in a batch; as many synthetic ones stand beside them."""

TAUGHT = "taught"
"""The data set of pictures that a large model scored."""

LESSONS = {"close": 1.0, "correlation": 0.5, "order": 0.3, "likelihood": 0.1} | {
    name: WEIGHTS[name] for name in ("levels", "regions", "ladder", "clean")
}


@dataclass(frozen=True, slots=True)
class Course:
    """How heads learn. taught: weight of the teachers' score distributions; targets: of what a
    large model says of further pictures.
    """

    steps: int = 2500
    lr: float = 1.5e-3
    weight_decay: float = 0.05
    dropout: float = 0.3
    taught: float = 0.5
    targets: float = 0.5
    look_every: int = 250
    seed: int = 1


@torch.no_grad()
def featured(
    network: Lite, patches: np.ndarray, view: np.ndarray, measures: np.ndarray
) -> np.ndarray:
    """(n, D, ...) inputs -> (n, D, F) float16 features; a view without draws stands for all."""
    found = []
    for start in range(0, len(patches), 32):
        some = slice(start, start + 32)
        p, m = torch.from_numpy(patches[some]), torch.from_numpy(measures[some])
        v = torch.from_numpy(view[some])
        v = v if v.ndim == 5 else v[:, None].expand(-1, p.shape[1], -1, -1, -1)
        inputs = (p.flatten(0, 1), v.flatten(0, 1), m.flatten(0, 1))
        found.append(network.backbone(*inputs).unflatten(0, p.shape[:2]).half().numpy())
    return np.concatenate(found)


def pictures(network: Lite, parts: dict[str, Opinions], damaged: synthesise.Synthetic) -> Pictures:
    """All training and validation pictures as features, with what is known of them."""
    features, rows = [], []
    for name, part in parts.items():
        v = part.views
        features.append(featured(network, v.patches, v.view, v.measures))
        rows += [(name, subset, mos) for subset, mos in zip(part.subset, part.quality, strict=True)]
    features.append(featured(network, damaged.patches, damaged.view, damaged.measures))
    draws = max(it.shape[1] for it in features)
    whole = np.concatenate([_drawn_up(it, draws) for it in features])
    told, made = len(rows), len(damaged.split)
    unknown = np.full(told, UNKNOWN)
    return Pictures(
        features=whole,
        mos=np.concatenate(
            [np.array([it[2] for it in rows], np.float32), np.full(made, np.nan, np.float32)]
        ),
        sigma=np.full(told + made, np.nan, np.float32),
        dataset=np.array(["BIQ2021"] * told + ["synthetic"] * made),
        subset=np.concatenate([np.array([it[1] for it in rows]), np.full(made, "synthetic")]),
        split=np.concatenate(
            [np.array([it[0] for it in rows]), np.where(damaged.split == 0, "train", "validation")]
        ),
        levels=np.concatenate(
            [np.full((told, 8), UNKNOWN, np.int8), damaged.levels.astype(np.int8)]
        ),
        regions=np.concatenate(
            [np.full((told, 9), UNKNOWN, np.int8), damaged.regions.astype(np.int8)]
        ),
        ladder=np.concatenate([unknown, damaged.ladder]).astype(np.int64),
        rung=np.concatenate([unknown, damaged.rung]).astype(np.float32),
    )


def taught_pictures(network: Lite, taught: Taught) -> Pictures:
    """Training pictures of the data set TAUGHT, subset the teacher's name; mos and sigma are what
    the teacher states.
    """
    v, lessons, n = taught.views, taught.lessons, len(taught)
    return Pictures(
        features=featured(network, v.patches, v.view, v.measures),
        mos=lessons.quality,
        sigma=lessons.uncertainty,
        dataset=np.full(n, TAUGHT),
        subset=np.full(n, taught.teacher),
        split=np.full(n, "train"),
        levels=lessons.levels,
        regions=np.full((n, 9), UNKNOWN, np.int8),
        ladder=np.full(n, UNKNOWN, np.int64),
        rung=np.zeros(n, np.float32),
    )


def joined(one: Pictures, other: Pictures) -> Pictures:
    """All pictures of both, of one backbone; draws are repeated where one has fewer."""
    draws = max(one.features.shape[1], other.features.shape[1])
    parts = [replace(it, features=_drawn_up(it.features, draws)) for it in (one, other)]
    return Pictures(
        **{
            field.name: np.concatenate([getattr(it, field.name) for it in parts])
            for field in fields(Pictures)
        }
    )


def _drawn_up(features: np.ndarray, draws: int) -> np.ndarray:
    """As many draws for all: those that there are, again from the first."""
    return features[:, np.arange(draws) % features.shape[1]]


def learn(
    heads: Heads,
    known: Pictures,
    course: Course,
    *,
    teachers: Sequence[Heads] = (),
    told: bool = True,
) -> Heads:
    """Supervised training on cached features; the weights of the best look are kept."""
    torch.manual_seed(course.seed)
    rng = np.random.default_rng(course.seed)
    train, judged = known.part("train"), known.part("validation")
    further = train.dataset == TAUGHT
    opinion, lessons = np.flatnonzero(np.isfinite(train.mos) & ~further), np.flatnonzero(further)
    units = _units(train)
    features = torch.from_numpy(train.features)
    optimiser = torch.optim.AdamW(
        heads.parameters(), lr=course.lr, weight_decay=course.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, course.lr, total_steps=course.steps, pct_start=0.1
    )
    best, kept = -np.inf, heads.state_dict()
    for step in range(1, course.steps + 1):
        heads.train()
        rows = rng.choice(opinion, min(BATCH, len(opinion)), replace=False)
        others = _drawn_units(units, rng)
        every = np.concatenate([rows, others])
        draws = rng.integers(train.features.shape[1], size=len(every))
        seen = features[every, draws].float()
        loss = _loss(heads, seen, train, rows, others)
        if teachers:
            loss = loss + course.taught * _from_teachers(heads, seen, teachers)
        if len(lessons):
            some = rng.choice(lessons, min(BATCH // 4, len(lessons)), replace=False)
            loss = loss + course.targets * _from_targets(heads, train, some, rng)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(heads.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % course.look_every == 0 or step == course.steps:
            found = held_out(heads, judged) | level_figures(heads, judged)
            merit = found["srcc"] + found["plcc"] + 0.5 * found["exact"]
            if merit > best:
                best, kept = merit, {k: v.clone() for k, v in heads.state_dict().items()}
            if told:
                print(
                    f"  step {step}: " + " ".join(f"{k} {v:.4f}" for k, v in found.items()),
                    flush=True,
                )
    heads.load_state_dict(kept)
    return heads.eval()


def _loss(
    heads: Heads, seen: Tensor, train: Pictures, rows: np.ndarray, others: np.ndarray
) -> Tensor:
    score, levels, regions = heads.logits(heads.trunk(seen))
    n = len(rows)
    truth = {
        "levels": torch.from_numpy(train.levels[others]),
        "regions": torch.from_numpy(train.regions[others]),
        "index": torch.full((len(others),), float("nan")),
        "ladder": torch.from_numpy(train.ladder[others]),
        "rung": torch.from_numpy(train.rung[others]),
    }
    given = (score[n:], levels[n:], regions[n:], torch.zeros(len(others)))
    losses = opinion_losses(score[:n], torch.from_numpy(train.mos[rows]), heads.bins)
    losses |= damage_losses(given, truth, heads.bins)
    return sum((LESSONS[name] * losses[name] for name in LESSONS), torch.zeros(()))


def _from_teachers(heads: Heads, seen: Tensor, teachers: Sequence[Heads]) -> Tensor:
    """Cross-entropy with the mean distributions of the teachers, scores and levels."""
    with torch.no_grad():
        said = [teacher(seen) for teacher in teachers]
        score, levels = (torch.stack([it[i] for it in said]).mean(0) for i in (0, 1))
    ours = heads.logits(heads.trunk(seen))
    of_score = -(score * ours[0].log_softmax(-1)).sum(-1).mean()
    of_levels = -(levels * ours[1].log_softmax(-1)).sum(-1).mean()
    return of_score + of_levels


def _from_targets(
    heads: Heads, train: Pictures, rows: np.ndarray, rng: np.random.Generator
) -> Tensor:
    draws = rng.integers(train.features.shape[1], size=len(rows))
    score, levels, _ = heads.logits(
        heads.trunk(torch.from_numpy(train.features[rows, draws]).float())
    )
    said = Lessons(train.mos[rows], train.sigma[rows], train.levels[rows])
    return taught_loss(score, levels, said, heads.bins)


def level_figures(heads: Heads, judged: Pictures) -> dict[str, float]:
    """Of the synthetic pictures: recall and exact level of what is present, false alarms."""
    made = np.flatnonzero((judged.levels >= 0).any(1))
    if not len(made):
        return {"recall": 0.0, "exact": 0.0, "false": 0.0}
    with torch.no_grad():
        levels = heads.eval()(torch.from_numpy(judged.features[made, 0]).float())[1]
    said, truth = levels.argmax(-1).numpy(), judged.levels[made]
    present, clean = truth > 0, (truth == 0).all(1)
    return {
        "recall": float((said > 0)[present].mean()),
        "exact": float((said == truth)[present].mean()),
        "false": float((said > 0)[clean].any(1).mean()) if clean.any() else 0.0,
    }


def _drawn_units(units: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Rows of some ladders and single pictures; none where nothing was made."""
    if not units:
        return np.zeros(0, np.int64)
    return np.concatenate([units[i] for i in rng.integers(len(units), size=BATCH // 4)])


def _units(train: Pictures) -> list[np.ndarray]:
    """Synthetic rows: each ladder together, single ones alone."""
    made = np.flatnonzero(train.dataset == "synthetic")
    by_ladder: dict[int, list[int]] = {}
    alone = []
    for row in made.tolist():
        number = int(train.ladder[row])
        if number < 0:
            alone.append(np.array([row]))
        else:
            by_ladder.setdefault(number, []).append(row)
    return [np.array(it) for it in by_ladder.values()] + alone


def new_heads(known: Pictures, course: Course) -> Heads:
    torch.manual_seed(course.seed)
    heads = Heads(Shape(features=known.features.shape[2], dropout=course.dropout))
    rows = known.part("train")
    heads.standardise(torch.from_numpy(rows.features[:, 0]).float())
    return heads


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.supervised", description=__doc__)
    parser.add_argument("--network", type=Path, help="of trainer.warmup")
    parser.add_argument("--biq", type=Path, help="BIQ2021 as published")
    parser.add_argument("--views", type=Path, help="folder of trainer.views, train")
    parser.add_argument("--synthetic", type=Path, help="of trainer.synthesise")
    parser.add_argument("--targets", type=Path, help="of trainer.distil: lessons of a large model")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--teachers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=Course().steps)
    parser.add_argument("--more", type=int, default=0, help="steps on from heads.pt")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    try:
        _run(given)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _run(given: argparse.Namespace) -> None:
    known, course = _known(given), Course(seed=given.seed, steps=given.steps)
    if given.more:
        start = head_files.load(given.out / "heads.pt")
        course = replace(course, steps=given.more, lr=course.lr / 10)
        head_files.save(given.out / "heads-more.pt", learn(start, known, course))
        return
    teachers = []
    for number in range(given.teachers):
        print(f"teacher {number + 1}")
        own = replace(course, seed=100 * given.seed + number)
        teachers.append(learn(new_heads(known, own), known, own))
    print("the heads that ship")
    head_files.save(
        given.out / "heads.pt", learn(new_heads(known, course), known, course, teachers=teachers)
    )


def _known(given: argparse.Namespace) -> Pictures:
    """What is learned from: `features.npz` of the run, made where it is not there, and targets."""
    file = given.out / "features.npz"
    if not file.is_file():
        if None in (given.network, given.biq, given.views, given.synthetic):
            raise ValueError(
                f"{file} is not there: name --network, --biq, --views and --synthetic to have it "
                "made, or make it with python -m trainer.backbone"
            )
        learning, judged = opinions(given.biq, given.views)
        parts = {"train": learning, "validation": judged}
        pictures(load_network(given.network), parts, synthesise.load(given.synthetic)).save(file)
    known = load(file)
    if given.targets is None:
        return known
    if given.network is None:
        raise ValueError("--targets needs the --network that the features come from")
    taught = distil.taught(given.targets, draws=known.features.shape[1])
    print(f"{len(taught)} pictures with targets of {taught.teacher}")
    return joined(known, taught_pictures(load_network(given.network), taught))


if __name__ == "__main__":
    sys.exit(main())
