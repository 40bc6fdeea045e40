"""Heads on a frozen vision-language model: torch looks, ONNX Runtime judges.

    picture, question ─▶ frozen model ─▶ hidden states ─▶ pooled features ─▶ heads ─▶ Assessment

The model folder (kind `backbone`) holds the heads, some megabytes. The large model stays where its
owner has it; what the card says of it under `backbone`:

    place         folder (beside the model folder, if it is relative) or hub name
    fingerprint   of its weights; others are refused
    prompts       the question and the limits of size that a picture is shown with
    pooling       how hidden states become features; others are refused

It writes nothing, so a picture costs one pass over the prompt. Pictures go through one by one: a
picture scores the same whatever stands beside it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Assessment, Comparison
from vqmon.errors import PictureUnsupported, ScorerError, ScorerUnavailable
from vqmon.preprocess import Prepared
from vqmon.scorers.onnx import OnnxScorer
from vqmon.scorers.writer import Speaker, fingerprint, found, memory_of
from vqmon.writing.prompts import Picture, Prompts, encode, prompts_of

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("vqmon.scorers")

POOLING = 1
"""Counts up whenever the same hidden states would become other features."""

CELLS_A_SIDE = 3
SKETCH = 64
"""Numbers that tell what is in one of the nine cells, at most."""


class Backbone:
    """A frozen model, its processor, and how a picture is shown to it."""

    def __init__(
        self, place: str, *, prompts: Prompts | None = None, device: str = "cpu", threads: int = 1
    ) -> None:
        """place: a checkpoint folder or the hub name of a downloaded one. prompts: None for those
        beside the checkpoint, else the shipped ones.
        Raises ScorerError with the remedy when packages, weights or the device are missing.
        """
        checkpoint = found(place)
        self.place = place
        self.fingerprint = fingerprint(checkpoint)
        self.name = f"{checkpoint.name}@{self.fingerprint}"
        self.prompts = prompts or prompts_of(checkpoint.folder)
        self._speaker = Speaker(checkpoint, device, threads)
        self._picture_token = getattr(self._speaker.network.config, "image_token_id", None)
        if self._picture_token is None:
            raise ScorerError(
                f"{checkpoint.name} does not say which of its tokens are a picture: heads need a "
                "model of the Qwen-VL families"
            )

    @property
    def precision(self) -> str:
        """Of its weights: "float32" on the CPU, "bfloat16" on a GPU."""
        return str(self._speaker.network.dtype).removeprefix("torch.")

    @property
    def facts(self) -> dict[str, Any]:
        """What a card says of it."""
        return {
            "place": self.place,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "prompts": self.prompts.model_dump(),
            "pooling": POOLING,
            "precision": self.precision,
        }

    def features(self, picture: Picture) -> NDArray[np.float32]:
        """(F,) of one picture, (h, w, 3) uint8 R'G'B'. Raises PictureUnsupported for one that is
        too flat, ScorerUnavailable when the device has no memory left.
        """
        import torch

        speaker = self._speaker
        with memory_of(speaker), torch.inference_mode():
            prompt = encode(speaker.processor, self.prompts, "score", [picture])
            inputs = {name: value.to(speaker.device) for name, value in prompt.items()}
            said = speaker.network.base_model(
                **inputs, output_hidden_states=True, use_cache=False, return_dict=True
            )
            first, last = (said.hidden_states[i][0].float() for i in (0, -1))
            shown = inputs["input_ids"][0] == self._picture_token
            return np.asarray(pooled(first, last, shown, self._grid(prompt)).cpu().numpy())

    def close(self) -> None:
        """Let go of the weights."""
        del self._speaker

    def _grid(self, prompt: Mapping[str, Any]) -> tuple[int, int]:
        """Rows and columns of the picture's tokens."""
        if "image_grid_thw" not in prompt:
            raise ScorerError(
                f"{self.name} does not say how its picture is divided: heads need a model of the "
                "Qwen-VL families"
            )
        merged = int(getattr(self._speaker.processor.image_processor, "merge_size", 1))
        _, rows, columns = prompt["image_grid_thw"][0].tolist()
        return rows // merged, columns // merged


def pooled(first: Tensor, last: Tensor, shown: Tensor, grid: tuple[int, int]) -> Tensor:
    """(F,) features: mean and deviation over the picture's tokens as the vision tower gives them,
    their mean where the language model ends, its state at the end of the question, and a sketch
    of each of the nine cells.

    first, last: (L, H) hidden states before and after the language model. shown: (L,) the tokens
    of the picture, row by row in `grid`. Every state counts by its direction: a few channels of
    large models are a thousand times larger than the others and say little.
    """
    import torch

    seen, understood = _directions(first[shown]), _directions(last[shown])
    layers = seen.T.reshape(-1, *grid)  # (H, rows, columns)
    cells = torch.nn.functional.adaptive_avg_pool2d(layers, CELLS_A_SIDE).flatten(1).T
    deviation = (seen - seen.mean(0)).square().mean(0).sqrt()
    end = _directions(last[-1:])[0]
    return torch.cat([seen.mean(0), deviation, understood.mean(0), end, _sketch(cells).flatten()])


def _directions(states: Tensor) -> Tensor:
    """(n, H) each of root mean square 1."""
    return states / states.square().mean(-1, keepdim=True).clamp(min=1e-12).sqrt()


def _sketch(cells: Tensor) -> Tensor:
    """(9, H) -> (9, SKETCH): channels added up by their number, with alternating signs, which
    keeps distances on average; as they are where there are no more than that.
    """
    import torch

    width = cells.shape[1]
    if width <= SKETCH:
        return cells
    numbers = torch.arange(width, device=cells.device)
    signs = 1 - 2 * ((numbers * 2654435761 >> 15) & 1)
    sums = torch.zeros(len(cells), SKETCH, device=cells.device, dtype=cells.dtype)
    sums.index_add_(1, numbers % SKETCH, cells * signs)
    return sums.mul(float((SKETCH / width) ** 0.5))


class BackboneScorer:
    """A `Scorer` over a folder of heads and the large model that they were trained on."""

    inputs = ("picture",)
    """What it reads of `Prepared.inputs`."""

    def __init__(
        self, folder: Path, *, place: str = "", device: str = "cpu", threads: int = 1
    ) -> None:
        """place: where the large model is, if not where the card says.

        device: of the large model; the heads always run on the CPU.
        Raises ScorerError when the folder is damaged, or the large model is missing or another.
        """
        self.heads = OnnxScorer(folder, threads=threads)
        facts = _facts(self.heads, folder)
        self.backbone = Backbone(
            place or _place(folder, str(facts["place"])),
            prompts=Prompts.model_validate(facts["prompts"]),
            device=device,
            threads=threads,
        )
        if self.backbone.fingerprint != facts["fingerprint"]:
            raise ScorerError(
                f"{folder}: its heads were trained on {facts['name']}, and {self.backbone.name} is "
                "another: name the right one as backbone:FOLDER#PLACE, or train heads on this one"
            )

    @property
    def model(self) -> str:
        return self.heads.model

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        """One assessment per picture, in order. Raises ScorerError when the pictures themselves
        were not prepared.
        """
        shown = [self._seen(one) for one in pictures]
        judged = iter(self.heads.assess([one for one in shown if isinstance(one, Prepared)]))
        return [one if isinstance(one, Assessment) else next(judged) for one in shown]

    def read(self, outputs: Mapping[str, Sequence[float]], position: float = 0.0) -> Assessment:
        """The assessment that stored raw outputs stand for; needs no picture."""
        return self.heads.read(outputs, position)

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """From what `assess` said of both; raises ScorerError when one has no score."""
        return self.heads.compare(a, b, same_content=same_content)

    def close(self) -> None:
        """Let go of the large model."""
        self.backbone.close()

    def _seen(self, one: Prepared) -> Prepared | Assessment:
        """The picture as features, or why there is no score."""
        picture = one.inputs.get("picture")
        if picture is None:
            raise ScorerError(
                f"{self.model} looks at whole pictures, which do not cross to a scoring process: "
                "watch streams with the shipped model, and score files with this one"
            )
        try:
            features = self.backbone.features(np.asarray(picture, np.uint8))
        except PictureUnsupported:
            return _silent(one.position, self.model, "unsupported_picture")
        except ScorerUnavailable as error:
            log.warning("backbone_unavailable", extra={"model": self.model, "error": str(error)})
            return _silent(one.position, self.model, "scorer_unavailable")
        return replace(one, inputs={"features": features})


def _facts(heads: OnnxScorer, folder: Path) -> Mapping[str, Any]:
    facts: Mapping[str, Any] = heads.card.raw.get("backbone", {})
    missing = {"place", "name", "fingerprint", "prompts", "pooling"} - set(facts)
    if missing or heads.inputs != ("features",):
        raise ScorerError(
            f"{folder} holds no heads on a large model: its card must say under `backbone` "
            f"{', '.join(sorted(missing)) or 'what it does'}, and read `features` alone. Make it "
            "with python -m trainer.backbone release"
        )
    if facts["pooling"] != POOLING:
        raise ScorerError(
            f"{folder} reads features of pooling {facts['pooling']}; this vqmon makes those of "
            f"{POOLING}: extract them again and train its heads anew"
        )
    return facts


def _place(folder: Path, place: str) -> str:
    """Beside the model folder, if there is such a folder."""
    beside = folder.parent / place
    return str(beside) if beside.is_dir() else place


def _silent(position: float, model: str, reason: str) -> Assessment:
    return Assessment(position, quality=None, uncertainty=None, model=model, no_score_reason=reason)
