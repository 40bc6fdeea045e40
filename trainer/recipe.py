"""A recipe, read and run: what `python -m trainer.grpo` does around the algorithm.

python -m trainer.grpo trainer/recipes/lite.yaml --features F.npz --heads START.pt --out FOLDER

    F.npz      pictures as features of the frozen backbone (trainer.groups.Pictures)
    START.pt   heads after the supervised warm-up (trainer.policies.heads.save)
    FOLDER     gets log.csv, last.pt (an interrupted run goes on from it), best.pt, and at the
               end heads.pt, the best by the validation pictures, with its card.json

Several processes: `accelerate launch --cpu --num_processes 2 -m trainer.grpo ...`

A recipe that has `writer` trains a model that writes: see trainer.writing.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import yaml
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from trainer import checkpoints, evaluate, rewards, writing
from trainer.groups import Groups, Mixture, Pictures, load
from trainer.grpo import BEST, Args, Row, State, train
from trainer.policies import heads
from trainer.policies.heads import Heads, HeadsPolicy
from trainer.policies.writer import Loading
from trainer.processes import launched
from trainer.tasks import Asking
from trainer.writing import Speaking, WriterRecipe

Part = TypeVar("Part", Args, Mixture, Asking, Speaking, Loading)

FITTING = {"int": (int,), "float": (float, int), "str": (str,), "bool": (bool,)}
"""Types of YAML values that a field of a recipe takes."""

SHOWN = ("srcc", "plcc", "srcc_within", "coverage", "uncertainty", "ordered")


@dataclass(frozen=True, slots=True)
class Recipe:
    """args: of the algorithm; mixture: of a step; rewards: name -> weight."""

    args: Args
    mixture: Mixture
    rewards: Mapping[str, float]


def read_recipe(path: Path) -> Recipe:
    """YAML with the keys train, groups and rewards. Raises ValueError naming key and remedy."""
    raw = _mappings(path, {"train", "groups", "rewards"})
    return Recipe(
        args=_part(Args, raw["train"], f"{path}: train"),
        mixture=_part(Mixture, raw["groups"], f"{path}: groups"),
        rewards=_weights(raw["rewards"], path),
    )


def read_writer_recipe(path: Path) -> WriterRecipe:
    """YAML with the keys train, asking, rewards, writer and loading. ValueError as above."""
    raw = _mappings(path, {"train", "asking", "rewards", "writer", "loading"})
    return WriterRecipe(
        args=_part(Args, raw["train"], f"{path}: train"),
        asking=_part(Asking, raw["asking"], f"{path}: asking"),
        rewards=_weights(raw["rewards"], path),
        speaking=_part(Speaking, raw["writer"], f"{path}: writer"),
        loading=_part(Loading, raw["loading"], f"{path}: loading"),
    )


def for_a_writer(path: Path) -> bool:
    """True for a recipe of a model that writes; False for any other, readable or not."""
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return False
    return isinstance(raw, dict) and "writer" in raw


def _mappings(path: Path, wanted: set[str]) -> dict[str, dict[str, Any]]:
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    maps = isinstance(raw, dict) and all(isinstance(part, dict) for part in raw.values())
    if not maps or set(raw) != wanted:
        raise ValueError(f"{path} must hold the mappings {', '.join(sorted(wanted))}, and no more")
    return dict(raw)


def _weights(raw: Mapping[str, Any], path: Path) -> dict[str, float]:
    return {str(name): _weight(value, f"{path}: rewards.{name}") for name, value in raw.items()}


def _weight(value: Any, where: str) -> float:
    if type(value) not in FITTING["float"]:
        raise ValueError(f"{where} is {value!r}; it must be a number")
    return float(value)


def _part(kind: type[Part], raw: Any, where: str) -> Part:
    known = {field.name: field.type for field in fields(kind)}
    for name, value in raw.items():
        if name not in known:
            raise ValueError(f"{where}.{name} is unknown; known: {', '.join(known)}")
        if type(value) not in FITTING[str(known[name])]:
            example = " such as 1.0e-5" if known[name] == "float" else ""
            raise ValueError(f"{where}.{name} is {value!r}; it must be {known[name]}{example}")
    try:
        return kind(**raw)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def run(
    recipe: Recipe,
    pictures: Pictures,
    start: Heads,
    folder: Path,
    log: Callable[[Row], object],
    *,
    processes: Any = None,
) -> State:
    """Train on the training pictures, choose by the validation ones, keep heads.pt."""
    if start.shape.features != pictures.features.shape[-1]:
        raise ValueError(
            f"the heads take {start.shape.features} features and the pictures have "
            f"{pictures.features.shape[-1]}: both must come from the same backbone"
        )
    policy = HeadsPolicy(start)
    validation = pictures.part("validation")
    state = train(
        policy,
        Groups(pictures.part("train"), recipe.mixture, recipe.args.seed),
        rewards.for_heads(recipe.rewards, policy.steps),
        recipe.args,
        log,
        held_out=lambda trained: held_out(trained.heads, validation),
        folder=folder,
        processes=processes,
    )
    best = checkpoints.load(folder / BEST)
    policy.load_state_dict(best["policy"])
    if processes is None or processes.is_main_process:
        heads.save(folder / "heads.pt", policy.heads, figures=best["figures"], step=best["step"])
    return state


def held_out(network: Heads, pictures: Pictures) -> dict[str, float]:
    """Agreement with opinions, read out as in serving (view 0); ladders, where there are any.

    srcc_within: mean over subsets. coverage: of the nominal 80 % interval, before calibration.
    uncertainty: mean, points; it shrinks when score distributions collapse.
    ordered: share of neighbouring rungs of whole ladders whose scores strictly fall.
    """
    device = network.bins.device
    reading = network.read(torch.from_numpy(pictures.features[:, 0]).float().to(device))
    quality, spread = reading.quality.cpu().numpy(), reading.uncertainty.cpu().numpy()
    told = np.isfinite(pictures.mos) & (pictures.ladder < 0)
    if told.sum() < 3:
        raise ValueError("fewer than 3 validation pictures have an opinion: nothing to choose by")
    said, mos, subsets = quality[told], pictures.mos[told], pictures.subset[told]
    within = [
        evaluate.srcc(said[subsets == name], mos[subsets == name])
        for name in np.unique(subsets)
        if (subsets == name).sum() > 2
    ]
    figures = {
        "srcc": evaluate.srcc(said, mos),
        "plcc": evaluate.plcc(said, mos),
        "rmse": evaluate.rmse(said, mos),
        "srcc_within": float(np.mean(within)) if within else float("nan"),
        "coverage": evaluate.coverage(said, spread[told], mos),
        "uncertainty": float(spread[told].mean()),
    }
    ladders = _ladders(pictures, quality)
    return figures | ({"ordered": evaluate.ordered(ladders)} if ladders else {})


def _ladders(pictures: Pictures, quality: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    """Scores of each ladder, least damage first."""
    found = []
    for number in np.unique(pictures.ladder[pictures.ladder >= 0]):
        rows = np.flatnonzero(pictures.ladder == number)
        if len(rows) > 1:
            found.append(quality[rows[np.argsort(pictures.rung[rows], kind="stable")]])
    return found


class CsvLog:
    """Rows by step, appended; columns are those of the first row.

    A resumed run repeats the steps since its last checkpoint: their old rows go.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._columns: list[str] = []

    def __call__(self, row: Row) -> None:
        if not self._columns:
            self._columns = self._begin(row)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerow({k: f"{v:.6g}" for k, v in row.items()})

    def _begin(self, row: Row) -> list[str]:
        kept: list[dict[str, str]] = []
        columns = list(row)
        if self.path.exists():
            with self.path.open(newline="", encoding="utf-8") as file:
                kept = [r for r in csv.DictReader(file) if float(r["step"]) < row["step"]]
            columns = list(kept[0]) if kept else columns
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        with unfinished.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(kept)
        unfinished.replace(self.path)
        return columns


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 2 with a message when the recipe or a file cannot be used."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if any(for_a_writer(Path(one)) for one in given if one.endswith((".yaml", ".yml"))):
        writing.main(given, read_writer_recipe)
        return
    parser = argparse.ArgumentParser("python -m trainer.grpo", description="Train heads with GRPO.")
    parser.add_argument("recipe", type=Path, help="YAML, e.g. trainer/recipes/lite.yaml")
    parser.add_argument("--features", type=Path, required=True, help="pictures (.npz)")
    parser.add_argument("--heads", type=Path, required=True, help="heads after the warm-up (.pt)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run")
    parser.add_argument("--seed", type=int, help="instead of the recipe's")
    parser.add_argument("--device", default="cpu", help="cpu or cuda; default %(default)s")
    asked = parser.parse_args(given)
    try:
        _run(asked)
    except (ValueError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from error


def _run(asked: argparse.Namespace) -> None:
    recipe = read_recipe(asked.recipe)
    if asked.seed is not None:
        recipe = replace(recipe, args=replace(recipe.args, seed=asked.seed))
    pictures, start = load(asked.features), heads.load(asked.heads)
    processes = launched(asked.device)
    write = CsvLog(asked.out / "log.csv")
    with _progress(processes.is_main_process) as progress:
        task = progress.add_task("grpo", total=recipe.args.steps, figures="")

        def log(row: Row) -> None:
            write(row)
            progress.update(task, completed=int(row["step"]))
            if "held_out/srcc" in row:
                figures = _figures(row)
                progress.update(task, figures=figures)
                progress.console.print(
                    f"step {int(row['step'])}: {figures}", highlight=False, soft_wrap=True
                )

        state = run(recipe, pictures, start, asked.out, log, processes=processes)
    if processes.is_main_process:
        _write_card(asked, recipe, state)


def _figures(row: Row) -> str:
    return "  ".join(f"{n} {row[k]:.4f}" for n in SHOWN if (k := f"held_out/{n}") in row)


def _progress(shown: bool) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
        disable=not (shown and sys.stdout.isatty()),
    )


def _write_card(asked: argparse.Namespace, recipe: Recipe, state: State) -> None:
    best = checkpoints.load(asked.out / BEST)
    checkpoints.write_card(
        asked.out / "card.json",
        seed=recipe.args.seed,
        data={"features": asked.features, "heads": asked.heads},
        recipe={
            "train": asdict(recipe.args),
            "groups": asdict(recipe.mixture),
            "rewards": dict(recipe.rewards),
        },
        steps=state.step,
        chosen_step=best["step"],
        validation={name: round(value, 5) for name, value in best["figures"].items()},
    )
