"""A supervised start for a model that writes: it learns to say given answers, word for word.

Used before GRPO where a model does not know the format of the answers yet. The same forward pass
as GRPO's, so that what is learned here is what is drawn there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.grpo import Batch, Row
from trainer.policies.writer import Writer, written
from trainer.processes import Alone, share


def imitate(
    policy: Writer,
    batches: Callable[[int], Batch],
    steps: int,
    *,
    lr: float,
    log: Callable[[Row], object] = print,
    processes: Any = None,
    max_grad_norm: float = 1.0,
) -> None:
    """Raise the probability of each row's "said", a list of B texts; the rate falls to 0.

    log: gets the loss of every step, nats a token.
    """
    processes = processes or Alone()
    policy.eval()  # dropout off, as in GRPO
    learned = [p for p in policy.parameters() if p.requires_grad]
    learner, optimiser = processes.prepare(policy, torch.optim.AdamW(learned, lr=lr, fused=True))
    for step in range(steps):
        given = share(batches(step), processes)
        actions = spelled(policy, given["said"])
        mask = written(actions, policy.ends)
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 - step / steps)
        log_prob = learner(given, actions).log_prob
        loss = -log_prob.sum() / mask.sum()
        optimiser.zero_grad()
        processes.backward(loss)
        processes.clip_grad_norm_(learner.parameters(), max_grad_norm)
        optimiser.step()
        log({"step": float(step), "loss": float(loss.detach())})


def spelled(policy: Writer, texts: Sequence[str]) -> Tensor:
    """(B, 1, T) tokens of the texts, each with its end of sequence, 0 behind it."""
    rows = [
        [*policy.tokenizer(text, add_special_tokens=False)["input_ids"], policy.ends[0]]
        for text in texts
    ]
    longest = max(map(len, rows))
    padded = [row + [0] * (longest - len(row)) for row in rows]
    return torch.tensor(padded, device=policy.device)[:, None]
