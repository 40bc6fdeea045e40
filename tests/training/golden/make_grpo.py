"""Writes grpo.json: what TRL's GRPO loss gives for made-up numbers.

Needs an environment with `trl` beside torch (not this project's): python make_grpo.py
The loss is called on a stub: no model, no network.
"""

from __future__ import annotations

import importlib
import json
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

ANSWERS, STEPS = 12, 7
BETA, CLIP_LOW, CLIP_HIGH = 0.04, 0.2, 0.28


def stub(log_prob: torch.Tensor, loss_type: str) -> SimpleNamespace:
    """What of a GRPOTrainer its loss looks at."""
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda values: values, reduce=lambda values, reduction: values
    )
    return SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (log_prob, -log_prob.detach(), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=BETA,
        epsilon_low=CLIP_LOW,
        epsilon_high=CLIP_HIGH,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        loss_type=loss_type,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=STEPS,
        accelerator=accelerator,
        model=SimpleNamespace(training=True),
        _entropy_bonus_enabled=False,
        _metrics={"train": defaultdict(list)},
    )


def cases(loss_type: str, numbers: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Loss, its gradient, mean KL and share of clipped steps."""
    trl = importlib.import_module("trl")
    log_prob = numbers["log_prob"].clone().requires_grad_()
    trainer, none = stub(log_prob, loss_type), torch.zeros(ANSWERS, 1, dtype=torch.long)
    inputs = {
        "prompt_ids": none,
        "prompt_mask": none,
        "completion_ids": torch.zeros(ANSWERS, STEPS, dtype=torch.long),
        "completion_mask": numbers["mask"],
        "advantages": numbers["advantages"],
        "old_per_token_logps": numbers["old"],
        "ref_per_token_logps": numbers["reference"],
        "num_items_in_batch": numbers["mask"].sum(),
    }
    loss = trl.GRPOTrainer._compute_loss(trainer, None, inputs)
    (gradient,) = torch.autograd.grad(loss, log_prob)
    metrics = trainer._metrics["train"]
    return {
        "loss": loss.item(),
        "gradient": gradient.tolist(),
        "kl": metrics["kl"][0],
        "clipped": metrics["clip_ratio/region_mean"][0],
    }


def main() -> None:
    trl = importlib.import_module("trl")
    rng = torch.Generator().manual_seed(20)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=rng, dtype=torch.float64)

    old = -normal(ANSWERS, STEPS).abs() - 0.1
    lengths = torch.randint(2, STEPS + 1, (ANSWERS, 1), generator=rng)
    numbers = {
        "old": old,
        "log_prob": old + 0.3 * normal(ANSWERS, STEPS),
        "reference": old + 0.3 * normal(ANSWERS, STEPS),
        "mask": (torch.arange(STEPS) < lengths).long(),
        "advantages": normal(ANSWERS, STEPS),
    }
    held = {
        "origin": f"trl {trl.__version__}, torch {torch.__version__}: GRPOTrainer._compute_loss "
        "on a stub, see make_grpo.py; token-level importance sampling, advantages per step",
        "beta": BETA,
        "clip_low": CLIP_LOW,
        "clip_high": CLIP_HIGH,
        "inputs": {name: values.tolist() for name, values in numbers.items()},
        "bnpo": cases("bnpo", numbers),
        "dapo": cases("dapo", numbers),
    }
    path = Path(__file__).with_name("grpo.json")
    path.write_text(json.dumps(held, separators=(",", ":")) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
