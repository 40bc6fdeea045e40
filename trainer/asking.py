"""Any scorer, asked about whole pictures: a model folder, a writer, a server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from trainer.groups import UNKNOWN
from vqmon.domain import DEGRADATIONS, Assessment, Frame
from vqmon.errors import PictureUnsupported
from vqmon.preprocess import prepare, wants_picture
from vqmon.scorers import load_scorer


class Asked:
    """A scorer by its spec, given frames. Raises ScorerError when it cannot be had.

    writes: it answers in words, and says of each degradation only what it was asked for.
    """

    def __init__(self, spec: str, *, device: str = "cpu", threads: int = 1) -> None:
        self.spec = spec
        self.scorer: Any = load_scorer(spec, device=device, threads=threads)
        self.writes = hasattr(self.scorer, "write")
        self._whole = wants_picture(self.scorer)

    @property
    def model(self) -> str:
        """name@version"""
        return str(self.scorer.model)

    def of(self, frames: Sequence[Frame]) -> list[Assessment]:
        """One a frame, in order; of a picture that cannot be measured, "unsupported_picture".
        Raises ScorerError.
        """
        found: list[Assessment] = []
        for frame in frames:
            try:
                seen = prepare(frame, picture=self._whole)
            except PictureUnsupported as error:
                found.append(_unsupported(frame, str(error)))
                continue
            found += self.scorer.assess([seen])
        return [it if it.model else replace(it, model=self.model) for it in found]


def levels(said: Assessment) -> tuple[int, ...]:
    """Of DEGRADATIONS: 0 absent, 1 to 5, UNKNOWN where nothing was said of it."""
    found = {it.name: it.severity for it in said.findings}
    told = known(said)
    silent = [0 if it else UNKNOWN for it in told]
    return tuple(found.get(name, silent[i]) for i, name in enumerate(DEGRADATIONS))


def known(said: Assessment) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(8,) which degradations the model says something of, be it that they are not there: a model
    that names one of four knows nothing of the others, and neither does one that was not read.
    """
    outputs = np.reshape(said.outputs.get("levels", np.zeros(48)), (len(DEGRADATIONS), -1))
    return np.asarray(outputs.sum(axis=1) > 0.5)


def _unsupported(frame: Frame, why: str) -> Assessment:
    return Assessment(
        frame.position,
        quality=None,
        uncertainty=None,
        no_score_reason="unsupported_picture",
        explanation=why,
    )
