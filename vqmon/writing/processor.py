"""A checkpoint's processor, which needs no torchvision: pictures, never films.

transformers' processors for video insist on torchvision, which no part of vqmon needs and which
must match torch to the build. Frames of a video are shown as pictures, so the family's own
processor is used without its part for films.
"""

from __future__ import annotations

import importlib
import json
from functools import cache
from pathlib import Path
from typing import Any


def load_processor(source: str | Path, **where: Any) -> Any:
    """Of a checkpoint folder or hub name; where: as from_pretrained takes it (`subfolder`, ...).

    An adapter's folder counts as the checkpoint that it was made for, where it has no processor.
    Raises what transformers raises (OSError, ValueError, KeyError) when it cannot be loaded.
    """
    transformers: Any = importlib.import_module("transformers")
    base = adapted_base(Path(source))
    config = transformers.AutoConfig.from_pretrained(base or str(source), **where)
    if base and not any((Path(source) / name).is_file() for name in OF_PROCESSORS):
        source = base
    family = family_of(config.model_type)
    if family is None:
        return transformers.AutoProcessor.from_pretrained(str(source), **where)
    return still(family).from_pretrained(str(source), **where)


def adapted_base(folder: Path) -> str | None:
    """The checkpoint that an adapter's folder adapts; None for any other."""
    path = folder / "adapter_config.json"
    if not path.is_file() or (folder / "config.json").is_file():
        return None
    return str(json.loads(path.read_text(encoding="utf-8"))["base_model_name_or_path"])


OF_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Files, one of which a checkpoint with a processor has."""


def family_of(model_type: str) -> type | None:
    """The processor class of the Qwen-VL families; None for others."""
    transformers: Any = importlib.import_module("transformers")
    name = FAMILIES.get(model_type)
    return getattr(transformers, name) if name else None


FAMILIES = {
    "qwen2_vl": "Qwen2VLProcessor",
    "qwen2_5_vl": "Qwen2_5_VLProcessor",
    "qwen3_vl": "Qwen3VLProcessor",
}
"""Model type -> processor class."""


@cache
def still(family: Any) -> Any:
    """The class without its part for films, under the same name, so that it saves as itself.

    What it saves has that part all the same, with the family's defaults, because servers do not
    load a checkpoint without one.
    """

    def get_attributes(_cls: type) -> list[str]:
        return ["image_processor", "tokenizer"]

    def to_dict(self: Any) -> dict[str, Any]:
        found: dict[str, Any] = family.to_dict(self)
        images = dict(found["image_processor"])
        kept = {key: images[key] for key in SHARED if key in images}
        kind = FILMS[family.__name__]
        return {**found, "video_processor": {"video_processor_type": kind, **kept}}

    members = {"get_attributes": classmethod(get_attributes), "to_dict": to_dict}
    return type(family.__name__, (family,), members)


FILMS = {
    "Qwen2VLProcessor": "Qwen2VLVideoProcessor",
    "Qwen2_5_VLProcessor": "Qwen2VLVideoProcessor",
    "Qwen3VLProcessor": "Qwen3VLVideoProcessor",
}
"""Processor class -> that of its part for films."""

SHARED = ("patch_size", "temporal_patch_size", "merge_size", "image_mean", "image_std")
"""What pictures and films have in common."""
