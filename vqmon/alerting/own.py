"""Alerts about vqmon itself: no rule raises them, whoever notices says so."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from vqmon.alerting.judging import NAMES, Turn, event_id
from vqmon.alerting.states import Episode, StreamState
from vqmon.domain import Alert, AlertEvent

OWN = "(vqmon)"
"""Stands where the stream stands in alerts about streams; no stream can be named so."""

OWN_RULES = ("configuration", "storage_low", "plugin_parked", "writer_away")
"""Names of alerts about vqmon itself."""

STARTED = "vqmon was started anew."


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something about vqmon is wrong, or is well again.

    key: tells it from other trouble; rule: its name in alerts. wrong: whether it is there.
    sentence: why it is raised, or why it is over.
    """

    key: str
    rule: str
    severity: str
    wrong: bool
    sentence: str


def note(
    state: StreamState,
    trouble: Trouble,
    at: datetime,
    *,
    quiet: Callable[[Alert, datetime], bool] = lambda *_: False,
    as_known: Callable[[Alert], Alert] = lambda it: it,
) -> Turn:
    """Raise an alert that is not there yet, or resolve the one that is."""
    state = state.copy()
    episode = state.episodes.setdefault(trouble.key, Episode())
    if trouble.wrong == (episode.alert is not None):
        return Turn(state)
    if trouble.wrong:
        return _raised(state, episode, trouble, at, quiet)
    assert episode.alert
    closed = replace(as_known(episode.alert), closed_at=at, cleared=trouble.sentence)
    told = episode.told_at is not None
    state.episodes[trouble.key] = Episode(raised=episode.raised)
    events = (AlertEvent("resolved", closed, at, id=event_id(closed, "resolved")),) if told else ()
    return Turn(state, (closed,), events)


def _raised(
    state: StreamState,
    episode: Episode,
    trouble: Trouble,
    at: datetime,
    quiet: Callable[[Alert, datetime], bool],
) -> Turn:
    id_ = uuid.uuid5(NAMES, f"{OWN}\n{trouble.key}\n{at.isoformat()}").hex
    alert = Alert(OWN, trouble.rule, trouble.severity, at, trouble.sentence, incident=id_, id=id_)
    episode.alert, episode.raised = alert, episode.raised + 1
    if quiet(alert, at):
        return Turn(state, (alert,))
    episode.told_at = at
    return Turn(state, (alert,), (AlertEvent("firing", alert, at, id=event_id(alert, "firing")),))
