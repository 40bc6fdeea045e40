"""Scorers: a model folder, or the address of a scoring process, becomes a `Scorer`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vqmon.errors import ScorerError

if TYPE_CHECKING:
    from vqmon.ports import Scorer

MODELS = Path(__file__).parent.parent / "models"
SHIPPED = "lite"
"""The model used when none is named: a folder in `vqmon/models`."""


def load_scorer(spec: str | Path | None = None, *, device: str = "cpu", threads: int = 1) -> Scorer:
    """The scorer that `spec` names; loading it takes 0.1 s and more, so do it once.

    spec: None for the shipped model; a model folder; the name of a shipped model;
        "shared:PATH", the socket of a scoring process; "writer:PLACE", a checkpoint folder or hub
        name of a vision-language model; "remote:URL#MODEL", such a model on a server; or
        "backbone:FOLDER#PLACE", heads and the large model that they look through, where that is
        not where the folder's card says.
    device: "cpu", "cuda" or "cuda:N". threads: CPU threads of one inference, at least 1.
    Raises ScorerError with the remedy when model or runtime is missing, damaged or unfit.
    """
    kind, place = _parse(spec)
    return SCORERS[kind](place, device, threads)


def _parse(spec: str | Path | None) -> tuple[str, str]:
    """(kind, place): an explicit "kind:place", else what the folder's own card says."""
    from vqmon.scorers.card import read_card

    if isinstance(spec, str) and spec.partition(":")[0] in SCORERS:
        kind, _, place = spec.partition(":")
        return kind, place
    folder = model_folder(spec)
    kind = read_card(folder).kind
    if kind not in SCORERS:
        known = ", ".join(sorted(SCORERS))
        raise ScorerError(f"{folder} is a model of kind {kind!r}; this vqmon knows {known}")
    return kind, str(folder)


def model_folder(spec: str | Path | None = None) -> Path:
    """Where the named model lies: an existing folder, or a shipped model of that name."""
    folder = MODELS / SHIPPED if spec is None else Path(spec)
    if folder.is_dir():
        return folder
    if str(spec) == folder.name and (MODELS / folder).is_dir():
        return MODELS / folder
    shipped = ", ".join(sorted(card.parent.name for card in MODELS.glob("*/card.json")))
    raise ScorerError(f"no model folder {folder}; shipped models: {shipped or 'none'}")


def _onnx(place: str, device: str, threads: int) -> Scorer:
    from vqmon.scorers.onnx import OnnxScorer

    return OnnxScorer(Path(place), device=device, threads=threads)


def _shared(place: str, device: str, threads: int) -> Scorer:  # noqa: ARG001  one table, one shape
    from vqmon.scorers.shared import SharedScorer

    return SharedScorer(Path(place))


def _writer(place: str, device: str, threads: int) -> Scorer:
    from vqmon.scorers.writer import WriterScorer

    return WriterScorer(place, device=device, threads=threads)


def _remote(place: str, device: str, threads: int) -> Scorer:  # noqa: ARG001  one table, one shape
    from vqmon.scorers.remote import RemoteScorer

    return RemoteScorer(place)


def _backbone(place: str, device: str, threads: int) -> Scorer:
    from vqmon.scorers.backbone import BackboneScorer

    folder, _, large = place.partition("#")
    return BackboneScorer(Path(folder), place=large, device=device, threads=threads)


SCORERS: Mapping[str, Callable[[str, str, int], Scorer]] = {
    "onnx": _onnx,
    "shared": _shared,
    "writer": _writer,
    "remote": _remote,
    "backbone": _backbone,
}
