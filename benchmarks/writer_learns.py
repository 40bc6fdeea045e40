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
import importlib
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests import tiny_writer
from trainer import checkpoints, grpo, imitation, notebook, rewards, tasks
from trainer.policies.writer import Writer
from trainer.processes import Alone
from trainer.recipe import CsvLog
from vqmon.writing import Prompts, phrase, read_prompts

QUALITY = {0: 90.0, 3: 45.0, 4: 25.0, 5: 10.0}
"""Level, calibrated, as quality: ratings 4.60, 2.80, 2.00 and 1.40. Equally often."""

LEVELS = {"noise": 3, "blur": 4, "compression": 5, "underexposed": 5}
"""Of each damage in the score task. How strong a damage is whatever its kind takes a model of two
layers some ten thousand questions, told right every time; GRPO asks 1,200 here."""

STRONG = (4, 5)
"""Levels of each damage in the degradation task."""

VARIANTS = {
    "noise": "white",
    "compression": "jpeg",
    "blur": "gaussian",
    "underexposed": "stops",
}
"""One way of each damage: what tells them apart is to be learned in minutes."""

SIDE = 112
PATCH = 8
"""Pixels a side; the grid of JPEG, which a patch of 14 would straddle."""

RIGHT = 1 / 3
"""Share of the labels that are right in the warm-up."""

SHORT = {
    "system": "Judge the picture.",
    "score": "<pictures>Rate it.",
    "degradation": "<pictures>noise, compression, blur or darken?",
    "comparison": "<first><second>Which is better?",
}
"""The shipped prompts take too long on a CPU."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """One run.

    wake: factor on the usual initial weights. warm_*: of the supervised start. held_out:
    questions that a look asks. shuffled: learn from the labels of other pictures.
    """

    seed: int = 1
    wake: float = 3.0
    filters: float = 0.3
    warm_steps: int = 600
    warm_questions: int = 32
    warm_rate: float = 2e-3
    steps: int = 300
    questions: int = 8
    answers: int = 8
    rate: float = 7e-4
    ramp: int = 20
    updates: int = 4
    kl: float = 0.1
    advantage: str = "plain"
    clip_high: float = 0.2
    format: float = 0.5
    within: float = 1.0
    named: float = 1.0
    look_every: int = 50
    held_out: int = 240
    shuffled: bool = False


def learn(
    lesson: Lesson,
    train: Sequence[Path],
    other: Sequence[Path],
    folder: Path,
    *,
    device: str = "cpu",
) -> dict[str, Any]:
    """One run; returns what held-out pictures earned before and after GRPO, and the course."""
    processor, processes = tiny_writer.processor(patch=PATCH), Alone(device)
    prepare = tasks.prepared(processor, short_prompts())
    network = seeing(lesson)
    began = time.perf_counter()
    start = asked(train, prepare, lesson.warm_questions, seed=lesson.seed + 100)
    warm(spoken(network, processor), lesson, start, folder, processes)
    warm_seconds = time.perf_counter() - began
    policy = spoken(network, processor, anchored=lesson.kl > 0)
    batches = asked(train, prepare, lesson.questions, seed=lesson.seed)
    if lesson.shuffled:
        batches = replace(batches, sources=[Shuffled(one) for one in batches.sources])
    weights = {"format": lesson.format, "within": lesson.within, "named": lesson.named}
    components = rewards.for_text(weights)
    judged = even(asked(other, prepare, 8 * lesson.held_out, seed=999), lesson.held_out)
    book = notebook.Notebook(folder / "samples.jsonl", policy, every=lesson.look_every)

    def look(trained: Writer) -> Mapping[str, float]:
        return notebook.held_out(trained, judged, components, answers=1)

    write = CsvLog(folder / "log.csv")

    def log(row: grpo.Row) -> None:
        write(row)
        found = {n.partition("/")[2]: round(v, 3) for n, v in row.items() if "held_out" in n}
        if found:
            print(folder.name, int(row["step"]), found, flush=True)

    args = grpo.Args(
        steps=lesson.steps,
        answers=lesson.answers,
        updates=lesson.updates,
        lr=lesson.rate,
        lr_ramp=lesson.ramp,
        kl=lesson.kl,
        clip_high=lesson.clip_high,
        advantage=lesson.advantage,
        look_every=lesson.look_every,
        save_every=lesson.look_every,
        choose="reward",
        seed=lesson.seed,
    )
    grpo.train(
        policy,
        batches,
        book.watching(components),
        args,
        log,
        held_out=look,
        folder=folder,
        processes=processes,
    )
    kept = _course(folder / "log.csv")
    result = {
        "lesson": asdict(lesson),
        "before": kept[0],
        "after": kept[-1],
        "course": kept,
        "warm_seconds": round(warm_seconds, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return result


def spoken(network: Any, processor: Any, *, anchored: bool = False) -> Writer:
    """The network as a policy that answers in at most 32 tokens."""
    return Writer(
        network,
        processor.tokenizer,
        tasks.reading(short_prompts()),
        most_tokens=32,
        at_once=512,
        anchored=anchored,
    )


def seeing(lesson: Lesson) -> Any:
    """The tiny network with random weights at which learning to see can begin.

    Usual initial weights (deviation .02) let next to nothing of a picture through so few and
    narrow layers. The first filters are random mixtures of cosines whose gain rises with their
    frequency: pictures fall off with frequency, so all of it is seen about equally strong.
    """
    network = tiny_writer.network(seed=lesson.seed, patch=PATCH)
    first = network.model.visual.patch_embed.proj.weight  # (out, 3, 2 frames, PATCH, PATCH)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(lesson.wake)
        filters = _white(len(first), np.random.default_rng(lesson.seed)) * lesson.filters
        first.copy_(torch.from_numpy(filters)[:, :, None].expand_as(first))
    return network


def _white(count: int, rng: np.random.Generator) -> Any:
    """(count, 3, PATCH, PATCH) float32, mostly of luma, mean square 1."""
    place = np.arange(PATCH)
    cosines = np.cos(np.pi * (2 * place + 1) * place[:, None] / (2 * PATCH))  # (frequency, pixel)
    cosines[0] /= np.sqrt(2)
    gain = (np.hypot(place, place[:, None]) + 0.5) / PATCH
    luma = rng.normal(size=(count, 1, PATCH, PATCH))
    mixed = (luma + 0.3 * rng.normal(size=(count, 3, PATCH, PATCH))) * gain
    filters = np.einsum("ua,ocuv,vb->ocab", cosines, mixed, cosines)
    return (filters / np.sqrt((filters**2).mean())).astype(np.float32)


def _course(path: Path) -> list[dict[str, float]]:
    import csv

    with path.open(newline="", encoding="utf-8") as file:
        rows = [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]
    return [row for row in rows if "held_out/within" in row]


def warm(
    policy: Writer, lesson: Lesson, batches: tasks.Questions, folder: Path, processes: Any
) -> None:
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

    imitation.imitate(
        policy, lectured, lesson.warm_steps, lr=lesson.warm_rate, log=log, processes=processes
    )
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
    photographs: Sequence[Path], prepare: Callable[..., Any], questions: int, *, seed: int
) -> tasks.Questions:
    """Half of the questions about the score, half about the degradation.

    Every score and every class is as frequent as any other: no constant answer is worth more.
    """
    made = partial(tasks.Made, photographs=photographs, crop=SIDE, variants=VARIANTS)
    score = partial(made, "score", quality_of=QUALITY)
    kinds = {level: [k for k, of in LEVELS.items() if of == level] for level in LEVELS.values()}
    sources: list[tasks.Source] = [
        Mixed(
            (
                score(clean_share=1.0),
                *(score(kinds=names, levels=(n,), clean_share=0.0) for n, names in kinds.items()),
            )
        ),
        made("degradation", levels=STRONG, clean_share=1 / (1 + len(VARIANTS))),
    ]
    asking = tasks.Asking(questions=questions, smallest=4, largest=4, comparison=0.0)
    return tasks.Questions(sources, asking, prepare, seed)


@dataclass(frozen=True, slots=True)
class Mixed:
    """Questions of several sources of one task, equally often, in the same group."""

    sources: Sequence[tasks.Source]

    @property
    def task(self) -> Any:
        return self.sources[0].task

    def draw(self, size: int, rng: np.random.Generator) -> list[tasks.Question]:
        chosen = rng.integers(len(self.sources), size=size)
        return [self.sources[i].draw(1, rng)[0] for i in chosen.tolist()]


def even(questions: tasks.Questions, size: int) -> dict[str, Any]:
    """At most `size` of a step's questions, each label of a task exactly as often as the others.

    So a constant answer earns what chance earns, whichever it is.
    """
    by_label: dict[tuple[Any, ...], list[tasks.Question]] = {}
    for question in (one for group in questions.drawn(0) for one in group):
        named = tuple(level > 0 for level in (question.levels or {}).values())
        by_label.setdefault((question.task, question.quality, named), []).append(question)
    labels = Counter(task for task, *_ in by_label)
    kept = [
        one
        for (task, *_), found in by_label.items()
        for one in found[: size // (len(labels) * labels[task])]
    ]
    return tasks.batch([kept], questions.prepare)


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


def plotted(out: Path, to: Path) -> None:
    """What held-out pictures earned in all runs below `out`, over the steps of GRPO."""
    matplotlib = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = {"format": "answers that can be read", "within": "right score", "named": "right class"}
    figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), sharex=True)
    for path in sorted(out.glob("*/result.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        lesson, course = result["lesson"], result["course"]
        chance = {"within": 1 / len(QUALITY), "named": 1 / (1 + len(VARIANTS))}
        colour, name = ("0.6", "shuffled") if lesson["shuffled"] else (None, "seed")
        for axis, (key, title) in zip(axes, panels.items(), strict=True):
            steps = [row["step"] for row in course]
            earned = [row[f"held_out/{key}"] for row in course]
            axis.plot(steps, earned, color=colour, marker=".", label=f"{name} {lesson['seed']}")
            axis.set(title=title, ylim=(0, 1.02), xlabel="steps of GRPO")
            if key in chance:
                axis.axhline(chance[key], color="0.8", linestyle=":", zorder=0)
    axes[0].set_ylabel("share of sampled answers")
    axes[0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(to, dpi=110)


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
    parser.add_argument("--photographs", type=Path, help="folder of clean ones")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--control", action="store_true", help="run the controls alone")
    parser.add_argument("--steps", type=int, default=Lesson().steps, help="of GRPO")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default %(default)s")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="plot the runs in --out, no more")
    given = parser.parse_args()
    if given.plot:
        plotted(given.out, given.plot)
        return
    if given.photographs is None:
        parser.error("--photographs is needed")
    torch.set_num_threads(1)
    train, other = photographs(given.photographs, given.out / "photographs")
    for seed in map(int, given.seeds.split(",")):
        lesson = Lesson(seed, steps=given.steps, shuffled=given.control)
        folder = given.out / (f"control{seed}" if given.control else f"seed{seed}")
        start = given.out / f"seed{seed}" / "warm.pt"
        if given.control and start.exists():
            checkpoints.save(folder / "warm.pt", checkpoints.load(start))
        learn(lesson, train, other, folder, device=given.device)


if __name__ == "__main__":
    main()
