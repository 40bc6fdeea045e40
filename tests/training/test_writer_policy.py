"""The writer as a policy: what it draws, what it scores, and what of it learns."""

from __future__ import annotations

import copy
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch import Tensor

from tests import tiny_writer
from trainer import rewards, tasks
from trainer.grpo import Args, Component, train
from trainer.policies import writer
from trainer.policies.heads import trainable
from trainer.policies.writer import Loading, Writer, written
from vqmon.writing import Prompts, read_prompts

torch.set_num_threads(1)

LORA = Loading(precision="float32", adapter_rank=4)


def picture(seed: int = 0, height: int = 56, width: int = 56) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def prompts() -> Prompts:
    """Short ones, so that tests are quick."""
    return read_prompts().model_copy(
        update={
            "system": "Judge.",
            "score": "<pictures>Rate it.",
            "degradation": "<pictures>Name it.",
            "comparison": "<first><second>Which?",
        }
    )


def batch(*rows: tuple[Any, Sequence[Any]], kind: str = "qwen2_5_vl") -> dict[str, Any]:
    """One group of questions: (task, pictures)."""
    prepare = tasks.prepared(tiny_writer.processor(kind), prompts())
    return {
        "group": torch.zeros(len(rows), dtype=torch.long),
        "task": [task for task, _ in rows],
        "prompt": [prepare(task, pictures) for task, pictures in rows],
    }


def mixed(kind: str = "qwen2_5_vl") -> dict[str, Any]:
    """Prompts of three lengths, pictures of three sizes, one row with two of them."""
    return batch(
        ("score", [picture(0)]),
        ("comparison", [picture(1, 84, 56), picture(2)]),
        ("degradation", [picture(3, 56, 112)]),
        kind=kind,
    )


def policy(network: Any = None, kind: str = "qwen2_5_vl", **settings: Any) -> Writer:
    known: dict[str, Any] = {"most_tokens": 6, "at_once": 64, "anchored": False}
    return Writer(
        network or lively(tiny_writer.network(kind)),
        tiny_writer.tokenizer(),
        tasks.reading(prompts()),
        **(known | settings),
    )


def lively(network: Any) -> Any:
    """Fresh weights say everything with the same probability: make them decided."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    return network


def seeds(count: int) -> Tensor:
    return torch.arange(10, 10 + count)


@pytest.mark.parametrize("kind", tiny_writer.KINDS)
def test_every_family_answers_and_scores_what_it_answered(kind: str) -> None:
    """Qwen2-VL, Qwen2.5-VL and Qwen3-VL place pictures differently; nothing here knows how."""
    trained, given = policy(kind=kind), mixed(kind)

    said = trained.answer(given, 3, seeds(3))
    log_prob = trained(given, said.actions).log_prob

    assert said.actions.shape == said.mask.shape == log_prob.shape
    assert said.actions.shape[:2] == (3, 3)
    assert log_prob.isfinite().all()
    assert (log_prob[said.mask] < 0).all()


@pytest.mark.parametrize("kind", tiny_writer.KINDS)
def test_padding_on_the_left_changes_nothing(kind: str) -> None:
    """A row's log-probabilities are the same alone and beside longer prompts."""
    trained, given = policy(kind=kind), mixed(kind)
    actions = torch.randint(0, 256, (3, 2, 5), generator=torch.Generator().manual_seed(0))

    together = trained(given, actions).log_prob

    for row in range(3):
        alone = {name: values[row : row + 1] for name, values in given.items()}
        assert torch.allclose(
            trained(alone, actions[row : row + 1]).log_prob[0], together[row], atol=1e-4
        )


@pytest.mark.parametrize("kind", tiny_writer.KINDS)
def test_pictures_seen_once_give_what_pictures_seen_each_time_give(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vision tower runs once a picture where the network allows it, else once an answer."""
    trained, given = policy(kind=kind), mixed(kind)
    actions = torch.randint(0, 256, (3, 2, 5), generator=torch.Generator().manual_seed(0))

    once = trained(given, actions).log_prob
    monkeypatch.setattr(writer, "takes_encoded", lambda _network: False)
    each = trained(given, actions).log_prob

    assert torch.allclose(once, each, atol=1e-4)


@pytest.mark.parametrize("length", [1, 5])
@pytest.mark.parametrize("kind", tiny_writer.KINDS)
def test_a_prompt_read_once_gives_what_a_prompt_read_for_each_answer_gives(
    kind: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log-probabilities and gradients, with prompts of unequal length and answers that ended."""
    trained, given = policy(kind=kind), mixed(kind)
    actions = torch.randint(0, 256, (3, 2, length), generator=torch.Generator().manual_seed(0))
    actions[1, 0, length // 2 :] = trained.ends[0]
    forward, widths = trained.network.forward, list[tuple[int, int]]()

    def watched(*args: Any, **inputs: Any) -> Any:
        widths.append(tuple(inputs["input_ids"].shape))
        return forward(*args, **inputs)

    monkeypatch.setattr(trained.network, "forward", watched)
    once, slopes = trained(given, actions).log_prob, gradients(trained, given, actions)
    shared = widths[:2]
    monkeypatch.setattr(writer, "turns", lambda _network: False)
    each = trained(given, actions).log_prob

    assert torch.allclose(once, each, atol=1e-4)
    for name, slope in gradients(trained, given, actions).items():
        assert torch.allclose(slope, slopes[name], atol=1e-4 * float(slope.abs().max() + 1)), name
    assert shared[0][0] == 3
    assert length == 1 or shared[1] == (6, length - 1)


def test_log_probabilities_are_those_of_the_plain_model() -> None:
    """Against transformers' own forward pass on one row, written out."""
    trained = policy(temperature=0.7)
    given = batch(("score", [picture()]))
    answer = torch.tensor([[[70, 71, 72, trained.ends[0]]]])
    prompt = given["prompt"][0]
    length = prompt["input_ids"].shape[1]

    found = trained(given, answer).log_prob[0, 0]

    logits = trained.network(
        input_ids=torch.cat([prompt["input_ids"], answer[0]], 1),
        mm_token_type_ids=torch.nn.functional.pad(prompt["mm_token_type_ids"], (0, 4)),
        pixel_values=prompt["pixel_values"],
        image_grid_thw=prompt["image_grid_thw"],
    ).logits[0, length - 1 : -1]
    logits[:, trained.forbidden] = -math.inf
    expected = (logits / 0.7).log_softmax(-1).gather(-1, answer[0, 0, :, None]).squeeze(-1)
    assert torch.allclose(found, expected, atol=1e-5)


def test_answers_are_drawn_with_the_probabilities_that_are_scored() -> None:
    """Checkpoints ship a repetition penalty, a temperature and a top-k: if one of them acted in
    drawing alone, every ratio would be wrong."""
    trained = policy(most_tokens=1, temperature=1.3)
    shipped = trained.network.generation_config
    shipped.repetition_penalty, shipped.top_k, shipped.temperature = 1.9, 2, 0.1
    shipped.do_sample = True
    given = batch(("score", [picture()]))

    said = trained.answer(given, 4000, seeds(1))
    counts = torch.bincount(said.actions.flatten(), minlength=600).double() / 4000

    every = torch.arange(tiny_writer.TOKENS)
    allowed = every[~torch.isin(every, trained.forbidden)]
    with torch.no_grad():
        expected = trained(given, allowed[None, :, None]).log_prob.exp().flatten().double()
    found = counts[allowed]
    assert expected.sum() == pytest.approx(1, abs=1e-3)
    assert found.sum() == 1  # no placeholder of a picture
    assert (found - expected).abs().sum() / 2 < 0.15  # total variation
    top = expected.topk(20).indices  # a deviation of 4000 draws is below .002 here
    assert torch.allclose(found[top], expected[top], atol=0.008)


def test_a_row_answers_the_same_in_any_company() -> None:
    """Draws come from the row's own seed: the same answers in one process and in many."""
    trained, given = policy(), mixed()

    together = trained.answer(given, 4, seeds(3))
    alone = trained.answer({name: values[2:] for name, values in given.items()}, 4, seeds(3)[2:])

    length = alone.actions.shape[-1]
    assert torch.equal(together.actions[2, :, :length], alone.actions[0])


def test_another_seed_gives_other_answers() -> None:
    trained, given = policy(), batch(("score", [picture()]))

    first, second = (trained.answer(given, 4, torch.tensor([s])).actions for s in (1, 2))

    assert not torch.equal(first, second)


def test_the_likeliest_answer_has_no_chance_in_it() -> None:
    trained, given = policy(), mixed()

    first, second = (trained.likeliest(given) for _ in range(2))

    assert torch.equal(first.actions, second.actions)
    assert first.actions.shape[1] == 1


def test_the_end_of_sequence_is_inside_the_mask_and_padding_is_not() -> None:
    """Else nothing would teach the model to stop, or padding would teach it nonsense."""
    end, other = 5, 9
    actions = torch.tensor([[7, end, 1, end], [1, 2, 3, 4], [other, 0, 0, 0], [1, 2, 3, end]])

    assert written(actions, [end, other]).tolist() == [
        [True, True, False, False],
        [True, True, True, True],
        [True, False, False, False],
        [True, True, True, True],
    ]


def test_no_answer_holds_a_token_of_its_prompt() -> None:
    """Published code cuts the prompt after generation began, and rewards its tail as an answer:
    the format reward sticks. Here the first drawn token is the first of the answer."""
    trained, given = policy(), mixed()
    drawn: list[Tensor] = []

    def spy(policy: Writer, prompts: Any, chances: Tensor) -> Tensor:
        drawn.append(writer.generated(policy, prompts, chances))
        return drawn[-1]

    trained.sampler = spy
    said = trained.answer(given, 2, seeds(3))

    assert said.actions.shape[-1] <= trained.most_tokens
    kept = said.actions.where(said.mask, 0)
    assert torch.equal(kept.flatten(0, 1), drawn[0].where(said.mask.flatten(0, 1), 0))
    longest = max(p["input_ids"].shape[1] for p in given["prompt"])
    assert longest > trained.most_tokens  # a prompt would not have fitted


def test_what_stands_behind_the_end_moves_nothing() -> None:
    """Padding gives neither log-probability nor gradient."""
    trained, given = policy(), batch(("score", [picture()]))
    short = torch.tensor([[[70, trained.ends[0], 0, 0]]])
    filled = torch.tensor([[[70, trained.ends[0], 99, 98]]])

    first, second = (trained(given, actions).log_prob for actions in (short, filled))

    assert torch.equal(first, second)
    assert not first[..., 2:].any()


def test_an_answer_is_read_by_its_task() -> None:
    """Quality for a score, levels for a degradation, a preference for a comparison."""
    trained, given = policy(), mixed()
    spoken = {
        "score": '<think>\nseen\n</think>\n<answer>\n{"rating": 3.00}\n</answer>',
        "comparison": "<think>\nseen\n</think>\n<answer>\nImage B\n</answer>",
        "degradation": "<think>\nseen\n</think>\n<answer>\n"
        '{"distortion_class": "blur", "severity": "serious"}\n</answer>',
    }
    actions = spelt(trained, [spoken[task] for task in given["task"]])

    said = trained.meant(given, actions)

    assert said.readable.all()
    assert said.quality is not None
    assert said.quality[0].tolist() == [50.0]
    assert said.quality[1:].isnan().all()
    assert said.preference is not None
    assert said.preference[1].tolist() == [-1.0]
    assert said.levels is not None
    assert said.levels[2, 0, 0] == 4
    assert said.levels[:2].eq(-1).all()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4.0",
        "<answer>\n{}\n</answer>",
        '<think>\nseen\n</think>\n<answer>\n{"rating": 9.00}\n</answer>',
        '<think>\nseen\n</think>\n<answer>\n{"rating": 3.00}\n</answer><|im_start|>',
    ],
)
def test_an_unreadable_answer_earns_nothing_and_is_counted(text: str) -> None:
    """Never a random score, as published code gives it; a stray special token spoils the form."""
    trained, given = policy(), batch(("score", [picture()]))

    said = trained.meant(given, spelt(trained, [text]))

    assert not said.readable.any()
    known = {"mos": torch.tensor([50.0])}
    assert rewards.readable(said, known).item() == 0
    if "rating" not in text or "9.00" in text:
        assert rewards.closeness(said, known).item() == 0


def spelt(trained: Writer, texts: Sequence[str]) -> Tensor:
    """(B, 1, T)"""
    rows = [[*trained.tokenizer(text)["input_ids"], trained.ends[0]] for text in texts]
    longest = max(map(len, rows))
    return torch.tensor([row + [0] * (longest - len(row)) for row in rows])[:, None]


# --- what learns ---


def gradients(trained: Writer, given: Mapping[str, Any], actions: Tensor) -> dict[str, Tensor]:
    trained.zero_grad()
    trained(given, actions).log_prob.sum().backward()
    return {n: p.grad.clone() for n, p in trained.named_parameters() if p.grad is not None}


def test_an_adapter_alone_learns_and_the_backbone_is_frozen() -> None:
    """After one step of the optimiser no frozen weight has moved, and every adapter could."""
    network = writer.equipped(lively(tiny_writer.network()), LORA)
    trained = policy(network)
    given, frozen = mixed(), {n: p.clone() for n, p in network.named_parameters()}

    found = gradients(trained, given, trained.answer(given, 2, seeds(3)).actions)
    torch.optim.AdamW([p for p in trained.parameters() if p.requires_grad]).step()

    learned = {n for n, p in trained.named_parameters() if p.requires_grad}
    assert found.keys() == learned
    assert all("lora_" in name for name in learned)
    assert all("lora_B" not in name or grad.abs().sum() > 0 for name, grad in found.items())
    for name, parameter in network.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, frozen[name])
    assert not any("visual" in name for name in learned)


def test_an_adapter_of_a_7b_model_has_5_million_parameters() -> None:
    """r = 16 on q_proj and v_proj, on the published shape without its weights."""
    network = published(layers=28)

    adapted = writer.equipped(network, Loading())

    assert trainable(adapted) == 28 * 16 * ((3584 + 3584) + (3584 + 512))
    assert writer.counted(adapted).startswith("5.05 M of 8,")


def test_an_adapter_of_ten_million_is_refused() -> None:
    """r = 16 on q, k, v and o of a 7B model is 10.1 M: over the article's limit."""
    with pytest.raises(ValueError, match=r"10,092,544 trainable parameters.*adapter_rank"):
        writer.equipped(published(layers=28), Loading(adapter_on="q_proj,k_proj,v_proj,o_proj"))


def published(layers: int) -> Any:
    """The shape of Qwen2.5-VL-7B, on no device."""
    import transformers

    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": layers,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
            "tie_word_embeddings": False,
        },
        vision_config={
            "depth": 32,
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "out_hidden_size": 3584,
        },
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        return transformers.Qwen2_5_VLForConditionalGeneration(config)


def test_layers_that_are_not_there_are_refused() -> None:
    with pytest.raises(ValueError, match="adapter_on 'query' fits no layer"):
        writer.equipped(tiny_writer.network(), Loading(adapter_on="query", precision="float32"))


def test_without_an_adapter_all_weights_learn() -> None:
    network = writer.equipped(tiny_writer.network(), Loading(adapter_rank=0, precision="float32"))

    assert trainable(network) == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("rank", [0, 4])
def test_the_reference_stays_where_training_began(rank: int) -> None:
    """The adapter switched off, or a frozen copy where there is none."""
    network = writer.equipped(
        lively(tiny_writer.network()), Loading(adapter_rank=rank, precision="float32")
    )
    trained, given = policy(network, anchored=True), mixed()
    actions = torch.randint(0, 256, (3, 2, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = trained(given, actions).log_prob
        for parameter in trained.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05)
        moved = trained(given, actions).log_prob
        with trained.reference():
            start = trained(given, actions).log_prob

    assert torch.allclose(start, before, atol=1e-5)
    assert not torch.allclose(moved, before, atol=1e-2)


def test_a_reference_that_nobody_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="anchored=True"), policy().reference():
        pass


@pytest.mark.parametrize("rank", [0, 4])
def test_parts_and_checkpoints_change_no_gradient(rank: int) -> None:
    """Memory is all that `at_once` and checkpointing save."""

    def found(at_once: int, checkpointing: bool) -> dict[str, Tensor]:
        asked = Loading(adapter_rank=rank, precision="float32", checkpointing=checkpointing)
        torch.manual_seed(0)
        network = writer.equipped(lively(tiny_writer.network()), asked)
        trained = policy(network, at_once=at_once, checkpointing=checkpointing)
        return gradients(trained, mixed(), actions)

    actions = torch.randint(0, 256, (3, 2, 4), generator=torch.Generator().manual_seed(0))
    whole = found(64, checkpointing=False)
    sparing = found(4, checkpointing=True)

    assert whole.keys() == sparing.keys()
    for name, grad in whole.items():
        assert torch.allclose(grad, sparing[name], atol=1e-4 * float(grad.abs().max() + 1)), name


def test_layers_are_checkpointed_in_learning_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers does it in training mode alone, and GRPO keeps policies in evaluation mode."""
    network = writer.equipped(tiny_writer.network(), Loading(precision="float32", adapter_rank=4))
    trained, given = policy(network, checkpointing=True).eval(), batch(("score", [picture()]))
    modes: list[bool] = []
    forward = network.forward

    def watched(*args: Any, **inputs: Any) -> Any:
        modes.append(network.training)
        return forward(*args, **inputs)

    monkeypatch.setattr(network, "forward", watched)

    with torch.no_grad():
        trained(given, torch.tensor([[[70]]]))
    trained(given, torch.tensor([[[70]]]))

    assert modes == [False, True]
    assert not network.training


def test_weights_in_bfloat16_score_in_float32() -> None:
    network = tiny_writer.network().to(torch.bfloat16)
    trained, given = policy(writer.equipped(network, Loading(adapter_rank=4))), mixed()

    said = trained.answer(given, 2, seeds(3))
    log_prob = trained(given, said.actions).log_prob
    log_prob.sum().backward()

    assert log_prob.dtype == torch.float32
    assert log_prob.isfinite().all()


def test_only_what_learns_is_saved() -> None:
    """A checkpoint of an adapter is small, and goes back into the same model."""
    first = policy(writer.equipped(tiny_writer.network(), LORA))
    second = policy(writer.equipped(tiny_writer.network(), LORA))
    with torch.no_grad():
        for parameter in first.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)

    second.load_state_dict(copy.deepcopy(first.state_dict()))

    assert sum(v.numel() for v in first.state_dict().values()) == trainable(first)
    given = batch(("score", [picture()]))
    actions = torch.tensor([[[70, 71]]])
    assert torch.equal(first(given, actions).log_prob, second(given, actions).log_prob)


def test_weights_of_another_adapter_are_refused() -> None:
    wider = Loading(precision="float32", adapter_rank=4, adapter_on="q_proj,k_proj,v_proj")
    first = policy(writer.equipped(tiny_writer.network(), wider))
    second = policy(writer.equipped(tiny_writer.network(), LORA))

    with pytest.raises(ValueError, match="another model or adapter"):
        second.load_state_dict(first.state_dict())


def test_four_bits_without_bitsandbytes_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    with pytest.raises(ValueError, match="pip install bitsandbytes, or set four_bit: false"):
        writer.load("anything", Loading(four_bit=True))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"adapter_rank": -1}, "adapter_rank"),
        ({"precision": "float16"}, "float32, bfloat16"),
        ({"four_bit": True, "adapter_rank": 0}, "four_bit weights cannot be trained"),
    ],
)
def test_loading_that_cannot_be_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Loading(**settings)


# --- GRPO drives it unchanged ---


def test_grpo_raises_the_probability_of_what_earns() -> None:
    """The whole loop, on a reward for one token: in a few steps it becomes likely."""
    loading = Loading(adapter_rank=0, precision="float32", checkpointing=False)
    trained = policy(writer.equipped(lively(tiny_writer.network()), loading), most_tokens=2)
    given = batch(("score", [picture()]))
    drawn = trained.answer(given, 64, seeds(1)).actions[0, :, 0]
    wanted = drawn.mode().values
    before = trained(given, wanted.view(1, 1, 1)).log_prob.exp().item()

    def says(rollout: Any, _batch: Any) -> Tensor:
        said: Tensor = rollout.actions[..., 0] == wanted
        return said.float()

    train(
        trained,
        lambda _step: given,
        [Component("says", 1.0, says)],
        Args(steps=15, answers=16, updates=1, lr=1e-3, kl=0.0, advantage="plain"),
        lambda _row: None,
    )

    after = trained(given, wanted.view(1, 1, 1)).log_prob.exp().item()
    assert after > before + 0.3
