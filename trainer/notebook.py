"""What a model that writes says while it learns: samples kept in a file, and held-out figures."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from trainer import evaluate
from trainer.grpo import Batch, Component, Rollout
from trainer.policies.writer import Writer
from trainer.processes import Alone, share

Reward = Callable[[Rollout, Batch], Tensor]

LEAST = 3
"""Scores of which an order can be told."""


class Notebook:
    """Some answers of every `every`-th step with what they earned, one JSON object a line.

    Only the first process writes. questions: of a step, of which the first answers are kept.
    """

    def __init__(
        self, path: Path, policy: Writer, *, every: int = 50, questions: int = 4, answers: int = 2
    ) -> None:
        self.path, self.policy, self.every = path, policy, every
        self.questions, self.answers = questions, answers
        self.calls = 0
        self._earned: dict[str, Tensor] = {}

    def watching(self, components: Sequence[Component]) -> list[Component]:
        """The same components; when the last has judged, the answers are written down."""
        return [replace(c, reward=self._kept(c, last=c is components[-1])) for c in components]

    def _kept(self, component: Component, *, last: bool) -> Reward:
        def reward(rollout: Rollout, batch: Batch) -> Tensor:
            found = component.reward(rollout, batch)
            self._earned[component.name] = found
            if last:
                if self.calls % self.every == 0:
                    self._write(rollout, batch)
                self.calls += 1
            return found

        return reward

    def _write(self, rollout: Rollout, batch: Batch) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            for row in range(min(self.questions, len(batch["task"]))):
                for answer in range(min(self.answers, rollout.actions.shape[1])):
                    line = self._line(rollout, batch, row, answer)
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")

    def _line(self, rollout: Rollout, batch: Batch, row: int, answer: int) -> dict[str, object]:
        earned = {n: round(float(e[row, answer]), 4) for n, e in self._earned.items()}
        return {
            "call": self.calls,
            "task": batch["task"][row],
            "said": self.policy.text(rollout.actions[row, answer], rollout.mask[row, answer]),
            "earned": {name: value for name, value in earned.items() if not math.isnan(value)},
        }


@torch.no_grad()
def held_out(
    policy: Writer, batch: Batch, components: Sequence[Component], *, answers: int = 4
) -> Mapping[str, float]:
    """What held-out questions earn: the mean of sampled answers, and of the likeliest.

    By the name of each component, and `likeliest_` with it. reward: the weighted mean of what the
    components earned, sampled. unreadable: share, sampled. srcc: of the likeliest scores.
    """
    batch = share(batch, Alone(policy.device))
    seeds = torch.arange(1, 1 + len(batch["task"]))
    sampled, likeliest = policy.answer(batch, answers, seeds), policy.likeliest(batch)
    figures: dict[str, float] = {}
    for component in components:
        figures[component.name] = float(component.reward(sampled, batch).nanmean())
        greedy = component.reward(likeliest, batch).nanmean()
        figures[f"likeliest_{component.name}"] = float(greedy)
    weights = {c.name: c.weight for c in components if not math.isnan(figures[c.name])}
    total = sum(weights.values())
    figures["reward"] = sum(w * figures[name] for name, w in weights.items()) / total
    figures["unreadable"] = float((~sampled.readable).float().mean())
    if likeliest.quality is not None:
        said, known = likeliest.quality[:, 0].cpu(), batch["mos"].isfinite().cpu()
        both = known & said.isfinite()
        if both.sum() >= LEAST:
            mos = batch["mos"].cpu()[both].numpy()
            figures["srcc"] = evaluate.srcc(said[both].numpy(), mos)
    return figures
