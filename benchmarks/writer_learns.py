"""Does GRPO teach a model that writes? A small one, from scratch, on the CPU, seen on new pictures.

python -m benchmarks.writer_learns --photographs DIR --out DIR [--seeds 1,2,3] [--control]

A vision-language model of the real architecture with random weights is first taught, word for
word, to write answers whose labels are right in only a third of the cases. Then GRPO, all weights
learning, on photographs that are clean or strongly blurred, noisy, compressed or dark. Judged on
crops of other photographs. The control learns from labels of other pictures.

A run that was interrupted goes on. Each writes log.csv, samples.jsonl and result.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import tiny_writer
from trainer import checkpoints, grpo, imitation, notebook, rewards, tasks
from trainer.policies.writer import Writer
from trainer.recipe import CsvLog
from vqmon.writing import Prompts, phrase, read_prompts

QUALITY = {0: 90.0, 3: 45.0, 5: 10.0}
"""Level, calibrated, as quality: ratings 4.60, 2.80 and 1.40. Equally often, so that no constant
answer is worth more than another."""

STRONG = (4, 5)
"""Levels of the degradation task."""

SIDE = 112
RIGHT = 1 / 3
"""Share of the labels that are right in the warm-up."""

WEIGHTS = {"format": 0.5, "within": 1.0, "named": 1.0}

SHORT = {
    "system": "Judge the picture.",
    "score": "<pictures>Rate it.",
    "degradation": "<pictures>noise, compression, blur or darken?",
    "comparison": "<first><second>Which is better?",
}
"""The shipped prompts take too long on a CPU."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One run. warm_steps: of the supervised start; held_out: questions a look asks."""

    seed: int = 1
    warm_steps: int = 160
    warm_questions: int = 32
    warm_rate: float = 1e-3
    steps: int = 200
    questions: int = 8
    answers: int = 8
    rate: float = 2e-4
    look_every: int = 25
    held_out: int = 64
    shuffled: bool = False


def learn(
    lesson: Lesson, train: Sequence[Path], other: Sequence[Path], folder: Path
) -> dict[str, Any]:
    """One run; returns what held-out pictures earned before and after GRPO, and the course."""
    torch.manual_seed(lesson.seed)
    prompts, processor = short_prompts(), tiny_writer.processor()
    policy = Writer(
        tiny_writer.network(seed=lesson.seed),
        processor.tokenizer,
        tasks.reading(prompts),
        most_tokens=32,
        at_once=512,
        anchored=False,
    )
    prepare = tasks.prepared(processor, prompts)
    began = time.perf_counter()
    warm(policy, lesson, asked(train, lesson.warm_questions, prepare, lesson.seed + 100), folder)
    warm_seconds = time.perf_counter() - began
    batches = asked(train, lesson.questions, prepare, lesson.seed)
    if lesson.shuffled:
        batches = replace(batches, sources=[Shuffled(one) for one in batches.sources])
    components = rewards.for_text(WEIGHTS)
    judged = asked(other, lesson.held_out, prepare, 999)(0)
    course: list[dict[str, float]] = []
    book = notebook.Notebook(folder / "samples.jsonl", policy, every=lesson.look_every)

    def look(trained: Writer) -> Mapping[str, float]:
        return notebook.held_out(trained, judged, components, answers=4)

    write = CsvLog(folder / "log.csv")

    def log(row: grpo.Row) -> None:
        write(row)
        if "held_out/within" in row:
            course.append({"seconds": round(time.perf_counter() - began, 1), **row})
            print(
                folder.name,
                {k: round(v, 3) for k, v in row.items() if "held_out" in k or k == "step"},
                flush=True,
            )

    args = grpo.Args(
        steps=lesson.steps,
        answers=lesson.answers,
        updates=1,
        lr=lesson.rate,
        kl=0.0,
        advantage="plain",
        look_every=lesson.look_every,
        save_every=lesson.look_every,
        choose="reward",
        seed=lesson.seed,
    )
    grpo.train(policy, batches, book.watching(components), args, log, held_out=look, folder=folder)
    kept = _course(folder / "log.csv")
    result = {
        "lesson": {name: getattr(lesson, name) for name in lesson.__slots__},
        "before": kept[0],
        "after": kept[-1],
        "course": kept,
        "warm_seconds": round(warm_seconds, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def _course(path: Path) -> list[dict[str, float]]:
    import csv

    with path.open(newline="", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if "held_out/within" in row]


def warm(policy: Writer, lesson: Lesson, batches: tasks.Questions, folder: Path) -> None:
    """The supervised start, kept in the folder: the control begins where the run of its seed did."""
    kept = folder / "warm.pt"
    if kept.exists():
        policy.load_state_dict(checkpoints.load(kept)["policy"])
        return

    def lectured(step: int) -> dict[str, Any]:
        rng = np.random.default_rng([lesson.seed, step, 7])
        given = batches(step)
        return {**given, "said": [dictated(question, rng) for question in given["question"]]}

    def log(row: grpo.Row) -> None:
        if row["step"] % 20 == 0:
            print(folder.name, f"warm-up {row['step']:.0f}: {row['loss']:.3f} nats", flush=True)

    imitation.imitate(policy, lectured, lesson.warm_steps, lr=lesson.warm_rate, log=log)
    checkpoints.save(kept, {"policy": policy.state_dict()})


def dictated(question: tasks.Question, rng: np.random.Generator) -> str:
    """An answer in the right form, whose label is right in a third of the cases."""
    right = rng.random() < RIGHT
    if question.task == "score":
        others = [q for q in QUALITY.values() if q != question.quality]
        return phrase(
            "score", think="seen", quality=question.quality if right else rng.choice(others)
        )
    levels = question.levels or {}
    truth = next((name for name, level in levels.items() if level), None)
    wrong = [name for name in (*levels, None) if name != truth]
    name = truth if right else wrong[int(rng.integers(len(wrong)))]
    return phrase(
        "degradation", think="seen", degradation=name, level=int(rng.choice(STRONG)) if name else 0
    )


def asked(
    photographs: Sequence[Path], questions: int, prepare: Callable[..., Any], seed: int
) -> tasks.Questions:
    """Half of the questions about the score, half about the degradation."""
    sources: list[tasks.Source] = [
        tasks.Made(
            "score", photographs, levels=(3, 5), crop=SIDE, clean_share=1 / 3, quality_of=QUALITY
        ),
        tasks.Made("degradation", photographs, levels=STRONG, crop=SIDE, clean_share=1 / 5),
    ]
    asking = tasks.Asking(questions=questions, smallest=4, largest=4, comparison=0.0)
    return tasks.Questions(sources, asking, prepare, seed)


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Labels of other pictures: nothing can be learned from them but what is said most often."""

    source: tasks.Source

    @property
    def task(self) -> Any:
        return self.source.task

    def draw(self, size: int, rng: np.random.Generator) -> list[tasks.Question]:
        shown, labelled = self.source.draw(size, rng), self.source.draw(size, rng)
        return [
            replace(label, pictures=seen.pictures)
            for seen, label in zip(shown, labelled, strict=True)
        ]


def short_prompts() -> Prompts:
    return read_prompts().model_copy(update=SHORT)


def photographs(folder: Path, out: Path, most: int = 400) -> tuple[list[Path], list[Path]]:
    """Quarter-megapixel pieces of the photographs below `folder`, cut once: to learn, to judge."""
    from PIL import Image

    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".png", ".jpg"))
    chosen = found[:: max(1, len(found) // most)][:most]
    out.mkdir(parents=True, exist_ok=True)
    for place, path in enumerate(chosen):
        piece = out / f"{place:04}.png"
        if not piece.exists():
            with Image.open(path) as opened:
                whole = opened.convert("RGB")
                reduced = whole.reduce(2) if min(whole.size) >= 2 * 200 else whole
                reduced.crop((0, 0, 200, 200)).save(piece)
    pieces = [out / f"{place:04}.png" for place in range(len(chosen))]
    return pieces[::2], pieces[1::2]


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.writer_learns", description=__doc__)
    parser.add_argument("--photographs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--control", action="store_true", help="run the control alone, first seed")
    parser.add_argument("--warm-steps", type=int, default=Lesson().warm_steps)
    parser.add_argument("--steps", type=int, default=Lesson().steps)
    asked_for = parser.parse_args()
    torch.set_num_threads(1)
    train, other = photographs(asked_for.photographs, asked_for.out / "photographs")
    for seed in map(int, asked_for.seeds.split(",")):
        lesson = Lesson(
            seed, warm_steps=asked_for.warm_steps, steps=asked_for.steps, shuffled=asked_for.control
        )
        folder = asked_for.out / (f"control{seed}" if asked_for.control else f"seed{seed}")
        start = asked_for.out / f"seed{seed}" / "warm.pt"
        if asked_for.control and start.exists():
            checkpoints.save(folder / "warm.pt", checkpoints.load(start))
        learn(lesson, train, other, folder)


if __name__ == "__main__":
    main()
