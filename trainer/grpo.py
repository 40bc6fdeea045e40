"""GRPO for quality models, whole, in one file.

For each picture the policy answers G times. An answer is T steps: for heads on a frozen backbone
a step is one head choosing an outcome, for a model that writes it is one token. Nothing here
knows which. Answers to one picture are judged against each other, so there is no critic.

    A_i    = (r_i - mean r) / (std r + 1e-4)            "plain": r is the weighted sum of all
                                                        components, mean and std (n - 1) over the
                                                        answers of one picture
    A_it   = sum_c w_c (r_ic - mean r_c) / max(s_c, F)  "pooled": each component by itself; c runs
                                                        over those that step t can influence, s_c
                                                        is the deviation within groups over the
                                                        whole batch, the floor F is 0.05
    rho_it = pi(a_it) / pi_old(a_it)                    how far the policy moved since it answered
    KL     = e^d - d - 1,  d = log pi_ref - log pi      k3, for a policy that only knows the
                                                        probability of what it said
    KL     = sum_v pi(v) log(pi(v) / pi_ref(v))         exact, for one that offers distributions
    J      = mean over steps of  min(rho A, clip(rho, 1 - low, 1 + high) A) - beta KL

J is raised, several updates per sampling; the first of them has rho = 1, the clip acts from the
second on. `old` comes from the very weights that are trained, and dropout is off throughout, so
that rho moves only because the weights do.

A component that cannot judge a picture (its label is unknown) gives NaN there: no advantage, and
no share in any figure. Padding is outside the mask and changes nothing.

Every draw of a step is seeded by (seed, step, row), rows counted over all processes. So the same
run gives the same answers in any number of processes, and a resumed run needs no random state to
go on as if it had never stopped.

Shapes: C components, B pictures, G answers each, T steps, V outcomes of a step.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from trainer import checkpoints
from trainer.processes import Alone, share

Batch = Mapping[str, Any]
"""Whatever policy and rewards need, row by row: tensors (B, ...) or lists of B.

"group" (B,) must be there: rows of one group are neighbours and share a number.
"""

LAST = "last.pt"
BEST = "best.pt"

STD_OFFSET = 1e-4
"""Added to the deviation of a group in the plain formula."""

STD_FLOOR = 0.05
"""A component that hardly varies over a whole batch is not blown up beyond this."""


@dataclass(frozen=True, slots=True)
class Args:
    """One recipe. Ranges are checked; ValueError names the field."""

    steps: int = 3000
    """samplings; each is followed by `updates` steps of the optimiser"""
    answers: int = 8
    """per picture (G)"""
    updates: int = 2
    """optimiser passes over each sampling; with 1 the ratio is always 1 and the clip never acts"""
    lr: float = 1e-4
    lr_last: float = 0.0
    """the rate falls linearly from `lr` to this"""
    lr_ramp: int = 0
    """steps in which the rate rises to `lr` first: Adam's first steps are as long as any, though
    it has seen next to nothing, and can end all variety among answers before it taught anything"""
    weight_decay: float = 0.0
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: float = 1.0
    """beta; 0 skips the reference, and the log's `kl` is then the distance from the sampling"""
    advantage: str = "pooled"
    """a name of ADVANTAGES"""
    max_grad_norm: float = 1.0
    look_every: int = 100
    """steps between two looks at the held-out set; step 0 and the last are always looked at"""
    save_every: int = 500
    choose: str = "srcc"
    """the held-out figure, higher is better, by which `best.pt` is chosen"""
    seed: int = 1

    def __post_init__(self) -> None:
        at_least = {"steps": 1, "answers": 2, "updates": 1, "look_every": 1, "save_every": 1}
        for name, least in at_least.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")
        for name in (
            "lr",
            "lr_last",
            "lr_ramp",
            "weight_decay",
            "clip_low",
            "clip_high",
            "kl",
            "seed",
        ):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must not be negative")
        if not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm is {self.max_grad_norm}; it must be positive")
        if self.advantage not in ADVANTAGES:
            raise ValueError(f"advantage {self.advantage!r} is none of {', '.join(ADVANTAGES)}")


@dataclass(frozen=True, slots=True)
class Rollout:
    """What the policy said, and what that means. Fields that were not asked for are None.

    actions: (B, G, T) int64, outcome or token chosen at each step.
    mask: (B, G, T) bool, True where the policy chose (its end of sequence included), False on
        padding and on anything that it was given.
    readable: (B, G) bool.
    quality: (B, G) 0..100, NaN where it cannot be read.
    levels: (B, G, 8) of vqmon.domain.DEGRADATIONS: 0 absent, 1..5 severity, -1 unreadable.
    regions: (B, G, 9) of vqmon.domain.CELLS: 0 intact, 1 damaged, -1 unreadable.
    preference: (B, G) against the partner picture: 1 better, 0 similar, -1 worse, NaN unreadable.
    """

    actions: Tensor
    mask: Tensor
    readable: Tensor
    quality: Tensor | None = None
    levels: Tensor | None = None
    regions: Tensor | None = None
    preference: Tensor | None = None


class Said(NamedTuple):
    """log_prob: (B, G, T) of each action, differentiable.

    distributions: (B, T, V) log-probabilities of all outcomes, where the policy can tell them
    and they do not depend on the actions of earlier steps; then KL and entropy are exact.
    """

    log_prob: Tensor
    distributions: Tensor | None


class Policy(Protocol):
    """An nn.Module. `forward` is the only differentiable way in, so that it can be wrapped."""

    def answer(self, batch: Batch, answers: int, seeds: Tensor) -> Rollout:
        """Sample. seeds: (B,) int64; row b may draw from nothing but seeds[b]."""
        ...

    def __call__(self, batch: Batch, actions: Tensor) -> Said: ...

    def reference(self) -> AbstractContextManager[None]:
        """Inside, calls speak for the policy that training started from."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...
    def eval(self) -> Any: ...


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the reward: (Rollout, Batch) -> (B, G) in 0..1, NaN where it cannot judge.

    steps: which steps of an answer it can influence; None for all of them.
    """

    name: str
    weight: float
    reward: Callable[[Rollout, Batch], Tensor]
    steps: tuple[int, ...] | None = None


Row = dict[str, float]


class Judged(NamedTuple):
    """A sampling, judged: all that its updates need. advantages: (B, G, T)."""

    rollout: Rollout
    old: Said
    start: Said
    advantages: Tensor


class Terms(NamedTuple):
    """What each chosen step (all of the mask, N of them) adds; (N,) each.

    gain: to J. kl: nats. clipped: True where the clip took the gradient away.
    """

    gain: Tensor
    kl: Tensor
    clipped: Tensor


@dataclass(slots=True)
class State:
    """Where a run stands. step: samplings done; best: the chosen held-out figure, of best_step."""

    step: int = 0
    best: float = -math.inf
    best_step: int = -1


@dataclass(slots=True)
class Run:
    """What the loop works with. learner: the policy as prepared for several processes."""

    policy: Policy
    learner: Any
    optimiser: Any
    rewards: Sequence[Component]
    args: Args
    processes: Any
    state: State


def train(
    policy: Policy,
    batches: Callable[[int], Batch],
    rewards: Sequence[Component],
    args: Args,
    log: Callable[[Row], object] = print,
    *,
    held_out: Callable[[Any], Mapping[str, float]] | None = None,
    folder: Path | None = None,
    processes: Any = None,
) -> State:
    """Raise J; returns where the run ended, with the last weights in `policy`.

    batches: the batch of a step, whole, always the same for the same step.
    log: gets one row per step: what held_out found after so many steps, then what step did.
    held_out: policy -> figures; called with the weights as they are, step 0 included, so that
        the start is a candidate for `best.pt` too.
    folder: for `last.pt` and `best.pt`. A run found there goes on; ValueError when it had
        another recipe.
    processes: an accelerate.Accelerator, or None for one process.
    """
    policy.eval()  # dropout off, in answers and in learning
    run = _prepared(policy, rewards, args, processes or Alone(), folder)
    for step in range(run.state.step, args.steps + 1):
        run.state.step, row, last = step, {"step": float(step)}, step == args.steps
        if held_out and (last or step % args.look_every == 0):
            row |= _look(run, held_out, folder)
        if folder and (last or step % args.save_every == 0):
            _save(run, folder)
        if not last:
            row |= _improve(run, share(_seeded(batches(step), args.seed, step), run.processes))
        if run.processes.is_main_process:
            log(row)
    return run.state


def _improve(run: Run, batch: Batch) -> Row:
    """One sampling and its updates."""
    began, tally, args = time.perf_counter(), Tally(), run.args
    torch.manual_seed(_mixed(args.seed, run.state.step, 1 + run.processes.process_index))
    _set_rate(run.optimiser, args, run.state.step)
    judged = judge(run, batch, tally)
    mask = judged.rollout.mask
    counts = torch.tensor([mask.sum(), mask.shape[0] * mask.shape[1]], device=mask.device)
    steps, answers = run.processes.reduce(counts.float(), "sum").tolist()  # of all processes
    for _ in range(args.updates):
        terms = objective(run.learner(batch, judged.rollout.actions), judged, args)
        run.optimiser.zero_grad()
        # processes average their gradients, which would divide by their number once more
        run.processes.backward(-terms.gain.sum() / steps * run.processes.num_processes)
        norm = run.processes.clip_grad_norm_(run.learner.parameters(), args.max_grad_norm)
        if not torch.isfinite(norm):
            raise FloatingPointError("the gradient is not finite: lower `lr` and resume the run")
        run.optimiser.step()
        tally.add("objective", terms.gain)
        tally.add("clipped", terms.clipped)
    tally.add("kl", terms.kl)
    row = tally.means(run.processes)
    return row | {
        "grad_norm": float(norm),
        "samples_per_second": answers / (time.perf_counter() - began),
    }


@torch.no_grad()
def judge(run: Run, batch: Batch, tally: Tally) -> Judged:
    """Let the policy answer and the rewards judge; everything here is without gradient."""
    rollout = run.policy.answer(batch, run.args.answers, batch["seed"])
    old = start = run.policy(batch, rollout.actions)
    if run.args.kl:
        with run.policy.reference():
            start = run.policy(batch, rollout.actions)
    earned = torch.stack([c.reward(rollout, batch) for c in run.rewards])  # (C, B, G)
    reach = weights_by_step(run.rewards, rollout.actions.shape[-1]).to(earned)  # (C, T)
    advantages = ADVANTAGES[run.args.advantage](earned, reach, run.processes)
    _tally_rewards(tally, earned, run.rewards)
    _tally_answers(tally, rollout, old)
    return Judged(rollout, old, start, advantages)


def objective(said: Said, judged: Judged, args: Args) -> Terms:
    """The terms whose mean is J."""
    mask, advantages = judged.rollout.mask, judged.advantages[judged.rollout.mask]  # (N,)
    ratio = (said.log_prob[mask] - judged.old.log_prob[mask]).exp()
    within = ratio.clamp(1 - args.clip_low, 1 + args.clip_high)
    gain = torch.minimum(ratio * advantages, within * advantages)
    clipped = (ratio * advantages > within * advantages).detach()
    kl = divergence(said, judged.start, mask)
    return Terms(gain - args.kl * kl, kl, clipped)


def divergence(said: Said, start: Said, mask: Tensor) -> Tensor:
    """(N,) how far a policy is from where it started, nats: exact where that can be told."""
    if said.distributions is not None and start.distributions is not None:
        kl = exact_kl(said.distributions, start.distributions)  # (B, T)
        return kl[:, None].expand_as(mask)[mask]
    return k3(start.log_prob[mask] - said.log_prob[mask])


def exact_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(..., V) -> (...): Kullback-Leibler divergence of p from q."""
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def k3(d: Tensor) -> Tensor:
    """Unbiased for KL(p, q) and never negative; d is log q - log p of what p chose."""
    return d.expm1() - d


def group_relative(rewards: Tensor) -> Tensor:
    """(..., G) -> (..., G): zero mean; a group that all earned the same gives exactly zero."""
    return _centred(rewards) / (_deviation(rewards)[..., None] + STD_OFFSET)


def plain(earned: Tensor, reach: Tensor, _processes: Any = None) -> Tensor:
    """(C, B, G) earned, (C, T) weights -> (B, G, T), by the plain formula on each step's sum."""
    centred, _ = _centred_where_known(earned)
    return group_relative(torch.einsum("ct,cbg->tbg", reach, centred)).permute(1, 2, 0)


def pooled(earned: Tensor, reach: Tensor, processes: Any = None) -> Tensor:
    """(C, B, G) earned, (C, T) weights -> (B, G, T), each component on its own scale first.

    A component's deviation is the pooled one within groups (degrees of freedom B (G - 1)) over
    all processes; groups in which it hardly varies thus count for little, instead of being
    stretched to the same size as the rest.
    """
    centred, known = _centred_where_known(earned)
    freedom = known.sum(-1).to(earned) * (earned.shape[-1] - 1)
    squares = torch.stack([centred.square().sum((1, 2)), freedom])  # (2, C)
    if processes is not None:
        squares = processes.reduce(squares, "sum")
    std = (squares[0] / squares[1].clamp(min=1)).sqrt().clamp(min=STD_FLOOR)
    return torch.einsum("ct,cbg->bgt", reach, centred / std[:, None, None])


ADVANTAGES: Mapping[str, Callable[[Tensor, Tensor, Any], Tensor]] = {
    "plain": plain,
    "pooled": pooled,
}


def weights_by_step(rewards: Sequence[Component], steps: int) -> Tensor:
    """(C, T): what a component weighs at a step, 0 where it cannot be influenced."""
    reach = torch.zeros(len(rewards), steps)
    for row, component in zip(reach, rewards, strict=True):
        row[list(component.steps) if component.steps is not None else slice(None)] = (
            component.weight
        )
    return reach


def _centred_where_known(earned: Tensor) -> tuple[Tensor, Tensor]:
    """(C, B, G) centred, 0 where a component cannot judge a picture; (C, B) where it can."""
    known = ~earned.isnan().any(-1)
    return _centred(earned).masked_fill(~known[..., None], 0.0), known


def _centred(rewards: Tensor) -> Tensor:
    """Counted from the first answer, so that equal rewards leave no rounding error behind."""
    shifted = rewards - rewards[..., :1]
    return shifted - shifted.mean(-1, keepdim=True)


def _deviation(rewards: Tensor) -> Tensor:
    """(..., G) -> (...): unbiased (n - 1); of no groups, none."""
    return (_centred(rewards).square().sum(-1) / (rewards.shape[-1] - 1)).sqrt()


def _seeded(batch: Batch, seed: int, step: int) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(_mixed(seed, step, 0))
    rows = len(batch["group"])
    return {**batch, "seed": torch.randint(2**62, (rows,), generator=rng)}


def _mixed(*numbers: int) -> int:
    """One seed of several numbers, the same on every machine."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _set_rate(optimiser: Any, args: Args, step: int) -> None:
    rate = args.lr + (args.lr_last - args.lr) * step / args.steps
    rate *= min(1.0, (step + 1) / (args.lr_ramp + 1))
    for group in optimiser.param_groups:
        group["lr"] = rate


class Tally:
    """Sums and counts by name, that means over all processes can be made of."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.pairs: list[Tensor] = []

    def add(self, name: str, values: Tensor) -> None:
        """Any shape; NaN does not count."""
        self.add_all([name], values.reshape(1, -1))

    def add_all(self, names: Sequence[str], values: Tensor) -> None:
        """(names, ...) values."""
        values = values.detach().float()
        self.names += names
        self.pairs.append(torch.stack([values.nansum(-1), (~values.isnan()).sum(-1)], -1))

    def means(self, processes: Any) -> Row:
        """By name; NaN where nothing was counted."""
        table = processes.reduce(torch.cat(self.pairs), "sum").tolist()
        sums: dict[str, list[float]] = {}
        for name, (total, count) in zip(self.names, table, strict=True):
            held = sums.get(name, [0.0, 0.0])
            sums[name] = [held[0] + total, held[1] + count]
        return {name: total / count if count else math.nan for name, (total, count) in sums.items()}


def _tally_rewards(tally: Tally, earned: Tensor, rewards: Sequence[Component]) -> None:
    """Each apart: its mean, its deviation within groups, the share of groups without any."""
    known = ~earned.isnan().any(-1)  # (C, B)
    equal = (earned == earned[..., :1]).all(-1).float()
    figures = {"reward": earned.mean(-1), "std": _deviation(earned), "zero_std": equal}
    for what, values in figures.items():
        names = [f"{what}/{component.name}" for component in rewards]
        tally.add_all(names, values.where(known, math.nan))


def _tally_answers(tally: Tally, rollout: Rollout, said: Said) -> None:
    tally.add("entropy", _entropy(said, rollout.mask))
    tally.add("length", rollout.mask.sum(-1))
    tally.add("unreadable", ~rollout.readable)


def _entropy(said: Said, mask: Tensor) -> Tensor:
    """Nats of each chosen step: exact, or estimated from what was said."""
    if said.distributions is None:
        return -said.log_prob[mask]
    every = -(said.distributions.exp() * said.distributions).sum(-1)  # (B, T)
    return every[:, None].expand_as(mask)[mask]


def _prepared(
    policy: Policy,
    rewards: Sequence[Component],
    args: Args,
    processes: Any,
    folder: Path | None,
) -> Run:
    """The optimiser made, everything on its device, and an earlier run taken up again."""
    learned = [p for p in policy.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=args.lr, weight_decay=args.weight_decay, fused=True)
    learner, optimiser = processes.prepare(policy, optimiser)
    run = Run(
        policy=processes.unwrap_model(learner),
        learner=learner,
        optimiser=optimiser,
        rewards=rewards,
        args=args,
        processes=processes,
        state=State(),
    )
    if folder and (folder / LAST).exists():
        _resume(run, folder)
    return run


def _look(run: Run, held_out: Callable[[Any], Mapping[str, float]], folder: Path | None) -> Row:
    """The held-out figures; the best policy so far is kept as `best.pt`."""
    figures = {name: float(value) for name, value in held_out(run.policy).items()}
    state, choose = run.state, run.args.choose
    if choose not in figures:
        raise ValueError(f"choose is {choose!r}; held out are only {', '.join(figures)}")
    merit = -math.inf if math.isnan(figures[choose]) else figures[choose]
    if merit > state.best or state.best_step < 0:
        state.best, state.best_step = merit, state.step
        if folder and run.processes.is_main_process:
            kept = {"policy": run.policy.state_dict(), "step": state.step}
            checkpoints.save(folder / BEST, kept | {"figures": figures})
    return {f"held_out/{name}": value for name, value in figures.items()}


def _save(run: Run, folder: Path) -> None:
    if run.processes.is_main_process:
        held = {
            "policy": run.policy.state_dict(),
            "optimiser": run.optimiser.state_dict(),
            "state": asdict(run.state),
            "recipe": _recipe(run),
        }
        checkpoints.save(folder / LAST, held)
    run.processes.wait_for_everyone()


def _resume(run: Run, folder: Path) -> None:
    held, recipe = checkpoints.load(folder / LAST), _recipe(run)
    if held["recipe"] != recipe:
        raise ValueError(
            f"{folder / LAST} belongs to a run with another recipe "
            f"({_differences(held['recipe'], recipe)}): go on with the old recipe, "
            "or name another folder"
        )
    run.policy.load_state_dict(held["policy"])
    run.optimiser.load_state_dict(held["optimiser"])
    run.state = State(**held["state"])


def _recipe(run: Run) -> dict[str, dict[str, Any]]:
    return {"args": asdict(run.args), "rewards": {c.name: c.weight for c in run.rewards}}


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    return "; ".join(
        f"{name} {old[part].get(name)} there, {new[part].get(name)} here"
        for part in new
        for name in sorted({*old[part], *new[part]})
        if old[part].get(name) != new[part].get(name)
    )


def _main() -> None:
    """As a module of its own name, so that there is one copy of the classes above."""
    from trainer.recipe import main

    main()


if __name__ == "__main__":
    _main()
