"""Heads on a frozen backbone: what is said of a picture, as one small network and as a policy.

    h   = trunk(clip((x - centre) gain))                       (B, H)   shared, trainable
    d   = softmax of eight heads on h: absent, level 1 .. 5    (B, 8, 6)
    r   = softmax of nine heads on h: intact, damaged          (B, 9, 2)
    s   = softmax of one head on [h, d], over quality bins     (B, bins)
    p   = softmax of one head on h - h of the partner          (B, 3)   worse, similar, better

The score head reads the degradation heads' probabilities as evidence: no gradient goes back
through them, so that a better score is never bought with a wrong degradation.

Training samples an outcome per head; reading out never samples: quality is the expectation of
the score distribution, uncertainty its deviation, the same on every run and in every batch.

Shapes: B pictures, F features, H width of the trunk, G answers, T heads, V most outcomes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer import checkpoints
from trainer.grpo import Batch, Rollout, Said
from vqmon.domain import CELLS, DEGRADATIONS

LEVELS = 6
"""Outcomes of a degradation head: absent, or severity 1 to 5."""

TRAINABLE_LIMIT = 10_000_000
"""Heads are small; whatever needs more belongs into the backbone."""

NEVER = -1e4
"""Log-probability of outcomes that a head does not have; its exponential is exactly 0."""

FARTHEST = 8.0
"""Deviations from the training mean beyond which a feature says no more."""

SCORE = 0
KINDS = slice(1, 1 + len(DEGRADATIONS))
REGIONS = slice(KINDS.stop, KINDS.stop + len(CELLS))
PAIR = REGIONS.stop


@dataclass(frozen=True, slots=True)
class Shape:
    """What a network of heads is built from. bins: of quality, evenly from 0 to 100."""

    features: int
    width: int = 256
    blocks: int = 2
    bins: int = 21
    dropout: float = 0.1
    pair: bool = False

    @property
    def steps(self) -> dict[str, int]:
        """Name of a head -> its step."""
        names = ["score", *DEGRADATIONS, *CELLS, *(["pair"] if self.pair else [])]
        return {name: step for step, name in enumerate(names)}


@dataclass(frozen=True, slots=True)
class Reading:
    """The deterministic read-out.

    quality: (B,) 0..100; uncertainty: (B,) one standard deviation, points.
    present: (B, 8) probability of each degradation; level: (B, 8) expected severity 1..5 if it
    is there. damaged: (B, 9) probability of each cell.
    """

    quality: Tensor
    uncertainty: Tensor
    present: Tensor
    level: Tensor
    damaged: Tensor


class Heads(nn.Module):
    """(B, F) features of the frozen backbone -> what the picture is said to be."""

    centre: Tensor
    gain: Tensor
    bins: Tensor

    def __init__(self, shape: Shape) -> None:
        """Raises ValueError when there are TRAINABLE_LIMIT trainable parameters or more."""
        super().__init__()
        self.shape = shape
        self.register_buffer("centre", torch.zeros(shape.features))
        self.register_buffer("gain", torch.ones(shape.features))
        self.register_buffer("bins", torch.linspace(0, 100, shape.bins))
        self.enter = nn.Linear(shape.features, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.blocks))
        self.leave = nn.LayerNorm(shape.width)
        self.degradations = nn.Linear(shape.width, len(DEGRADATIONS) * LEVELS)
        self.regions = nn.Linear(shape.width, len(CELLS) * 2)
        self.score = nn.Linear(shape.width + len(DEGRADATIONS) * LEVELS, shape.bins)
        self.pair = Pair(shape) if shape.pair else None
        if trainable(self) >= TRAINABLE_LIMIT:
            raise ValueError(
                f"{trainable(self):,} trainable parameters; the heads must stay under "
                f"{TRAINABLE_LIMIT:,}: make `width` or `blocks` smaller"
            )

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Probabilities of score (B, bins), degradations (B, 8, 6) and regions (B, 9, 2)."""
        score, kinds, regions = self.logits(self.trunk(features))
        return score.softmax(-1), kinds.softmax(-1), regions.softmax(-1)

    def standardise(self, features: Tensor) -> None:
        """Take centre and gain from training features (n, F); a constant one counts nothing."""
        std = features.float().std(0)
        self.centre.copy_(features.float().mean(0))
        self.gain.copy_((1 / std).where(std > 1e-6, 0.0))

    def trunk(self, features: Tensor) -> Tensor:
        """(B, H)"""
        standard = (features.float() - self.centre) * self.gain
        hidden = self.enter(standard.clamp(-FARTHEST, FARTHEST))
        for block in self.blocks:
            hidden = block(hidden)
        left: Tensor = self.leave(hidden)
        return left

    def logits(self, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, bins), (B, 8, 6), (B, 9, 2)"""
        kinds = self.degradations(hidden).unflatten(-1, (len(DEGRADATIONS), LEVELS))
        regions = self.regions(hidden).unflatten(-1, (len(CELLS), 2))
        evidence = kinds.detach().softmax(-1).flatten(1)
        return self.score(torch.cat([hidden, evidence], -1)), kinds, regions

    def distributions(self, features: Tensor, partner: Tensor | None = None) -> Tensor:
        """(B, T, V) log-probabilities, NEVER beyond a head's own outcomes.

        partner: (B,) rows from each picture to the one that the pair head compares it with.
        """
        hidden = self.trunk(features)
        score, kinds, regions = self.logits(hidden)
        heads = [score[:, None], kinds, regions]
        if self.pair is not None:
            heads.append(self.pair(hidden, hidden[_partner(hidden, partner)])[:, None])
        most = max(head.shape[-1] for head in heads)
        return torch.cat(
            [
                functional.pad(h.log_softmax(-1), (0, most - h.shape[-1]), value=NEVER)
                for h in heads
            ],
            1,
        )

    @torch.no_grad()
    def read(self, features: Tensor) -> Reading:
        """What is said of each picture, without any chance in it; leaves the mode as it was."""
        mode = self.training
        score, kinds, regions = self.eval()(features)
        self.train(mode)
        quality = score @ self.bins
        spread = (score * (self.bins - quality[:, None]).square()).sum(-1).sqrt()
        present = 1 - kinds[..., 0]
        levels = torch.arange(1, LEVELS, device=kinds.device).to(kinds)
        level = (kinds[..., 1:] @ levels) / kinds[..., 1:].sum(-1).clamp(min=1e-12)
        return Reading(quality, spread, present, level.clamp(1, LEVELS - 1), regions[..., 1])


class Block(nn.Module):
    """h + W gelu(norm h), with dropout in training."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.width)
        self.inner = nn.Linear(shape.width, shape.width)
        self.outer = nn.Linear(shape.width, shape.width)
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, hidden: Tensor) -> Tensor:
        inner = functional.gelu(self.inner(self.norm(hidden)))
        return torch.add(hidden, self.outer(self.dropout(inner)))


class Pair(nn.Module):
    """Two pictures' trunks -> logits of worse, similar, better; swapping them swaps the ends."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.better = nn.Linear(shape.width, 1, bias=False)
        self.similar = nn.Linear(shape.width, 1)

    def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
        difference = ours - theirs
        better = self.better(difference)
        return torch.cat([-better, self.similar(difference.abs()), better], -1)


class Headed(nn.Module):
    """A backbone and heads as one network, the one that is exported.

    Lite's backbone is a part of it. A large model stays outside, and its features come in: the
    backbone is then `nn.Identity()`.
    """

    def __init__(self, backbone: nn.Module, heads: Heads) -> None:
        super().__init__()
        self.backbone, self.heads = backbone, heads

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Probabilities of score (B, bins), levels (B, 8, 6) and regions (B, 9)."""
        score, levels, regions = self.heads(self.backbone(*inputs))
        return score, levels, regions[..., 1]


class HeadsPolicy(nn.Module):
    """Heads, sampled; a `trainer.grpo.Policy` with exact distributions.

    Batches hold "features" (B, F) and, for the pair head, "partner" (B,): see trainer.rewards.
    The reference is a frozen copy of the heads as they are when the policy is made.
    """

    def __init__(self, heads: Heads) -> None:
        super().__init__()
        self.heads = heads
        self.start = copy.deepcopy(heads).requires_grad_(False)
        self._as_reference = False

    @property
    def steps(self) -> dict[str, int]:
        """Name of a head -> its step."""
        return self.heads.shape.steps

    def forward(self, batch: Batch, actions: Tensor) -> Said:
        distributions = self.distributions(batch)
        return Said(_chosen(distributions, actions), distributions)

    def log_prob(self, batch: Batch, actions: Tensor) -> Tensor:
        """(B, G, T) of the outcomes chosen, differentiable."""
        return _chosen(self.distributions(batch), actions)

    def distributions(self, batch: Batch) -> Tensor:
        """(B, T, V) log-probabilities of all outcomes, differentiable."""
        heads = self.start if self._as_reference else self.heads
        return heads.distributions(batch["features"], batch.get("partner"))

    @contextmanager
    def reference(self) -> Iterator[None]:
        self._as_reference = True
        try:
            yield
        finally:
            self._as_reference = False

    @torch.no_grad()
    def answer(self, batch: Batch, answers: int, seeds: Tensor) -> Rollout:
        """One outcome per head and answer, by inverting the distribution; dropout is off."""
        mode = self.training
        distributions = self.eval().distributions(batch)  # (B, T, V)
        self.train(mode)
        chance = _uniform(seeds, answers, distributions.shape[1]).to(distributions)  # (B, G, T)
        below = distributions.exp().cumsum(-1)[:, None] <= chance[..., None]  # (B, G, T, V)
        possible = (distributions > NEVER / 2).sum(-1)  # (B, T)
        actions = below.sum(-1).minimum(possible[:, None] - 1)
        return self._meaning(batch, actions)

    def _meaning(self, batch: Batch, actions: Tensor) -> Rollout:
        mask = torch.ones_like(actions, dtype=torch.bool)
        preference = None
        if self.heads.pair is not None:
            mask[..., PAIR] = (batch["partner"] != 0)[:, None]
            preference = actions[..., PAIR] - 1.0
        return Rollout(
            actions=actions,
            mask=mask,
            readable=torch.ones_like(mask[..., 0]),
            quality=self.heads.bins[actions[..., SCORE]],
            levels=actions[..., KINDS],
            regions=actions[..., REGIONS],
            preference=preference,
        )


def trainable(network: nn.Module) -> int:
    """Number of parameters that learn."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def save(path: Path, heads: Heads, **facts: Any) -> None:
    """The heads alone, without any state of training. facts: tensors and plain values."""
    checkpoints.save(path, {"shape": asdict(heads.shape), "heads": heads.state_dict(), **facts})


def load(path: Path) -> Heads:
    """Heads as `save` left them. Raises CheckpointUnreadable."""
    held = checkpoints.load(path)
    try:
        heads = Heads(Shape(**held["shape"]))
        heads.load_state_dict(held["heads"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise checkpoints.CheckpointUnreadable(
            f"{path} holds no heads that this checkout can build ({error}): save them again"
        ) from error
    return heads.eval()


def _chosen(distributions: Tensor, actions: Tensor) -> Tensor:
    """(B, T, V), (B, G, T) -> (B, G, T)"""
    every = distributions[:, None].expand(-1, actions.shape[1], -1, -1)
    return every.gather(-1, actions[..., None]).squeeze(-1)


def _uniform(seeds: Tensor, answers: int, steps: int) -> Tensor:
    """(B, G, T) in [0, 1); row b comes from seeds[b] alone."""
    rng = torch.Generator()
    return torch.stack(
        [torch.rand(answers, steps, generator=rng.manual_seed(seed)) for seed in seeds.tolist()]
    )


def _partner(hidden: Tensor, partner: Tensor | None) -> Tensor:
    rows = torch.arange(len(hidden), device=hidden.device)
    return rows if partner is None else rows + partner
