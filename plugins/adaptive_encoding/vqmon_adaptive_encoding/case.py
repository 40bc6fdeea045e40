"""What is fixed about one stream, how to look things up, and how decisions are written. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from vqmon.domain import Comparison, Decision, Segment
from vqmon_adaptive_encoding.ladder import Level
from vqmon_adaptive_encoding.memory import Change
from vqmon_adaptive_encoding.settings import Mode, Rules

PLUGIN = "adaptive_encoding"
REMEMBERED = 20
"""Segments named in a decision, at most."""


@dataclass(frozen=True, slots=True)
class Case:
    """One stream and its encoder.

    live: the encoder can change while it runs; else a person is told what to change.
    target: the kind of encoder, for the record.
    """

    stream: str
    ladder: tuple[Level, ...]
    base: Level
    cap_kbps: int
    rules: Rules
    mode: Mode
    live: bool
    target: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """How to look things up while judging.

    segment: a stored segment by id, None when it is gone.
    compare: the quality model's word on two segments (`a` is before); raises when it cannot.
    """

    segment: Callable[[str], Segment | None]
    compare: Callable[[Segment, Segment], Comparison]


@dataclass(frozen=True, slots=True)
class Step:
    """From one level to another."""

    origin: Level
    goal: Level

    def __str__(self) -> str:
        return f"{self.goal} instead of {self.origin}"


def stepping(
    case: Case,
    kind: str,
    step: Step,
    *,
    reason: str,
    now: datetime,
    before: Sequence[Segment] = (),
    more: Mapping[str, Any] | None = None,
) -> Decision:
    """Take a step, or say that one would be taken. before: what it will be compared with."""
    data = {
        "from": step.origin.as_json(),
        "to": step.goal.as_json(),
        "target": case.target,
        "cap_kbps": case.cap_kbps,
        "before": [s.id for s in before if s.scored][-REMEMBERED:],
        **(more or {}),
    }
    newest = before[-1].id if before else None
    return Decision(PLUGIN, case.stream, kind, reason, now, data, segment=newest)


def keeping(
    case: Case, change: Change, why: str, now: datetime, more: Mapping[str, Any] | None = None
) -> Decision:
    """The change stays."""
    data = {"of": change.id, "to": change.goal.as_json(), **(more or {})}
    reason = f"stays at {change.goal}: {why}"
    return Decision(PLUGIN, case.stream, "keep", reason, now, data)


def undoing(
    case: Case, change: Change, why: str, now: datetime, more: Mapping[str, Any] | None = None
) -> Decision:
    """The change is taken back."""
    levels = {"from": change.goal.as_json(), "to": change.origin.as_json()}
    reason = f"goes back to {change.origin}: {why}"
    data = {"of": change.id, **levels, **(more or {})}
    return Decision(PLUGIN, case.stream, "roll_back", reason, now, data)
