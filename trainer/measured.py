"""The network that predicts quality from measured signals, and how it learns.

    z      = (clip(x, low, high) - centre) / scale           the training range, nothing beyond
    m, s   = perceptron(z without coding measures)           for each of E members
    m'     = m - 5 sum_d softplus(w_d) max(0, z_d - start_d)  coding damage d: never raises quality
    p_b    = softmax_b(-(v_b - m')^2 / 2 s^2)                over the quality bins v
    score  = mean of p over members                          (N, bins)

Opinions teach the perceptrons through closeness, correlation, order and likelihood; ladders of
damaged photographs teach order alone, and are all that the weights w ever see: pictures with
opinions are nearly all JPEG of one quality, so that coding measures say nothing of their MOS.

Shapes: E members, B pictures of a batch, F measures, L ladders, R rungs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

BINS = tuple(range(0, 101, 5))
"""Quality of each bin of the score distribution."""

LEAST_SPREAD = 4.0
"""Points; narrower distributions would fall between the bins."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What was chosen on validation pictures; see trainer/README.md for the choices."""

    members: int = 8
    hidden: int = 64
    dropout: float = 0.1
    steps: int = 3000
    batch: int = 256
    ladders: int = 32
    lr: float = 2e-3
    weight_decay: float = 1e-3
    correlation: float = 0.5
    order: float = 0.3
    likelihood: float = 0.1
    ladder: float = 0.3
    clean: float = 0.2
    clean_floor: float = 74.0
    """Clean photographs are pulled up to this quality, no further."""
    ladder_step: float = 6.0
    """Points between two rungs at which the pull of a ladder has mostly faded."""
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Lessons:
    """opinions: (n, draws, F) with quality (n,) 0..100. ladders: (l, R, draws, F), least damage
    first. clean: (c, draws, F).
    """

    opinions: Tensor
    quality: Tensor
    ladders: Tensor
    clean: Tensor


class Perceptrons(nn.Module):
    """E perceptrons side by side on standardised measures."""

    low: Tensor
    high: Tensor
    centre: Tensor
    scale: Tensor

    def __init__(self, members: int, sizes: Sequence[int], dropout: float) -> None:
        """sizes: of the layers, inputs first. The last one starts near nothing."""
        super().__init__()
        self.layers = nn.ParameterList()
        self.biases = nn.ParameterList()
        for before, after in pairwise(sizes):
            last = len(self.layers) == len(sizes) - 2
            weight = torch.randn(members, before, after) * math.sqrt(1.5 / before)
            self.layers.append(nn.Parameter(weight * (0.1 if last else 1.0)))
            self.biases.append(nn.Parameter(torch.zeros(members, 1, after)))
        self.dropout = dropout

    def take(self, *, low: Tensor, high: Tensor, centre: Tensor, scale: Tensor) -> None:
        """What measures are clipped to and measured by, (F,) each."""
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale)

    def standard(self, measures: Tensor) -> Tensor:
        inside = torch.minimum(torch.maximum(measures, self.low), self.high)
        return (inside - self.centre) / self.scale

    def given(self, z: Tensor) -> Tensor:
        """(E or 1, N, inputs) -> (E, N, outputs), each member's own."""
        for i, (weight, bias) in enumerate(zip(self.layers, self.biases, strict=True)):
            z = torch.matmul(z, weight) + bias
            if i < len(self.layers) - 1:
                z = functional.dropout(functional.gelu(z), self.dropout, self.training)
        return z


class MeasuredQuality(Perceptrons):
    """(N, F) measures -> (N, bins) probabilities."""

    start: Tensor
    bins: Tensor
    seen: Tensor
    coding: Tensor

    def __init__(self, lessons: Lessons, coding: Sequence[int], recipe: Recipe) -> None:
        """`coding`: which measures are left to the penalty."""
        opinions = lessons.opinions.flatten(0, -2)
        seen = [i for i in range(opinions.shape[1]) if i not in set(coding)]
        super().__init__(
            recipe.members, (len(seen), recipe.hidden, recipe.hidden, 2), recipe.dropout
        )
        self.recipe = recipe
        everything = torch.cat([opinions, lessons.ladders.flatten(0, -2)])
        self.take(
            low=everything.amin(0),
            high=everything.amax(0),
            centre=opinions.median(0).values,
            scale=_spread(opinions),
        )
        self.register_buffer("coding", torch.tensor(list(coding), dtype=torch.long))
        self.register_buffer("seen", torch.tensor(seen, dtype=torch.long))
        self.register_buffer("bins", torch.tensor(BINS, dtype=torch.float32))
        usual = self.standard(opinions)[:, self.coding]
        self.register_buffer(
            "start", usual.quantile(0.98, 0) if len(coding) else usual.new_zeros(0)
        )
        self.pull = nn.Parameter(torch.zeros(len(coding)))

    def forward(self, measures: Tensor) -> Tensor:
        return self.distributions(measures.unsqueeze(0)).mean(0)

    def distributions(self, measures: Tensor, *, fixed_pull: bool = False) -> Tensor:
        """(E or 1, N, F) -> (E, N, bins), each member's own."""
        z = self.standard(measures)
        h = self.given(z[..., self.seen])
        middle = 60 + 30 * h[..., :1] - self._penalty(z, fixed_pull).unsqueeze(-1)
        spread = LEAST_SPREAD + 10 * functional.softplus(h[..., 1:])
        return torch.softmax(-0.5 * ((self.bins - middle) / spread) ** 2, -1)

    def expectation(self, distribution: Tensor) -> Tensor:
        return (distribution * self.bins).sum(-1)

    def _penalty(self, z: Tensor, fixed: bool) -> Tensor:
        """Points lost to coding damage beyond what pictures with opinions usually show."""
        pull = functional.softplus(self.pull.detach() if fixed else self.pull)
        beyond = functional.relu(z[..., self.coding] - self.start)
        return 5 * (beyond * pull).sum(-1)


def train(
    network: MeasuredQuality,
    lessons: Lessons,
    recipe: Recipe,
    look: Callable[[int], float],
    every: int = 250,
) -> float:
    """Learn; keep the weights of the step at which `look` (higher is better) was best."""
    rng = torch.Generator().manual_seed(recipe.seed)
    torch.manual_seed(recipe.seed)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.lr, total_steps=recipe.steps, pct_start=0.1
    )
    best, kept = -math.inf, network.state_dict()
    for step in range(1, recipe.steps + 1):
        network.train()
        loss = _loss(network, lessons, recipe, rng)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no stub for it
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % every == 0 or step == recipe.steps:
            network.eval()
            merit = look(step)
            if merit > best:
                best = merit
                kept = {name: value.clone() for name, value in network.state_dict().items()}
    network.load_state_dict(kept)
    network.eval()
    return best


def _loss(
    network: MeasuredQuality, lessons: Lessons, recipe: Recipe, rng: torch.Generator
) -> Tensor:
    """Every member sees pictures of its own choice."""
    members = recipe.members
    rows = torch.randint(len(lessons.quality), (members, recipe.batch), generator=rng)
    seen = _draw(lessons.opinions[rows], rng)  # (E, B, F)
    said = lessons.quality[rows]  # (E, B)
    given = network.distributions(seen, fixed_pull=True)  # (E, B, bins)
    loss = opinion_loss(network.expectation(given), said, recipe)
    loss = loss + recipe.likelihood * likelihood_loss(given, said, network.bins)
    if recipe.ladder and len(lessons.ladders):
        rows = torch.randint(len(lessons.ladders), (members, recipe.ladders), generator=rng)
        rungs = _draw(lessons.ladders[rows], rng)  # (E, L, R, F)
        shape = rungs.shape[:3]
        given = network.distributions(rungs.flatten(1, 2))
        loss = loss + recipe.ladder * ladder_loss(
            network.expectation(given).reshape(shape), recipe.ladder_step
        )
    if recipe.clean and len(lessons.clean):
        rows = torch.randint(len(lessons.clean), (members, recipe.ladders), generator=rng)
        given = network.distributions(_draw(lessons.clean[rows], rng), fixed_pull=True)
        short = functional.relu(recipe.clean_floor - network.expectation(given))
        loss = loss + recipe.clean * (short / 10).mean()
    return loss


def _draw(values: Tensor, rng: torch.Generator) -> Tensor:
    """(..., draws, F) -> (..., F): one draw of offsets for all pictures of the batch."""
    return values[..., int(torch.randint(values.shape[-2], (1,), generator=rng)), :]


def opinion_loss(quality: Tensor, said: Tensor, recipe: Recipe) -> Tensor:
    """Closeness (in units of 10 points), correlation and order; (E, B) each."""
    close = functional.smooth_l1_loss(quality / 10, said / 10)
    return (
        close
        + recipe.correlation * (1 - correlation(quality, said)).mean()
        + recipe.order * order_loss(quality, said)
    )


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, along the last axis."""
    a = a - a.mean(-1, keepdim=True)
    b = b - b.mean(-1, keepdim=True)
    found: Tensor = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1) + 1e-6)
    return found


def order_loss(quality: Tensor, said: Tensor, width: float = 5.0) -> Tensor:
    """Pairs of neighbours in the batch: -log P(the better one scores higher), where the
    opinions differ by more than the noise of a mean opinion.
    """
    apart = said - said.roll(1, -1)
    given = quality - quality.roll(1, -1)
    told = (apart.abs() > 4).float()
    losses = functional.softplus(-given * apart.sign() / width)
    return (losses * told).sum() / told.sum().clamp(min=1)


def likelihood_loss(distribution: Tensor, said: Tensor, bins: Tensor, sigma: float = 4.0) -> Tensor:
    """Cross-entropy with a normal of `sigma` around each opinion (BIQ2021 tells no spread)."""
    target = torch.softmax(-0.5 * ((bins - said.unsqueeze(-1)) / sigma) ** 2, -1)
    return -(target * (distribution + 1e-6).log()).sum(-1).mean()


def ladder_loss(quality: Tensor, step: float) -> Tensor:
    """(E, L, R) least damage first: every rung above every lower one; no absolute target."""
    rungs = quality.shape[-1]
    upper, lower = torch.triu_indices(rungs, rungs, 1)
    given = quality[..., upper] - quality[..., lower]
    return functional.softplus(-given / step * 2).mean()


def _spread(values: Tensor) -> Tensor:
    """Robust deviation per column, never zero."""
    low, high = values.quantile(torch.tensor([0.1, 0.9]), 0)
    return torch.maximum((high - low) / 2.56, values.std(0) / 4).clamp(min=1e-6)


def predict(
    network: MeasuredQuality, values: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(n, F) -> raw quality and spread (n,), points, before any calibration."""
    with torch.no_grad():
        distribution = network.eval()(torch.from_numpy(np.ascontiguousarray(values)))
        mean = network.expectation(distribution)
        variance = (distribution * (network.bins - mean.unsqueeze(-1)) ** 2).sum(-1)
    return mean.numpy(), variance.sqrt().numpy()
