"""Segments on their last step into the database, and the alerts that follow from them.

    Writer ─▶ Alerts.add ─▶ judge ─▶ one transaction: segments, alerts, rule states, deliveries

What the rules remember in memory advances only after the commit, and comes from the database
whenever it is not known whether a commit went through. Ids follow from what they name. So a
killed daemon, which is given the last segments again, neither forgets an alert nor tells it twice.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from vqmon.alerting import Quiet, Rule, StreamState, Turn, judge, release
from vqmon.alerting.judging import NAMES, Kind
from vqmon.alerting.own import OWN, STARTED, Trouble, note
from vqmon.alerting.sentences import RULE_GONE, STREAM_GONE
from vqmon.cascade import questions
from vqmon.domain import (
    Acting,
    Alert,
    AlertEvent,
    Delivery,
    Question,
    Segment,
    Silence,
    Stream,
)
from vqmon.notifying import LASTING, Target, deliveries, delivery
from vqmon.ports import ActingStore
from vqmon.settings import Settings

log = logging.getLogger("vqmon.daemon")

LOOK_SECONDS = 5.0
"""How often changed rules are looked after when no segment comes."""


Watched = tuple[Stream, tuple[Rule, ...]]
"""A stream and its rules."""


class Alerts:
    """The rules of all streams at work. Thread-safe."""

    def __init__(
        self,
        store: ActingStore,
        settings: Settings,
        told: Callable[[Sequence[AlertEvent]], None] = lambda _: None,
    ) -> None:
        """told: called with what happened, after it is stored; must be quick."""
        self._store = store
        self._told = told
        self._settings = settings
        self._next: Settings | None = settings
        self._watched: dict[str, Watched] = {}
        self._states: dict[str, StreamState] | None = None
        self._weak: dict[str, datetime] | None = None
        self._to_reconcile = self._begins = True
        self._troubles: deque[Trouble] = deque()
        self._active: Counter[str] | None = None
        self._lock = threading.Lock()

    def configure(self, settings: Settings) -> None:
        """From now on these rules; waits for nothing."""
        self._next = settings

    def active(self) -> Mapping[str, int] | None:
        """How many alerts fire, by severity; None before that is known. Waits for nothing."""
        states = self._states
        if states is not None:
            firing = (it for state in list(states.values()) for it in state.firing.values())
            self._active = Counter(alert.severity for alert in firing)
        return self._active

    def about_us(self, trouble: Trouble) -> None:
        """Something about vqmon itself is wrong or well again, again or for the first time.

        Waits for nothing; it is looked after with the next segment.
        """
        self._troubles.append(trouble)

    def add(self, some: Iterable[Segment], /) -> None:
        """Store segments and what follows from them; a known id is left alone.

        Raises StoreError or ValueError, and then has stored nothing and remembers nothing of it.
        """
        batch = list(some)
        with self._lock:
            self._act(batch)

    def look(self) -> None:
        """Resolve alerts of rules and streams that are gone. Raises StoreError."""
        with self._lock:
            if self._next or self._to_reconcile or self._troubles:
                self._act([])

    def _act(self, batch: Sequence[Segment]) -> None:
        self._take_settings()
        try:
            draft = self._drafted(batch)
            self._store.add(batch, draft.acting())
        except BaseException:
            self._states = self._weak = None  # whatever was stored, the database knows
            raise
        self._states, self._to_reconcile, self._begins = draft.states, False, False
        self._weak = draft.weak
        for _ in range(draft.troubles):
            self._troubles.popleft()
        if draft.events:
            for event in draft.events:
                _say(event)
            self._told(draft.events)

    def _take_settings(self) -> None:
        settings, self._next = self._next, None
        if settings is not None:
            self._settings, self._to_reconcile = settings, True
            self._watched = {
                name: (settings.stream(name), tuple(settings.rules_of(name).values()))
                for name in settings.streams
            }

    def _drafted(self, batch: Sequence[Segment]) -> _Draft:
        known, weak = self._known_states(), self._known_weak()
        draft = _Draft(self._store, self._settings, self._watched, known, weak)
        now = datetime.now(UTC)
        if self._to_reconcile:
            draft.reconcile(now, begins=self._begins)
            draft.bring_up_to_date(now)
        for trouble in list(self._troubles):
            draft.trouble(trouble, now)
        new = self._store.missing(it.id for it in batch) if batch else set()
        for segment in batch:
            if segment.id in new:
                new.remove(segment.id)
                draft.take(segment)
        return draft

    def _known_states(self) -> dict[str, StreamState]:
        if self._states is None:
            stored = self._store.alert_states(self._settings.instance)
            self._states = {name: StreamState.from_json(it) for name, it in stored.items()}
        return dict(self._states)

    def _known_weak(self) -> dict[str, datetime]:
        """When the writer was last asked about a stream because of a weak score."""
        if self._weak is None:
            instance, asks = self._settings.instance, self._settings.writer.model is not None
            self._weak = self._store.last_asked(instance, "low_confidence") if asks else None
        return dict(self._weak or {})


@dataclass(slots=True)
class _Draft:
    """What is going to be stored. What people have said is read once, when it is needed."""

    store: ActingStore
    settings: Settings
    watched: Mapping[str, Watched]
    states: dict[str, StreamState]
    weak: dict[str, datetime] | None
    events: list[AlertEvent] = field(default_factory=list)
    troubles: int = 0
    _segments: list[Segment] = field(default_factory=list)
    _messages: list[Delivery] = field(default_factory=list)
    _alerts: dict[str, Alert] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _silences: list[Silence] | None = None
    _said: dict[str, Alert] | None = None

    def take(self, segment: Segment) -> None:
        """The next new segment; of a stream that is not watched any more it says nothing."""
        name = segment.stream
        if name not in self.watched:
            return
        self._segments.append(segment)
        stream, rules = self.watched[name]
        turn = judge(
            stream,
            rules,
            self.states.get(name, StreamState()),
            segment,
            grace=self.settings.alerts.grace,
            quiet=self._quiet,
            as_known=self._as_known,
        )
        self._note(name, turn)

    def trouble(self, trouble: Trouble, now: datetime) -> None:
        """What is said of vqmon itself."""
        state = self.states.get(OWN, StreamState())
        turn = note(state, trouble, now, quiet=self._quiet, as_known=self._as_known)
        self.troubles += 1
        if turn.alerts:
            self._note(OWN, turn)

    def reconcile(self, now: datetime, *, begins: bool) -> None:
        """Let go of what rules or streams that are gone still hold."""
        for name, state in list(self.states.items()):
            if name == OWN:
                if begins:
                    self._note(OWN, release(state, now, STARTED, as_known=self._as_known))
            elif name not in self.watched:
                self._note(name, release(state, now, STREAM_GONE, as_known=self._as_known))
                del self.states[name]
            else:
                rules = {it.name: it for it in self.watched[name][1]}
                turn = release(state, now, RULE_GONE, keep=rules, as_known=self._as_known)
                if turn.state != state:
                    self._note(name, turn)

    def bring_up_to_date(self, now: datetime) -> None:
        """Targets that keep state learn what fires, and what they no longer need to hear of.

        One that is new, or wants other alerts than before, was not told when they began; and one
        that was away from the configuration was not told when they ended.
        """
        told = [
            episode.alert
            for state in self.states.values()
            for episode in state.episodes.values()
            if episode.alert and episode.told_at
        ]
        for target in self.settings.targets():
            if target.keeps_state:
                self._bring_up_to_date(target, told, now)

    def _bring_up_to_date(self, target: Target, told: Sequence[Alert], now: datetime) -> None:
        waiting = {it.delivery.topic: it for it in self.store.queued(target.name, ["waiting"])}
        firing = [it for it in told if target.wants(AlertEvent("firing", it, now))]
        for alert in firing:
            if alert.id not in waiting:
                self._message("repeat", self._as_known(alert), target, now)
        for topic in waiting.keys() - {it.id for it in firing}:
            ended = self.store.alert(topic)
            if waiting[topic].delivery.kind in LASTING and ended is not None:
                self._message("resolved", ended, target, now)

    def _message(self, kind: Kind, alert: Alert, target: Target, now: datetime) -> None:
        id_ = uuid.uuid5(NAMES, f"{alert.id}\n{kind}\n{target.name}\n{now.isoformat()}").hex
        self._messages.append(delivery(AlertEvent(kind, alert, now, id=id_), target))

    def acting(self) -> Acting:
        settings = self.settings
        states = {n: self.states[n].as_json() if n in self.states else None for n in self._changed}
        messages = deliveries(self.events, settings.targets()) if self.events else []
        messages = [*self._messages, *messages]
        alerts = tuple(self._alerts.values())
        return Acting(settings.instance, alerts, states, tuple(messages), self._questions())

    def _questions(self) -> tuple[Question, ...]:
        """What the writer shall be asked."""
        policy = self.settings.writer.policy(self.settings.instance)
        if policy is None:
            self.weak = None
            return ()
        asked = self.weak or {}
        found = tuple(questions(policy, self._segments, self.events, asked))
        weak = [it for it in found if it.cause == "low_confidence"]
        self.weak = asked | {it.stream: it.asked_at for it in weak}
        return found

    def _note(self, stream: str, turn: Turn) -> None:
        self.states[stream] = turn.state
        self._changed.add(stream)
        self._alerts |= {it.id: it for it in turn.alerts}
        self.events += turn.events

    def _quiet(self, alert: Alert, at: datetime) -> bool:
        if self._silences is None:
            self._silences = self.store.silences()
        return Quiet(self._silences, self.settings.windows())(alert, at)

    def _as_known(self, alert: Alert) -> Alert:
        if self._said is None:
            self._said = {it.id: it for it in self.store.alerts(firing=True)}
        said = self._said.get(alert.id)
        if said is None:
            return alert
        return replace(
            alert,
            acknowledged_by=said.acknowledged_by,
            acknowledged_at=said.acknowledged_at,
            note=said.note,
        )


def _say(event: AlertEvent) -> None:
    alert = event.alert
    about = {"stream": alert.stream, "rule": alert.rule, "severity": alert.severity}
    reason = alert.cleared if event.kind == "resolved" else alert.reason
    log.info(f"alert_{event.kind}", extra={**about, "alert": alert.id, "reason": reason})
