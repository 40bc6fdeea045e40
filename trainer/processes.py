"""One process or many: what a training loop asks of accelerate, and how a batch is shared out."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Alone:
    """One process: the few things that the loop asks of an accelerate.Accelerator."""

    num_processes = 1
    process_index = 0
    is_main_process = True

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)

    def prepare(self, policy: Any, optimiser: Any) -> tuple[Any, Any]:
        return policy.to(self.device), optimiser

    def unwrap_model(self, policy: Any) -> Any:
        return policy

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def clip_grad_norm_(self, parameters: Iterable[nn.Parameter], norm: float) -> Tensor:
        return nn.utils.clip_grad_norm_(parameters, norm)

    def reduce(self, values: Tensor, _how: str = "sum") -> Tensor:
        return values

    def wait_for_everyone(self) -> None:
        return


def launched(device: str) -> Any:
    """accelerate's, when `accelerate launch` started us together with others, else Alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Alone(device)
    return importlib.import_module("accelerate").Accelerator(cpu=device == "cpu")


def share(batch: Mapping[str, Any], processes: Any) -> dict[str, Any]:
    """This process's rows, on its device; rows of one "group" are neighbours and stay together.

    Raises ValueError when there are fewer groups than processes.
    """
    group = torch.as_tensor(batch["group"])
    number = (group[1:] != group[:-1]).long().cumsum(0)
    number = torch.cat([number.new_zeros(1), number])  # (B,) 0, 0, 1, 1, 1, ...
    groups, count = int(number[-1]) + 1, processes.num_processes
    if groups < count:
        raise ValueError(
            f"{groups} groups cannot be shared by {count} processes: "
            "ask for more pictures a step, or start fewer processes"
        )
    mine = (number * count // groups == processes.process_index).nonzero().squeeze(-1)
    rows = slice(int(mine[0]), int(mine[-1]) + 1)
    return {
        name: values[rows].to(processes.device) if isinstance(values, Tensor) else values[rows]
        for name, values in batch.items()
    }
