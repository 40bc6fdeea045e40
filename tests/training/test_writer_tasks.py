"""What a writer is asked: three tasks in one run, pictures as they are, labels that are known."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from PIL import Image

from tests import tiny_writer
from trainer import rewards, tasks
from trainer.datasets import Damaged, Preference, Sample
from trainer.degrade import VARIANTS
from trainer.grpo import Rollout
from trainer.processes import share
from trainer.tasks import Asking, Listed, Made, Question, Questions, Shown
from vqmon.domain import DEGRADATIONS
from vqmon.errors import PictureUnsupported
from vqmon.writing import encode, read_prompts


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Three of them, 96x80."""
    paths = []
    for seed in range(3):
        grain = np.random.default_rng(seed).integers(0, 256, (20, 24, 3), np.uint8)
        path = tmp_path / f"{seed}.png"
        Image.fromarray(grain).resize((96, 80), Image.Resampling.BICUBIC).save(path)
        paths.append(path)
    return paths


def plain(task: Any, pictures: Any) -> dict[str, Any]:
    """A prompt that only remembers."""
    return {"task": task, "pictures": pictures}


def asked(photographs: list[Path], **asking: Any) -> Questions:
    samples = [Sample(path, 25.0 * i, "", "train", std=5.0) for i, path in enumerate(photographs)]
    sources: list[tasks.Source] = [
        tasks.opinions(samples),
        Made("degradation", photographs, crop=56),
        Made("comparison", photographs, crop=56),
    ]
    known: dict[str, Any] = {"questions": 12}
    return Questions(sources, Asking(**(known | asking)), plain, seed=1)


def test_a_step_asks_all_three_tasks_in_groups_of_one(photographs: list[Path]) -> None:
    given = asked(photographs, questions=60)(0)

    assert set(given["task"]) == {"score", "degradation", "comparison"}
    for number in given["group"].unique():
        rows = (given["group"] == number).nonzero().squeeze(-1).tolist()
        assert len({given["task"][row] for row in rows}) == 1
        assert 3 <= len(rows) <= 5


def test_every_batch_is_a_function_of_seed_and_step(photographs: list[Path]) -> None:
    """A resumed run must ask what the interrupted one would have asked."""
    first, second, other = (asked(photographs).drawn(step) for step in (7, 7, 8))

    assert first == second
    assert first != other


def test_a_source_can_keep_to_one_way_of_each_damage(photographs: list[Path]) -> None:
    """And then shows what that way alone makes of the picture."""
    made = Made("degradation", photographs, kinds=["noise"], variants={"noise": "white"})
    shown = made.draw(1, np.random.default_rng(4))[0].pictures[0]

    assert shown.variant == "white"
    white = next(v for v in VARIANTS["noise"] if v.name == "white")
    whole = np.asarray(Image.open(shown.path).convert("RGB"))
    expected = white(whole, 3.0, np.random.default_rng((shown.seed, 1)))
    assert np.array_equal(replace(shown, strength=3.0).picture(), expected)


def test_a_variant_that_is_not_there_is_an_error(photographs: list[Path]) -> None:
    with pytest.raises(ValueError, match="noise has no variant 'pink'"):
        Shown(photographs[0], strength=2.0, variant="pink").picture()


def test_a_batch_knows_of_each_task_only_what_that_task_asks(photographs: list[Path]) -> None:
    """NaN and -1 are "no opinion": no reward of one task judges another."""
    given = asked(photographs, questions=40)(0)

    for row, task in enumerate(given["task"]):
        assert given["mos"][row].isfinite() == (task == "score")
        assert (given["levels"][row] >= 0).any() == (task == "degradation")
        assert given["preferred"][row].isfinite() == (task == "comparison")


def test_only_classes_that_can_be_answered_are_known(photographs: list[Path]) -> None:
    """An answer has no word for banding: whether it is there must not be judged."""
    given = asked(photographs, score=0.0, comparison=0.0)(0)

    known = {name for i, name in enumerate(DEGRADATIONS) if (given["levels"][:, i] >= 0).any()}
    assert known == {"noise", "compression", "blur", "underexposed"}
    assert ((given["levels"] > 0).sum(1) <= 1).all()


def test_of_two_strengths_the_weaker_is_preferred(photographs: list[Path]) -> None:
    """One photograph, one damage, two strengths: an exact answer that nobody had to give."""
    rng = np.random.default_rng(0)
    made = Made("comparison", photographs).draw(20, rng)

    for question in made:
        first, second = question.pictures
        assert (first.path, first.kind, first.seed) == (second.path, second.kind, second.seed)
        assert question.preferred == float(first.strength < second.strength)
    assert {question.preferred for question in made} == {0.0, 1.0}


def test_damage_is_the_same_whenever_it_is_shown(photographs: list[Path]) -> None:
    shown = Shown(photographs[0], 56, "noise", 4.0, seed=5)

    assert shown.picture().shape == (56, 56, 3)
    assert np.array_equal(shown.picture(), shown.picture())
    clean = Shown(photographs[0], 56, "noise", 0.0, seed=5).picture()
    assert not np.array_equal(shown.picture(), clean)


def test_a_missing_picture_stops_the_run(tmp_path: Path) -> None:
    """Published code shows another picture instead, and trains on its label."""
    with pytest.raises(PictureUnsupported, match=r"gone\.png"):
        Shown(tmp_path / "gone.png").picture()


def test_a_task_without_data_is_refused(photographs: list[Path]) -> None:
    with pytest.raises(ValueError, match="no data for the task comparison"):
        Questions([Made("degradation", photographs)], Asking(score=0.0), plain, seed=1)


def test_made_scores_need_a_scale(photographs: list[Path]) -> None:
    """Strength is no opinion: nobody may take it for one by accident."""
    with pytest.raises(ValueError, match="calibrated scale"):
        Made("score", photographs).draw(1, np.random.default_rng(0))


def test_published_lists_become_questions(tmp_path: Path) -> None:
    """Q-Insight's and DeQA-Score's files, as their readers give them."""
    path = tmp_path / "a.png"

    [scored] = tasks.opinions([Sample(path, 40.0, "", "train", std=8.0)]).questions
    dark, clean = tasks.degradations(
        [Damaged(path, "underexposed", 3), Damaged(path, None, None)]
    ).questions
    first, alike = tasks.comparisons(
        [Preference(path, path, "b"), Preference(path, path, "similar")]
    ).questions

    assert (scored.quality, scored.sigma) == (40.0, 8.0)
    assert dark.levels == {"noise": 0, "compression": 0, "blur": 0, "underexposed": 3}
    assert clean.levels is not None
    assert not any(clean.levels.values())
    assert (first.preferred, alike.preferred) == (0.0, 0.5)


def test_a_list_without_entries_is_refused() -> None:
    with pytest.raises(ValueError, match="the set for score is empty"):
        Listed("score", [])


@pytest.mark.parametrize(
    "wrong", [{"smallest": 0}, {"smallest": 4, "largest": 3}, {"questions": 0}, {"score": -1.0}]
)
def test_a_step_that_cannot_be_asked_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Asking(**wrong)


def test_prompts_are_made_by_the_process_that_needs_them(photographs: list[Path]) -> None:
    """Else each of eight processes would decode the pictures of all."""
    made: list[Any] = []

    def counting(task: Any, pictures: Any) -> dict[str, Any]:
        made.append(task)
        return plain(task, pictures)

    questions = asked(photographs)
    given = tasks.batch(questions.drawn(0), counting)
    mine = share(
        given,
        type(
            "Second", (), {"num_processes": 2, "process_index": 1, "device": torch.device("cpu")}
        )(),
    )
    assert made == []

    prompts = [mine["prompt"][row] for row in range(len(mine["task"]))]

    assert made == mine["task"] == [prompt["task"] for prompt in prompts]
    assert len(made) < len(given["task"])


@pytest.mark.parametrize("kind", tiny_writer.KINDS)
def test_training_asks_what_serving_asks(kind: str) -> None:
    """The same prompt, the same place of the picture, the same size: to the last number."""
    processor, prompts = tiny_writer.processor(kind), read_prompts()
    seen = np.random.default_rng(0).integers(0, 256, (70, 130, 3), np.uint8)

    trained = tasks.prepared(processor, prompts)("score", [seen])
    served = encode(processor, prompts, "score", [seen])

    assert trained.keys() - {"pictures"} == set(served.keys())
    assert all(torch.equal(trained[name], served[name]) for name in served)


# --- rewards of text ---


def said(**values: Any) -> Rollout:
    """Two questions, two answers each."""
    blank = torch.zeros(2, 2, 1, dtype=torch.long)
    return Rollout(blank, blank.bool(), torch.ones(2, 2, dtype=torch.bool), **values)


def test_a_score_within_a_third_of_a_step_is_right() -> None:
    quality = torch.tensor([[50.0, 58.7], [58.8, math.nan]])

    earned = rewards.within(said(quality=quality), {"mos": torch.tensor([50.0, 50.0])})

    assert earned.tolist() == [[1, 1], [0, 0]]


def test_naming_counts_only_when_it_is_exact() -> None:
    """Of four classes, three are right by chance for whoever says "clean"."""
    truth = torch.tensor([[4, 0, 0, -1, 0, -1, -1, -1], [0, 0, 0, -1, 0, -1, -1, -1]])
    blur4, blur2, clean = truth[0].clamp(min=0), torch.zeros(8).long(), torch.zeros(8).long()
    blur2[0] = 2
    levels = torch.stack([torch.stack([blur4, blur2]), torch.stack([clean, blur2])])

    named = rewards.named(said(levels=levels), {"levels": truth})
    graded = rewards.graded(said(levels=levels), {"levels": truth})

    assert named.tolist() == [[1, 1], [1, 0]]
    assert graded.tolist() == [[1, 0], [1, 0]]


def test_agreement_is_exact_and_a_pair_is_soft() -> None:
    """The paper's reward, and ours: "similar" earns something of a preference of 60 %."""
    given = {"preferred": torch.tensor([1.0, 0.6])}
    preference = torch.tensor([[1.0, 0.0], [0.0, math.nan]])

    exact = rewards.agreement(said(preference=preference), given)
    soft = rewards.pair(said(preference=preference), given)

    assert exact.tolist() == [[1, 0], [0, 0]]
    assert soft.flatten().tolist() == pytest.approx([1, 0, 0.8, 0])


def test_no_reward_judges_what_is_not_known() -> None:
    blind = {
        "mos": torch.tensor([math.nan] * 2),
        "levels": torch.full((2, 8), -1),
        "preferred": torch.tensor([math.nan] * 2),
    }
    spoken = said(
        quality=torch.zeros(2, 2),
        levels=torch.zeros(2, 2, 8).long(),
        preference=torch.zeros(2, 2),
    )

    for reward in (rewards.within, rewards.named, rewards.graded, rewards.agreement, rewards.pair):
        assert reward(spoken, blind).isnan().all()


def test_questions_are_values() -> None:
    """Drawn again from the same seed they are equal, pictures and all."""
    path = Path("a.png")

    assert Question("score", (Shown(path),), 10.0) == Question("score", (Shown(path),), 10.0)
