"""What was decided before, read back from the decisions that vqmon stores. Pure.

These rows are the plugin's only memory: a process that ended anywhere, even between deciding
and asking, picks up where it was.

    raise or lower ──▶ asked ──▶ keep ──▶ recovered
          │              └─────▶ roll_back ──▶ restored
          └─▶ failed ──────────▶ roll_back ──▶ restored

A `raise` is recorded before the encoder hears of it, a `roll_back` too; `asked` says that the
request went out (to the encoder, or into the outbox on the way to it), `restored` that the encoder
has accepted to go back, however long that took. `observe`, `propose` and
`wait` change nothing at an encoder. `holds` repeats once a day what still stands, since vqmon
deletes old decisions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from vqmon.domain import Decision
from vqmon_adaptive_encoding.ladder import Level

CHANGES = ("raise", "lower")
REQUESTS = ("raise", "lower", "roll_back")
"""Decisions of which an encoder hears."""


@dataclass(frozen=True, slots=True)
class Change:
    """One step on the ladder that is not yet judged, or not yet taken back.

    asked_at: when the encoder accepted it, None when nobody knows whether it did.
    failed: why it certainly could not be asked.
    before: ids of the segments that the ones after it are compared with.
    undone_by: id of the roll_back that the encoder has still to accept.
    """

    id: str
    kind: str
    origin: Level
    goal: Level
    at: datetime
    before: tuple[str, ...] = ()
    finding: str = ""
    asked_at: datetime | None = None
    failed: str = ""
    undone_by: str | None = None

    @property
    def is_on_trial(self) -> bool:
        """Asked for, as far as is known, and not yet judged."""
        return self.asked_at is not None and not self.failed and self.undone_by is None


@dataclass(frozen=True, slots=True)
class Memory:
    """Where one stream stands.

    level: what the encoder was last known to run at; None when it was never changed.
    change: open, or on its way back; at most one.
    changes: when encoders were changed, or would have been; undoing counts too.
    judged_at: when the last change ended; setbacks: raises undone since one was kept.
    clean_since: from when on a kept raise can count clean time; recovered: it has enough.
    undone_lowerings: since a raise was last kept; each doubles the wait for the next.
    """

    level: Level | None = None
    change: Change | None = None
    changes: tuple[datetime, ...] = ()
    judged_at: datetime | None = None
    setbacks: int = 0
    clean_since: datetime | None = None
    recovered: bool = True
    undone_lowerings: int = 0
    last: Decision | None = None


def remember(decisions: Iterable[Decision]) -> Memory:
    """The decisions about one stream, oldest first, to where it stands."""
    memory = Memory()
    for decision in decisions:
        memory = replace(_with(memory, decision), last=decision)
    return memory


def _with(memory: Memory, decision: Decision) -> Memory:
    if decision.kind in CHANGES:
        return replace(memory, change=_begun(decision), changes=(*memory.changes, decision.at))
    if decision.kind in ("observe", "propose"):
        return replace(memory, changes=(*memory.changes, decision.at), judged_at=decision.at)
    if decision.kind == "recovered":
        return replace(memory, recovered=True)
    if decision.kind == "holds":
        return _held(memory, decision)
    if memory.change is None or decision.data.get("of") not in _names(memory.change):
        return memory
    return _with_change(memory, memory.change, decision)


def standing(memory: Memory) -> dict[str, Any] | None:
    """What must not be forgotten, as the data of a `holds`; None when nothing stands."""
    change = memory.change
    if change is not None and change.undone_by is not None:
        levels = {"from": change.goal.as_json(), "to": change.origin.as_json()}
        return {"of": change.id, "roll_back": change.undone_by, **levels}
    if change is None and memory.level is not None:
        return {"to": memory.level.as_json(), "recovered": memory.recovered}
    return None


def _held(memory: Memory, decision: Decision) -> Memory:
    data = decision.data
    level = Level.from_json(data["to"])
    if "roll_back" not in data:
        return replace(memory, level=level, recovered=bool(data["recovered"]))
    undone = Change(
        id=str(data["of"]),
        kind="raise",
        origin=level,
        goal=Level.from_json(data["from"]),
        at=decision.at,
        undone_by=str(data["roll_back"]),
    )
    return replace(memory, change=memory.change or undone)


def _names(change: Change) -> tuple[str | None, ...]:
    return (change.id, change.undone_by)


def _begun(decision: Decision) -> Change:
    return Change(
        id=decision.id,
        kind=decision.kind,
        origin=Level.from_json(decision.data["from"]),
        goal=Level.from_json(decision.data["to"]),
        at=decision.at,
        before=tuple(decision.data.get("before", ())),
        finding=str(decision.data.get("finding", "")),
    )


def _with_change(memory: Memory, change: Change, decision: Decision) -> Memory:
    if decision.kind == "asked":
        return replace(memory, change=replace(change, asked_at=decision.at))
    if decision.kind == "failed":
        return replace(memory, change=replace(change, failed=str(decision.data.get("error", ""))))
    if decision.kind == "keep":
        return _kept(memory, change, decision.at)
    if decision.kind == "roll_back":
        return _undone(memory, change, decision)
    if decision.kind == "restored":
        return replace(memory, change=None, level=change.origin)
    return memory


def _kept(memory: Memory, change: Change, at: datetime) -> Memory:
    raised = change.kind == "raise"
    return replace(
        memory,
        level=change.goal,
        change=None,
        judged_at=at,
        setbacks=0 if raised else memory.setbacks,
        clean_since=at,
        recovered=not raised,
        undone_lowerings=0 if raised else memory.undone_lowerings,
    )


def _undone(memory: Memory, change: Change, decision: Decision) -> Memory:
    raised = change.kind == "raise"
    return replace(
        memory,
        change=replace(change, undone_by=decision.id),
        changes=(*memory.changes, decision.at),
        judged_at=decision.at,
        setbacks=memory.setbacks + raised,
        clean_since=decision.at,
        undone_lowerings=memory.undone_lowerings + (not raised),
    )
