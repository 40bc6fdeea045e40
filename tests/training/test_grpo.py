"""The mathematics of GRPO against independent implementations, and a loop that learns."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from trainer import checkpoints, rewards
from trainer.grpo import (
    BEST,
    LAST,
    Args,
    Component,
    Judged,
    Policy,
    Rollout,
    Row,
    Said,
    exact_kl,
    group_relative,
    k3,
    objective,
    plain,
    pooled,
    train,
    weights_by_step,
)
from trainer.policies.heads import Heads, HeadsPolicy, Shape
from trainer.processes import share

torch.set_num_threads(1)

GOLDEN = json.loads((Path(__file__).parent / "golden" / "grpo.json").read_text())

ARGS = Args(clip_low=0.2, clip_high=0.28, kl=0.04)


def numbers(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=rng, dtype=torch.float64)


def judged(old: Tensor, start: Tensor, advantages: Tensor, mask: Tensor) -> Judged:
    """A sampling of tokens, given what matters of it."""
    actions = torch.zeros_like(mask, dtype=torch.long)
    rollout = Rollout(actions, mask.bool(), torch.ones_like(actions[..., 0], dtype=torch.bool))
    return Judged(rollout, Said(old, None), Said(start, None), advantages)


# --- advantages ---


def test_the_plain_advantage_is_the_formula_as_written() -> None:
    """(r - mean) / (std + 1e-4) with n - 1: worked out in loops, without torch."""
    given = numbers((3, 5)).sigmoid()

    found = group_relative(given)

    for b, answers in enumerate(given.tolist()):
        mean = sum(answers) / 5
        std = math.sqrt(sum((r - mean) ** 2 for r in answers) / 4)
        for g, r in enumerate(answers):
            assert found[b, g].item() == pytest.approx((r - mean) / (std + 1e-4), rel=1e-12)


def test_the_deviation_is_unbiased() -> None:
    """Of 1, 0, 0, 1 it is sqrt(1/3), not 1/2: the biased one makes all advantages larger."""
    found = group_relative(torch.tensor([1.0, 0.0, 0.0, 1.0]))

    assert found.tolist() == pytest.approx([0.866, -0.866, -0.866, 0.866], abs=2e-4)


@pytest.mark.parametrize("formula", [plain, pooled])
def test_advantages_are_zero_mean_within_every_group(formula: Callable[..., Tensor]) -> None:
    """Otherwise the mean reward of a picture would push all of its answers the same way."""
    earned, reach = numbers((2, 6, 8)).sigmoid(), torch.ones(2, 3, dtype=torch.float64)

    assert formula(earned, reach).mean(1).abs().max() < 1e-12


@pytest.mark.parametrize("formula", [plain, pooled])
def test_advantages_ignore_what_is_added_to_a_picture(formula: Callable[..., Tensor]) -> None:
    """A picture on which every answer earns more teaches nothing by that."""
    earned, reach = numbers((2, 6, 8)).sigmoid(), torch.ones(2, 3, dtype=torch.float64)

    shifted = formula(earned + numbers((2, 6, 1), seed=1), reach)

    assert torch.allclose(shifted, formula(earned, reach), atol=1e-12)


@pytest.mark.parametrize("formula", [plain, pooled])
def test_advantages_hardly_change_when_rewards_are_scaled(formula: Callable[..., Tensor]) -> None:
    """Only the 1e-4 and the floor know of scale; far above them it does not matter."""
    earned, reach = 100 * numbers((2, 6, 8)), torch.ones(2, 3, dtype=torch.float64)

    assert torch.allclose(formula(7 * earned, reach), formula(earned, reach), atol=1e-4)


@pytest.mark.parametrize("formula", [plain, pooled])
@pytest.mark.parametrize("reward", [0.1, 0.3, 0.7])
def test_equal_rewards_give_exactly_nothing(formula: Callable[..., Tensor], reward: float) -> None:
    """0.3 is no binary fraction: a mean of eight of them may differ from it in the last bit,
    and dividing that bit by 1e-4 would teach noise."""
    earned = torch.full((3, 4, 7), reward)
    reach = torch.rand(3, 5, generator=torch.Generator().manual_seed(0))

    assert not formula(earned, reach).any()


def test_pooled_advantages_match_loops() -> None:
    """Centred in the group, divided by the deviation over the batch (floor 0.05), weighted."""
    earned = numbers((3, 4, 5)).sigmoid().numpy()
    earned[1] = 0.5 + earned[1] / 1000  # hardly varies: the floor acts
    earned[2, 1] = np.nan  # cannot be judged
    reach = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]])

    found = pooled(torch.from_numpy(earned), torch.from_numpy(reach)).numpy()

    expected = np.zeros((4, 5, 2))
    for c in range(3):
        judged_pictures = [b for b in range(4) if not np.isnan(earned[c, b]).any()]
        centred = {b: earned[c, b] - earned[c, b].mean() for b in judged_pictures}
        squares = sum((values**2).sum() for values in centred.values())
        std = max(math.sqrt(squares / (4 * len(judged_pictures))), 0.05)
        for b, values in centred.items():
            for t in range(2):
                expected[b, :, t] += reach[c, t] * values / std
    assert np.allclose(found, expected, atol=1e-12)


def test_a_component_that_hardly_varies_is_not_blown_up_when_pooled() -> None:
    """The plain formula makes a spread of 0.001 as loud as one of 0.5; that is mostly noise."""
    quiet = 0.5 + numbers((1, 6, 8)) / 1000

    assert plain(quiet, torch.ones(1, 1, dtype=torch.float64)).abs().max() > 1
    assert pooled(quiet, torch.ones(1, 1, dtype=torch.float64)).abs().max() < 0.1


def test_an_unknown_label_moves_nothing() -> None:
    """Masked, not negative: a picture without a label must not pull answers anywhere."""
    earned = numbers((1, 4, 5)).sigmoid()
    earned[0, 2] = math.nan
    reach = torch.ones(1, 1, dtype=torch.float64)

    for formula in (plain, pooled):
        found = formula(earned, reach)
        assert not found[2].any()
        assert found[[0, 1, 3]].abs().min() > 0


def test_a_head_learns_only_from_what_it_can_influence() -> None:
    """Crediting the score head with a lucky region would add noise to all 18 heads."""
    components = [
        Component("score", 2.0, rewards.closeness, (0,)),
        Component("region", 3.0, rewards.region, (2,)),
        Component("everything", 1.0, rewards.readable),
    ]

    assert weights_by_step(components, 3).tolist() == [[2, 0, 0], [0, 0, 3], [1, 1, 1]]


# --- objective ---


def loops(log_prob: Tensor, held: Judged, args: Args) -> tuple[float, float, float]:
    """J, KL and clipped share, one number at a time."""
    total = kl_total = clipped = count = 0.0
    mask = held.rollout.mask.numpy()
    new, old, start, adv = (
        values.detach().numpy()
        for values in (log_prob, held.old.log_prob, held.start.log_prob, held.advantages)
    )
    for place in np.argwhere(mask):
        at = tuple(place)
        ratio = math.exp(new[at] - old[at])
        bounded = min(max(ratio, 1 - args.clip_low), 1 + args.clip_high)
        d = start[at] - new[at]
        kl = math.exp(d) - d - 1
        total += min(ratio * adv[at], bounded * adv[at]) - args.kl * kl
        kl_total += kl
        clipped += (ratio < 1 - args.clip_low and adv[at] < 0) or (
            ratio > 1 + args.clip_high and adv[at] > 0
        )
        count += 1
    return total / count, kl_total / count, clipped / count


def case(seed: int = 0) -> tuple[Tensor, Judged]:
    """3 pictures, 4 answers of up to 6 tokens, policies that have moved apart."""
    shape = (3, 4, 6)
    old = -numbers(shape, seed).abs()
    lengths = torch.randint(1, 7, (3, 4, 1), generator=torch.Generator().manual_seed(seed))
    held = judged(
        old,
        old + 0.3 * numbers(shape, seed + 1),
        numbers(shape, seed + 2),
        torch.arange(6) < lengths,
    )
    return old + 0.3 * numbers(shape, seed + 3), held


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_matches_loops(seed: int) -> None:
    """The same formula written twice, once as vectors and once as a reader would."""
    log_prob, held = case(10 * seed)

    terms = objective(Said(log_prob, None), held, ARGS)

    expected = loops(log_prob, held, ARGS)
    found = [terms.gain.mean(), terms.kl.mean(), terms.clipped.double().mean()]
    assert [f.item() for f in found] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_the_objective_is_that_of_trl(loss_type: str) -> None:
    """Golden values of another implementation; grpo.json tells version and how it was made."""
    given = {name: torch.tensor(v, dtype=torch.float64) for name, v in GOLDEN["inputs"].items()}
    log_prob = given["log_prob"].clone().requires_grad_()
    held = judged(
        given["old"][:, None],
        given["reference"][:, None],
        given["advantages"][:, None],
        given["mask"][:, None],
    )
    args = Args(clip_low=GOLDEN["clip_low"], clip_high=GOLDEN["clip_high"], kl=GOLDEN["beta"])

    terms = objective(Said(log_prob[:, None], None), held, args)
    (gradient,) = torch.autograd.grad(-terms.gain.mean(), log_prob)

    expected = GOLDEN[loss_type]
    assert -terms.gain.mean().item() == pytest.approx(expected["loss"], rel=1e-9)
    assert terms.kl.mean().item() == pytest.approx(expected["kl"], rel=1e-9)
    assert terms.clipped.double().mean().item() == pytest.approx(expected["clipped"], rel=1e-6)
    assert np.allclose(gradient.numpy(), expected["gradient"], rtol=1e-8, atol=1e-12)


def test_padding_cannot_change_the_loss() -> None:
    """Not by a bit, whatever stands in it: batches are padded differently on every run."""
    log_prob, held = case()
    padding = torch.full((3, 4, 5), math.nan, dtype=torch.float64)

    def padded(values: Tensor) -> Tensor:
        return torch.cat([values, padding], -1)

    log_prob.requires_grad_()
    bare = objective(Said(log_prob, None), held, ARGS).gain.mean()
    (of_bare,) = torch.autograd.grad(bare, log_prob)
    longer = judged(
        padded(held.old.log_prob),
        padded(held.start.log_prob),
        padded(held.advantages),
        padded(held.rollout.mask) == 1,
    )
    long = objective(Said(padded(log_prob), None), longer, ARGS).gain.mean()
    (of_long,) = torch.autograd.grad(long, log_prob)

    assert torch.equal(bare, long)
    assert torch.equal(of_bare, of_long)


def test_the_clipped_side_gives_no_gradient() -> None:
    """Past the clip a good answer is not made likelier still, nor a bad one unlikelier; the way
    back stays open."""
    moved = torch.tensor([[[0.5, 0.5, -0.5, -0.5, 0.1]]], dtype=torch.float64)
    advantages = torch.tensor([[[1.0, -1.0, 1.0, -1.0, 1.0]]], dtype=torch.float64)
    log_prob = moved.clone().requires_grad_()
    held = judged(0 * moved, 0 * moved, advantages, torch.ones(1, 1, 5))

    terms = objective(Said(log_prob, None), held, Args(kl=0))
    (gradient,) = torch.autograd.grad(terms.gain.sum(), log_prob)

    assert (gradient.flatten() != 0).tolist() == [False, True, True, False, True]
    assert terms.clipped.tolist() == [True, False, False, True, False]


def test_equal_rewards_give_exactly_zero_gradient() -> None:
    """Through the whole objective, the KL of a policy still at its start included."""
    log_prob = (-numbers((2, 4, 3)).abs()).requires_grad_()
    start = log_prob.detach()
    advantages = pooled(torch.full((1, 2, 4), 0.3).double(), torch.ones(1, 3).double())

    terms = objective(
        Said(log_prob, None), judged(start, start, advantages, torch.ones(2, 4, 3)), ARGS
    )
    (gradient,) = torch.autograd.grad(terms.gain.mean(), log_prob)

    assert not gradient.any()


def test_the_first_update_is_the_policy_gradient() -> None:
    """Where the policy has not moved, the gradient is that of A log pi: REINFORCE with the
    group's mean as baseline."""
    log_prob = (-numbers((2, 4, 3)).abs()).requires_grad_()
    advantages = numbers((2, 4, 3), seed=1)
    held = judged(log_prob.detach(), log_prob.detach(), advantages, torch.ones(2, 4, 3))

    raised = objective(Said(log_prob, None), held, Args(kl=0)).gain.mean()
    (gradient,) = torch.autograd.grad(raised, log_prob)

    assert torch.allclose(gradient, advantages / 24)


# --- divergence ---


def test_k3_is_never_negative() -> None:
    """A negative distance would reward moving away from the start."""
    d = torch.cat([torch.linspace(-20, 20, 20001), torch.logspace(-12, 0, 2000)])

    assert k3(torch.cat([d, -d])).min() >= 0
    assert k3(torch.zeros(1)).item() == 0


def test_k3_is_unbiased_for_the_exact_divergence() -> None:
    """Its mean under the policy, over all outcomes, is the Kullback-Leibler divergence."""
    log_p, log_q = numbers((5, 7)).log_softmax(-1), numbers((5, 7), seed=1).log_softmax(-1)

    expected = (log_p.exp() * k3(log_q - log_p)).sum(-1)

    assert torch.allclose(expected, exact_kl(log_p, log_q))
    p, q = log_p.exp().numpy(), log_q.exp().numpy()
    assert np.allclose(expected, [(a * np.log(a / b)).sum() for a, b in zip(p, q, strict=True)])


def test_outcomes_that_a_head_lacks_add_nothing_to_the_divergence() -> None:
    """Heads of 2, 6 and 21 outcomes share one table; its padding must not leak."""
    log_p, log_q = numbers((3, 4)).log_softmax(-1), numbers((3, 4), seed=1).log_softmax(-1)
    wider = nn.functional.pad(log_p, (0, 3), value=-1e4).requires_grad_()

    divergence = exact_kl(wider, nn.functional.pad(log_q, (0, 3), value=-1e4))
    (gradient,) = torch.autograd.grad(divergence.sum(), wider)

    assert torch.allclose(divergence, exact_kl(log_p, log_q))
    assert not gradient[:, 4:].any()


# --- a policy small enough to check by hand ---


class Tables(nn.Module):
    """A table of logits per step, the same for every picture. exact: offers its distributions."""

    def __init__(self, steps: int = 2, outcomes: int = 3, *, exact: bool = True) -> None:
        super().__init__()
        self.logits = nn.Parameter(0.5 * numbers((steps, outcomes), seed=5))
        self.start = nn.Parameter(self.logits.detach().clone(), requires_grad=False)
        self.exact, self.as_reference = exact, False

    def forward(self, batch: Mapping[str, Any], actions: Tensor) -> Said:
        logits = self.start if self.as_reference else self.logits
        table = logits.log_softmax(-1).expand(len(actions), -1, -1)  # (B, T, V)
        every = table[:, None].expand(-1, actions.shape[1], -1, -1)
        chosen = every.gather(-1, actions[..., None]).squeeze(-1)
        return Said(chosen, table if self.exact else None)

    @contextmanager
    def reference(self) -> Iterator[None]:
        self.as_reference = True
        yield
        self.as_reference = False

    @torch.no_grad()
    def answer(self, batch: Mapping[str, Any], answers: int, seeds: Tensor) -> Rollout:
        probabilities = self.logits.softmax(-1)
        actions = torch.stack(
            [
                torch.multinomial(
                    probabilities, answers, True, generator=torch.Generator().manual_seed(seed)
                ).T
                for seed in seeds.tolist()
            ]
        )
        return Rollout(actions, actions >= 0, actions[..., 0] >= 0, actions[..., 0] * 50.0)


@pytest.mark.parametrize("exact", [True, False])
def test_the_gradient_is_that_of_finite_differences(*, exact: bool) -> None:
    """Moved away from its sampling and its start, so that ratio, clip and KL all count."""
    policy = Tables(exact=exact)
    rollout = policy.answer({}, 6, torch.arange(4))
    with torch.no_grad():
        old = policy({}, rollout.actions)
        start = Said(old.log_prob - 0.1, None if old.distributions is None else old.distributions)
        policy.logits.add_(0.2 * numbers((2, 3), seed=6))
    held = Judged(rollout, old, start, numbers((4, 6, 2), seed=7))

    def raised(logits: Tensor) -> Tensor:
        said = torch.func.functional_call(policy, {"logits": logits}, ({}, rollout.actions))
        return objective(said, held, Args(kl=0.7)).gain.mean()

    at = policy.logits.detach()
    (found,) = torch.autograd.grad(raised(at.requires_grad_()), at)
    step = 1e-6
    for place in np.ndindex(*at.shape):
        nudge = torch.zeros_like(at)
        nudge[place] = step
        slope = (raised(at.detach() + nudge) - raised(at.detach() - nudge)) / (2 * step)
        assert found[place].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-9)


def one_group(_step: int) -> dict[str, Tensor]:
    return {"group": torch.zeros(4, dtype=torch.long)}


def first_outcome(rollout: Rollout, _batch: Mapping[str, Any]) -> Tensor:
    return (rollout.actions[..., 0] == 0).double()


def rows_of(policy: Policy, args: Args, **more: Any) -> list[Row]:
    rows: list[Row] = []
    train(policy, one_group, [Component("first", 1.0, first_outcome)], args, rows.append, **more)
    return rows


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("advantage", ["plain", "pooled"])
def test_a_rewarded_outcome_becomes_likely(advantage: str, *, exact: bool) -> None:
    """Both formulas and both divergences raise what they should, and only where it counts."""
    policy = Tables(exact=exact)
    before = policy.logits.softmax(-1).detach()

    rows = rows_of(policy, Args(steps=60, lr=0.05, kl=0.0, advantage=advantage))

    after = policy.logits.softmax(-1)
    assert before[0, 0] < 0.5
    assert after[0, 0] > 0.9
    assert rows[-2]["reward/first"] > rows[0]["reward/first"]


def test_a_strong_divergence_term_holds_the_policy_at_its_start() -> None:
    """What keeps score distributions from collapsing; see trainer/recipes/lite.yaml."""
    free, held = Tables(), Tables()
    start = free.logits.softmax(-1)[0, 0].item()

    rows_of(free, Args(steps=60, lr=0.05, kl=0.0))
    rows = rows_of(held, Args(steps=60, lr=0.05, kl=20.0))

    assert abs(held.logits.softmax(-1)[0, 0].item() - start) < 0.1
    assert free.logits.softmax(-1)[0, 0].item() > start + 0.4
    assert rows[-2]["kl"] < 0.05


def test_the_clip_acts_from_the_second_update_on() -> None:
    """With one update the ratio is 1 by construction; a recipe that relies on the clip needs
    more."""
    once = rows_of(Tables(), Args(steps=5, updates=1, lr=0.5, kl=0.0))
    often = rows_of(Tables(), Args(steps=5, updates=4, lr=0.5, kl=0.0))

    assert all(row["clipped"] == 0 for row in once[:-1])
    assert any(row["clipped"] > 0 for row in often[:-1])


def test_the_log_says_what_must_be_watched() -> None:
    """Each reward apart, spread, dead groups, KL, clip, entropy, length, speed, held out."""
    rows = rows_of(
        Tables(), Args(steps=4, look_every=2), held_out=lambda _policy: {"srcc": 0.5, "plcc": 0.6}
    )

    always = {"step", "reward/first", "std/first", "zero_std/first", "kl", "clipped", "entropy"}
    always |= {"length", "unreadable", "samples_per_second", "objective", "grad_norm"}
    assert all(always <= set(row) for row in rows[:-1])
    assert [row["step"] for row in rows if "held_out/srcc" in row] == [0, 2, 4]
    assert rows[0]["length"] == 2
    assert rows[0]["unreadable"] == 0


def test_figures_of_the_log_are_right() -> None:
    """Checked on one sampling worked out by hand."""
    policy = Tables()
    table = policy.logits.log_softmax(-1).detach()
    entropy = -(table.exp() * table).sum(-1).mean().item()

    def halves(rollout: Rollout, _batch: Mapping[str, Any]) -> Tensor:
        earned = torch.zeros(rollout.actions.shape[:2])
        earned[0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
        earned[1] = 0.5
        earned[3] = math.nan
        return earned

    rows: list[Row] = []
    train(policy, one_group, [Component("r", 1.0, halves)], Args(steps=1, answers=4), rows.append)

    assert rows[0]["entropy"] == pytest.approx(entropy)
    assert rows[0]["reward/r"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert rows[0]["std/r"] == pytest.approx(math.sqrt(1 / 3) / 3)
    assert rows[0]["zero_std/r"] == pytest.approx(2 / 3)


def test_unreadable_answers_are_counted() -> None:
    """They earn zero silently otherwise, and a broken prompt would look like a bad policy."""

    class Mumbling(Tables):
        def answer(self, batch: Mapping[str, Any], answers: int, seeds: Tensor) -> Rollout:
            said = super().answer(batch, answers, seeds)
            readable = torch.zeros_like(said.readable)
            readable[:, 0] = True
            return Rollout(said.actions, said.mask, readable)

    rows = rows_of(Mumbling(), Args(steps=1, answers=4))

    assert rows[0]["unreadable"] == 0.75


def test_the_start_is_a_candidate_and_the_best_is_kept(tmp_path: Path) -> None:
    """Training that only makes things worse must not ship anything worse."""
    policy = Tables()
    start = policy.logits.detach().clone()
    merits = iter([0.9, 0.5, 0.4])

    state = train(
        policy,
        one_group,
        [Component("first", 1.0, first_outcome)],
        Args(steps=4, look_every=2, lr=0.1),
        lambda _row: None,
        held_out=lambda _policy: {"srcc": next(merits)},
        folder=tmp_path,
    )

    best = checkpoints.load(tmp_path / BEST)
    assert (state.best, state.best_step, best["step"]) == (0.9, 0, 0)
    assert torch.equal(best["policy"]["logits"], start)
    assert not torch.equal(policy.logits, start)


def test_a_figure_that_is_not_a_number_is_never_the_best(tmp_path: Path) -> None:
    """A start that says the same of every picture has no rank correlation at all."""
    merits = iter([math.nan, 0.1, math.nan])

    state = train(
        Tables(),
        one_group,
        [Component("first", 1.0, first_outcome)],
        Args(steps=4, look_every=2),
        lambda _row: None,
        held_out=lambda _policy: {"srcc": next(merits)},
        folder=tmp_path,
    )

    assert (state.best, state.best_step) == (0.1, 2)


def test_a_figure_to_choose_by_that_nobody_measures_is_an_error() -> None:
    """Found at step 0, not after an hour."""
    with pytest.raises(ValueError, match=r"choose is 'srcc'; held out are only plcc"):
        rows_of(Tables(), Args(steps=1), held_out=lambda _policy: {"plcc": 1.0})


@pytest.mark.parametrize(
    "wrong",
    [
        {"answers": 1},
        {"steps": 0},
        {"updates": 0},
        {"lr": -1.0},
        {"kl": math.nan},
        {"max_grad_norm": 0.0},
        {"advantage": "best"},
    ],
)
def test_a_recipe_that_cannot_work_names_its_field(wrong: dict[str, Any]) -> None:
    """One answer has no deviation: a run would go through and learn nothing."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Args(**wrong)


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    """One bad step would turn all weights into NaN, and the checkpoint after it too."""
    policy = Tables()

    class Broken(Tables):
        def forward(self, batch: Mapping[str, Any], actions: Tensor) -> Said:
            said = super().forward(batch, actions)
            return Said(said.log_prob * math.nan, None) if torch.is_grad_enabled() else said

    policy = Broken()
    with pytest.raises(FloatingPointError, match="lower `lr`"):
        rows_of(policy, Args(steps=1))
    assert policy.logits.isfinite().all()


# --- with heads ---


def picture_batch(step: int) -> dict[str, Tensor]:
    """8 pictures in two groups, opinions and levels that follow their features."""
    rng = torch.Generator().manual_seed(step)
    x = torch.randn(8, 4, generator=rng)
    levels = torch.full((8, 8), -1)
    levels[:, 0] = (x[:, 1] * 2 + 2).round().clamp(0, 5).long()
    unknown = torch.full((8,), math.nan)
    return {
        "features": x,
        "mos": (50 + 20 * x[:, 0]).clamp(0, 100),
        "sigma": unknown,
        "order": unknown,
        "levels": levels,
        "regions": torch.full((8, 9), -1),
        "group": torch.arange(8) // 4,
        "partner": torch.tensor([1, 1, 1, -3] * 2),
    }


def heads_policy(width: int = 16) -> HeadsPolicy:
    torch.manual_seed(3)
    return HeadsPolicy(Heads(Shape(features=4, width=width, blocks=1, dropout=0.3)))


def chancy(rollout: Rollout, _batch: Mapping[str, Any]) -> Tensor:
    """A reward that draws from torch's own generator: it too must go on as if never stopped."""
    return torch.rand(rollout.actions.shape[:2])


def components(policy: HeadsPolicy) -> list[Component]:
    weights = {"closeness": 1.0, "ordering": 1.0, "class": 0.5, "level": 0.5}
    return [*rewards.for_heads(weights, policy.steps), Component("chance", 0.1, chancy)]


def run(folder: Path, log: Callable[[Row], object], steps: int = 9) -> HeadsPolicy:
    policy = heads_policy()
    args = Args(steps=steps, lr=1e-2, answers=4, look_every=2, save_every=3)
    train(
        policy,
        picture_batch,
        components(policy),
        args,
        log,
        held_out=lambda trained: {"srcc": -trained.heads.score.weight.abs().sum().item()},
        folder=folder,
    )
    return policy


def test_dropout_is_off_while_learning() -> None:
    """Before its first update a policy is its own reference: any distance would be dropout's."""
    policy, rows = heads_policy().train(), list[Row]()

    train(policy, picture_batch, components(policy), Args(steps=1, updates=1), rows.append)

    assert rows[0]["kl"] == 0
    assert not policy.training


def test_the_rate_falls_linearly() -> None:
    """To `lr_last`, which the optimiser must really be given: with a rate of nothing at the end
    the last step moves nothing."""
    policy, weights = heads_policy(), list[Tensor]()
    args = Args(steps=4, lr=0.1, lr_last=0.0, updates=1, kl=0.0)

    def keep(_row: Row) -> None:
        weights.append(policy.heads.score.bias.detach().clone())

    train(policy, picture_batch, components(policy), args, keep)

    moves = [(b - a).abs().max().item() for a, b in pairwise(weights)]
    assert moves == sorted(moves, reverse=True)
    assert weights[0].abs().max() > 0


def test_the_rate_can_rise_first() -> None:
    """Adam's first step is as long as the rate, whatever the gradient."""
    policy = heads_policy()
    before = policy.heads.score.bias.detach().clone()
    args = Args(steps=1, lr=0.1, lr_ramp=9, updates=1, kl=0.0)

    train(policy, picture_batch, components(policy), args, lambda _: None)

    moved = (policy.heads.score.bias - before).abs().max().item()
    assert moved == pytest.approx(0.01, rel=1e-3)


def test_a_resumed_run_ends_in_the_same_bits(tmp_path: Path) -> None:
    """Killed between two checkpoints and started again: same weights, same log, same best."""
    straight: list[Row] = []
    uninterrupted = run(tmp_path / "a", straight.append)

    resumed: list[Row] = []

    def dying(row: Row) -> None:
        resumed.append(row)
        if row["step"] == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", dying)
    del resumed[3:]  # the last checkpoint is that of step 3
    again = run(tmp_path / "b", resumed.append)

    for (name, ours), theirs in zip(
        again.state_dict().items(), uninterrupted.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs), name
    for ours, theirs in zip(resumed, straight, strict=True):
        assert {**ours, "samples_per_second": 0} == pytest.approx(
            {**theirs, "samples_per_second": 0}, rel=0, abs=0, nan_ok=True
        )
    a, b = (checkpoints.load(tmp_path / name / BEST) for name in "ab")
    assert a["step"] == b["step"]
    assert all(torch.equal(a["policy"][name], b["policy"][name]) for name in a["policy"])


def test_a_run_with_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    """Half of one recipe and half of another is neither, and no log would tell."""
    run(tmp_path, lambda _row: None, steps=3)

    with pytest.raises(ValueError, match=r"steps 3 there, 4 here.*name another folder"):
        run(tmp_path, lambda _row: None, steps=4)


def test_a_damaged_checkpoint_is_named_with_a_remedy(tmp_path: Path) -> None:
    """Starting over silently would throw hours away."""
    run(tmp_path, lambda _row: None, steps=3)
    (tmp_path / LAST).write_bytes((tmp_path / LAST).read_bytes()[:1000])

    with pytest.raises(checkpoints.CheckpointUnreadable, match=r"last\.pt is damaged.*delete it"):
        run(tmp_path, lambda _row: None, steps=3)


# --- several processes ---


def of(index: int, count: int) -> SimpleNamespace:
    return SimpleNamespace(process_index=index, num_processes=count, device=torch.device("cpu"))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_group_is_never_divided_and_no_row_is_lost(count: int) -> None:
    """Order is judged within a group: half of one would be judged against too few."""
    group = torch.tensor([4, 4, 4, 7, 7, 2, 2, 2, 2, 9, 9])
    batch = {"group": group, "row": torch.arange(11), "prompt": [str(i) for i in range(11)]}

    shares = [share(batch, of(index, count)) for index in range(count)]

    assert torch.cat([s["row"] for s in shares]).tolist() == list(range(11))
    assert [prompt for s in shares for prompt in s["prompt"]] == batch["prompt"]
    homes = [set(s["group"].tolist()) for s in shares]
    assert sum(len(home) for home in homes) == 4
    assert all(homes)


def test_fewer_groups_than_processes_is_an_error() -> None:
    """A process without pictures would wait for the others for ever."""
    with pytest.raises(ValueError, match="1 groups cannot be shared by 2 processes"):
        share({"group": torch.zeros(5)}, of(0, 2))


def test_the_answers_to_a_picture_do_not_depend_on_its_batch() -> None:
    """So that the same run gives the same answers in any number of processes."""
    policy, batch = heads_policy(), picture_batch(0)
    seeds = torch.arange(8) * 1000
    whole = policy.answer(batch, 5, seeds)

    half = policy.answer({n: v[4:] for n, v in batch.items()}, 5, seeds[4:])

    assert torch.equal(whole.actions[4:], half.actions)


WORKER = """
import os
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path.insert(0, {root!r})
sys.path.insert(0, {here!r})
from accelerate import Accelerator
from trainer.grpo import Args, train
import test_grpo
policy, processes = test_grpo.heads_policy(), Accelerator(cpu=True)
assert processes.num_processes == 2
rows = []
train(policy, test_grpo.picture_batch, test_grpo.components(policy)[:-1],
      Args(**{args!r}), rows.append, processes=processes)
if processes.is_main_process:
    grads = {{name: p.grad for name, p in policy.named_parameters() if p.requires_grad}}
    torch.save((grads, policy.state_dict(), rows), {out!r})
torch.distributed.destroy_process_group()
os._exit(0)  # one in fifteen orderly ends of gloo's threads is an abort, on a busy machine
"""


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("advantage", ["plain", "pooled"])
def test_two_processes_give_the_gradients_of_one(tmp_path: Path, advantage: str) -> None:
    """Through accelerate, as on several GPUs: gradients, weights and the log of a whole batch.

    Shares are uneven: of three groups one process has two.
    """
    pytest.importorskip("accelerate")
    args: dict[str, Any] = {
        "steps": 2,
        "answers": 4,
        "updates": 2,
        "lr": 1e-3,
        "advantage": advantage,
    }
    here, out = Path(__file__).parent, tmp_path / "out.pt"
    script = tmp_path / "worker.py"
    script.write_text(
        WORKER.format(root=str(here.parents[1]), here=str(here), args=args, out=str(out))
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    done = subprocess.run(
        [*command, "--nproc-per-node", "2", str(script)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs, weights, rows = torch.load(out, weights_only=True)

    policy, expected = heads_policy(), list[Row]()
    train(policy, picture_batch, components(policy)[:-1], Args(**args), expected.append)

    for name, parameter in policy.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(theirs[name], parameter.grad, atol=1e-7), name
    for name, ours in policy.state_dict().items():
        assert torch.allclose(weights[name], ours, atol=1e-5), name
    for ours, row in zip(expected, rows, strict=True):
        ours["samples_per_second"] = row["samples_per_second"] = 0
        assert row == pytest.approx(ours, rel=1e-4, abs=1e-6, nan_ok=True)


# --- it learns ---


KINDS_OF_PICTURE = torch.tensor([10.0, 50.0, 90.0])


def three_kinds(step: int, *, shuffled: bool) -> dict[str, Tensor]:
    """Groups of three pictures, one of each kind, told by their features, in any order.

    shuffled: the opinions are dealt out anew, so that there is nothing to be learned but
    how often each occurs.
    """
    rng = torch.Generator().manual_seed(step)
    kind = torch.cat([torch.randperm(3, generator=rng) for _ in range(16)])
    x = 0.3 * torch.randn(48, 4, generator=rng)
    x[torch.arange(48), kind] += 1
    if shuffled:
        kind = torch.cat([torch.randperm(3, generator=rng) for _ in range(16)])
    unknown = torch.full((48,), math.nan)
    return {
        "features": x,
        "mos": KINDS_OF_PICTURE[kind],
        "sigma": unknown,
        "order": unknown,
        "group": torch.arange(48) // 3,
    }


def test_rewards_rise_and_with_shuffled_labels_they_do_not() -> None:
    """The whole loop learns what is in the data and nothing else. A constant answer earns a
    third of the closeness; no answer can earn more where features tell nothing."""
    policy = heads_policy(width=32)
    control = copy.deepcopy(policy)
    weights = {"closeness": 1.0, "ordering": 1.0}
    args = Args(steps=120, lr=1e-2, kl=0.02, updates=2)
    learned: list[Row] = []
    fooled: list[Row] = []

    for student, rows, shuffled in ((policy, learned, False), (control, fooled, True)):
        train(
            student,
            partial(three_kinds, shuffled=shuffled),
            rewards.for_heads(weights, student.steps),
            args,
            rows.append,
        )

    def last(rows: list[Row], name: str) -> float:
        return float(np.mean([row[f"reward/{name}"] for row in rows[-21:-1]]))

    fresh = three_kinds(10**6, shuffled=False)
    error, error_of_control = (
        (student.heads.read(fresh["features"]).quality - fresh["mos"]).abs().mean().item()
        for student in (policy, control)
    )
    assert learned[0]["reward/closeness"] < 0.35
    assert last(learned, "closeness") > 0.85
    assert last(learned, "ordering") > learned[0]["reward/ordering"] + 0.1
    assert error < 10
    assert last(fooled, "closeness") < 0.4
    assert error_of_control > 20
