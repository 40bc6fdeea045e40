"""Any scorer, asked about whole pictures: a model folder, a writer, a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from vqmon.domain import DEGRADATIONS, Assessment, Frame
from vqmon.preprocess import prepare
from vqmon.scorers import load_scorer

UNKNOWN = -1


class Asked:
    """A scorer by its spec, given frames. Raises ScorerError when it cannot be had."""

    def __init__(self, spec: str, *, device: str = "cpu", threads: int = 1) -> None:
        self.spec = spec
        self.scorer: Any = load_scorer(spec, device=device, threads=threads)
        self._pictures = "picture" in (getattr(self.scorer, "inputs", None) or ())

    @property
    def model(self) -> str:
        """name@version"""
        return str(self.scorer.model)

    def of(self, frames: Sequence[Frame]) -> list[Assessment]:
        """One a frame, in order. Raises PictureUnsupported and ScorerError."""
        found: list[Assessment] = self.scorer.assess(
            [prepare(frame, picture=self._pictures) for frame in frames]
        )
        return found

    def levels(self, said: Assessment) -> tuple[int, ...]:
        """Of DEGRADATIONS: 0 absent, 1 to 5, UNKNOWN where nothing was said of it."""
        found = {it.name: it.severity for it in said.findings}
        told = np.zeros((len(DEGRADATIONS), 6))
        if "levels" in said.outputs:
            told = np.reshape(said.outputs["levels"], (len(DEGRADATIONS), 6))
        silent = (0 if row.any() else UNKNOWN for row in told)  # all zeros: not asked about
        return tuple(
            found.get(name, level) for name, level in zip(DEGRADATIONS, silent, strict=True)
        )
