"""Samples a second and memory of `trainer.grpo` and of TRL's GRPOTrainer, on the same work.

python -m benchmarks.against_trl ours|trl --photographs DIR [--device cuda] [--steps 20]

The same tiny model, questions, rewards and sizes: 8 questions a step, 8 answers each of at most
32 tokens, one update, no reference. Run each in a process of its own. Memory is the most that
tensors took on the GPU, or that the process took on the CPU. TRL needs `pip install trl`.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import writer_learns
from benchmarks.writer_learns import PATCH, Lesson
from tests import tiny_writer
from trainer import grpo, rewards, tasks
from trainer.policies.writer import Writer
from trainer.processes import Alone

LESSON = Lesson(updates=1, kl=0.0)
WEIGHTS = {"format": LESSON.format, "within": LESSON.within, "named": LESSON.named}
WARM_UP = 3
"""Steps that are not timed."""


def ours(questions: tasks.Questions, policy: Writer, device: str, steps: int) -> list[float]:
    """Ends of steps, seconds."""
    ends: list[float] = []
    args = grpo.Args(
        steps=steps, answers=LESSON.answers, updates=1, lr=1e-5, kl=0.0, advantage="plain"
    )
    components = rewards.for_text(WEIGHTS)
    grpo.train(
        policy,
        questions,
        components,
        args,
        lambda _: ends.append(_now(device)),
        processes=Alone(device),
    )
    return ends[:steps]


def theirs(
    questions: tasks.Questions, policy: Writer, processor: Any, device: str, steps: int
) -> list[float]:
    """Ends of steps, seconds."""
    import datasets
    import transformers
    import trl

    asked = [q for step in range(steps) for group in questions.drawn(step) for q in group]
    ends: list[float] = []

    class Clock(transformers.TrainerCallback):
        def on_step_end(self, *_args: Any, **_kwargs: Any) -> None:
            ends.append(_now(device))

    with tempfile.TemporaryDirectory() as folder:
        trl.GRPOTrainer(
            model=policy.network,
            processing_class=processor,
            reward_funcs=[_judging(c, asked, policy) for c in rewards.for_text(WEIGHTS)],
            train_dataset=datasets.Dataset.from_list([_row(i, q) for i, q in enumerate(asked)]),
            callbacks=[Clock()],
            args=trl.GRPOConfig(
                output_dir=folder,
                use_cpu=device == "cpu",
                bf16=False,
                gradient_checkpointing=False,
                max_steps=steps,
                per_device_train_batch_size=LESSON.questions * LESSON.answers,
                num_generations=LESSON.answers,
                max_completion_length=policy.most_tokens,
                num_iterations=1,
                beta=0.0,
                loss_type="bnpo",
                reward_weights=list(WEIGHTS.values()),
                learning_rate=1e-5,
                shuffle_dataset=False,
                logging_steps=steps,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
        ).train()
    return ends


def _row(place: int, question: tasks.Question) -> dict[str, Any]:
    from PIL import Image

    prompts = writer_learns.short_prompts()
    text = getattr(prompts, question.task).replace("<pictures>", "")
    told = [
        {"role": "system", "content": prompts.system},
        {"role": "user", "content": text},
    ]
    pictures = [Image.fromarray(shown.picture()) for shown in question.pictures]
    return {"prompt": told, "images": pictures, "place": place}


def _judging(
    component: grpo.Component, asked: Sequence[tasks.Question], policy: Writer
) -> Callable[..., list[float | None]]:
    """The component as TRL calls rewards."""

    def reward(
        completion_ids: Sequence[Sequence[int]], place: Sequence[int], **_columns: Any
    ) -> list[float | None]:
        longest = max(map(len, completion_ids))
        rows = [[*ids, *[policy.ends[0]] * (longest - len(ids))] for ids in completion_ids]
        batch = tasks.batch([[asked[i]] for i in place], lambda *_: {})
        said = policy.meant(batch, torch.tensor(rows)[:, None])
        worth = component.reward(_on_cpu(said), batch)[:, 0].tolist()
        return [None if math.isnan(value) else value for value in worth]

    reward.__name__ = component.name
    return reward


def _on_cpu(said: grpo.Rollout) -> grpo.Rollout:
    values = {one.name: getattr(said, one.name) for one in fields(said)}
    return replace(said, **{n: v.cpu() for n, v in values.items() if v is not None})


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.against_trl", description=__doc__)
    parser.add_argument("which", choices=("ours", "trl"))
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    found = sorted(given.photographs.rglob("*.png"))
    processor = tiny_writer.processor(patch=PATCH)
    prepare = tasks.prepared(processor, writer_learns.short_prompts())
    questions = writer_learns.asked(found, prepare, LESSON.questions, seed=1)
    policy = writer_learns.spoken(writer_learns.seeing(LESSON).to(given.device), processor)
    steps = given.steps + WARM_UP
    if given.which == "ours":
        ends = ours(questions, policy, given.device, steps)
    else:
        ends = theirs(questions, policy, processor, given.device, steps)
    timed = ends[WARM_UP - 1 :]
    samples = (len(timed) - 1) * LESSON.questions * LESSON.answers
    most = (
        torch.cuda.max_memory_allocated() / 2**20
        if given.device != "cpu"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    )
    figures = {
        "which": given.which,
        "device": torch.cuda.get_device_name() if given.device != "cpu" else "cpu",
        "samples_per_second": round(samples / (timed[-1] - timed[0]), 1),
        "most_mib": round(most),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
