"""The supervised start: backbone and heads learn from opinions and from damage that is known.

    python -m trainer.warmup --biq DIR --views FOLDER --synthetic FOLDER --out FOLDER --minutes 45 \
        [--targets FILE]

A third of each batch has opinions (BIQ2021's train split), the rest is synthetic
(`trainer.synthesise`), of which there is more, so that both are seen about as often:

    opinions    closeness + (1 - PLCC) + order of pairs + likelihood of the score distribution
    synthetic   cross-entropy of each degradation's level where it is known, of each cell's damage
                where it is known; order of the scores inside a ladder; clean photographs are
                pulled up to a floor; the full-reference index as an auxiliary target
    both        the measures of a picture, from what the convolutions alone see of it
    targets     with --targets, a few pictures more that a large model scored (`trainer.distil`):
                its score as a distribution, the levels that it named

Pictures with opinions teach no degradation: nobody said which they have. Ladders teach no
absolute score: nobody said how good they are. One or two patches of each cell are looked at in a
step, drawn anew each time; validation looks at all of them, at the fixed offsets of serving.

The run is over after so many minutes (or steps); the rate follows the share that is done, so that
a run on a busy machine is shorter, not cut off. It goes on from `last.pt` when started again.
"""

from __future__ import annotations

import argparse
import copy
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from trainer import checkpoints, evaluate, synthesise
from trainer.datasets import Sample, biq2021, content_groups, validation_part
from trainer.policies.lite import Inputs, Lite, lite
from trainer.views import Views, views
from vqmon.measures import MEASURES

if TYPE_CHECKING:
    from trainer.distil import Lessons, Taught

VALIDATION, SPLIT_SEED = 1000, 20210
"""Pictures of the train split that choices are made on, and the draw that chose them."""

OPINIONS, DAMAGED = 32, 64
"""Pictures of each kind in a batch. With half and half, what was learned of opinions was
forgotten again on other pictures after 2,700 steps, while damage was still being learned.
"""

LESSON = 16
"""Pictures with a large model's targets in a batch, where there are targets."""

LADDER_STEP = 6.0
"""Points between two rungs at which the pull of a ladder has mostly faded."""

CLEAN_FLOOR = 76.0
"""Clean photographs are pulled up to this quality, no further."""

LABELS = ("levels", "regions", "index", "ladder", "rung")
"""What is known of a synthetic picture."""

WEIGHTS = {
    "close": 1.0, "correlation": 0.5, "order": 0.3, "likelihood": 0.1,
    "measures": 0.3, "levels": 1.0, "regions": 0.3, "ladder": 0.3, "clean": 0.2, "index": 0.5,
    "taught": 0.5,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Opinions:
    """Pictures people judged. quality: (n,) 0..100. subset: (n,). rows of `views`."""

    views: Views
    quality: NDArray[np.float32]
    subset: NDArray[np.str_]

    def rows(self, rows: NDArray[Any]) -> Opinions:
        v = self.views
        part = Views(v.patches[rows], v.view[rows], v.measures[rows], v.hashes[rows])
        return Opinions(part, self.quality[rows], self.subset[rows])


@dataclass(frozen=True, slots=True)
class Options:
    """One run. steps: ends it early; minutes: of training, over all resumptions."""

    minutes: float = 45.0
    steps: int = 10**9
    lr: float = 2e-3
    weight_decay: float = 0.02
    decay: float = 0.998
    look_every: int = 300
    seed: int = 1


def opinions(biq: Path, folder: Path, draws: int = 4) -> tuple[Opinions, Opinions]:
    """(training, validation) parts of BIQ2021's train split; near-duplicates are not divided."""
    samples = [it for it in biq2021(biq) if it.split == "train"]
    whole = _opinions(samples, views([it.path for it in samples], folder, draws=draws))
    chosen = validation_part(
        whole.subset.tolist(),
        content_groups(whole.views.hashes),
        VALIDATION,
        np.random.default_rng(SPLIT_SEED),
    )
    held = np.zeros(len(samples), bool)
    held[chosen] = True
    return whole.rows(np.flatnonzero(~held)), whole.rows(np.flatnonzero(held))


def _opinions(samples: Sequence[Sample], seen: Views) -> Opinions:
    return Opinions(
        seen,
        np.array([it.quality for it in samples], np.float32),
        np.array([it.subset for it in samples]),
    )


class Synthetic:
    """Synthetic pictures of one split, drawn a whole ladder at a time; of what was made more often
    more is drawn, but only as the root of it, so that nothing else is seen too little.
    """

    def __init__(self, held: Any, split: int) -> None:
        self.held = held
        rows = np.flatnonzero(held.split == split)
        alone = held.ladder[rows] < 0
        ladders = np.unique(held.ladder[rows][~alone])
        by_ladder: dict[int, list[int]] = {number: [] for number in ladders.tolist()}
        for row in rows[~alone].tolist():
            by_ladder[int(held.ladder[row])].append(row)
        self.units = [np.array(it) for it in by_ladder.values()] + [
            np.array([row]) for row in rows[alone].tolist()
        ]
        sorts = np.array([_sort(held.kinds[unit[-1]]) for unit in self.units])
        _, members, counts = np.unique(sorts, return_inverse=True, return_counts=True)
        weights = np.array([len(it) for it in self.units]) / np.sqrt(counts[members])
        self._chance = weights / weights.sum()
        self.rows = rows

    def draw(self, rng: np.random.Generator, least: int) -> NDArray[np.int64]:
        """Rows of whole ladders and single pictures, `least` of them, cut there."""
        units = rng.choice(len(self.units), least, p=self._chance)
        return np.concatenate([self.units[i] for i in units])[:least]


def _sort(kind: str) -> str:
    """blur:gaussian-local -> blur; several kinds are a sort of their own."""
    return "several" if "+" in kind else kind.partition(":")[0]


class Given(NamedTuple):
    """Logits of score (B, bins), levels (B, 8, 6) and regions (B, 9, 2); the full-reference
    index / 100 (B,); how wrong the measures were guessed, in deviations.
    """

    score: Tensor
    levels: Tensor
    regions: Tensor
    likeness: Tensor
    wrong_measures: Tensor


class Student(nn.Module):
    """Lite, with the auxiliary read-outs that only training uses."""

    def __init__(self, network: Lite) -> None:
        super().__init__()
        self.network = network
        size = network.backbone.size
        self.index = nn.Linear(size.features, 1)
        self.measures = nn.Linear(size.features - size.measures, len(MEASURES))

    def forward(self, seen: Inputs) -> Given:
        backbone, heads = self.network.backbone, self.network.heads
        features = backbone(*seen)
        score, levels, regions = heads.logits(heads.trunk(features))
        guessed = self.measures(features[:, : self.measures.in_features])
        wrong = functional.smooth_l1_loss(guessed, backbone.standard(seen.measures))
        return Given(score, levels, regions, self.index(features).squeeze(-1), wrong)


def opinion_losses(score: Tensor, said: Tensor, bins: Tensor) -> dict[str, Tensor]:
    """(B, bins) logits, (B,) opinions 0..100."""
    given = score.softmax(-1)
    quality = given @ bins
    a, b = quality - quality.mean(), said - said.mean()
    apart = said - said.roll(1)
    told = (apart.abs() > 4).float()  # less is within the noise of a mean opinion
    wrong = functional.softplus(-(quality - quality.roll(1)) * apart.sign() / 5)
    target = torch.softmax(-0.5 * ((bins - said[:, None]) / 4) ** 2, -1)
    return {
        "close": functional.smooth_l1_loss(quality / 10, said / 10),
        "correlation": 1 - (a * b).sum() / (a.norm() * b.norm() + 1e-6),
        "order": (wrong * told).sum() / told.sum().clamp(min=1),
        "likelihood": -(target * score.log_softmax(-1)).sum(-1).mean(),
    }


def damage_losses(
    given: tuple[Tensor, Tensor, Tensor, Tensor], truth: Mapping[str, Tensor], bins: Tensor
) -> dict[str, Tensor]:
    """truth: levels (B, 8), regions (B, 9), index (B,), ladder and rung (B,); unknown: -1, NaN."""
    score, levels, regions, index = given
    quality = score.softmax(-1) @ bins
    known = truth["index"].isfinite()
    intact = (truth["levels"] == 0).all(1)
    wrong_index = (index - truth["index"].nan_to_num() / 100).abs()
    return {
        "levels": level_loss(levels, truth["levels"]),
        "regions": region_loss(regions, truth["regions"]),
        "ladder": ladder_loss(quality, truth["ladder"], truth["rung"]),
        "clean": _mean(functional.relu(CLEAN_FLOOR - quality) / 10, intact),
        "index": _mean(wrong_index, known),
    }


def level_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """(B, 8, 6), (B, 8) -> cross-entropy over what is known. A level's neighbours get a tenth
    each; what is present counts double, since most of what is known is absence.
    """
    table = torch.eye(6)
    for level in range(1, 6):
        for beside in (level - 1, level + 1):
            if 1 <= beside <= 5:
                table[level, level] -= 0.1
                table[level, beside] += 0.1
    target = table.to(logits)[truth.clamp(min=0).long()]
    each = -(target * logits.log_softmax(-1)).sum(-1)
    weight = (truth >= 0).float() * (1 + (truth > 0).float())
    return (each * weight).sum() / weight.sum().clamp(min=1) * 4


def region_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """(B, 9, 2), (B, 9)"""
    each = functional.cross_entropy(
        logits.flatten(0, 1), truth.flatten().clamp(min=0).long(), reduction="none"
    )
    return _mean(each, truth.flatten() >= 0)


def ladder_loss(quality: Tensor, ladder: Tensor, rung: Tensor) -> Tensor:
    """Every rung above every lower one of its ladder; no absolute target."""
    same = (ladder[:, None] == ladder) & (ladder >= 0)[:, None]
    above = same & (rung[:, None] < rung)
    given = quality[:, None] - quality
    return _mean(functional.softplus(-given / LADDER_STEP * 2), above)


def taught_loss(score: Tensor, levels: Tensor, said: Lessons, bins: Tensor) -> Tensor:
    """Logits (B, bins) and (B, 8, 6): cross-entropy with the normal distribution that the teacher
    states, and with the levels that it named.

    A teacher that is sure teaches a narrow answer, one that is not a wide one; nobody is taken to
    be surer than half the distance of two bins.
    """
    spread = torch.from_numpy(said.uncertainty).clamp(min=float(bins[1] - bins[0]) / 2)
    away = (bins - torch.from_numpy(said.quality)[:, None]) / spread[:, None]
    target = torch.softmax(-0.5 * away**2, -1)
    likelihood = -(target * score.log_softmax(-1)).sum(-1).mean()
    return likelihood + level_loss(levels, torch.from_numpy(said.levels))


def _mean(values: Tensor, where: Tensor) -> Tensor:
    where = where.float()
    return (values * where).sum() / where.sum().clamp(min=1)


@dataclass(slots=True)
class Run:
    """Where training stands. average: of the weights, what is looked at and kept; spent: seconds
    of training; best: the highest merit so far.
    """

    student: Student
    average: Student
    optimiser: torch.optim.Optimizer
    step: int = 0
    spent: float = 0.0
    best: float = -math.inf

    @classmethod
    def begun(cls, student: Student, options: Options, last: Path) -> Run:
        """A new one, or the one that `last` holds."""
        optimiser = torch.optim.AdamW(_decayed(student, options.weight_decay), lr=options.lr)
        run = cls(student, copy.deepcopy(student).eval().requires_grad_(False), optimiser)
        if last.exists():
            held = checkpoints.load(last)
            student.load_state_dict(held["student"])
            run.average.load_state_dict(held["average"])
            optimiser.load_state_dict(held["optimiser"])
            run.step, run.spent, run.best = held["step"], held["spent"], held["best"]
        return run

    def learn(self, losses: Mapping[str, Tensor], options: Options, done: float) -> None:
        """One step of the optimiser; the average follows."""
        for group in self.optimiser.param_groups:
            group["lr"] = options.lr * _rate(done)
        loss = sum((WEIGHTS[name] * value for name, value in losses.items()), torch.zeros(()))
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.student.parameters(), 5.0)
        self.optimiser.step()
        self.step += 1
        _follow(self.average, self.student, min(options.decay, (1 + self.step) / (10 + self.step)))

    def keep(self, out: Path, found: Mapping[str, float]) -> None:
        """Write `last.pt`, and `best.pt` when nothing was better so far."""
        merit = found["srcc"] + found["plcc"] + 0.5 * found.get("exact", 0.0)
        network = {"network": self.average.network.state_dict(), "figures": dict(found)}
        if merit > self.best:
            self.best = merit
            checkpoints.save(out / "best.pt", network | {"step": self.step})
        state = {
            name: getattr(self, name).state_dict() for name in ("student", "average", "optimiser")
        }
        numbers = {name: getattr(self, name) for name in ("step", "spent", "best")}
        checkpoints.save(out / "last.pt", network | state | numbers)


def train(
    student: Student,
    data: tuple[Opinions, Opinions],
    synthetic: Path,
    out: Path,
    options: Options,
    *,
    taught: Taught | None = None,
) -> None:
    """Learn until the time is over; `last.pt` and `best.pt` hold the averaged weights."""
    torch.manual_seed(options.seed)
    learning, held_out = data
    parts, made = len(synthesise.parts(synthetic)), _made(synthetic)
    run = Run.begun(student, options, out / "last.pt")
    rng = np.random.default_rng([options.seed, run.step])
    sums: dict[str, float] = {}
    for network in (student.network, run.average.network):
        if made[0]:
            network.backbone.widen(torch.from_numpy(made[0].held.measures[:, 0]))
    while (done := max(run.spent / (60 * options.minutes), run.step / options.steps)) < 1:
        began = time.monotonic()
        student.train()
        losses = _losses(student, learning, made[0], rng, taught)
        run.learn(losses, options, done)
        for name, value in losses.items():
            sums[name] = sums.get(name, 0.0) + float(value.detach()) / options.look_every
        run.spent += time.monotonic() - began
        if run.step % options.look_every == 0:
            found = look(run.average.network, held_out, made[1])
            _tell(run, sums, found)
            sums = {}
            run.keep(out, found)
            if len(synthesise.parts(synthetic)) > parts:  # more has been made meanwhile
                made = None, None  # lets go of what there was before more is read
                parts, made = len(synthesise.parts(synthetic)), _made(synthetic)
    found = look(run.average.network, held_out, made[1])
    _tell(run, sums, found)
    run.keep(out, found)


def _made(folder: Path) -> tuple[Synthetic, Synthetic] | tuple[None, None]:
    """Training and validation parts of what has been synthesised so far, if anything has."""
    if not synthesise.parts(folder):
        return None, None
    held = synthesise.load(folder)
    return Synthetic(held, 0), Synthetic(held, 1)


def _losses(
    student: Student,
    learning: Opinions,
    made: Synthetic | None,
    rng: np.random.Generator,
    taught: Taught | None = None,
) -> dict[str, Tensor]:
    """Of one batch; of opinions alone while there is nothing synthetic."""
    count = min(OPINIONS if made else OPINIONS + DAMAGED, len(learning.quality))
    rows = rng.choice(len(learning.quality), count, replace=False)
    v = learning.views
    draws = rng.integers(v.patches.shape[1], size=count)
    arrays = [(v.patches[rows, draws], v.view[rows], v.measures[rows, draws])]
    truth: dict[str, Tensor] = {}
    if made:
        others, held = made.draw(rng, DAMAGED), made.held
        draws = rng.integers(held.patches.shape[1], size=DAMAGED)
        arrays.append(
            (held.patches[others, draws], held.view[others, draws], held.measures[others, draws])
        )
        truth = {name: torch.from_numpy(getattr(held, name)[others]) for name in LABELS}
    if taught:
        lesson, v = rng.choice(len(taught), min(LESSON, len(taught)), replace=False), taught.views
        draws = rng.integers(v.patches.shape[1], size=len(lesson))
        arrays.append((v.patches[lesson, draws], v.view[lesson], v.measures[lesson, draws]))
    seen = Inputs(*(torch.from_numpy(np.concatenate(it)) for it in zip(*arrays, strict=True)))
    if rng.random() < 0.5:
        seen = seen.flipped()
        if truth:
            truth["regions"] = truth["regions"].unflatten(1, (3, 3)).flip(2).flatten(1)  # type: ignore[no-untyped-call]
    picks = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
    given = student(seen.thinned(picks, each=1 + int(rng.random() < 0.25)))
    bins = student.network.heads.bins
    losses = {"measures": given.wrong_measures}
    losses |= opinion_losses(given.score[:count], torch.from_numpy(learning.quality[rows]), bins)
    if truth:
        parts = (given.score, given.levels, given.regions, given.likeness)
        score, levels, regions, index = (it[count : count + DAMAGED] for it in parts)
        losses |= damage_losses((score, levels, regions, index), truth, bins)
    if taught:
        last = slice(-len(lesson), None)
        losses["taught"] = taught_loss(
            given.score[last], given.levels[last], taught.lessons.rows(lesson), bins
        )
    return losses


@torch.no_grad()
def look(network: Lite, held_out: Opinions, damaged: Synthetic | None) -> dict[str, float]:
    """Figures on validation pictures, read out as in serving."""
    v = held_out.views
    quality = score(network.eval(), v.patches[:, 0], v.view, v.measures[:, 0])[0]
    said = held_out.quality
    within = [
        evaluate.srcc(quality[held_out.subset == name], said[held_out.subset == name])
        for name in np.unique(held_out.subset)
    ]
    found = {
        "plcc": evaluate.plcc(quality, said),
        "srcc": evaluate.srcc(quality, said),
        "within": float(np.mean(within)),
    }
    return found | (_damage_figures(network, damaged) if damaged and len(damaged.rows) else {})


def _damage_figures(network: Lite, damaged: Synthetic) -> dict[str, float]:
    rows, held = damaged.rows, damaged.held
    quality, levels = score(
        network, held.patches[rows, 0], held.view[rows, 0], held.measures[rows, 0]
    )
    truth, said = held.levels[rows], levels.argmax(-1)
    present = truth > 0
    seen = said > 0
    falls, pairs = 0, 0
    for unit in damaged.units:
        if len(unit) > 1:
            places = np.searchsorted(rows, unit[np.argsort(held.rung[unit], kind="stable")])
            steps = np.diff(quality[places])
            falls, pairs = falls + int((steps < 0).sum()), pairs + len(steps)
    clean = (truth == 0).all(1)
    return {
        "recall": float(seen[present].mean()),
        "exact": float((said == truth)[present].mean()),
        "false": float(seen[clean].any(1).mean()) if clean.any() else math.nan,
        "ordered": falls / max(pairs, 1),
        "clean": float(np.median(quality[clean])) if clean.any() else math.nan,
    }


@torch.no_grad()
def score(
    network: Lite, patches: NDArray[Any], view: NDArray[Any], measures: NDArray[Any]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Raw quality (n,) and level probabilities (n, 8, 6)."""
    qualities, levels = [], []
    for start in range(0, len(view), 64):
        some = slice(start, start + 64)
        inputs = (
            torch.from_numpy(np.ascontiguousarray(it[some])) for it in (patches, view, measures)
        )
        given = network(*inputs)
        qualities.append((given[0] @ network.heads.bins).numpy())
        levels.append(given[1].numpy())
    return np.concatenate(qualities), np.concatenate(levels)


def _decayed(student: nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices shrink, vectors (biases, normalisation) do not."""
    matrices = [p for p in student.parameters() if p.ndim > 1]
    vectors = [p for p in student.parameters() if p.ndim <= 1]
    return [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]


def _rate(done: float) -> float:
    """Up over the first twentieth, then down along a cosine."""
    return done / 0.05 if done < 0.05 else 0.5 * (1 + math.cos(math.pi * (done - 0.05) / 0.95))


@torch.no_grad()
def _follow(average: nn.Module, student: nn.Module, decay: float) -> None:
    for mean, new in zip(average.state_dict().values(), student.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - decay)
        else:
            mean.copy_(new)


def _tell(run: Run, sums: Mapping[str, float], found: Mapping[str, float]) -> None:
    learned = " ".join(f"{name} {value:.3f}" for name, value in sums.items())
    figures = " ".join(f"{name} {value:.4f}" for name, value in found.items())
    print(f"step {run.step}, {run.spent / 60:.1f} min | {learned} | {figures}", flush=True)


def load_network(path: Path) -> Lite:
    """As `train` left it. Raises CheckpointUnreadable."""
    network = lite()
    try:
        network.load_state_dict(checkpoints.load(path)["network"])
    except (KeyError, RuntimeError) as error:
        raise checkpoints.CheckpointUnreadable(
            f"{path} holds no network of this checkout's shape: run the warm-up again"
        ) from error
    return network.eval()


def _taught(targets: Path, draws: int) -> Taught:
    from trainer import distil

    return distil.taught(targets, draws=draws)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.warmup", description=__doc__)
    parser.add_argument("--biq", type=Path, required=True, help="BIQ2021 as published")
    parser.add_argument("--views", type=Path, required=True, help="folder of trainer.views, train")
    parser.add_argument("--synthetic", type=Path, required=True, help="of trainer.synthesise")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--minutes", type=float, default=Options().minutes)
    parser.add_argument("--steps", type=int, default=Options().steps)
    parser.add_argument("--seed", type=int, default=Options().seed)
    parser.add_argument("--targets", type=Path, help="of trainer.distil: lessons beside opinions")
    given = parser.parse_args(arguments)
    options = Options(minutes=given.minutes, steps=given.steps, seed=given.seed)
    data = opinions(given.biq, given.views)
    torch.manual_seed(options.seed)
    network = lite()
    measures = data[0].views.measures[:, 0]
    network.backbone.standardise(torch.from_numpy(measures))
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on CPUs
    taught = _taught(given.targets, data[0].views.patches.shape[1]) if given.targets else None
    train(Student(network), data, given.synthetic, given.out, options, taught=taught)
    return 0


if __name__ == "__main__":
    sys.exit(main())
