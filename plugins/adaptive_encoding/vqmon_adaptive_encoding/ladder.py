"""What an encoder can be asked for: a quality level under a cap, rung by rung. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SEVERE = 4
"""A finding of this severity or worse goes up two rungs at once."""


@dataclass(frozen=True, slots=True)
class Level:
    """The vocabulary of quality-defined variable bitrate.

    quality: 1 (least) to 10, what the encoder shall aim at.
    cap_kbps: what it must not exceed meanwhile, kb/s; an encoder that knows only a bitrate
        takes this one.
    """

    quality: float
    cap_kbps: int

    def __str__(self) -> str:
        return f"quality {self.quality:g} under {self.cap_kbps} kb/s"

    def as_json(self) -> dict[str, float | int]:
        return {"quality": self.quality, "cap_kbps": self.cap_kbps}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Level:
        return cls(float(data["quality"]), int(data["cap_kbps"]))


def above(ladder: Sequence[Level], level: Level, severity: int) -> Level | None:
    """The rung to climb to, None at the top. A level that is no rung stands between rungs."""
    higher = [rung for rung in ladder if rung.cap_kbps > level.cap_kbps]
    if not higher:
        return None
    return higher[min(1 if severity >= SEVERE else 0, len(higher) - 1)]


def below(ladder: Sequence[Level], level: Level, base: Level) -> Level | None:
    """The next rung towards the base, None when it stands there or lower."""
    lower = [rung for rung in ladder if base.cap_kbps <= rung.cap_kbps < level.cap_kbps]
    return lower[-1] if lower else None
