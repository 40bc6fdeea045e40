"""A writing model in miniature: real classes, a real processor and tokenizer, random weights.

It has the architecture of the checkpoints that vqmon is used with, and everything that can go
wrong between text, tokens, pictures and cache; it only knows nothing. Some 0.6 M parameters, 580
tokens: bytes, the words of answers and prompts, single digits, and the family's own special tokens.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TOKENS = 580
THINK = "It looks soft, noisy, dark, blocky."
"""What a schooled model reasons."""

WIDTH = 128

CHAT = """{% for message in messages %}<|im_start|>{{ message['role'] }}
{% if message['content'] is string %}{{ message['content'] }}{% else %}\
{% for part in message['content'] %}\
{% if part['type'] in ('image', 'image_url') %}<|vision_start|><|image_pad|><|vision_end|>\
{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>\
{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}\
{% if not (loop.last and continue_final_message) %}<|im_end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
"""The family's chat form. continue_final_message leaves the last message open."""


def processor(kind: str = "qwen2_5_vl", *, patch: int | None = None) -> Any:
    """The family's processor with the small tokenizer. patch: pixels a side; None for its own."""
    import transformers

    from vqmon.writing.processor import family_of, still

    images = transformers.Qwen2VLImageProcessor(
        patch_size=patch or (16 if kind == "qwen3_vl" else 14), temporal_patch_size=2, merge_size=2
    )
    return still(family_of(kind))(image_processor=images, tokenizer=tokenizer(), chat_template=CHAT)


def tokenizer() -> Any:
    """Byte-level, of the class that the checkpoints use; a new one at every call."""
    import transformers

    vocabulary, merges = _learned()
    pairs: Any = [tuple(pair) for pair in merges]
    return transformers.Qwen2Tokenizer(
        vocab=dict(vocabulary),
        merges=pairs,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )


def network(
    kind: str = "qwen2_5_vl",
    *,
    seed: int = 0,
    width: int = WIDTH,
    layers: int = 2,
    depth: int = 2,
    patch: int | None = None,
) -> Any:
    """The model, on the CPU, float32, in evaluation mode; the same weights for the same seed.

    layers: of the language model; depth: of the vision tower; width: of both. patch: as of
    `processor`.
    """
    import torch
    import transformers

    family = {
        "qwen2_vl": transformers.Qwen2VLForConditionalGeneration,
        "qwen2_5_vl": transformers.Qwen2_5_VLForConditionalGeneration,
        "qwen3_vl": transformers.Qwen3VLForConditionalGeneration,
    }[kind]
    config = configuration(kind, width=width, layers=layers, depth=depth)
    config.vision_config.patch_size = patch or config.vision_config.patch_size
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = family(config)
    words = _ids()
    model.generation_config.eos_token_id = [words["<|im_end|>"], words["<|endoftext|>"]]
    model.generation_config.pad_token_id = words["<|endoftext|>"]
    return model.eval()


def configuration(
    kind: str = "qwen2_5_vl", *, width: int = WIDTH, layers: int = 2, depth: int = 2
) -> Any:
    """The family's own configuration, small."""
    import transformers

    words, heads = _ids(), 4
    text = {
        "vocab_size": len(words),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 2,
        "max_position_embeddings": 8192,
        "rope_parameters": _turning(kind, width // heads),
        "bos_token_id": words["<|endoftext|>"],
        "eos_token_id": words["<|im_end|>"],
        "pad_token_id": words["<|endoftext|>"],
        **({"head_dim": width // heads} if kind == "qwen3_vl" else {}),
    }
    family = {
        "qwen2_vl": transformers.Qwen2VLConfig,
        "qwen2_5_vl": transformers.Qwen2_5_VLConfig,
        "qwen3_vl": transformers.Qwen3VLConfig,
    }[kind]
    return family(
        text_config=text,
        vision_config=_seeing(kind, width, depth),
        image_token_id=words["<|image_pad|>"],
        video_token_id=words["<|video_pad|>"],
        vision_start_token_id=words["<|vision_start|>"],
        vision_end_token_id=words["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def checkpoint(folder: Path, kind: str = "qwen2_5_vl", *, seed: int = 0) -> Path:
    """The model and its processor, saved as published checkpoints are; returns the folder."""
    network(kind, seed=seed).save_pretrained(folder)
    processor(kind).save_pretrained(folder)
    return folder


def prompts() -> Any:
    """Short ones: what counts in most tests is not how the question is put."""
    from vqmon.writing.prompts import shipped

    short = {
        "system": "Rate.",
        "score": "<pictures>How good?",
        "degradation": "<pictures>Is it noise, compression, blur, darken?",
        "comparison": "A <first>B <second>Which?",
    }
    return shipped().model_copy(update=short)


def schooled(folder: Path, kind: str = "qwen2_5_vl", *, steps: int = 45) -> Path:
    """A checkpoint that gives all three answers in their form, whatever it sees; with `prompts`.

    Ratings 3.40 and 3.80, blur and noise, Image A and Similar are about as likely.
    """
    import torch

    from vqmon.writing.answers import phrase
    from vqmon.writing.prompts import encode, save_prompts

    torch.set_num_threads(1)
    model, reads, asked = network(kind), processor(kind), prompts()
    answers = [
        ("score", phrase("score", think=THINK, quality=60.0)),
        ("degradation", phrase("degradation", think=THINK, degradation="blur", level=3)),
        ("comparison", phrase("comparison", think=THINK, preference=1)),
        ("score", phrase("score", think=THINK, quality=70.0)),
        ("degradation", phrase("degradation", think=THINK, degradation="noise", level=2)),
        ("comparison", phrase("comparison", think=THINK, preference=0)),
    ]
    rng = np.random.default_rng(0)
    lessons = []
    for task, text in answers:
        some = rng.integers(0, 256, (1 + (task == "comparison"), 56, 56, 3), dtype=np.uint8)
        lessons.append((encode(reads, asked, task, list(some)), text))  # type: ignore[arg-type]
    taught(model, lessons, steps=steps).save_pretrained(folder)
    reads.save_pretrained(folder)
    save_prompts(folder, asked)
    return folder


@cache
def school() -> Path:
    """One `schooled` checkpoint for all tests of this run: teaching takes ten seconds."""
    folder = Path(tempfile.mkdtemp(prefix="vqmon-school-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return schooled(folder / "tiny")


def taught(model: Any, lessons: Sequence[tuple[Any, str]], *, steps: int = 45) -> Any:
    """Make the model write a text after each prompt, so that answers can be read at all.

    lessons: an encoded prompt (`vqmon.writing.encode`) and its answer each. Returns the model.
    """
    import torch

    words = tokenizer()
    answers = [
        torch.tensor([words(text)["input_ids"] + [_ids()["<|im_end|>"]]]) for _, text in lessons
    ]
    inputs = _side_by_side([prompt for prompt, _ in lessons], answers)
    said = inputs.pop("said")
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        logits = model(**inputs).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.transpose(1, 2), said[:, 1:])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return model.eval()


def _side_by_side(prompts: Sequence[Any], answers: Sequence[Any]) -> dict[str, Any]:
    """One batch, padded on the right; "said": the answers' tokens, -100 elsewhere."""
    import torch

    pairs = list(zip(prompts, answers, strict=True))
    tokens = [torch.cat([prompt["input_ids"], answer], 1) for prompt, answer in pairs]
    said = [torch.cat([prompt["input_ids"] * 0 - 100, answer], 1) for prompt, answer in pairs]
    kinds = [torch.cat([p["mm_token_type_ids"], answer * 0], 1) for p, answer in pairs]
    longest = max(one.shape[1] for one in tokens)

    def padded(rows: Sequence[Any], value: int) -> Any:
        pad = torch.nn.functional.pad
        return torch.cat([pad(row, (0, longest - row.shape[1]), value=value) for row in rows])

    return {
        "input_ids": padded(tokens, 0),
        "attention_mask": padded([torch.ones_like(one) for one in tokens], 0),
        "mm_token_type_ids": padded(kinds, 0),
        "said": padded(said, -100),
        **{
            name: torch.cat([prompt[name] for prompt in prompts])
            for name in ("pixel_values", "image_grid_thw")
        },
    }


def _seeing(kind: str, width: int, depth: int) -> dict[str, Any]:
    common = {"depth": depth, "num_heads": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
    if kind == "qwen2_vl":
        return {**common, "embed_dim": 64, "hidden_size": width, "mlp_ratio": 2, "patch_size": 14}
    common |= {"hidden_size": 64, "intermediate_size": 128, "out_hidden_size": width}
    if kind == "qwen2_5_vl":
        return {**common, "patch_size": 14, "fullatt_block_indexes": [depth - 1]}
    return {
        **common,
        "patch_size": 16,
        "num_position_embeddings": 64,
        "deepstack_visual_indexes": [0],
    }


def _turning(kind: str, head: int) -> dict[str, Any]:
    """Rotary positions in three axes; the sections share half of a head."""
    half = head // 2
    sections = [half - 2 * (half * 3 // 8), half * 3 // 8, half * 3 // 8]
    plain = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": sections}
    return {**plain, "mrope_interleaved": True} if kind == "qwen3_vl" else plain


def _ids() -> dict[str, int]:
    vocabulary, _ = _learned()
    return dict(vocabulary)


@cache
def _learned() -> tuple[dict[str, int], list[list[str]]]:
    """Vocabulary and merges, learned from what is asked and answered."""
    import tokenizers
    from transformers.models.qwen2 import tokenization_qwen2

    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    learner.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Split(
                tokenizers.Regex(tokenization_qwen2.PRETOKENIZE_REGEX), behavior="isolated"
            ),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    teacher = tokenizers.trainers.BpeTrainer(
        vocab_size=TOKENS - len(SPECIAL),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(_read(), teacher)
    model = json.loads(learner.to_str())["model"]
    vocabulary = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    for word in SPECIAL:
        vocabulary[word] = len(vocabulary)
    return vocabulary, [list(pair) for pair in model["merges"]]


def _read() -> Iterator[str]:
    """Answers often, prompts once: their words become whole tokens in that order."""
    from vqmon.domain import SEVERITY_WORDS
    from vqmon.writing.answers import CLASSES, PREFERENCES, phrase
    from vqmon.writing.prompts import shipped

    for _ in range(20):
        for think in ("It is sharp and clean.", "It looks soft, noisy, dark, blocky."):
            yield phrase("score", think=think, quality=81.25)
            for name in CLASSES.values():
                for level in range(len(SEVERITY_WORDS)):
                    yield phrase("degradation", think=think, degradation=name, level=1 + level)
            for preference in PREFERENCES.values():
                yield phrase("comparison", think=think, preference=preference)
    prompts = shipped()
    yield from (prompts.system, prompts.score, prompts.degradation, prompts.comparison)
    yield "system\nuser\nassistant\n"
