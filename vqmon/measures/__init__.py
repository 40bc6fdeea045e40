"""Measured facts of one picture: a fixed vector, nine cells, and what is wrong with it.

    measure(frame)             the vector that quality models read, and maps over the nine cells
    findings(frame, measures)  degradations, each with value, limit, severity and place
    glance(frame)              a small picture, for every decoded frame

Plain numpy on patches and a small view (`vqmon.patches`): about as fast at 2160p as at 720p.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Frame
from vqmon.measures.degradations import findings
from vqmon.measures.glancing import Glance, glance
from vqmon.measures.vector import MEASURES, measured
from vqmon.patches import Floats, look

__all__ = ["MEASURES", "Glance", "Measures", "findings", "glance", "measure"]

_PLACE = {name: place for place, name in enumerate(MEASURES)}


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """values: (F,) float32, finite, named by MEASURES; `measures["luma_mean"]` is one of them.

    cells: (3, 3) float32 maps "blur", "noise", "blockiness", "luma" and "black".
    """

    values: NDArray[np.float32]
    cells: Mapping[str, Floats]

    def __getitem__(self, name: str) -> float:
        return float(self.values[_PLACE[name]])


def measure(frame: Frame, rng: np.random.Generator | None = None) -> Measures:
    """Measure one picture; in training `rng` draws the patch offsets.

    Raises PictureUnsupported for PQ and HLG and for sides under 32 or over 16384 pixels.
    """
    values, cells = measured(look(frame, rng))
    return Measures(values, cells)
