"""A model is asked the same question in training and in use, about the same pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqmon.errors import ConfigError, PictureUnsupported
from vqmon.writing.answers import CLASSES, TASKS
from vqmon.writing.pictures import read_picture
from vqmon.writing.processor import load_processor
from vqmon.writing.prompts import (
    SHIPPED,
    Picture,
    conversation,
    encode,
    fitted,
    prompts_of,
    read_prompts,
    save_prompts,
    shipped,
)

GRID = 28


def picture(height: int = 112, width: int = 112, seed: int = 0) -> Picture:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def kinds(parts: list[dict[str, str]]) -> list[str]:
    return [part["type"] for part in parts]


def test_the_shipped_prompts_know_the_words_of_the_published_weights() -> None:
    assert shipped().classes == CLASSES
    for task in TASKS:
        assert "JSON" in getattr(shipped(), task) or task == "comparison"


def test_pictures_stand_before_the_question() -> None:
    """The published training and its demonstrations disagreed about that; ours cannot."""
    system, user = conversation(shipped(), "score")

    assert system["role"] == "system"
    assert kinds(user["content"]) == ["image", "text"]
    assert "this picture" in user["content"][1]["text"]


def test_frames_of_a_video_are_pictures_in_order() -> None:
    user = conversation(shipped(), "score", 3)[1]["content"]

    assert kinds(user) == ["image", "image", "image", "text"]
    assert "video" in user[3]["text"]
    assert not any("<" in part.get("text", "") for part in user)


def test_a_comparison_names_its_pictures() -> None:
    user = conversation(shipped(), "comparison", 2)[1]["content"]

    assert kinds(user) == ["text", "image", "text", "image", "text"]
    assert user[0]["text"].startswith("Image A")
    assert user[2]["text"].startswith("Image B")


def test_a_comparison_may_have_a_reference() -> None:
    user = conversation(shipped(), "comparison", 3, reference=True)[1]["content"]

    assert kinds(user).count("image") == 3
    assert user[0]["text"].startswith("Reference")


@pytest.mark.parametrize(("task", "number"), [("score", 0), ("comparison", 1), ("comparison", 3)])
def test_a_wrong_number_of_pictures_is_refused(task: Any, number: int) -> None:
    with pytest.raises(ValueError, match="pictures"):
        conversation(shipped(), task, number)


def test_pictures_within_the_limits_keep_their_pixels() -> None:
    """Noise and compression live in single pixels."""
    one = picture(112, 140)

    [seen] = fitted(shipped(), [one])

    assert seen is one


@pytest.mark.parametrize(
    ("height", "width"), [(2160, 3840), (1080, 1920), (720, 1281), (33, 47), (32, 2000), (40, 3000)]
)
@pytest.mark.parametrize("number", [1, 6])
def test_sizes_are_multiples_of_the_grid_within_the_limits(
    height: int, width: int, number: int
) -> None:
    limits = shipped().pixels

    seen = fitted(shipped(), [picture(height, width)] * number)[0]

    high, wide = seen.shape[:2]
    assert high % GRID == wide % GRID == 0
    assert limits.least <= high * wide <= min(limits.most, limits.together // number)
    if min(height, width) > 100:
        assert wide / high == pytest.approx(width / height, rel=0.06)


def test_a_strip_is_refused_before_the_model_refuses_it() -> None:
    with pytest.raises(PictureUnsupported, match="4000x32"):
        fitted(shipped(), [picture(32, 4000)])


class TestFile:
    """Operators replace the prompts; a mistake must be named, not answered by a confused model."""

    def changed(self, tmp_path: Path, old: str, new: str) -> Path:
        text = SHIPPED.read_text()
        assert old in text
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace(old, new))
        return path

    def test_a_copy_is_the_same(self, tmp_path: Path) -> None:
        assert read_prompts(self.changed(tmp_path, "JSON", "JSON")) == shipped()

    def test_other_words_are_taken(self, tmp_path: Path) -> None:
        path = self.changed(tmp_path, "How good", "Wie gut")

        assert "Wie gut" in conversation(read_prompts(path), "score")[1]["content"][1]["text"]

    @pytest.mark.parametrize(
        ("old", "new", "says"),
        [
            ("score: >-\n  <pictures>", "score: >-\n  ", "score: it must hold <pictures>"),
            ("<second>Which", "<first>Which", "comparison: it must hold <first>, <second>"),
            ("darken: underexposed", "darken: dark", "classes: darken is called 'dark'"),
            ("darken: underexposed", "darken: noise", "classes: two words mean the same"),
            ("darken: underexposed", "rain: underexposed", "does not name rain"),
            ("darken: underexposed", "none: underexposed", "none means that nothing is wrong"),
            ("least: 3136", "least: 30000000", "pixels.least"),
            ("most: 2116800", "most: 3000", "must not fall"),
            ("one: this", "uno: this", "one: Field required"),
            ("grid: 28", "grid: 28\nextra: 1", "extra: Extra inputs"),
            ("system: >-", "system: >- {", "cannot be read"),
        ],
    )
    def test_a_mistake_names_file_and_key(
        self, tmp_path: Path, old: str, new: str, says: str
    ) -> None:
        path = self.changed(tmp_path, old, new)

        with pytest.raises(ConfigError) as refused:
            read_prompts(path)

        assert str(path) in str(refused.value)
        assert says in str(refused.value)

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="nowhere"):
            read_prompts(tmp_path / "nowhere.yaml")

    @pytest.mark.parametrize("text", ["", "[]", "just text"])
    def test_a_file_of_something_else_is_refused(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "other.yaml"
        path.write_text(text)

        with pytest.raises(ConfigError, match="Begin with a copy"):
            read_prompts(path)


def test_saved_prompts_are_read_back(tmp_path: Path) -> None:
    """Training puts them beside the checkpoint; serving takes them from there."""
    mine = shipped().model_copy(update={"system": "Urteile: gut oder schlecht?"})

    save_prompts(tmp_path, mine)

    assert prompts_of(tmp_path) == mine
    assert prompts_of(tmp_path / "elsewhere") == shipped()


def test_pictures_are_read_as_red_green_and_blue(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("L", (40, 32), 77).save(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("no picture")

    assert read_picture(tmp_path / "grey.png").shape == (32, 40, 3)
    with pytest.raises(PictureUnsupported, match=r"text\.png"):
        read_picture(tmp_path / "text.png")
    with pytest.raises(PictureUnsupported, match="nowhere"):
        read_picture(tmp_path / "nowhere.png")


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
class TestEncoding:
    """With the real processors: what `encode` makes is what the model gets, nothing scales again."""

    def test_a_saved_checkpoint_encodes_as_the_trained_one(self, kind: str, tmp_path: Path) -> None:
        """Training encodes with the processor it holds, serving with the one it loads."""
        from tests import tiny_writer

        trained = tiny_writer.processor(kind)
        served = load_processor(tiny_writer.checkpoint(tmp_path, kind))

        for task, number in (("score", 1), ("score", 3), ("degradation", 1), ("comparison", 2)):
            pictures = [picture(140, 112, seed) for seed in range(number)]
            one = encode(trained, shipped(), task, pictures)  # type: ignore[arg-type]
            other = encode(served, shipped(), task, pictures)  # type: ignore[arg-type]
            assert set(one) == set(other)
            for name, value in one.items():
                assert value.equal(other[name]), name

    def test_a_saved_processor_is_whole(self, kind: str, tmp_path: Path) -> None:
        """Servers have torchvision, and refuse a checkpoint that says nothing of films."""
        from tests import tiny_writer

        tiny_writer.processor(kind).save_pretrained(tmp_path)

        saved = json.loads((tmp_path / "processor_config.json").read_text())
        assert saved["video_processor"]["video_processor_type"].endswith("VideoProcessor")
        assert saved["video_processor"]["patch_size"] == saved["image_processor"]["patch_size"]
        assert saved["processor_class"].replace("_", "").lower().startswith(kind.replace("_", ""))

    def test_limits_of_the_checkpoint_do_not_apply(self, kind: str) -> None:
        """Checkpoints ship with limits of their own, which differ between training and release."""
        from tests import tiny_writer

        processor = tiny_writer.processor(kind)
        processor.image_processor.size = {"shortest_edge": 56 * 56, "longest_edge": 64 * 64}

        found = encode(processor, shipped(), "comparison", [picture(448, 448), picture(64, 64)])

        side = 448 // processor.image_processor.patch_size
        assert found["image_grid_thw"].tolist()[0] == [1, side, side]

    def test_every_picture_has_its_tokens_in_its_place(self, kind: str) -> None:
        from tests import tiny_writer

        processor = tiny_writer.processor(kind)
        found = encode(processor, shipped(), "comparison", [picture(), picture(224, 112)])

        tokens = found["input_ids"][0].tolist()
        image = processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        sizes = (found["image_grid_thw"].prod(-1) // 4).tolist()
        assert tokens.count(image) == sum(sizes)
        text = processor.tokenizer.decode([t for t in tokens if t != image])
        assert text.index("Image A") < text.index("Image B") < text.index("Which of the two")
        assert text.endswith("<|im_start|>assistant\n")

    def test_a_prefix_is_the_beginning_of_the_answer(self, kind: str) -> None:
        from tests import tiny_writer

        processor = tiny_writer.processor(kind)

        found = encode(processor, shipped(), "score", [picture()], prefix='<think>\nx</think>{"')

        text = processor.tokenizer.decode(found["input_ids"][0])
        assert text.endswith('<|im_start|>assistant\n<think>\nx</think>{"')
