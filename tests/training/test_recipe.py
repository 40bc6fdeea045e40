"""From a recipe and features to trained heads, as a user runs it."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("torch")
pytest.importorskip("scipy")

import torch

from trainer import checkpoints, recipe
from trainer.groups import UNKNOWN, Pictures
from trainer.policies import heads
from trainer.policies.heads import Heads, Shape
from trainer.recipe import CsvLog, read_recipe

torch.set_num_threads(1)

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "trainer" / "recipes"

SHORT = {
    "train": {"steps": 4, "answers": 4, "lr": 0.01, "look_every": 2, "save_every": 2},
    "groups": {"pictures": 16},
    "rewards": {"closeness": 1.0, "ordering": 1, "class": 0.5, "level": 0.5, "region": 0.2},
}


def pictures() -> Pictures:
    """Opinions follow the features; ladders fall along them."""
    rng = np.random.default_rng(0)
    opinions, ladders, width = 120, 10, 6
    rungs = np.tile(np.arange(6.0), ladders)
    x = rng.normal(size=(opinions + 6 * ladders, 2, width))
    x[opinions:] = np.repeat(rng.normal(size=(ladders, 1, width)), 6, axis=0)
    x[opinions:, :, 0] -= rungs[:, None]
    n, made = len(x), 6 * ladders
    levels = np.full((n, 8), UNKNOWN, np.int8)
    levels[opinions:] = 0
    levels[opinions:, 0] = rungs
    told = np.clip(50 + 20 * x[:opinions, 0, 0], 0, 100)
    return Pictures(
        features=x.astype(np.float16),
        mos=np.append(told, np.full(made, np.nan)).astype(np.float32),
        sigma=np.full(n, np.nan, np.float32),
        dataset=np.array(["set"] * opinions + ["made"] * made),
        subset=np.array(["a", "b"] * (opinions // 2) + ["made"] * made),
        split=np.array((["train"] * 4 + ["validation"] * 2) * (opinions // 6)
                       + (["train"] * 6 + ["validation"] * 6) * (ladders // 2)),
        levels=levels,
        regions=np.full((n, 9), UNKNOWN, np.int8),
        ladder=np.append(np.full(opinions, UNKNOWN), np.repeat(np.arange(ladders), 6)),
        rung=np.append(np.zeros(opinions), rungs).astype(np.float32),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Features, heads to start from, and a short recipe."""
    pictures().save(tmp_path / "features.npz")
    torch.manual_seed(0)
    heads.save(tmp_path / "start.pt", Heads(Shape(features=6, width=16, blocks=1)))
    (tmp_path / "short.yaml").write_text(yaml.safe_dump(SHORT))
    return tmp_path


def arguments(folder: Path, out: str = "out") -> list[str]:
    return [
        str(folder / "short.yaml"),
        *("--features", str(folder / "features.npz")),
        *("--heads", str(folder / "start.pt")),
        *("--out", str(folder / out)),
    ]


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_command_trains_and_keeps_the_best(folder: Path) -> None:
    """Weights that can be loaded, a log of every step, and a card that tells where from."""
    recipe.main(arguments(folder))

    log = rows(folder / "out" / "log.csv")
    card = json.loads((folder / "out" / "card.json").read_text())
    best = checkpoints.load(folder / "out" / "best.pt")
    trained = heads.load(folder / "out" / "heads.pt")
    assert [row["step"] for row in log] == ["0", "1", "2", "3", "4"]
    assert [bool(row["held_out/srcc"]) for row in log] == [True, False, True, False, True]
    merits = [float(log[step]["held_out/srcc"]) for step in (0, 2, 4)]
    assert card["validation"]["srcc"] == pytest.approx(max(merits), abs=1e-4)
    assert card["chosen_step"] == 2 * int(np.argmax(merits))
    assert card["recipe"]["train"]["steps"] == 4
    assert set(card["data"]) == {"features", "heads"}
    assert torch.equal(trained.score.weight, best["policy"]["heads.score.weight"])


def test_heads_that_only_got_worse_are_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept is the best of all looks, here the start, not the last."""
    falling = iter([0.9, 0.5, 0.1])
    monkeypatch.setattr(recipe, "held_out", lambda *_: {"srcc": next(falling)})

    recipe.main(arguments(folder))

    kept, start = (heads.load(folder / name) for name in ("out/heads.pt", "start.pt"))
    last = checkpoints.load(folder / "out" / "last.pt")["policy"]
    assert torch.equal(kept.score.weight, start.score.weight)
    assert not torch.equal(kept.score.weight, last["heads.score.weight"])


def test_the_seed_can_be_given_by_hand(folder: Path) -> None:
    """Three seeds of one recipe without three recipes."""
    for seed in ("1", "2"):
        recipe.main([*arguments(folder, f"out{seed}"), "--seed", seed])

    first, second = (heads.load(folder / f"out{seed}" / "heads.pt") for seed in "12")
    cards = [json.loads((folder / f"out{seed}" / "card.json").read_text()) for seed in "12"]
    assert [card["seed"] for card in cards] == [1, 2]
    assert not torch.equal(first.score.weight, second.score.weight)


def test_an_interrupted_run_goes_on_with_its_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Same figures as without the interruption, and no step twice in the log."""
    recipe.main(arguments(folder, "straight"))
    write = CsvLog.__call__

    def dying(self: CsvLog, row: dict[str, float]) -> None:
        write(self, row)
        if row["step"] == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(CsvLog, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        recipe.main(arguments(folder))
    monkeypatch.undo()
    recipe.main(arguments(folder))

    ours, theirs = (rows(folder / out / "log.csv") for out in ("out", "straight"))
    for mine, yours in zip(ours, theirs, strict=True):
        assert {**mine, "samples_per_second": ""} == {**yours, "samples_per_second": ""}


@pytest.mark.parametrize("name", ["article", "lite"])
def test_the_recipes_of_the_repository_run(name: str, tmp_path: Path) -> None:
    """A few steps of each: every key is known and everything that they ask for exists."""
    read = read_recipe(RECIPES / f"{name}.yaml")
    short = replace(read, args=replace(read.args, steps=6, look_every=3, save_every=3))
    torch.manual_seed(0)
    found: list[dict[str, float]] = []

    state = recipe.run(short, pictures(), Heads(Shape(features=6)), tmp_path, found.append)

    assert state.step == 6
    assert [row["step"] for row in found] == list(range(7))
    for reward in ("closeness", "ordering", "class/blur", "level/blur"):
        assert any(np.isfinite(row[f"reward/{reward}"]) for row in found[:-1]), reward
    assert (tmp_path / "heads.pt").exists()


def test_the_articles_recipe_is_the_articles() -> None:
    """It is there to be compared with, not to be improved."""
    args = read_recipe(RECIPES / "article.yaml").args
    mixture = read_recipe(RECIPES / "article.yaml").mixture

    assert (args.lr, args.steps, args.clip_low, args.clip_high) == (1e-5, 50_000, 0.2, 0.2)
    assert (args.kl, args.updates, args.answers, args.advantage) == (0.001, 1, 8, "plain")
    assert (mixture.smallest, mixture.largest) == (3, 5)


def test_our_recipe_keeps_what_was_learned_about_collapse() -> None:
    """At least 64 pictures a step, a strong exact KL, an anchor in every batch."""
    ours = read_recipe(RECIPES / "lite.yaml")

    assert ours.mixture.pictures >= 64
    assert 0.2 <= ours.args.kl <= 2
    assert 2 <= ours.args.updates <= 4
    assert ours.rewards["closeness"] > 0
    assert ours.mixture.near == ours.mixture.anywhere == ours.mixture.ladder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": {"stepz": 4}}, r"train\.stepz is unknown; known: steps, answers"),
        ({"train": {"steps": "many"}}, r"train\.steps is 'many'; it must be int"),
        ({"train": {"steps": 1.5}}, r"train\.steps is 1\.5; it must be int"),
        ({"train": {"steps": True}}, r"train\.steps is True; it must be int"),
        ({"train": {"lr": "1e-5"}}, r"train\.lr is '1e-5'; it must be float such as 1\.0e-5"),
        ({"train": {"answers": 1}}, r"train: answers is 1; it must be at least 2"),
        ({"groups": {"smallest": 9}}, r"groups: groups of 9 to 5 pictures"),
        ({"rewards": {"beauty": 1.0}}, r"unknown reward 'beauty'"),
        ({"rewards": {"closeness": "much"}}, r"rewards\.closeness is 'much'"),
        ({"rewards": None}, r"must hold the mappings groups, rewards, train"),
        ({"seed": 3}, r"must hold the mappings groups, rewards, train"),
        ({"extra": {}}, r"must hold the mappings groups, rewards, train"),
    ],
)
def test_a_wrong_recipe_is_named_with_key_and_remedy(
    folder: Path, change: dict[str, object], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a user meets it: one line on stderr, exit code 2, nothing trained."""
    (folder / "short.yaml").write_text(yaml.safe_dump(SHORT | change))

    with pytest.raises(SystemExit) as stopped:
        recipe.main(arguments(folder))

    assert stopped.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(ValueError, match=message):
        recipe.run(
            read_recipe(folder / "short.yaml"),
            pictures(),
            Heads(Shape(features=6, width=16)),
            folder / "out",
            print,
        )


def test_a_recipe_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    """With the parser's line and column."""
    path = tmp_path / "broken.yaml"
    path.write_text("train: {steps: 4\n")

    with pytest.raises(ValueError, match=r"(?s)broken\.yaml cannot be read:.*line 2"):
        read_recipe(path)
    with pytest.raises(ValueError, match=r"none\.yaml cannot be read"):
        read_recipe(tmp_path / "none.yaml")


def test_heads_and_features_of_different_backbones_do_not_meet(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal widths of different backbones cannot be told; different ones must be."""
    heads.save(folder / "start.pt", Heads(Shape(features=7, width=16)))

    with pytest.raises(SystemExit):
        recipe.main(arguments(folder))

    assert "the heads take 7 features and the pictures have 6" in capsys.readouterr().err


def test_without_validation_opinions_nothing_can_be_chosen(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Choosing by training pictures would choose the most overfitted step."""
    p = pictures()
    replace(p, split=np.full(len(p), "train")).save(folder / "features.npz")

    with pytest.raises(SystemExit):
        recipe.main(arguments(folder))

    assert "no picture of the split 'validation'" in capsys.readouterr().err


def test_held_out_figures_are_those_of_the_read_out() -> None:
    """Whole set, within subsets, coverage and ladders, on heads that know the answer."""
    p = pictures()
    torch.manual_seed(0)
    network = Heads(Shape(features=6, width=16))

    class Knowing(Heads):
        def read(self, features: torch.Tensor) -> heads.Reading:
            said = super().read(features)
            return replace(said, quality=50 + 20 * features[:, 0])

    network.__class__ = Knowing
    figures = recipe.held_out(network, p.part("validation"))

    assert figures["srcc"] > 0.99
    assert figures["srcc_within"] > 0.99
    assert figures["ordered"] == 1
    assert figures["rmse"] < 10
    assert 0 <= figures["coverage"] <= 1


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_command_runs_in_two_processes(folder: Path) -> None:
    """As `accelerate launch` starts it: one log, and the same figures as in one process."""
    pytest.importorskip("accelerate")
    recipe.main(arguments(folder, "one"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    done = subprocess.run(
        [*launch, "-m", "trainer.grpo", *arguments(folder, "two")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )

    assert done.returncode == 0, done.stderr[-3000:]
    one, two = (rows(folder / out / "log.csv") for out in ("one", "two"))
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for ours, theirs in zip(one, two, strict=True):
        for name in ("reward/closeness", "kl", "entropy", "held_out/srcc"):
            if ours[name]:
                assert float(theirs[name]) == pytest.approx(float(ours[name]), rel=1e-3, abs=1e-4)
