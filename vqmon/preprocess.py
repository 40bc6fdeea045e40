"""Frame -> model input: the one copy, which the trainer imports too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from vqmon.domain import Frame
from vqmon.measures import Measures
from vqmon.measures.vector import measured
from vqmon.patches import look
from vqmon.patches.pieces import overview, pieces
from vqmon.patches.shown import shown

if TYPE_CHECKING:
    from vqmon.ports import Scorer


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What a scorer gets of one frame; small enough to cross to another process.

    position: of the frame, seconds.
    inputs: the arrays that a model may ask for by name: "measures" (F,) float32 in the order
        of `vqmon.measures.MEASURES`; "patches" (36, 40, 40) uint8, luma at the picture's own
        resolution; "view" (3, 96, 96) uint8, Y, Cb and Cr of all of it; and, for a model that
        asks for it, "picture" (h, w, 3) uint8, R'G'B' as a player shows it.
    """

    position: float
    measures: Measures
    inputs: Mapping[str, NDArray[np.generic]]


def wants_picture(scorer: Scorer) -> bool:
    """Whether its model looks at the picture itself, which is kept for such models only."""
    return "picture" in (getattr(scorer, "inputs", None) or ())


def prepare(
    frame: Frame, rng: np.random.Generator | None = None, *, picture: bool = False
) -> Prepared:
    """Measure a frame. In training `rng` draws the patch offsets; serving leaves it out.

    picture: keep the picture itself, too.
    Raises PictureUnsupported for PQ and HLG and for sides under 32 or over 16384 pixels.
    """
    seen = look(frame, rng)
    values, cells = measured(seen)
    inputs: dict[str, NDArray[Any]] = {
        "measures": values,
        "patches": pieces(seen),
        "view": overview(seen),
    }
    if picture:
        inputs["picture"] = np.asarray(shown(frame), np.uint8)
    return Prepared(frame.position, Measures(values, cells), inputs)
