"""Rewards: plain functions (Rollout, Batch) -> (B, G), each in 0..1.

Worth of an answer that cannot be read: 0. Of any answer to a picture whose label is unknown:
NaN, which GRPO takes as "no opinion".

Labels that they read from a batch (B rows; NaN or -1 where unknown):

    mos (B,) 0..100 and sigma (B,), its deviation between viewers in points
    order (B,) rank of quality known exactly, higher is better, comparable within a group
    group (B,) pictures to be compared with each other; partner (B,) rows from a picture to the
        one it is compared with, 0 for none
    levels (B, 8) 0 absent, 1..5; regions (B, 9) 0 intact, 1 damaged
    preferred (B,), where a row holds two pictures: how likely viewers are to prefer the first

Shapes: B pictures, G answers each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor

from trainer.grpo import Batch, Component, Rollout
from vqmon.domain import CELLS, DEGRADATIONS

SIGMA = 4.0
"""Points between viewers where a set does not tell: .04 of full scale."""

WIDTH = 10.0
"""Points from the opinion at which closeness has fallen to 0.61."""

GAMMA = 1.0
"""Points squared: keeps the order of two pictures uncertain when all answers are the same."""

SIMILAR = 3.0
"""Two scores not farther apart than so many points say "similar"."""

WITHIN = 8.75
"""Points from the opinion inside which a score is right: .35 of a scale from 1 to 5."""

ALL = slice(None)


def readable(rollout: Rollout, _batch: Batch) -> Tensor:
    """The format is kept."""
    return rollout.readable.float()


def closeness(rollout: Rollout, batch: Batch, width: float = WIDTH) -> Tensor:
    """A bell around the opinion: 1 there, exp(-1/2) `width` points away."""
    quality = _asked(rollout.quality, "quality")
    error = (quality - batch["mos"][:, None]) / width  # (B, G)
    near = torch.exp(-0.5 * error.square())
    return near.where(quality.isfinite(), 0.0).where(batch["mos"].isfinite()[:, None], math.nan)


def within(rollout: Rollout, batch: Batch, width: float = WITHIN) -> Tensor:
    """1 less than `width` points from the opinion, else 0 (Q-Insight)."""
    quality = _asked(rollout.quality, "quality")
    right = (quality - batch["mos"][:, None]).abs() < width  # NaN is not
    earned: Tensor = right.float().where(batch["mos"].isfinite()[:, None], math.nan)
    return earned


def ordering(rollout: Rollout, batch: Batch, gamma: float = GAMMA) -> Tensor:
    """How well an answer ranks its picture among the others of its group (VisualQuality-R1).

    p_k(i, j) = Phi((q_k(i) - mu_j) / sqrt(s2_i + s2_j + gamma)), with mean and variance (n - 1)
    of the readable answers; earned is the mean over j of the fidelity
    sqrt(p p_k) + sqrt((1 - p)(1 - p_k)) to the preference p of viewers.
    """
    quality = _asked(rollout.quality, "quality").double()  # the root of 1 - p needs the digits
    mean, variance = _spread(quality)  # (B,)
    preferred = preference(batch)  # (B, B)
    distance = quality[:, :, None] - mean  # (B, G, B)
    width = (variance[:, None] + variance + gamma).sqrt()[:, None]  # (B, 1, B)
    said = _normal(distance / width)
    p = preferred[:, None]
    fidelity = (p * said).sqrt() + ((1 - p) * (1 - said)).sqrt()
    counts = (preferred.isfinite() & mean.isfinite())[:, None]  # (B, 1, B)
    earned = fidelity.where(counts, 0.0).where(quality.isfinite()[..., None], 0.0).sum(-1)
    return (earned / counts.sum(-1)).clamp(max=1.0).float()  # 0 / 0: nothing to compare with


def pair(rollout: Rollout, batch: Batch, similar: float = SIMILAR) -> Tensor:
    """How much viewers agree with what an answer says of its picture and the partner.

    "better" earns the preference p of viewers, "worse" 1 - p, "similar" 1 - |2 p - 1|. A policy
    that says no preference is taken by its score against the partner's mean score. Where a row
    holds both pictures, the batch tells its "preferred".
    """
    p, said = _preferred(batch), rollout.preference
    if said is None:
        partner = _partner(batch)
        quality = _asked(rollout.quality, "quality")
        theirs = _spread(quality)[0][partner][:, None]
        margin = quality - theirs
        said = margin.sign().where(margin.abs() > similar, 0.0).where(margin.isfinite(), math.nan)
        p = p.where(theirs.isfinite(), math.nan)
    return _agreed(said, p)


def _preferred(batch: Batch) -> Tensor:
    """(B, 1) how likely viewers are to prefer a row to its partner, NaN without one."""
    if "preferred" in batch:
        return torch.as_tensor(batch["preferred"])[:, None]
    partner = _partner(batch)
    rows = torch.arange(len(partner), device=partner.device)
    return preference(batch).float()[rows, partner][:, None]


def _partner(batch: Batch) -> Tensor:
    """(B,) row that each row is compared with."""
    offsets: Tensor = batch["partner"]
    return offsets + torch.arange(len(offsets), device=offsets.device)


def _agreed(said: Tensor, p: Tensor) -> Tensor:
    agreed = torch.where(said > 0, p, 1 - p).where(said != 0, 1 - (2 * p - 1).abs())
    return agreed.where(said.isfinite(), 0.0).where(p.isfinite(), math.nan)


def degradation_class(rollout: Rollout, batch: Batch, only: slice = ALL) -> Tensor:
    """Share of the known degradations that are rightly called present or absent."""
    said, truth = _labelled(rollout.levels, batch["levels"], only, "levels")
    right = ((said > 0) == (truth > 0)) & (said >= 0)
    return _share(right.float(), truth >= 0)


def degradation_level(rollout: Rollout, batch: Batch, only: slice = ALL) -> Tensor:
    """1 - |difference| / 4 of the levels of what is there and was seen; 0 for what was missed.

    Absent degradations have no level: where none is present there is nothing to judge.
    """
    said, truth = _labelled(rollout.levels, batch["levels"], only, "levels")
    near = (1 - (said - truth).abs() / 4).where(said > 0, 0.0)
    return _share(near, truth > 0)


def named(rollout: Rollout, batch: Batch) -> Tensor:
    """1 when exactly the degradations that are there are named, of those that are known."""
    said, truth = _labelled(rollout.levels, batch["levels"], ALL, "levels")
    return _all((said > 0) == (truth > 0), said, truth)


def graded(rollout: Rollout, batch: Batch) -> Tensor:
    """1 when exactly the degradations that are there are named, each at its level."""
    said, truth = _labelled(rollout.levels, batch["levels"], ALL, "levels")
    return _all(said == truth, said, truth)


def agreement(rollout: Rollout, batch: Batch) -> Tensor:
    """1 when the answer says of two pictures what most viewers say, else 0 (Q-Insight)."""
    said, p = _asked(rollout.preference, "preference"), _preferred(batch)
    right = said == (2 * p - 1).sign()
    earned: Tensor = right.float().where(p.isfinite(), math.nan)
    return earned


def region(rollout: Rollout, batch: Batch, only: slice = ALL) -> Tensor:
    """Share of the known cells that are rightly called damaged or intact."""
    said, truth = _labelled(rollout.regions, batch["regions"], only, "regions")
    return _share((said == truth).float(), truth >= 0)


def preference(batch: Batch) -> Tensor:
    """(B, B) float64: how likely viewers are to prefer row i to row j; NaN where unknown.

    1, 1/2 or 0 where the order is exact, else Phi((m_i - m_j) / sqrt(sigma_i^2 + sigma_j^2)).
    Rows of different groups are not compared.
    """
    rank, mos = batch["order"].double(), batch["mos"].double()
    sigma = batch["sigma"].double().nan_to_num(SIGMA)
    above = rank[:, None] - rank
    exact = ((above.sign() + 1) / 2).where(above.isfinite(), math.nan)  # the sign of NaN is 0
    width = (sigma[:, None].square() + sigma.square()).sqrt()
    soft = _normal((mos[:, None] - mos) / width)
    group = batch["group"]
    rows = torch.arange(len(group), device=group.device)
    others = (group[:, None] == group) & (rows[:, None] != rows)
    preferred: Tensor = exact.where(exact.isfinite(), soft).where(others, math.nan)
    return preferred


def _spread(quality: Tensor) -> tuple[Tensor, Tensor]:
    """(B, G) -> mean (NaN where nothing is readable) and variance (0 for a single answer)."""
    said = quality.isfinite()
    count = said.sum(-1)
    mean = quality.where(said, 0.0).sum(-1) / count
    squares = (quality - mean[:, None]).square().where(said, 0.0).sum(-1)
    return mean, squares / (count - 1).clamp(min=1)


def _labelled(said: Tensor | None, truth: Tensor, part: slice, name: str) -> tuple[Tensor, Tensor]:
    """(B, G, n) said and (B, 1, n) true."""
    return _asked(said, name)[..., part], truth[:, None, part]


def _share(worth: Tensor, judged: Tensor) -> Tensor:
    """(B, G, n) -> (B, G): mean over what can be judged, NaN where nothing can."""
    return worth.where(judged, 0.0).sum(-1) / judged.sum(-1)


def _all(right: Tensor, said: Tensor, truth: Tensor) -> Tensor:
    """(B, G, n) -> (B, G): 1 where all that is known is right, NaN where nothing is known."""
    known = truth >= 0
    worth = ((right & (said >= 0)) | ~known).all(-1).float()
    return worth.where(known.any(-1), math.nan)


def _normal(deviations: Tensor) -> Tensor:
    """Phi: the share of a normal distribution below."""
    share: Tensor = torch.special.ndtr(deviations)
    return share


def _asked(said: Tensor | None, name: str) -> Tensor:
    if said is None:
        raise ValueError(
            f"the policy says no {name}: leave out the rewards for it, or use another policy"
        )
    return said


REWARDS: Mapping[str, Callable[..., Tensor]] = {
    "format": readable,
    "closeness": closeness,
    "within": within,
    "ordering": ordering,
    "pair": pair,
    "agreement": agreement,
    "named": named,
    "graded": graded,
    "class": degradation_class,
    "level": degradation_level,
    "region": region,
}
"""By the names that recipes use."""


def for_text(weights: Mapping[str, float]) -> list[Component]:
    """Every component acts on every token."""
    _check(weights)
    return [Component(name, weight, REWARDS[name]) for name, weight in weights.items() if weight]


def for_heads(weights: Mapping[str, float], steps: Mapping[str, int]) -> list[Component]:
    """Each head gets what it can influence, judged for itself.

    steps: name of a head -> its step: "score", each of DEGRADATIONS, each of CELLS, and "pair"
    where the policy has such a head; without one, "pair" teaches the score.
    """
    _check(weights)
    if weights.get("format"):
        raise ValueError("heads cannot break a format: leave `format` out of their rewards")
    found: list[Component] = []
    for name, weight in weights.items():
        if weight:
            found += _of_heads(name, weight, steps)
    return found


def _of_heads(name: str, weight: float, steps: Mapping[str, int]) -> list[Component]:
    reward = REWARDS[name]
    if name in ("class", "level", "region"):
        heads = CELLS if name == "region" else DEGRADATIONS
        return [
            Component(
                f"{name}/{head}", weight, partial(reward, only=slice(i, i + 1)), (steps[head],)
            )
            for i, head in enumerate(heads)
        ]
    step = steps["pair"] if name == "pair" and "pair" in steps else steps["score"]
    return [Component(name, weight, reward, (step,))]


def _check(weights: Mapping[str, float]) -> None:
    for name, weight in weights.items():
        if name not in REWARDS:
            raise ValueError(f"unknown reward {name!r}; known: {', '.join(REWARDS)}")
        if not 0 <= weight < math.inf:
            raise ValueError(f"the weight of {name} is {weight}; it must be 0 or more")
    if not any(weights.values()):
        raise ValueError("no reward has a weight: nothing could be learned")
