"""`python -m trainer.grpo` with a recipe for a writer: three tasks, resumed, several processes."""

from __future__ import annotations

import csv
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

import torch
from PIL import Image

from tests import tiny_writer
from trainer import tasks, writing
from trainer.policies import vllm, writer
from trainer.policies.writer import Loading, Writer
from trainer.recipe import main, read_writer_recipe
from trainer.tasks import reading
from vqmon.writing import read_prompts
from vqmon.writing.processor import load_processor
from vqmon.writing.prompts import prompts_of

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "trainer" / "recipes"

torch.set_num_threads(1)

SHORT: dict[str, dict[str, Any]] = {
    "train": {
        "steps": 2,
        "answers": 2,
        "updates": 1,
        "lr": 1e-3,
        "kl": 0.01,
        "look_every": 1,
        "save_every": 1,
        "choose": "reward",
    },
    "asking": {"questions": 4, "smallest": 2, "largest": 2},
    "rewards": {"format": 1.0, "within": 1.0, "ordering": 1.0, "named": 1.0, "pair": 1.0},
    "writer": {"most_tokens": 4, "held_out": 4, "samples_every": 1},
    "loading": {"adapter_rank": 2, "precision": "float32", "checkpointing": False},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, photographs, and the lists that Q-Insight and DeQA-Score publish."""
    root = tmp_path_factory.mktemp("writer")
    tiny_writer.checkpoint(root / "model")
    (root / "images").mkdir()
    for seed in range(24):
        grain = np.random.default_rng(seed).integers(0, 256, (56, 56, 3), np.uint8)
        Image.fromarray(grain).save(root / "images" / f"{seed}.png")
    names = [f"{seed}.png" for seed in range(24)]
    scored = [{"image": name, "gt_score_norm": 1 + i / 6} for i, name in enumerate(names)]
    damaged = [
        {"image": name, "distortion_class": "noise", "severity": "obvious"} for name in names
    ]
    (root / "train_scores.json").write_text(json.dumps(scored))
    (root / "train_dist.json").write_text(json.dumps(damaged))
    (root / "recipe.yaml").write_text(yaml.safe_dump(SHORT))
    return root


def arguments(folder: Path, out: str) -> list[str]:
    return [
        str(folder / "recipe.yaml"),
        f"--model={folder / 'model'}",
        f"--score=deqa={folder / 'train_scores.json'}",
        f"--degradation={folder / 'train_dist.json'}",
        f"--clean={folder / 'images'}",
        "--crop=56",
        f"--out={folder / out}",
        "--device=cpu",
    ]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def ran(folder: Path) -> Path:
    main(arguments(folder, "one"))
    return folder / "one"


def test_the_command_trains_all_three_tasks_and_keeps_the_best(ran: Path) -> None:
    rows = rows_of(ran)

    assert [row["step"] for row in rows] == ["0", "1", "2"]
    assert float(rows[0]["reward/format"]) >= 0
    assert float(rows[0]["unreadable"]) > 0.9  # random weights
    assert (ran / "adapter" / "adapter_model.safetensors").exists()
    card = json.loads((ran / "card.json").read_text())
    assert card["recipe"]["loading"]["adapter_rank"] == 2
    assert card["data"]["train_dist.json"]["sha256"]


def test_samples_of_answers_are_kept(ran: Path) -> None:
    """What a model says is seen before any figure moves."""
    lines = [json.loads(line) for line in (ran / "samples.jsonl").read_text().splitlines()]

    assert {line["call"] for line in lines} == {0, 1}
    assert {"task", "said", "earned"} <= lines[0].keys()
    assert lines[0]["earned"]["format"] in (0.0, 1.0)


def test_a_kept_adapter_loads_as_published_ones_do(ran: Path) -> None:
    """peft's own loader, and the processor beside it: what serving is given."""
    import peft
    import transformers

    base = transformers.AutoModelForImageTextToText.from_pretrained(ran.parent / "model")

    adapted = peft.PeftModel.from_pretrained(base, ran / "adapter")

    assert adapted.peft_config["default"].to_dict()["r"] == 2
    assert load_processor(ran / "adapter").tokenizer is not None
    assert prompts_of(ran / "adapter") == read_prompts()


def test_a_finished_run_that_is_started_again_changes_nothing(folder: Path, ran: Path) -> None:
    before = (ran / "last.pt").read_bytes()

    main(arguments(folder, "one"))

    assert len((ran / "last.pt").read_bytes()) == len(before)
    assert len(rows_of(ran)) == 3


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(folder: Path, ran: Path) -> None:
    """Stopped after one step and started again: the same last row."""

    class Stopped(Exception):
        pass

    recipe = read_writer_recipe(folder / "recipe.yaml")
    data = writing.sources(
        score=[f"deqa={folder / 'train_scores.json'}"],
        degradation=[folder / "train_dist.json"],
        clean=[folder / "images"],
        crop=56,
    )
    seen: list[dict[str, float]] = []

    def begin(stop: int) -> None:
        def log(row: dict[str, float]) -> None:
            if row["step"] == stop:
                raise Stopped
            seen.append(row)

        torch.manual_seed(0)
        network = writer.load(folder / "model", recipe.loading)
        processor = load_processor(folder / "model")
        writing.run(recipe, network, processor, data, folder / "halves", log=log)

    with pytest.raises(Stopped):
        begin(1)
    begin(99)
    whole: list[dict[str, float]] = []
    torch.manual_seed(0)
    writing.run(
        recipe,
        writer.load(folder / "model", recipe.loading),
        load_processor(folder / "model"),
        data,
        folder / "whole",
        log=whole.append,
    )

    assert [row["step"] for row in seen] == [0, 1, 2]
    for mine, theirs in zip(seen, whole, strict=True):
        for name in mine.keys() - {"samples_per_second"}:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6, nan_ok=True), name


def test_all_weights_can_learn(folder: Path) -> None:
    """As in the paper: without an adapter a whole checkpoint is kept."""
    recipe = {**SHORT, "loading": {**SHORT["loading"], "adapter_rank": 0}}
    (folder / "full.yaml").write_text(yaml.safe_dump(recipe))

    main([str(folder / "full.yaml"), *arguments(folder, "full")[1:]])

    assert (folder / "full" / "model" / "config.json").exists()
    assert load_processor(folder / "full" / "model").tokenizer is not None


def test_held_out_contents_are_not_learned_from(folder: Path) -> None:
    data = writing.sources(clean=[folder / "images"])

    learned, judged = (
        {shown.path for source in part for q in source.draw(400, np.random.default_rng(0))
         for shown in q.pictures}
        for part in (data.learned, data.judged)
    )  # fmt: skip

    assert learned
    assert judged
    assert not learned & judged


@pytest.mark.parametrize("name", ["qinsight", "lora-24gb"])
def test_shipped_recipes_can_be_read(name: str) -> None:
    recipe = read_writer_recipe(RECIPES / f"{name}.yaml")

    assert recipe.args.answers == 8
    assert (recipe.args.clip_low, recipe.args.clip_high, recipe.args.kl) == (0.2, 0.2, 0.001)


@pytest.mark.parametrize("name", ["ddp", "fsdp", "deepspeed"])
def test_shipped_accelerate_configurations_can_be_read(name: str) -> None:
    pytest.importorskip("accelerate")
    read = importlib.import_module("accelerate.commands.config.config_args").load_config_from_file

    found = read(str(RECIPES / "accelerate" / f"{name}.yaml"))

    assert found.num_processes == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--score=koniq"], "NAME=PATH"),
        (["--score=nobody=here"], "NAME=PATH, NAME one of"),
        (["--model=/nowhere"], "/nowhere cannot be loaded"),
        (["--degradation=/nowhere.json"], "nowhere.json"),
    ],
)
def test_what_cannot_be_used_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str], change: Sequence[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*arguments(folder, "wrong"), *change])

    assert ended.value.code == 2
    assert message in capsys.readouterr().err


# --- several processes ---

GRADIENTS = """
import sys
from pathlib import Path

import torch

from tests import tiny_writer
from trainer import grpo, rewards, tasks
from trainer.policies import writer
from trainer.processes import launched
from vqmon.writing import read_prompts

torch.set_num_threads(1)
out, images, rank = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
network = writer.equipped(
    tiny_writer.network(),
    writer.Loading(adapter_rank=rank, precision="float32", checkpointing=False),
)
prompts, processor = read_prompts(), tiny_writer.processor()
policy = writer.Writer(
    network, processor.tokenizer, tasks.reading(prompts), most_tokens=4, at_once=3
)
photographs = sorted(images.glob("*.png"))
sources = [tasks.Made("degradation", photographs), tasks.Made("comparison", photographs)]
asking = tasks.Asking(questions=4, smallest=2, largest=2, score=0.0)
questions = tasks.Questions(sources, asking, tasks.prepared(processor, prompts), seed=1)


def early(rollout, batch):
    return (rollout.actions[..., 0] < 280).float()


rows, processes = [], launched("cpu")
args = grpo.Args(steps=2, answers=4, updates=1, lr=1e-3, kl=0.01, advantage="pooled")
grpo.train(
    policy, questions, [grpo.Component("early", 1.0, early)], args, rows.append,
    processes=processes,
)
if processes.is_main_process:
    torch.save({"policy": policy.state_dict(), "rows": rows}, out)
"""


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 4])
def test_two_processes_learn_what_one_learns(tmp_path: Path, folder: Path, rank: int) -> None:
    """DDP on the CPU: each answers for its own groups, and the weights come out the same."""
    pytest.importorskip("accelerate")
    script = tmp_path / "learn.py"
    script.write_text(GRADIENTS)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}

    for name, command in (("one", [sys.executable]), ("two", launch)):
        arguments = [str(script), str(tmp_path / name), str(folder / "images"), str(rank)]
        subprocess.run([*command, *arguments], check=True, env=environment, cwd=ROOT)

    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    assert one["rows"][0]["reward/early"] == pytest.approx(two["rows"][0]["reward/early"])
    assert one["rows"][0]["grad_norm"] == pytest.approx(two["rows"][0]["grad_norm"], rel=1e-3)
    for name, value in one["policy"].items():
        assert torch.allclose(value, two["policy"][name], atol=2e-4), name


# --- vLLM, by a stand-in ---


class StandIn:
    """vllm.LLM as far as it is used: answers with one token and an end."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings
        self.asked: list[Any] = []

    def generate(self, prompts: Any, settings: Any, *, lora_request: Any, use_tqdm: bool) -> Any:
        assert not use_tqdm
        self.asked.append((prompts, settings, lora_request))
        return [
            SimpleNamespace(outputs=[SimpleNamespace(token_ids=(70 + i, 71)[: 1 + i % 2])])
            for i in range(len(prompts))
        ]


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {
        "vllm": SimpleNamespace(LLM=StandIn, SamplingParams=SimpleNamespace),
        "vllm.lora.request": SimpleNamespace(LoRARequest=lambda *given: given),
    }
    real = importlib.import_module
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(importlib, "import_module", lambda name: modules.get(name) or real(name))


@pytest.mark.usefixtures("stand_in")
def test_vllm_draws_with_the_adapter_as_it_is_now(folder: Path) -> None:
    """A sampler that is one step behind would make every ratio wrong."""
    prompts, processor = read_prompts(), tiny_writer.processor()
    network = writer.equipped(
        tiny_writer.network(), Loading(adapter_rank=2, precision="float32", checkpointing=False)
    )
    engine = vllm.Vllm(folder / "model", rank=2)
    policy = Writer(network, processor.tokenizer, reading(prompts), most_tokens=4, sampler=engine)
    shown = np.zeros((56, 84, 3), np.uint8)
    prompt = tasks.prepared(processor, prompts)("score", [shown])
    given = {"task": ["score"], "prompt": [prompt]}

    said = [policy.answer(given, 2, torch.tensor([5])) for _ in range(2)]

    assert said[0].actions.tolist() == [[[70, 0], [71, 71]]] or said[0].mask.shape == (1, 2, 2)
    (first, settings, request), (_, again, later) = engine.engine.asked
    assert request[1] != later[1]
    assert Path(request[2], "adapter_model.safetensors").exists()
    placeholder = network.config.image_token_id
    assert first[0]["prompt_token_ids"].count(placeholder) == 1
    assert first[0]["multi_modal_data"]["image"][0].size == (84, 56)
    assert settings[0].seed != settings[1].seed
    assert [one.seed for one in settings] == [one.seed for one in again]
    assert settings[0].repetition_penalty == 1.0


def test_without_vllm_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(ValueError, match="pip install vllm, or set sampler: transformers"):
        vllm.Vllm("anything", rank=16)


@pytest.mark.usefixtures("stand_in")
def test_vllm_is_refused_where_all_weights_learn() -> None:
    with pytest.raises(ValueError, match="adapters only"):
        vllm.Vllm("anything", rank=0)
