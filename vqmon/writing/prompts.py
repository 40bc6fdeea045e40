"""What a writing model is asked, and how pictures and questions become its input.

One function, `encode`, does that for training and for serving; a server is sent the same
`conversation` with pictures of the same `fitted` size.

Pictures are (h, w, 3) uint8 R'G'B'. They stand where the prompt puts them: before the question.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from vqmon.domain import DEGRADATIONS
from vqmon.errors import ConfigError, PictureUnsupported
from vqmon.writing.answers import NONE, Task

Picture = NDArray[np.uint8]
Message = dict[str, Any]

SHIPPED = Path(__file__).with_name("prompts.yaml")

BESIDE = "vqmon-prompts.yaml"
"""A checkpoint folder may hold the prompts that it was trained with, under this name."""

_MARKS = re.compile(r"<(pictures|what|first|second|reference)>")
_FLATTEST = 100.0
"""Longest side over the shortest; models refuse pictures that are flatter still."""


def _holding(*marks: str) -> AfterValidator:
    """Each of the marks once, in this order, and no other but <what>."""

    def check(text: str) -> str:
        found = [mark for mark in _MARKS.findall(text) if mark != "what"]
        if found != list(marks):
            wanted = ", ".join(f"<{mark}>" for mark in marks)
            raise ValueError(f"it must hold {wanted}, each once, in this order, and no other")
        return text

    return AfterValidator(check)


def _known(classes: dict[str, str]) -> dict[str, str]:
    for word, name in classes.items():
        if name not in DEGRADATIONS:
            raise ValueError(f"{word} is called {name!r}; known: {', '.join(DEGRADATIONS)}")
        if word.lower() in (NONE, "none", "clean"):
            raise ValueError(f"{word} means that nothing is wrong")
    if len(set(classes.values())) < len(classes):
        raise ValueError("two words mean the same")
    return classes


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pixels(_Section):
    """Size of what a model sees. least, most: of one picture; together: of all of one question."""

    least: int = Field(3136, ge=256, le=10_000_000)
    most: int = Field(2_116_800, ge=256, le=100_000_000)
    together: int = Field(8_467_200, ge=256, le=1_000_000_000)
    grid: int = Field(28, ge=1, le=256)

    @model_validator(mode="after")
    def _in_order(self) -> Pixels:
        if not self.least <= self.most <= self.together:
            raise ValueError("least, most and together must not fall")
        return self


class Prompts(_Section):
    """A prompts file; see the shipped one for what its keys mean."""

    system: str
    score: Annotated[str, _holding("pictures")]
    degradation: Annotated[str, _holding("pictures")]
    comparison: Annotated[str, _holding("first", "second")]
    comparison_to_reference: Annotated[str, _holding("reference", "first", "second")]
    one: str
    several: str
    classes: Annotated[dict[str, str], AfterValidator(_known)] = Field(min_length=1)
    pixels: Pixels = Pixels()

    @model_validator(mode="after")
    def _asks_for_what_it_knows(self) -> Prompts:
        missing = [word for word in self.classes if word not in self.degradation]
        if missing:
            raise ValueError(f"degradation does not name {', '.join(missing)} of classes")
        return self


@cache
def shipped() -> Prompts:
    """Those that come with vqmon."""
    return read_prompts(SHIPPED)


def read_prompts(path: str | Path | None = None) -> Prompts:
    """The prompts of a YAML file, or the shipped ones; ConfigError names file, key and remedy."""
    if path is None:
        return shipped()
    import yaml

    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: the prompts cannot be read: {error}") from error
    try:
        return Prompts.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        what = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"{path}: {key}: {what}. Begin with a copy of {SHIPPED}, which says what each key is."
        ) from error


def save_prompts(folder: Path, prompts: Prompts) -> None:
    """Beside the checkpoint that was trained with them, where serving looks for them."""
    import yaml

    text = yaml.safe_dump(prompts.model_dump(), sort_keys=False, allow_unicode=True, width=100)
    (folder / BESIDE).write_text(text, encoding="utf-8")


def prompts_of(folder: Path) -> Prompts:
    """Those beside a checkpoint, else the shipped ones. ConfigError when they are damaged."""
    beside = folder / BESIDE
    return read_prompts(beside if beside.is_file() else None)


def conversation(
    prompts: Prompts, task: Task, pictures: int = 1, *, reference: bool = False
) -> list[Message]:
    """System and user message, as chat templates take them; a picture is {"type": "image"}.

    pictures: how many there are; a comparison has two. reference: a comparison's pictures come
    after one that both were made from. ValueError when the number does not fit the task.
    """
    needed = 2 + reference if task == "comparison" else pictures
    if pictures < 1 or pictures != needed:
        raise ValueError(f"a {task} needs {max(1, needed)} pictures, not {pictures}")
    return [
        {"role": "system", "content": [{"type": "text", "text": prompts.system}]},
        {"role": "user", "content": _parts(prompts, _question(prompts, task, reference), pictures)},
    ]


def _question(prompts: Prompts, task: Task, reference: bool) -> str:
    name = "comparison_to_reference" if task == "comparison" and reference else task
    return str(getattr(prompts, name))


def _parts(prompts: Prompts, question: str, pictures: int) -> list[dict[str, str]]:
    """Texts and pictures in turn."""
    what = prompts.one if pictures == 1 else prompts.several
    parts: list[dict[str, str]] = []
    for place, piece in enumerate(_MARKS.split(question.replace("<what>", what))):
        if place % 2:
            parts += [{"type": "image"}] * (pictures if piece == "pictures" else 1)
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts


def fitted(prompts: Prompts, pictures: Sequence[Picture], grid: int | None = None) -> list[Picture]:
    """The pictures in the size in which a model sees them, so that nothing scales them again.

    grid: of the model, where it is known. Raises PictureUnsupported for pictures that are too
    flat.
    """
    grid = grid or prompts.pixels.grid
    most = min(prompts.pixels.most, prompts.pixels.together // max(1, len(pictures)))
    return [_scaled(picture, prompts.pixels.least, most, grid) for picture in pictures]


def _scaled(picture: Picture, least: int, most: int, grid: int) -> Picture:
    from PIL import Image

    height, width = picture.shape[:2]
    if max(height, width) > _FLATTEST * min(height, width):
        raise PictureUnsupported(
            f"the picture is {width}x{height}; a writing model sees no picture whose sides differ "
            f"by more than {_FLATTEST:.0f} times"
        )
    high, wide = _size(height, width, least, most, grid)
    if (high, wide) == (height, width):
        return picture
    resized = Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.uint8)


def _size(height: int, width: int, least: int, most: int, grid: int) -> tuple[int, int]:
    """The nearest multiples of the grid, in about the same shape, within the limits."""
    high, wide = (max(grid, round(side / grid) * grid) for side in (height, width))
    if high * wide > most:
        shrink = math.sqrt(height * width / most)
        high, wide = (max(grid, int(side / shrink / grid) * grid) for side in (height, width))
    elif high * wide < least:
        grow = math.sqrt(least / (height * width))
        high, wide = (math.ceil(side * grow / grid) * grid for side in (height, width))
    return high, wide


def encode(
    processor: Any,
    prompts: Prompts,
    task: Task,
    pictures: Sequence[Picture],
    *,
    reference: bool = False,
    prefix: str = "",
) -> Mapping[str, Any]:
    """What a transformers model takes: "input_ids" (1, L), "pixel_values" and the like, on the CPU.

    processor: the checkpoint's. prefix: the beginning of the answer, to go on from.
    """
    from PIL import Image

    messages = conversation(prompts, task, len(pictures), reference=reference)
    text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    seen = fitted(prompts, pictures, grid_of(processor))
    found: Mapping[str, Any] = processor(
        text=[text + prefix],
        images=[Image.fromarray(picture) for picture in seen],
        images_kwargs={"size": _unlimited(seen)},
        return_tensors="pt",
    )
    return found


def grid_of(processor: Any) -> int:
    """Pixels a side of what becomes one token of the processor's model."""
    images = processor.image_processor
    return int(images.patch_size * getattr(images, "merge_size", 1))


def _unlimited(pictures: Sequence[Picture]) -> dict[str, int]:
    """Limits that leave pictures of these sizes as they are."""
    areas = [picture.shape[0] * picture.shape[1] for picture in pictures]
    return {"shortest_edge": min(areas), "longest_edge": max(areas)}
