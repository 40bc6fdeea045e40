"""Degradations and their levels from measured signals alone, and how they are learned.

    python -m trainer.levels --synthetic FOLDER --out levels.pt

    z = (clip(x, low, high) - centre) / scale        the training range, nothing beyond
    p = mean over members of softmax(perceptron(z))  (N, 8, 6): absent, level 1 .. 5

Light is told from what is in the picture, and so from many contents; a perceptron learns them all
in minutes where the network (`trainer.warmup`) has seen each a few times when its time is over.
The release takes the mean of both (`trainer.release`).

Few passes are best: with 40 instead of 20 it remembers contents, and finds less on others.

Shapes: E members, B pictures of a batch, N pictures, F measures.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer import checkpoints, synthesise
from trainer.measured import Perceptrons
from trainer.policies.heads import LEVELS
from trainer.warmup import level_loss
from vqmon.domain import DEGRADATIONS
from vqmon.measures import MEASURES


@dataclass(frozen=True, slots=True)
class Recipe:
    """What was chosen on validation contents. noise: added to inputs, in deviations."""

    members: int = 3
    hidden: int = 384
    dropout: float = 0.2
    noise: float = 0.03
    passes: int = 20
    batch: int = 256
    lr: float = 2e-3
    weight_decay: float = 0.02
    seed: int = 1


class MeasuredLevels(Perceptrons):
    """(N, F) measures -> (N, 8, 6) probabilities."""

    def __init__(self, recipe: Recipe, measures: NDArray[np.float32]) -> None:
        """measures: (n, F) of the training pictures, for range and standard."""
        sizes = (len(MEASURES), recipe.hidden, recipe.hidden, len(DEGRADATIONS) * LEVELS)
        super().__init__(recipe.members, sizes, recipe.dropout)
        self.noise = recipe.noise
        low, high = np.quantile(measures, [0.001, 0.999], axis=0).astype(np.float32)
        inside = np.clip(measures, low, high)
        found = {"low": low, "high": high, "centre": inside.mean(0)}
        found["scale"] = np.maximum(inside.std(0), 1e-6)
        self.take(**{name: torch.from_numpy(value) for name, value in found.items()})

    def forward(self, measures: Tensor) -> Tensor:
        return self.logits(measures.unsqueeze(0)).softmax(-1).mean(0)

    def logits(self, measures: Tensor) -> Tensor:
        """(E or 1, N, F) -> (E, N, 8, 6), each member's own; in training with noise."""
        z = self.standard(measures)
        if self.training:
            z = z + self.noise * torch.randn_like(z)
        given = self.given(z)
        return given.reshape(*given.shape[:-1], len(DEGRADATIONS), LEVELS)


def learn(
    measures: NDArray[np.float32], levels: NDArray[np.int8], recipe: Recipe
) -> MeasuredLevels:
    """measures: (n, draws, F). levels: (n, 8), -1 unknown. Members see pictures of their own
    choice.
    """
    torch.manual_seed(recipe.seed)
    network = MeasuredLevels(recipe, measures.reshape(-1, measures.shape[-1]))
    seen, truth = torch.from_numpy(measures), torch.from_numpy(levels)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay
    )
    steps = math.ceil(recipe.passes * len(seen) / recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, recipe.lr, total_steps=steps, pct_start=0.05
    )
    rng = torch.Generator().manual_seed(recipe.seed)
    network.train()
    for _ in range(steps):
        rows = torch.randint(len(seen), (recipe.members, recipe.batch), generator=rng)
        draws = torch.randint(seen.shape[1], rows.shape, generator=rng)
        logits = network.logits(seen[rows, draws]).flatten(0, 1)
        loss = level_loss(logits, truth[rows].flatten(0, 1))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch has no stub for it
        optimiser.step()
        schedule.step()
    return network.eval()


def save(path: Path, network: MeasuredLevels, recipe: Recipe) -> None:
    checkpoints.save(path, {"levels": network.state_dict(), "recipe": asdict(recipe)})


def load(path: Path) -> MeasuredLevels:
    """As `save` wrote it. Raises CheckpointUnreadable."""
    held = checkpoints.load(path)
    try:
        network = MeasuredLevels(Recipe(**held["recipe"]), np.zeros((1, len(MEASURES)), np.float32))
        network.load_state_dict(held["levels"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise checkpoints.CheckpointUnreadable(
            f"{path} holds no levels that this checkout can build ({error}): learn them again"
        ) from error
    return network.eval()


def look(network: MeasuredLevels, measures: NDArray[np.float32], levels: NDArray[np.int8]) -> str:
    """Of each degradation, the share of damaged pictures that are found where one clean picture in
    200 is taken for damaged, and the share with the very level. measures: (n, F). levels: (n, 8).
    """
    with torch.no_grad():
        given = network(torch.from_numpy(measures)).numpy()
    clean, lines = (levels == 0).all(1), []
    for place, name in enumerate(DEGRADATIONS):
        rows = levels[:, place] > 0
        if not (rows.any() and clean.any()):
            lines.append(f"{name}: no pictures to look at")
            continue
        least = np.quantile(1 - given[clean, place, 0], 0.995)
        found = 1 - given[rows, place, 0] > least
        exact = found & (given[rows, place, 1:].argmax(-1) + 1 == levels[rows, place])
        lines.append(f"{name}: found {found.mean():.3f}, exact {exact.mean():.3f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m trainer.levels", description=__doc__)
    parser.add_argument("--synthetic", type=Path, required=True, help="of trainer.synthesise")
    parser.add_argument("--out", type=Path, required=True, help="file to write")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    held = synthesise.columns(given.synthetic, ("measures", "levels", "split"))
    learning, unseen = held["split"] == 0, held["split"] == 1
    recipe = Recipe(seed=given.seed)
    network = learn(held["measures"][learning], held["levels"][learning], recipe)
    save(given.out, network, recipe)
    if unseen.any():
        print(look(network, held["measures"][unseen, 0], held["levels"][unseen]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
