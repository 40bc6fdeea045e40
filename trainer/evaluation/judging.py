"""What one model says of many pictures, as arrays."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.evaluation.shelf import Facts, Kept
from vqmon.domain import DEGRADATIONS, Assessment
from vqmon.scorers.card import read_card
from vqmon.scorers.onnx import OnnxScorer

BATCH = 32

CLEAN = "clean"


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of n pictures. quality, uncertainty: (n,) points, NaN where there is no score.

    severity, confidence: (n, 8) of the finding of each of DEGRADATIONS; severity 0 is none.
    strongest: the name of the worst finding (the severest; of these the surest), CLEAN for none.
    presence: (n, 8) the model's probability that it is there, the confidence of findings for
    models that give none.
    """

    facts: list[Facts]
    quality: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    severity: NDArray[np.int8]
    confidence: NDArray[np.float64]
    presence: NDArray[np.float64]
    strongest: NDArray[np.str_]
    numbers: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.facts)

    def some(self, rows: NDArray[np.integer]) -> Verdicts:
        return Verdicts(
            [self.facts[i] for i in rows.tolist()],
            *(getattr(self, name)[rows] for name in _ARRAYS),
        )

    def fact(self, name: str) -> NDArray[np.generic]:
        return np.array([it[name] for it in self.facts])

    @property
    def strongest_severity(self) -> NDArray[np.int8]:
        """(n,) severity of the strongest finding, 0 for none."""
        return np.asarray(self.severity.max(axis=1))


_ARRAYS = (
    "quality",
    "uncertainty",
    "severity",
    "confidence",
    "presence",
    "strongest",
    "numbers",
)


class Judge:
    """A model folder, on one thread, with findings from where the product takes them.

    A model that names degradations is taken at its word; beside one that does not, the findings
    are those of the measured signals.
    """

    def __init__(self, folder: Path) -> None:
        """Raises ScorerError when the folder is damaged."""
        self.folder = folder
        self.card = read_card(folder)
        self.scorer = OnnxScorer(folder)

    @property
    def model(self) -> str:
        return self.card.model

    @property
    def identity(self) -> Mapping[str, str]:
        """What tells two models of one name and version apart."""
        return {name: facts["sha256"] for name, facts in self.card.raw["files"].items()}

    @property
    def names_degradations(self) -> bool:
        return self.card.naming is not None

    def of(self, kept: Iterable[Kept]) -> Verdicts:
        """Raises ValueError when there is no picture."""
        parts = [self._part(it) for it in kept]
        if not parts:
            raise ValueError("no picture to judge")
        return joined(parts)

    def said(self, kept: Kept) -> list[Assessment]:
        """Of every shot, in order."""
        pictures = kept.pictures()
        found: list[Assessment] = []
        for start in range(0, len(pictures), BATCH):
            found += self.scorer.assess(pictures[start : start + BATCH])
        return found

    def _part(self, kept: Kept) -> Verdicts:
        said = self.said(kept)
        severity, confidence = kept.measured, kept.measured_confidence.astype(np.float64)
        if self.names_degradations:
            severity, confidence = _named(said)
        return Verdicts(
            kept.facts,
            np.array([np.nan if it.quality is None else it.quality for it in said]),
            np.array([np.nan if it.uncertainty is None else it.uncertainty for it in said]),
            severity,
            confidence,
            _presence(said, confidence),
            strongest(severity, confidence),
            kept.numbers,
        )


def _presence(said: Sequence[Assessment], confidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, 8) probabilities where the model gives them, else the confidence of its findings."""
    found = confidence.copy()
    for row, assessment in enumerate(said):
        if "levels" in assessment.outputs:
            levels = np.reshape(assessment.outputs["levels"], (len(DEGRADATIONS), -1))
            told = levels.any(axis=1)  # nothing at all for what a model was not asked about
            found[row, told] = 1 - levels[told, 0]
    return found


def joined(parts: Sequence[Verdicts]) -> Verdicts:
    return Verdicts(
        [facts for part in parts for facts in part.facts],
        *(np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS),
    )


def strongest(severity: NDArray[np.integer], confidence: NDArray[np.floating]) -> NDArray[np.str_]:
    """(n,) names, in the product's own order: severity first, then confidence."""
    rank = severity + np.clip(confidence, 0, 1) / 2
    names = np.array(DEGRADATIONS)[rank.argmax(axis=1)]
    return np.where(severity.max(axis=1) > 0, names, CLEAN)


def _named(said: Sequence[Assessment]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    severity = np.zeros((len(said), len(DEGRADATIONS)), np.int8)
    confidence = np.zeros(severity.shape)
    for row, assessment in enumerate(said):
        for found in assessment.findings:
            place = DEGRADATIONS.index(found.name)
            severity[row, place], confidence[row, place] = found.severity, found.confidence
    return severity, confidence
