"""Scores with a model folder through ONNX Runtime, on the CPU or a CUDA device."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import DEGRADATIONS, Assessment, Comparison, Finding
from vqmon.errors import ScorerError
from vqmon.measures import MEASURES
from vqmon.preprocess import Prepared
from vqmon.scorers.card import (
    MODEL_FILE,
    SCORE,
    Array,
    Card,
    check_measures,
    read_card,
    verify_files,
)
from vqmon.scorers.comparison import compare
from vqmon.scorers.naming import LEVELS, REGIONS

log = logging.getLogger("vqmon.scorers")

RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Distributions that provide the module `onnxruntime`; they must never be installed together."""

Outputs = Mapping[str, NDArray[Any]]


class OnnxScorer:
    """A `Scorer` over one model folder.

    Quality is the expectation of the network's score distribution, so that the same picture
    scores the same on every run and in every batch. A picture whose inputs or outputs are not
    finite gets no score ("scorer_failed"); its neighbours in the batch keep theirs.
    """

    def __init__(self, folder: Path, *, device: str = "cpu", threads: int = 1) -> None:
        """Raises ScorerError when the folder is damaged or the runtime or device missing."""
        self.card = read_card(folder)
        verify_files(self.card)
        check_measures(self.card, MEASURES)
        self.device = device
        self._session = _session(self.card, device, threads)
        self._names = [output.name for output in self.card.outputs]
        self._failing = False
        self._check_signature()

    @property
    def model(self) -> str:
        return self.card.model

    @property
    def inputs(self) -> tuple[str, ...]:
        """Which arrays of `Prepared.inputs` the model reads."""
        return tuple(array.name for array in self.card.inputs)

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        """One assessment per picture, in order. Raises ScorerError when an input is missing
        or misshapen, which means that model and preprocessing do not fit each other.
        """
        if not pictures:
            return []
        feed = {array.name: _stacked(array, pictures) for array in self.card.inputs}
        outputs = self._run(feed)
        if outputs is None:
            return [_failed(picture.position, self.model) for picture in pictures]
        healthy = _finite(feed) & _finite(outputs)
        return self._read(outputs, [picture.position for picture in pictures], healthy)

    def read(self, outputs: Mapping[str, Sequence[float]], position: float = 0.0) -> Assessment:
        """The assessment that stored raw outputs stand for; needs no picture."""
        arrays = {name: np.asarray([values], np.float32) for name, values in outputs.items()}
        if SCORE not in arrays:
            raise ScorerError(f"these outputs hold no {SCORE!r}: they are not of {self.model}")
        return self._read(arrays, [position], _finite(arrays))[0]

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """From what `assess` said of both; raises ScorerError when one has no score."""
        return compare(a, b, shared=self.card.calibration.shared_error if same_content else 0.0)

    def close(self) -> None:
        """Nothing to let go; every scorer can be closed."""

    def _check_signature(self) -> None:
        """The network's own inputs and outputs are those that the card declares."""
        wants = {node.name for node in self._session.get_inputs()}
        gives = {node.name for node in self._session.get_outputs()}
        if wants != set(self.inputs) or not set(self._names) <= gives:
            raise ScorerError(
                f"{self.card.folder}: the network reads {sorted(wants)} and gives "
                f"{sorted(gives)}, the card says {sorted(self.inputs)} and {sorted(self._names)}. "
                "Export the model again with trainer.export."
            )

    def _run(self, feed: Mapping[str, NDArray[Any]]) -> Outputs | None:
        """None when the runtime fails, as CUDA does when its memory is taken; logged once."""
        try:
            values = self._session.run(self._names, feed)
        except Exception as error:
            if not self._failing:
                log.exception("scorer_failed", extra={"model": self.model, "error": str(error)})
            self._failing = True
            return None
        if self._failing:
            log.info("scorer_recovered", extra={"model": self.model})
        self._failing = False
        return dict(zip(self._names, values, strict=True))

    def _read(
        self, outputs: Outputs, positions: Sequence[float], healthy: NDArray[np.bool_]
    ) -> list[Assessment]:
        quality, uncertainty = self._quality(outputs[SCORE])
        return [
            Assessment(
                position=position,
                quality=float(quality[i]),
                uncertainty=float(uncertainty[i]),
                findings=self._findings(outputs, i, position),
                outputs={name: _stored(values[i]) for name, values in outputs.items()},
                model=self.model,
            )
            if healthy[i]
            else _failed(position, self.model)
            for i, position in enumerate(positions)
        ]

    def _findings(self, outputs: Outputs, row: int, position: float) -> tuple[Finding, ...]:
        """What the model itself names; () for models that only score."""
        naming = self.card.naming
        if naming is None or LEVELS not in outputs:
            return ()
        levels = outputs[LEVELS][row].reshape(len(DEGRADATIONS), -1)
        regions = outputs[REGIONS][row] if REGIONS in outputs else None
        return naming.findings(levels, regions, position)

    def _quality(self, distribution: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(N, bins) probabilities -> quality and standard deviation (N,), calibrated, points."""
        calibration = self.card.calibration
        values = np.asarray(self.card.score.values)
        weights = distribution.astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            weights = weights / weights.sum(1, keepdims=True)
        mean = weights @ values
        spread = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(1))
        quality = np.interp(mean, calibration.quality_from, calibration.quality_to)
        uncertainty = np.hypot(
            calibration.uncertainty_scale * spread, calibration.uncertainty_floor
        )
        return np.clip(quality, 0, 100), uncertainty


def runtimes() -> tuple[tuple[str, str], ...]:
    """(distribution, version) of each installed ONNX Runtime; more than one is a mistake."""
    found = []
    for name in RUNTIMES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def _session(card: Card, device: str, threads: int) -> Any:
    if threads < 1:
        raise ScorerError(f"threads is {threads}; give at least 1")
    ort = _runtime()
    wanted = _providers(ort, device)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    try:
        session = ort.InferenceSession(str(card.folder / MODEL_FILE), options, providers=wanted)
    except Exception as error:
        raise ScorerError(f"{card.folder / MODEL_FILE} cannot be loaded: {error}") from error
    _check_device(session, device)
    return session


def _runtime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ScorerError(
            "scoring needs ONNX Runtime, which is not installed: pip install 'vqmon[cpu]' "
            "(or 'vqmon[gpu]' on a machine with an NVIDIA GPU; never both)"
        ) from error
    return onnxruntime


def _providers(ort: Any, device: str) -> list[Any]:
    """Providers to ask for; CUDA keeps the CPU behind it for operators that it lacks."""
    if device == "cpu":
        return ["CPUExecutionProvider"]
    named = re.fullmatch(r"cuda(?::(\d+))?", device)
    if named is None:
        raise ScorerError(f"unknown device {device!r}; use cpu, cuda or cuda:N")
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        raise ScorerError(
            f"device {device} was asked for, but the installed ONNX Runtime has no CUDA: "
            "pip uninstall onnxruntime, then pip install 'vqmon[gpu]'; or use device cpu"
        )
    return [
        ("CUDAExecutionProvider", {"device_id": named[1] or "0"}),
        "CPUExecutionProvider",
    ]


def _check_device(session: Any, device: str) -> None:
    """ONNX Runtime falls back to the CPU without a word; only the session tells the truth."""
    if device != "cpu" and "CUDAExecutionProvider" not in session.get_providers():
        raise ScorerError(
            f"device {device} was asked for, but ONNX Runtime fell back to the CPU: check that "
            "nvidia-smi lists the device and that CUDA and cuDNN match onnxruntime-gpu "
            f"(installed: {', '.join(' '.join(r) for r in runtimes())}); or use device cpu"
        )


def _stacked(array: Array, pictures: Sequence[Prepared]) -> NDArray[Any]:
    """One input of all pictures, with the batch axis in front."""
    try:
        rows = [np.asarray(p.inputs[array.name], array.dtype) for p in pictures]
    except KeyError as error:
        raise ScorerError(f"the model reads {array.name!r}, which was not prepared") from error
    for row in rows:
        if row.shape != array.shape:
            raise ScorerError(
                f"{array.name!r} has shape {row.shape}, the model reads {array.shape}"
            )
    return np.stack(rows)


def _finite(arrays: Outputs) -> NDArray[np.bool_]:
    """(N,) True where every element of a row is finite."""
    healthy = np.ones(len(next(iter(arrays.values()))), np.bool_)
    for array in arrays.values():
        if array.dtype.kind == "f":  # pictures are bytes, which always are
            healthy &= np.isfinite(array).reshape(len(array), -1).all(1)
    return healthy


def _stored(values: NDArray[Any]) -> tuple[float, ...]:
    """Raw outputs as they are kept: five digits are 0.01 points of quality at most."""
    return tuple(round(value, 5) for value in np.ravel(values).tolist())


def _failed(position: float, model: str) -> Assessment:
    return Assessment(
        position, quality=None, uncertainty=None, model=model, no_score_reason="scorer_failed"
    )
