"""What quality is usual for one stream, as one model version sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LEARNT_SECONDS = 600.0
"""Scored media before a baseline means anything."""

MEMORY_SECONDS = 6 * 3600.0
"""What lies further back fades."""

TROUBLE_POINTS = 10.0
TROUBLE_SHARE = 0.1
"""A segment so far below the baseline teaches it a tenth only: trouble must not become usual
within the hour, but what lasts for days is the new normal.
"""


@dataclass(slots=True)
class Baseline:
    """A fading mean. model: name@version; another one begins anew. seconds: learnt so far."""

    model: str | None = None
    quality: float = 0.0
    seconds: float = 0.0

    @property
    def usual(self) -> float | None:
        """0..100; None while too little was seen."""
        return self.quality if self.seconds >= LEARNT_SECONDS else None

    def meet(self, model: str | None) -> bool:
        """Begin anew for another model; whether that forgot something."""
        if model == self.model:
            return False
        forgotten = self.model is not None
        self.model, self.quality, self.seconds = model, 0.0, 0.0
        return forgotten

    def learn(self, quality: float, seconds: float) -> None:
        """One scored segment of so many seconds."""
        if self.usual is not None and quality < self.quality - TROUBLE_POINTS:
            seconds *= TROUBLE_SHARE
        self.seconds = min(self.seconds + seconds, MEMORY_SECONDS)
        if self.seconds > 0:
            self.quality += (quality - self.quality) * min(1.0, seconds / self.seconds)

    def as_json(self) -> dict[str, Any]:
        if self.model is None:
            return {}
        return {"model": self.model, "quality": self.quality, "seconds": self.seconds}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Baseline:
        return cls(
            stored.get("model"), float(stored.get("quality", 0)), float(stored.get("seconds", 0))
        )
