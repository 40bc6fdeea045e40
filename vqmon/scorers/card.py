"""A model folder: `model.onnx` and `card.json`, which says what goes in, what comes out, and why.

The card's keys (see `trainer/README.md` for the whole list with meanings):

    format         1
    kind           "onnx": which scorer reads the folder
    name, version  shown with every score as name@version
    inputs         name -> {dtype, shape without the batch axis, names?}
    outputs        name -> {dtype, shape without the batch axis, kind, values?}
    calibration    quality {from, to}; uncertainty {scale, floor, shared?}
    findings       optional: thresholds, region_threshold, costs (see `scorers.naming`)
    files          file name -> {sha256}

One output is called `score` and is of kind "distribution": probabilities over the quality
`values` (0..100, rising). A model that names degradations has the outputs `levels` (8, 6) and
`regions` (9,), and the key `findings`. Outputs are kept with each assessment as they come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vqmon.errors import ScorerError
from vqmon.scorers.comparison import SHARED_ERROR
from vqmon.scorers.naming import LEVELS, Naming

FORMAT = 1
MODEL_FILE = "model.onnx"
CARD_FILE = "card.json"
SCORE = "score"

REMEDY = "Use the folder as it was exported, or reinstall vqmon for the shipped one."


@dataclass(frozen=True, slots=True)
class Array:
    """An input or output of the network. shape: of one picture, without the batch axis.

    names: what each element along the first axis is; empty where that says nothing.
    kind: of an output, "distribution" or free text; values: the quality of each bin.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    kind: str = ""
    values: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Calibration:
    """From the raw read-out to what is reported, fitted on validation pictures.

    quality: piecewise linear, monotone, `quality_from` to `quality_to` (points).
    uncertainty: sqrt((scale * spread)^2 + floor^2), points, one standard deviation.
    shared_error: the share of two errors that is common where both pictures show one scene.
    """

    quality_from: tuple[float, ...] = (0.0, 100.0)
    quality_to: tuple[float, ...] = (0.0, 100.0)
    uncertainty_scale: float = 1.0
    uncertainty_floor: float = 0.0
    shared_error: float = SHARED_ERROR


@dataclass(frozen=True, slots=True)
class Card:
    """What vqmon needs of a card; `raw` is all of it, figures and terms included."""

    folder: Path
    kind: str
    name: str
    version: str
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    calibration: Calibration
    raw: Mapping[str, Any]
    naming: Naming | None = None

    @property
    def model(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def score(self) -> Array:
        return next(output for output in self.outputs if output.name == SCORE)


def read_card(folder: Path) -> Card:
    """The card of a model folder, checked; raises ScorerError naming folder, key and remedy."""
    raw = _json(folder)
    try:
        card = _card(folder, raw)
    except KeyError as error:
        raise _broken(folder, f"lacks the key {error}") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise _broken(folder, f"cannot be read: {error}") from error
    _check_score(card)
    _check_calibration(card)
    return card


def verify_files(card: Card) -> None:
    """Every file named in the card is there and has the bytes it was exported with."""
    for name, facts in card.raw["files"].items():
        path = card.folder / name
        if not path.is_file():
            raise ScorerError(f"{path} is missing. {REMEDY}")
        if sha256(path) != facts["sha256"]:
            raise ScorerError(f"{path} is damaged: its SHA-256 is not the card's. {REMEDY}")


def check_measures(card: Card, running: Sequence[str]) -> None:
    """A model fed with other measures than it was fitted on would score nonsense, silently."""
    for array in card.inputs:
        if array.name != "measures" or array.names == tuple(running):
            continue
        missing = sorted(set(array.names) - set(running))
        unknown = sorted(set(running) - set(array.names))
        what = (
            f"the model needs {', '.join(missing) or 'nothing'} that this vqmon does not measure, "
            f"and was not fitted on {', '.join(unknown) or 'nothing'} that it does"
            if missing or unknown
            else "the same measures in another order"
        )
        raise ScorerError(
            f"{card.folder}: model {card.model} was fitted on other measures: {what}. "
            "Use the model folder shipped with this vqmon, or fit it again: "
            "python -m trainer.fit_measures"
        )


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _json(folder: Path) -> dict[str, Any]:
    path = folder / CARD_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ScorerError(
            f"{folder} is no model folder: {CARD_FILE} is missing. "
            f"Name a folder that holds {MODEL_FILE} and {CARD_FILE}."
        ) from error
    except (OSError, ValueError) as error:
        raise ScorerError(f"{path} cannot be read: {error}. {REMEDY}") from error
    if not isinstance(raw, dict):
        raise _broken(folder, "is not a JSON object")
    if raw.get("format") != FORMAT:
        raise ScorerError(
            f"{path} has format {raw.get('format')!r}; this vqmon reads {FORMAT}. "
            "Install the vqmon version that the model was made for."
        )
    return raw


def _card(folder: Path, raw: Mapping[str, Any]) -> Card:
    for facts in raw["files"].values():
        str(facts["sha256"])
    return Card(
        folder=folder,
        kind=str(raw["kind"]),
        name=str(raw["name"]),
        version=str(raw["version"]),
        inputs=tuple(_array(name, facts) for name, facts in raw["inputs"].items()),
        outputs=tuple(_array(name, facts) for name, facts in raw["outputs"].items()),
        calibration=_calibration(raw["calibration"]),
        raw=raw,
        naming=Naming.of(raw["findings"]) if LEVELS in raw["outputs"] else None,
    )


def _array(name: str, facts: Mapping[str, Any]) -> Array:
    array = Array(
        name=name,
        dtype=np.dtype(facts["dtype"]).name,
        shape=tuple(int(n) for n in facts["shape"]),
        names=tuple(map(str, facts.get("names", ()))),
        kind=str(facts.get("kind", "")),
        values=tuple(map(float, facts.get("values", ()))),
    )
    if array.names and array.shape[:1] != (len(array.names),):
        raise ValueError(f"{name} has shape {array.shape} but {len(array.names)} names")
    return array


def _calibration(facts: Mapping[str, Any]) -> Calibration:
    return Calibration(
        quality_from=tuple(map(float, facts["quality"]["from"])),
        quality_to=tuple(map(float, facts["quality"]["to"])),
        uncertainty_scale=float(facts["uncertainty"]["scale"]),
        uncertainty_floor=float(facts["uncertainty"]["floor"]),
        shared_error=float(facts["uncertainty"].get("shared", SHARED_ERROR)),
    )


def _check_score(card: Card) -> None:
    scores = [output for output in card.outputs if output.name == SCORE]
    if not scores or scores[0].kind != "distribution":
        raise _broken(card.folder, f"names no output {SCORE!r} of kind 'distribution'")
    values = scores[0].values
    rising = all(a < b for a, b in pairwise(values))
    if len(values) < 2 or not rising or values[0] < 0 or values[-1] > 100:
        raise _broken(card.folder, f"the values of {SCORE!r} must rise within 0..100")
    if scores[0].shape != (len(values),):
        raise _broken(card.folder, f"{SCORE!r} has {len(values)} values, shape {scores[0].shape}")


def _check_calibration(card: Card) -> None:
    start, to = card.calibration.quality_from, card.calibration.quality_to
    monotone = all(a < b for a, b in pairwise(start)) and all(a <= b for a, b in pairwise(to))
    if len(start) != len(to) or len(start) < 2 or not monotone:
        raise _broken(card.folder, "the calibration of quality must rise, point by point")
    if not 0 <= card.calibration.shared_error <= 1:
        raise _broken(card.folder, "the shared error must be from 0 to 1")


def _broken(folder: Path, what: str) -> ScorerError:
    return ScorerError(f"{folder / CARD_FILE} {what}. {REMEDY}")
