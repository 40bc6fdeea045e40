"""A scorer that keeps what it said of each picture, for those who want more than segments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from vqmon.domain import Assessment, Comparison

if TYPE_CHECKING:
    from vqmon.ports import Scorer
    from vqmon.preprocess import Prepared


class Recording:
    """A `Scorer` in front of another. said: every assessment so far, in order."""

    def __init__(self, scorer: Scorer) -> None:
        self.said: list[Assessment] = []
        self._scorer = scorer

    @property
    def model(self) -> str:
        return self._scorer.model

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        assessed = self._scorer.assess(pictures)
        self.said += assessed
        return assessed

    def compare(
        self, a: Sequence[Assessment], b: Sequence[Assessment], *, same_content: bool = False
    ) -> Comparison:
        return self._scorer.compare(a, b, same_content=same_content)
