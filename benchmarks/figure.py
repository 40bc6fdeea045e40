"""What a benchmark reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One measured number beside what it must be. met: whether it is."""

    name: str
    measured: str
    target: str
    met: bool
