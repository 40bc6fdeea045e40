"""A scoring process for tests: python scoring_process.py SOCKET [seconds per batch].

Quality is the mean of all inputs. A picture whose mean is negative makes the scorer raise.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vqmon.domain import Assessment, Comparison, Finding
from vqmon.preprocess import Prepared
from vqmon.scorers.serving import serve_scorer


class MeanScorer:
    """Says how bright the inputs are, so that a test can tell whose answer it got."""

    model = "mean@1"

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        time.sleep(self._seconds)
        return [self._one(picture) for picture in pictures]

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        raise NotImplementedError

    def _one(self, picture: Prepared) -> Assessment:
        value = float(np.mean(np.concatenate([a.ravel() for a in picture.inputs.values()])))
        if value < 0:
            raise ValueError("a poisonous picture")
        blur = Finding(
            "blur", 2, 0.5, 1.5, 1.0, region=("top", "centre"), start=picture.position, cost=4.5
        )
        return Assessment(
            picture.position, value, 3.0, (blur,), {"score": (value, 0.25)}, self.model
        )


if __name__ == "__main__":
    pace = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
    serve_scorer(MeanScorer(pace), Path(sys.argv[1]))
