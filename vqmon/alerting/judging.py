"""pending ─▶ firing ─▶ resolved: what one segment does to the rules of its stream.

Rule seconds are seconds of watched media. For a stream that is visited by schedule a visit
stands for its whole period: once trouble has filled half of it, the period counts as bad, once
the lack of trouble has, as good.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from vqmon.alerting import sentences
from vqmon.alerting.rules import DROP, NO_SIGNAL, QUALITY, WORST, Rule
from vqmon.alerting.states import Episode, StreamState
from vqmon.alerting.stretches import Stretch, stretches
from vqmon.domain import DOWN_REASONS, FINDING_NAMES, Alert, AlertEvent, Segment, Stream

GRACE_SECONDS = 60.0
"""A stream that is watched anew raises nothing for so long: encoders and players settle."""

FRESH_SEGMENTS = 3
FRESH_VISITS = 2
"""After so many without a measurement a firing alert is resolved: nobody knows any more."""

WATCHED_ANEW_SECONDS = 90.0
"""A hole between two segments that is longer than this, and than what keeps them fresh, ends what
was pending and begins a new grace."""

SAME_VISIT_SECONDS = 1.5

Kind = Literal["firing", "repeat", "resolved"]

NAMES = uuid.UUID("6d6f6e69-746f-5276-9071-76716d6f6e31")
"""Ids are made from what they name, so that work done twice after a crash makes the same ones."""


def _told(_alert: Alert, _at: datetime) -> bool:
    return False


def _unsaid(alert: Alert) -> Alert:
    return alert


@dataclass(frozen=True, slots=True)
class Turn:
    """What one segment led to.

    alerts: opened or resolved, as they are now. events: to be told, in order.
    """

    state: StreamState
    alerts: tuple[Alert, ...] = ()
    events: tuple[AlertEvent, ...] = ()


def judge(
    stream: Stream,
    rules: Iterable[Rule],
    state: StreamState,
    segment: Segment,
    *,
    grace: float = GRACE_SECONDS,
    quiet: Callable[[Alert, datetime], bool] = _told,
    as_known: Callable[[Alert], Alert] = _unsaid,
) -> Turn:
    """Take in the next segment of a stream; `state` itself is left as it was.

    quiet: whether nobody is to be told of an alert at that time.
    as_known: an alert with what people have said of it; an acknowledged one is not repeated.
    """
    # What says that the stream is down comes first: it holds the rules on scores back.
    ordered = sorted(rules, key=lambda it: it.on != NO_SIGNAL)
    turn = _Turning(stream, segment, state.copy(), grace, quiet, as_known)
    turn.begin()
    for rule in ordered:
        turn.take(rule)
    turn.end(ordered)
    return Turn(turn.state, tuple(turn.alerts.values()), tuple(turn.events))


def release(
    state: StreamState,
    at: datetime,
    why: str,
    *,
    keep: Mapping[str, Rule] | None = None,
    as_known: Callable[[Alert], Alert] = _unsaid,
) -> Turn:
    """Resolve alerts whose rule is gone, or looks at something else now, and forget it.

    keep: the rules that are left; none when the stream is no longer watched. as_known: as for
    `judge`.
    """
    state, kept = state.copy(), keep or {}
    alerts, events = [], []
    for name in list(state.episodes):
        episode = state.episodes[name]
        if name in kept and (not episode.alert or episode.alert.finding == _finding(kept[name])):
            continue
        del state.episodes[name]
        if episode.alert:
            closed = replace(as_known(episode.alert), closed_at=at, cleared=why)
            alerts.append(closed)
            if episode.told_at:
                events.append(AlertEvent("resolved", closed, at, id=event_id(closed, "resolved")))
    return Turn(state, tuple(alerts), tuple(events))


@dataclass(slots=True)
class _Turning:
    """One segment under way. offset: seconds into it, for the moment of what happens."""

    stream: Stream
    segment: Segment
    state: StreamState
    grace: float
    quiet: Callable[[Alert, datetime], bool]
    as_known: Callable[[Alert], Alert]
    alerts: dict[str, Alert] = field(default_factory=dict)
    events: list[AlertEvent] = field(default_factory=list)
    _watched: float = 0.0
    _forgotten: bool = False

    # -- the segment as a whole

    def begin(self) -> None:
        """What lies between the last segment and this one."""
        state, segment = self.state, self.segment
        if state.ended_at is not None:
            self._hole((segment.started_at - state.ended_at).total_seconds())
        self._watched = state.watched
        if segment.scored:
            self._forgotten = state.baseline.meet(segment.model)

    def take(self, rule: Rule) -> None:
        """What the segment says to one rule."""
        if self._says_nothing(rule):
            return
        episode = self.state.episodes.setdefault(rule.name, Episode())
        if rule.on == DROP and self._forgotten:
            self._quieten(episode, 0.0, sentences.NEW_MODEL)
        usual = self.state.baseline.usual
        for stretch in stretches(rule, self.stream, self.segment, usual):
            if self._visited:
                self._visit(rule, episode, stretch)
            else:
                self._step(rule, episode, stretch, stretch.seconds, stretch.begin)

    def end(self, rules: Iterable[Rule]) -> None:
        """Tell what has to be told again, and remember the segment."""
        state, segment = self.state, self.segment
        ended_at = segment.started_at + timedelta(seconds=segment.seconds)
        for rule in rules:
            episode = state.episodes.get(rule.name)
            if episode is None:
                continue
            if episode.alert:
                self._remind(rule, episode, ended_at)
            elif not episode.pending:
                _calm(episode)
        if segment.quality is not None:
            state.baseline.learn(segment.quality, self._stands_for(segment.seconds))
        state.watched += self._stands_for(segment.seconds)
        state.ended_at = ended_at
        state.visit_seconds += segment.seconds
        state.episodes = {n: it for n, it in state.episodes.items() if it != Episode()}

    def _says_nothing(self, rule: Rule) -> bool:
        """Most rules on most segments, which makes replays ten times as fast."""
        if rule.on_score or rule.name in self.state.episodes or self._visited:
            return False
        down = rule.on == NO_SIGNAL and not self.segment.scored
        return not down and all(it.name != rule.on for it in self.segment.findings)

    # -- time

    @property
    def _visited(self) -> bool:
        return self.stream.schedule is not None and bool(self.segment.facts.get("visit"))

    @property
    def _fresh(self) -> float:
        """Rule seconds without a measurement after which nothing is known any more."""
        if self.stream.schedule is not None:
            return FRESH_VISITS * self.stream.schedule.every
        return FRESH_SEGMENTS * self.stream.segment_seconds

    def _stands_for(self, seconds: float) -> float:
        schedule = self.stream.schedule
        return (
            seconds * schedule.every / schedule.seconds if self._visited and schedule else seconds
        )

    def _hole(self, seconds: float) -> None:
        """Nobody looked for so long: what was pending ends, what fires goes on."""
        state, schedule = self.state, self.stream.schedule
        full = schedule is not None and state.visit_seconds > schedule.seconds - 0.05
        if seconds > SAME_VISIT_SECONDS or full:
            state.visit_seconds = 0.0
            for episode in state.episodes.values():
                _forget_visit(episode)
        if seconds > max(WATCHED_ANEW_SECONDS, self._fresh):
            state.watched = 0.0
        if seconds > self._fresh:
            for name, episode in state.episodes.items():
                if episode.pending:
                    state.episodes[name] = Episode(raised=episode.raised)

    def _moment(self, offset: float) -> datetime:
        return self.segment.started_at + timedelta(seconds=min(offset, self.segment.seconds))

    # -- one rule

    def _visit(self, rule: Rule, episode: Episode, stretch: Stretch) -> None:
        """Weigh a visit; once it is judged it counts for its whole period."""
        schedule = self.stream.schedule
        assert schedule
        half = schedule.seconds / 2
        if stretch.grade == "bad":
            episode.visit_bad += stretch.seconds
            _note_worst(rule, episode, stretch)
            reached = episode.visit_bad >= half - 1e-6 or not (
                stretch.seconds or rule.raise_seconds
            )
        elif stretch.grade == "good":
            episode.visit_good += stretch.seconds
            reached = episode.visit_good > half
        else:
            episode.visit_unknown += stretch.seconds * (stretch.grade == "unknown")
            reached = episode.visit_unknown > half
        if reached and not episode.visit_told:
            episode.visit_told = True
            self._step(rule, episode, stretch, schedule.every, stretch.begin + stretch.seconds)

    def _step(
        self, rule: Rule, episode: Episode, stretch: Stretch, seconds: float, begin: float
    ) -> None:
        """So many rule seconds of a grade, from `begin` seconds into the segment."""
        match stretch.grade:
            case "bad":
                self._bad(rule, episode, stretch, seconds, begin)
            case "good":
                self._good(rule, episode, stretch, seconds, begin)
            case "between":
                episode.good = episode.unknown = 0.0
                episode.since_bad += seconds
            case "unknown":
                self._unknown(episode, seconds, begin)

    def _bad(
        self, rule: Rule, episode: Episode, stretch: Stretch, seconds: float, begin: float
    ) -> None:
        before, episode.bad = episode.bad, episode.bad + seconds
        episode.good = episode.since_bad = episode.unknown = 0.0
        _note_worst(rule, episode, stretch)
        if episode.alert or (rule.on_score and self._down):
            return
        missing = rule.raise_seconds - before
        if not self._visited:
            missing = max(missing, self.grace - self._watched - begin)
        elif self.state.watched + self._stands_for(begin) < self.grace:
            return
        if missing <= seconds + 1e-9:
            lead = 0.0 if self._visited else max(0.0, missing)
            self._fire(rule, episode, begin + lead)

    def _good(
        self, rule: Rule, episode: Episode, stretch: Stretch, seconds: float, begin: float
    ) -> None:
        before, since = episode.good, episode.since_bad
        episode.good, episode.since_bad = before + seconds, since + seconds
        episode.unknown = 0.0
        if episode.alert is None:
            if episode.good > rule.pause:
                _calm(episode)
            return
        missing = max(rule.clear_seconds - before, rule.keep_firing_for - since)
        if missing <= seconds + 1e-9:
            lead = 0.0 if self._visited else max(0.0, missing)
            self._quieten(episode, begin + lead, sentences.cleared(rule, stretch.value))

    def _unknown(self, episode: Episode, seconds: float, begin: float) -> None:
        before, episode.unknown = episode.unknown, episode.unknown + seconds
        if episode.unknown <= self._fresh:
            return
        lead = 0.0 if self._visited else max(0.0, self._fresh - before)
        why = sentences.not_measured(self._fresh, self.segment)
        self._quieten(episode, begin + lead, why)

    @property
    def _down(self) -> bool:
        """Nothing arrives, or an alert still says so: a score from in between means little."""
        down = self.segment.no_score_reason in DOWN_REASONS
        return down or any(it.finding == NO_SIGNAL for it in self.state.firing.values())

    def _fire(self, rule: Rule, episode: Episode, offset: float) -> None:
        at = self._moment(offset)
        parts = (self.stream.name, rule.name, self.segment.id, str(episode.raised))
        id_ = uuid.uuid5(NAMES, "\n".join(parts)).hex
        others = [it.incident for it in self.state.firing.values()]
        alert = Alert(
            stream=self.stream.name,
            rule=rule.name,
            severity=rule.severity,
            opened_at=at,
            reason=sentences.raised(rule, episode, self.segment, self.state.baseline.usual),
            finding=_finding(rule),
            value=episode.bad if episode.value is None else episode.value,
            limit=rule.raise_seconds if episode.value is None else episode.limit,
            unit="s" if episode.value is None else episode.unit,
            segment=self.segment.id,
            incident=min(others) if others else id_,
            labels=dict(self.stream.labels),
            evidence=self.segment.evidence,
            id=id_,
        )
        episode.alert, episode.raised = alert, episode.raised + 1
        self.alerts[id_] = alert
        self._tell(episode, at)

    def _quieten(self, episode: Episode, offset: float, why: str) -> None:
        """Back to quiet; a firing alert is resolved."""
        alert, told_at = episode.alert, episode.told_at
        _calm(episode)
        if alert is None:
            return
        at = max(self._moment(offset), alert.opened_at)
        closed = replace(self.as_known(alert), closed_at=at, cleared=why)
        self.alerts[alert.id] = closed
        if told_at is not None:  # whoever heard of it hears the end, silences or not
            self._say("resolved", closed, at)

    # -- telling

    def _remind(self, rule: Rule, episode: Episode, at: datetime) -> None:
        assert episode.alert
        if episode.told_at is None:
            self._tell(episode, at)
            return
        due = rule.repeat > 0 and (at - episode.told_at).total_seconds() >= rule.repeat
        if not due or self.quiet(episode.alert, at):
            return
        if not self.as_known(episode.alert).acknowledged_by:
            episode.told_at, episode.repeats = at, episode.repeats + 1
            self._say("repeat", episode.alert, at, episode.repeats)

    def _tell(self, episode: Episode, at: datetime) -> None:
        """For the first time, unless it is to be kept quiet; then as soon as that ends."""
        assert episode.alert
        if not self.quiet(episode.alert, at):
            episode.told_at = at
            self._say("firing", episode.alert, at)

    def _say(self, kind: Kind, alert: Alert, at: datetime, number: int = 0) -> None:
        told, id_ = self.as_known(alert), event_id(alert, kind, number)
        self.events.append(AlertEvent(kind, told, at, self.segment, id_))


def _finding(rule: Rule) -> str | None:
    return rule.on if rule.on in FINDING_NAMES else None


def event_id(alert: Alert, kind: Kind, number: int = 0) -> str:
    """Of the one event of this kind and number."""
    return uuid.uuid5(NAMES, f"{alert.id}\n{kind}\n{number}").hex


def _note_worst(rule: Rule, episode: Episode, stretch: Stretch) -> None:
    """The worst score; of a finding the newest measurement, since most of them grow."""
    if stretch.value is None:
        return
    worse = episode.value is None or (
        stretch.value < episode.value if rule.on in (QUALITY, WORST) else True
    )
    if rule.on == DROP and episode.value is not None:
        worse = stretch.value > episode.value
    if worse:
        episode.value, episode.limit, episode.unit = stretch.value, stretch.limit, stretch.unit


def _calm(episode: Episode) -> None:
    """Nothing pends and nothing fires; the visit in progress stays as it was weighed."""
    began = Episode()
    for name in ("bad", "good", "since_bad", "unknown", "value", "limit", "unit"):
        setattr(episode, name, getattr(began, name))
    episode.alert, episode.told_at, episode.repeats = None, None, 0


def _forget_visit(episode: Episode) -> None:
    episode.visit_bad = episode.visit_good = episode.visit_unknown = 0.0
    episode.visit_told = False
