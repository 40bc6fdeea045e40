"""A trained network becomes a model folder, and the folder is proved to score the same.

python -m trainer.export FOLDER     check a folder: files, card, reproducibility in batches
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vqmon.measures import MEASURES, Measures
from vqmon.preprocess import Prepared
from vqmon.scorers.card import CARD_FILE, FORMAT, MODEL_FILE, sha256
from vqmon.scorers.onnx import OnnxScorer

OPSET = 17
"""Read by every ONNX Runtime from 1.13 on."""

PARITY_POINTS = 0.01
"""Torch and the exported folder may differ by so much, and so may any two batches."""


@dataclass(frozen=True, slots=True)
class Described:
    """What the card says beyond what can be read off the network.

    inputs: name -> names of the elements (empty where that says nothing).
    outputs: name -> {kind, meaning, values?}, in the order in which the network gives them.
    facts: everything else: description, licence, calibration, training, figures, limits, ...
    """

    name: str
    version: str
    inputs: Mapping[str, Sequence[str]]
    outputs: Mapping[str, Mapping[str, Any]]
    facts: Mapping[str, Any]


def export(
    network: nn.Module, example: Mapping[str, Tensor], described: Described, folder: Path
) -> None:
    """Write `model.onnx` and `card.json`. `example`: one batch by input name, batch axis first.

    `network(*inputs)` gives one tensor, or as many as `described.outputs` names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    network = network.eval()
    _write_network(network, example, list(described.outputs), folder / MODEL_FILE)
    with torch.no_grad():
        given = network(*example.values())
    outputs = dict(
        zip(described.outputs, given if isinstance(given, tuple) else (given,), strict=True)
    )
    card = {
        "format": FORMAT,
        "kind": "onnx",
        "name": described.name,
        "version": described.version,
        "inputs": {
            name: _shape(tensor)
            | ({"names": list(names)} if (names := described.inputs[name]) else {})
            for name, tensor in example.items()
        },
        "outputs": {
            name: _shape(tensor) | dict(described.outputs[name]) for name, tensor in outputs.items()
        },
        **described.facts,
        "opset": OPSET,
        "files": {MODEL_FILE: {"sha256": sha256(folder / MODEL_FILE)}},
    }
    write_card(folder, card)


def write_card(folder: Path, card: Mapping[str, Any]) -> None:
    text = json.dumps(card, indent=1, ensure_ascii=False)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def parity(network: nn.Module, folder: Path, pictures: Sequence[Prepared]) -> float:
    """Largest difference in points between torch and the folder, over prepared pictures.

    Both ends are the real ones: the folder is scored by the very scorer that will serve it.
    """
    scorer = OnnxScorer(folder)
    rows = [np.stack([it.inputs[name] for it in pictures]) for name in scorer.inputs]
    with torch.no_grad():
        given = network.eval()(*(torch.from_numpy(it) for it in rows))
    given = given if isinstance(given, tuple) else (given,)
    names = [output.name for output in scorer.card.outputs]
    each = [
        {name: np.ravel(values[i]).tolist() for name, values in zip(names, given, strict=True)}
        for i in range(len(pictures))
    ]
    theirs = scorer.assess(pictures)
    pairs = zip((scorer.read(it) for it in each), theirs, strict=True)
    return max(_apart(a.quality, b.quality) for a, b in pairs)


def batch_spread(folder: Path, pictures: Sequence[Prepared]) -> float:
    """Largest difference in points between a picture scored alone and in a batch."""
    scorer = OnnxScorer(folder)
    together = scorer.assess(pictures)
    alone = [scorer.assess([picture])[0] for picture in pictures]
    return max(_apart(a.quality, b.quality) for a, b in zip(together, alone, strict=True))


def prepared(**inputs: NDArray[Any]) -> list[Prepared]:
    """Rows of model inputs by name, picture axis first, as a scorer takes them."""
    count = len(next(iter(inputs.values())))
    nothing = Measures(values=np.zeros(len(MEASURES), np.float32), cells={})
    return [
        Prepared(float(i), nothing, {name: rows[i] for name, rows in inputs.items()})
        for i in range(count)
    ]


def _write_network(
    network: nn.Module, example: Mapping[str, Tensor], outputs: list[str], path: Path
) -> None:
    """The TorchScript exporter: the newer one would need onnxscript for the same graph."""
    axes = {name: {0: "batch"} for name in [*example, *outputs]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            tuple(example.values()),
            str(path),
            input_names=list(example),
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=OPSET,
            dynamo=False,
        )
    onnx.checker.check_model(str(path))


def _shape(tensor: Tensor) -> dict[str, Any]:
    return {"dtype": str(tensor.dtype).removeprefix("torch."), "shape": list(tensor.shape[1:])}


def _apart(a: float | None, b: float | None) -> float:
    if a is None or b is None:
        return 0.0 if a is b else float("inf")
    return abs(a - b)
