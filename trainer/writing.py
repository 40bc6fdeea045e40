"""A writer's recipe, read and run: `python -m trainer.grpo` with a recipe that has `writer`.

python -m trainer.grpo trainer/recipes/lora-24gb.yaml --model Qwen/Qwen2.5-VL-7B-Instruct \
    --score koniq10k=DIR --degradation train_dist.json --comparison train_comparison.json \
    --clean DIR --out FOLDER

    --score        NAME=PATH, any number of times: a reader of trainer.datasets and what it reads
    --degradation  Q-Insight's JSON     --comparison  Q-Insight's JSON
    --clean        photographs that are damaged here, for both of these tasks
    FOLDER         gets log.csv, samples.jsonl, last.pt (an interrupted run goes on from it),
                   best.pt, card.json, and the best by the held-out questions as adapter/ or model/

Contents are held out by name, one in twenty: a file, or what a set says that it shows.
Several processes: `accelerate launch --config_file trainer/recipes/accelerate/ddp.yaml -m ...`
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from trainer import checkpoints, rewards, tasks
from trainer.datasets import (
    PICTURES,
    READERS,
    Damaged,
    Preference,
    qinsight_comparison,
    qinsight_degradation,
)
from trainer.grpo import BEST, Args, Row, State, train
from trainer.notebook import Notebook, held_out
from trainer.policies import writer
from trainer.policies.writer import Loading, Writer
from trainer.processes import launched
from vqmon.errors import ConfigError, PictureUnsupported
from vqmon.writing import read_prompts
from vqmon.writing.processor import load_processor

Item = TypeVar("Item")

HELD_OUT = 20
"""One content in so many is held out."""

SAMPLERS = ("transformers", "vllm")

VALIDATION = 10_000
"""Added to the seed of the held-out questions."""


@dataclass(frozen=True, slots=True)
class Speaking:
    """How the model answers, and how it is watched.

    temperature: of drawing and of log-probabilities alike. most_tokens: of an answer. at_once:
    answers in one forward pass. sampler: a name of SAMPLERS. prompts: a YAML file, "" for the
    shipped one. held_out: questions of a look. samples_every: steps between kept samples.
    """

    temperature: float = 1.0
    most_tokens: int = 256
    at_once: int = 8
    sampler: str = "transformers"
    prompts: str = ""
    held_out: int = 128
    samples_every: int = 20

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise ValueError(f"temperature is {self.temperature}; it must be positive")
        for name in ("most_tokens", "at_once", "held_out", "samples_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.sampler not in SAMPLERS:
            raise ValueError(f"sampler {self.sampler!r} is none of {', '.join(SAMPLERS)}")


@dataclass(frozen=True, slots=True)
class WriterRecipe:
    """args: of the algorithm; asking: of a step; rewards: name -> weight."""

    args: Args
    asking: tasks.Asking
    rewards: Mapping[str, float]
    speaking: Speaking
    loading: Loading


@dataclass(frozen=True, slots=True)
class Data:
    """Sources to learn from, and others to judge by."""

    learned: Sequence[tasks.Source]
    judged: Sequence[tasks.Source]


def run(
    recipe: WriterRecipe,
    network: Any,
    processor: Any,
    data: Data,
    folder: Path,
    *,
    log: Callable[[Row], object] = print,
    sampler: writer.Sampler | None = None,
    processes: Any = None,
) -> State:
    """Train, choose by the held-out questions, keep the best as adapter/ or model/.

    network: from `trainer.policies.writer.load`.
    """
    prompts = read_prompts(recipe.speaking.prompts or None)
    policy = Writer(
        network,
        processor.tokenizer,
        tasks.reading(prompts),
        most_tokens=recipe.speaking.most_tokens,
        temperature=recipe.speaking.temperature,
        at_once=recipe.speaking.at_once,
        checkpointing=recipe.loading.checkpointing,
        anchored=recipe.args.kl > 0,
        sampler=sampler,
    )
    prepare = tasks.prepared(processor, prompts)
    asking = replace(recipe.asking, questions=recipe.speaking.held_out)
    judged = tasks.Questions(data.judged, asking, prepare, recipe.args.seed + VALIDATION)(0)
    components = rewards.for_text(recipe.rewards)
    first = processes is None or processes.is_main_process
    book = Notebook(folder / "samples.jsonl", policy, every=recipe.speaking.samples_every)
    state = train(
        policy,
        tasks.Questions(data.learned, recipe.asking, prepare, recipe.args.seed),
        book.watching(components) if first else components,
        recipe.args,
        log,
        held_out=lambda trained: held_out(trained, judged, components),
        folder=folder,
        processes=processes,
    )
    policy.load_state_dict(checkpoints.load(folder / BEST)["policy"])
    if first:
        writer.save(folder, policy, processor, prompts)
    return state


def sources(
    *,
    score: Sequence[str] = (),
    degradation: Sequence[Path] = (),
    comparison: Sequence[Path] = (),
    clean: Sequence[Path] = (),
    crop: int = 0,
) -> Data:
    """What the command line names, divided by content. ValueError for a reader nobody knows."""
    learned: list[tasks.Source] = []
    judged: list[tasks.Source] = []

    def add(make: Callable[[Any], Any], items: Sequence[Item], content: Any) -> None:
        for part, kept in zip((learned, judged), divided(items, content), strict=True):
            if kept:
                part.append(make(kept))

    for named in score:
        name, _, place = named.partition("=")
        if name not in READERS or not place:
            raise ValueError(f"--score {named}: NAME=PATH, NAME one of {', '.join(READERS)}")
        samples = [s for s in READERS[name](Path(place)) if s.split != "test"]
        add(tasks.opinions, samples, lambda s: s.group or s.path.name)
    for path in degradation:
        add(tasks.degradations, qinsight_degradation(path), _shown_by)
    for path in comparison:
        add(tasks.comparisons, qinsight_comparison(path), _compared_by)
    for root in clean:
        found = sorted(p for p in root.rglob("*") if p.suffix.lower() in PICTURES)
        for task in ("degradation", "comparison"):
            add(partial(_made, task, crop), found, lambda path: path.name)
    return Data(learned, judged)


def divided(items: Iterable[Item], content: Callable[[Item], str]) -> tuple[list[Item], list[Item]]:
    """What is learned from, and the contents that are held out."""
    learned: list[Item] = []
    judged: list[Item] = []
    for item in items:
        digest = hashlib.sha256(content(item).encode()).digest()
        (learned if int.from_bytes(digest[:4], "big") % HELD_OUT else judged).append(item)
    return learned, judged


def _made(task: Any, crop: int, photographs: Sequence[Path]) -> tasks.Source:
    return tasks.Made(task, photographs, crop=crop)


def _shown_by(damaged: Damaged) -> str:
    return damaged.path.name


def _compared_by(preference: Preference) -> str:
    return (preference.reference or preference.a).name


def main(arguments: Sequence[str], read: Callable[[Path], WriterRecipe]) -> None:
    """Exit code 2 with a message when the recipe, the model or a file cannot be used."""
    parser = argparse.ArgumentParser("python -m trainer.grpo", description="Train a writer.")
    parser.add_argument("recipe", type=Path, help="YAML, e.g. trainer/recipes/lora-24gb.yaml")
    parser.add_argument("--model", required=True, help="checkpoint folder or hub name")
    parser.add_argument("--score", action="append", default=[], metavar="NAME=PATH")
    for name in ("degradation", "comparison", "clean"):
        parser.add_argument(f"--{name}", action="append", default=[], type=Path, metavar="PATH")
    parser.add_argument("--crop", type=int, default=512, help="side of what is cut of --clean")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--device", default="cuda", help="cpu or cuda; default %(default)s")
    asked = parser.parse_args(arguments)
    try:
        _run(asked, read(asked.recipe))
    except (ValueError, OSError, FloatingPointError, ConfigError, PictureUnsupported) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _run(asked: argparse.Namespace, recipe: WriterRecipe) -> None:
    from trainer.recipe import CsvLog

    if asked.seed is not None:
        recipe = replace(recipe, args=replace(recipe.args, seed=asked.seed))
    data = sources(
        score=asked.score,
        degradation=asked.degradation,
        comparison=asked.comparison,
        clean=asked.clean,
        crop=asked.crop,
    )
    sampler = _sampler(recipe, asked.model)
    processes = launched(asked.device)
    network, processor = writer.load(asked.model, recipe.loading), load_processor(asked.model)
    if processes.is_main_process:
        print(writer.counted(network), file=sys.stderr)
    write = CsvLog(asked.out / "log.csv")

    def log(row: Row) -> None:
        write(row)
        if "held_out/reward" in row:
            figures = "  ".join(
                f"{n} {row[k]:.4f}" for n in ("reward", "srcc") if (k := f"held_out/{n}") in row
            )
            print(f"step {int(row['step'])}: {figures}", file=sys.stderr)

    state = run(
        recipe, network, processor, data, asked.out, log=log, sampler=sampler, processes=processes
    )
    if processes.is_main_process:
        _write_card(asked, recipe, state)


def _sampler(recipe: WriterRecipe, source: str) -> writer.Sampler | None:
    if recipe.speaking.sampler == "transformers":
        return None
    from trainer.policies.vllm import Vllm

    return Vllm(source, rank=recipe.loading.adapter_rank)


def _write_card(asked: argparse.Namespace, recipe: WriterRecipe, state: State) -> None:
    best = checkpoints.load(asked.out / BEST)
    lists = {path.name: path for path in (*asked.degradation, *asked.comparison)}
    checkpoints.write_card(
        asked.out / "card.json",
        seed=recipe.args.seed,
        data=lists,
        model=asked.model,
        asked={"score": asked.score, "clean": [path.name for path in asked.clean]},
        recipe={
            "train": asdict(recipe.args),
            "asking": asdict(recipe.asking),
            "rewards": dict(recipe.rewards),
            "writer": asdict(recipe.speaking),
            "loading": asdict(recipe.loading),
        },
        steps=state.step,
        chosen_step=best["step"],
        held_out={n: round(v, 5) for n, v in best["figures"].items() if not math.isnan(v)},
    )
