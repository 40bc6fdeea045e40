"""Answers drawn by vLLM instead of transformers: several times faster on a GPU that has room.

vLLM only gives tokens; their log-probabilities are computed from the weights that are trained, so
that its own rounding cannot enter the ratio. It holds the frozen model once more and is handed the
adapter anew at every sampling; weights that all learn cannot be handed over, which is refused.
"""

from __future__ import annotations

import importlib
import importlib.util
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.policies.writer import PICTURES, Prompt, Writer, adapted

MEMORY = 0.35
"""Share of the GPU that vLLM may take: the model that learns needs the rest."""

SEEDS = 2**31


class Vllm:
    """A `trainer.policies.writer.Sampler`. Prompts must hold their "pictures" as well."""

    def __init__(self, source: str | Path, *, rank: int, pictures: int = 3) -> None:
        """source: the checkpoint that is trained. rank: of the adapter. pictures: in a prompt.

        Raises ValueError when vLLM is not installed, or when there is no adapter to hand over.
        """
        if importlib.util.find_spec("vllm") is None:
            raise ValueError(
                "sampler vllm needs vLLM: pip install vllm, or set sampler: transformers"
            )
        if not rank:
            raise ValueError("vLLM is handed adapters only: give adapter_rank, such as 16")
        self.vllm: Any = importlib.import_module("vllm")
        self.requests: Any = importlib.import_module("vllm.lora.request")
        self.engine = self.vllm.LLM(
            model=str(source),
            enable_lora=True,
            max_lora_rank=rank,
            limit_mm_per_prompt={"image": pictures},
            gpu_memory_utilization=MEMORY,
            enforce_eager=True,  # graphs would be captured anew for every adapter
        )
        self.folder = Path(tempfile.mkdtemp(prefix="vqmon-adapter-"))
        self.samplings = 0

    def __call__(self, policy: Writer, prompts: Sequence[Prompt], chances: Tensor) -> Tensor:
        """One request an answer, each with a seed of its own that its first chance gives."""
        answers = len(chances) // len(prompts)
        asked = [self._asked(policy, prompt) for prompt in prompts for _ in range(answers)]
        settings = [self._setting(policy, row) for row in chances]
        outputs = self.engine.generate(
            asked, settings, lora_request=self._adapter(policy), use_tqdm=False
        )
        rows = [list(output.outputs[0].token_ids) for output in outputs]
        longest = max(map(len, rows))
        padded = [row + [policy.ends[0]] * (longest - len(row)) for row in rows]
        return torch.tensor(padded)

    def _setting(self, policy: Writer, chances: Tensor) -> Any:
        first = float(chances[0])
        return self.vllm.SamplingParams(
            n=1,
            temperature=policy.temperature if first >= 0 else 0.0,
            top_p=1.0,
            top_k=-1,
            repetition_penalty=1.0,
            max_tokens=len(chances),
            seed=int(first * SEEDS) if first >= 0 else None,
            stop_token_ids=list(policy.ends),
            logit_bias={int(token): -100.0 for token in policy.forbidden},
            detokenize=False,
        )

    def _asked(self, policy: Writer, prompt: Prompt) -> dict[str, Any]:
        from PIL import Image

        tokens = prompt["input_ids"][0].tolist()
        return {
            "prompt_token_ids": single(tokens, int(policy.network.config.image_token_id)),
            "multi_modal_data": {"image": [Image.fromarray(p) for p in prompt[PICTURES]]},
        }

    def _adapter(self, policy: Writer) -> Any:
        """The adapter as it is now, under a number that vLLM has not seen."""
        if not adapted(policy.network):
            raise ValueError("vLLM is handed adapters only: give adapter_rank, such as 16")
        self.samplings += 1
        place = self.folder / "adapter"
        policy.network.save_pretrained(place)
        return self.requests.LoRARequest(f"step-{self.samplings}", self.samplings, str(place))


def single(tokens: Sequence[int], placeholder: int) -> list[int]:
    """Tokens with one placeholder a picture: vLLM repeats it by itself."""
    found: list[int] = []
    for token, run in groupby(tokens):
        found += [token] if token == placeholder else list(run)
    return found
