"""One stream: what was seen and decided, and the talking to its encoder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from vqmon.domain import Comparison, Decision, Segment
from vqmon.ports import PluginContext
from vqmon_adaptive_encoding.case import PLUGIN, Case, Evidence
from vqmon_adaptive_encoding.deciding import next_decision
from vqmon_adaptive_encoding.ladder import Level
from vqmon_adaptive_encoding.memory import CHANGES, Change, Memory, remember
from vqmon_adaptive_encoding.targets.request import Request, Target, TargetFailed
from vqmon_adaptive_encoding.watching import Watched, end, looks_back

log = logging.getLogger(__name__)

RETRY = timedelta(seconds=60)
"""Between tries to take a change back from an encoder that does not answer."""


Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The time of day, which only the sending of requests is measured by."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read from the store once and is kept up to date since."""

    decisions: tuple[Decision, ...]
    memory: Memory
    watched: Watched


class Watch:
    """One stream. Holds nothing that the store could not give back after a crash."""

    def __init__(
        self, case: Case, context: PluginContext, target: Target, clock: Clock = utc_now
    ) -> None:
        self._case = case
        self._context = context
        self._target = target
        self._clock = clock
        self._known: _Known | None = None
        self._next_try: datetime | None = None
        self._evidence = Evidence(context.segment, self._compared)

    def see(self, segment: Segment) -> None:
        """A new segment of this stream."""
        known = self._read(end(segment))
        if all(segment.id != s.id for s in known.watched.recent):
            seen = known.watched.seen(segment, self._case.rules)
            self._known = replace(known, watched=seen)
        self._go_on(end(segment))

    def wake(self, now: datetime) -> None:
        """Time passes while this stream is silent: a change must not stay open for ever."""
        if self._read(now).memory.change is not None:
            self._go_on(now)

    def _read(self, now: datetime) -> _Known:
        if self._known is None:
            decisions = tuple(self._context.decisions(self._case.stream))
            memory = remember(decisions)
            self._known = _Known(decisions, memory, self._watched(memory, now))
        return self._known

    def _watched(self, memory: Memory, now: datetime) -> Watched:
        """From the stored segments, which a new process has not seen."""
        rules = self._case.rules
        since = now - timedelta(seconds=looks_back(rules))
        if memory.clean_since is not None:
            held = now - timedelta(seconds=rules.hold)
            since = min(since, max(memory.clean_since, held))
        watched = Watched()
        for segment in self._context.segments(self._case.stream, since, now):
            fresh = memory.clean_since is None or segment.started_at >= memory.clean_since
            watched = watched.seen(segment, rules)
            watched = watched if fresh else replace(watched, clean_seconds=0.0)
        return watched

    def _go_on(self, now: datetime) -> None:
        """One decision at a time; only a request that failed is followed by another at once."""
        self._take_back(now)
        while (decision := self._decided(now)) is not None:
            self._record(decision)
            self._carry_out(decision)
            if decision.kind not in CHANGES:
                return

    def _decided(self, now: datetime) -> Decision | None:
        known = self._read(now)
        memory, change = known.memory, known.memory.change
        if change is not None and change.is_on_trial:
            change = self._as_heard(change, now)
            if change is None:
                return None
            memory = replace(memory, change=change)
        return next_decision(self._case, memory, known.watched, now, self._evidence)

    def _as_heard(self, change: Change, now: datetime) -> Change | None:
        """Asked when the encoder accepted it; None while it is on its way: what is seen meanwhile
        says nothing about it.
        """
        assert change.asked_at is not None
        within = timedelta(seconds=self._case.rules.verify_within)
        try:
            accepted_at = self._target.accepted_at(change.id, change.asked_at)
        except TargetFailed as error:
            return self._failed(change, str(error), now)
        if accepted_at is not None:
            return replace(change, asked_at=accepted_at)
        if now - change.asked_at >= within:
            return self._failed(change, f"not delivered within {within.seconds} s", now)
        return None

    def _failed(self, change: Change, error: str, now: datetime) -> Change | None:
        data = {"of": change.id, "error": error}
        self._record(Decision(PLUGIN, self._case.stream, "failed", error, now, data))
        return self._read(now).memory.change

    def _record(self, decision: Decision) -> None:
        """Before anything is done about it, so that a crash cannot forget it."""
        known = self._read(decision.at)
        self._context.record(decision)
        decisions = (*known.decisions, decision)
        watched = known.watched
        if decision.kind in ("keep", "roll_back"):
            watched = replace(watched, clean_seconds=0.0)
        self._known = _Known(decisions, remember(decisions), watched)
        log.info(
            "adaptive_encoding_decided",
            extra={
                "stream": decision.stream,
                "decision": decision.kind,
                "reason": decision.reason,
            },
        )

    def _carry_out(self, decision: Decision) -> None:
        if decision.kind == "roll_back":
            self._next_try = None
            self._take_back(decision.at)
        elif decision.kind in CHANGES:
            self._ask(decision)
        elif decision.kind == "propose":
            self._tell(decision)

    def _ask(self, decision: Decision) -> None:
        try:
            accepted = self._target.ask(_request(decision, self._case.rules.verify_within))
        except TargetFailed as error:
            self._note(decision, "failed", str(error), {"error": str(error)})
        else:
            goal = Level.from_json(decision.data["to"])
            said = f"the encoder accepted {goal}" if accepted else f"{goal} is on its way to it"
            # By the clock: on a busy machine this is long after the segment that led to it.
            self._note(decision, "asked", said, at=max(decision.at, self._clock()))

    def _tell(self, decision: Decision) -> None:
        try:
            self._target.ask(_request(decision))
        except TargetFailed as error:
            log.warning("proposal_not_told", extra={"stream": decision.stream, "error": str(error)})

    def _take_back(self, now: datetime) -> None:
        """Ask for the old level until the encoder has accepted it."""
        change = self._read(now).memory.change
        if change is None or change.undone_by is None:
            return
        if self._next_try is not None and now < self._next_try:
            return
        try:
            accepted = self._target.ask(_undoing(self._case.stream, change, now))
        except TargetFailed as error:
            self._delayed(now, str(error))
            return
        if not accepted:
            return  # looked after with the next segment, and for as long as it takes
        self._record(
            Decision(
                PLUGIN,
                self._case.stream,
                "restored",
                f"the encoder accepted {change.origin} again",
                now,
                {"of": change.undone_by, "to": change.origin.as_json()},
            )
        )

    def _delayed(self, now: datetime, error: str) -> None:
        if self._next_try is None:  # said once, not at every try
            log.warning("roll_back_delayed", extra={"stream": self._case.stream, "error": error})
        self._next_try = now + RETRY

    def _note(
        self,
        about: Decision,
        kind: str,
        reason: str,
        more: Mapping[str, str] | None = None,
        *,
        at: datetime | None = None,
    ) -> None:
        data = {"of": about.id, **(more or {})}
        self._record(Decision(PLUGIN, about.stream, kind, reason, at or about.at, data))

    def _compared(self, before: Segment, after: Segment) -> Comparison:
        return self._context.compare(before, after)


def _request(decision: Decision, within: float | None = None) -> Request:
    return Request(
        id=decision.id,
        stream=decision.stream,
        kind=decision.kind,
        level=Level.from_json(decision.data["to"]),
        previous=Level.from_json(decision.data["from"]),
        reason=decision.reason,
        at=decision.at,
        within=within,
    )


def _undoing(stream: str, change: Change, now: datetime) -> Request:
    assert change.undone_by is not None
    reason = f"takes back {change.goal}"
    return Request(change.undone_by, stream, "roll_back", change.origin, change.goal, reason, now)
