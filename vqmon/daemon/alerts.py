"""Segments on their last step into the database, and the alerts that follow from them.

    Writer ─▶ Alerts.add ─▶ judge ─▶ one transaction: segments, alerts, rule states, deliveries

What the rules remember in memory advances only after the commit, and comes from the database
whenever it is not known whether a commit went through. Ids follow from what they name. So a
killed daemon, which is given the last segments again, neither forgets an alert nor tells it twice.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from vqmon.alerting import Quiet, Rule, StreamState, Turn, judge, release
from vqmon.alerting.own import OWN, STARTED, Trouble, note
from vqmon.alerting.sentences import RULE_GONE, STREAM_GONE
from vqmon.domain import Acting, Alert, AlertEvent, Segment, Silence, Stream
from vqmon.notifying import deliveries
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
        self._to_reconcile = self._begins = True
        self._troubles: deque[Trouble] = deque()
        self._lock = threading.Lock()

    def configure(self, settings: Settings) -> None:
        """From now on these rules; waits for nothing."""
        self._next = settings

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
            self._states = None  # whatever was stored, the database knows
            raise
        self._states, self._to_reconcile, self._begins = draft.states, False, False
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
        draft = _Draft(self._store, self._settings, self._watched, self._known_states())
        now = datetime.now(UTC)
        if self._to_reconcile:
            draft.reconcile(now, begins=self._begins)
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


@dataclass(slots=True)
class _Draft:
    """What is going to be stored. What people have said is read once, when it is needed."""

    store: ActingStore
    settings: Settings
    watched: Mapping[str, Watched]
    states: dict[str, StreamState]
    events: list[AlertEvent] = field(default_factory=list)
    troubles: int = 0
    _alerts: dict[str, Alert] = field(default_factory=dict)
    _changed: set[str] = field(default_factory=set)
    _silences: list[Silence] | None = None
    _said: dict[str, Alert] | None = None

    def take(self, segment: Segment) -> None:
        """The next new segment; of a stream that is not watched any more it says nothing."""
        name = segment.stream
        if name not in self.watched:
            return
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

    def acting(self) -> Acting:
        settings = self.settings
        states = {n: self.states[n].as_json() if n in self.states else None for n in self._changed}
        messages = deliveries(self.events, settings.targets()) if self.events else []
        return Acting(settings.instance, tuple(self._alerts.values()), states, tuple(messages))

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
