"""Alerts, silences and what the rules remember, in SQL.

Every function takes a connection inside a transaction; times are UTC. Alerts and rule states are
written by the daemon together with the segments that they follow from; acknowledgements and
silences by whoever answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vqmon.domain import Acting, Alert, Silence
from vqmon.errors import StoreError
from vqmon.store.engine import Database
from vqmon.store.segments import plain
from vqmon.store.tables import alert_states, alerts, silences
from vqmon.summing import utc

RESOLVED = ("closed_at", "cleared")
"""What changes of an alert that is known; what people said of it stays."""

ALERT_FIELDS = tuple(it.name for it in fields(Alert))
SILENCE_FIELDS = tuple(it.name for it in fields(Silence))


class SqlAlerts:
    """`vqmon.ports.AlertStore` in SQL; a part of `vqmon.store.SqlStore`."""

    _database: Database

    def alerts(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        firing: bool | None = None,
        limit: int | None = None,
    ) -> list[Alert]:
        """That fired at some time within [since, until), the newest first.

        firing: True for those that still do, False for those that are resolved.
        """
        since, until = since and utc(since), until and utc(until)
        return self._database.read(
            lambda connection: select(connection, stream, since, until, firing=firing, limit=limit)
        )

    def alert(self, alert_id: str) -> Alert | None:
        """By id, or by an unambiguous beginning of it; StoreError when it is ambiguous."""
        return self._database.read(lambda connection: find(connection, alert_id))

    def acknowledge(self, alert_id: str, by: str, at: datetime, note: str = "") -> Alert | None:
        """Note that somebody has taken an alert on; None when there is none of this id."""
        values = {"acknowledged_by": by, "acknowledged_at": utc(at), "note": note}
        return self._database.write(lambda connection: change(connection, alert_id, values))

    def silence(self, silence: Silence) -> None:
        """From now on, until it ends, alerts that match are told to nobody."""
        row = {name: plain_text(getattr(silence, name)) for name in SILENCE_FIELDS}
        times = {name: utc(row[name]) for name in ("created_at", "expires_at")}
        self._database.write(lambda c: c.execute(sa.insert(silences).values(row | times)))

    def silences(self, now: datetime | None = None) -> list[Silence]:
        """Those that have not ended by now (or all), the first to end in front."""
        now = now and utc(now)
        return self._database.read(lambda connection: select_silences(connection, now))

    def unsilence(self, silence_id: str, at: datetime) -> Silence | None:
        """End a silence; by id, or by an unambiguous beginning of it. None: there is none."""
        at = utc(at)
        return self._database.write(lambda connection: end_silence(connection, silence_id, at))

    def alert_states(self, instance: str) -> dict[str, dict[str, Any]]:
        """What the rules of this daemon remember, by stream."""
        return self._database.read(lambda connection: states(connection, instance))

    def prune_alerts(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most `limit` alerts resolved before, and silences ended before."""
        before = utc(before)
        return self._database.write(lambda connection: prune(connection, before, limit))


def store(connection: sa.Connection, acting: Acting) -> None:
    """Write alerts and states; the deliveries are the outbox's business.

    An alert that is known is only resolved by it, so that doing the same again changes nothing.
    """
    rows = [row(alert) for alert in acting.alerts]
    if rows:
        connection.execute(_upsert(connection, alerts, ["id"], RESOLVED), rows)
    kept = [
        {"instance": acting.instance, "stream": stream, "state": plain(state)}
        for stream, state in sorted(acting.states.items())
        if state is not None
    ]
    if kept:
        statement = _upsert(connection, alert_states, ["instance", "stream"], ["state"])
        connection.execute(statement, kept)
    for stream in (name for name, state in acting.states.items() if state is None):
        mine = (alert_states.c.instance == acting.instance, alert_states.c.stream == stream)
        connection.execute(sa.delete(alert_states).where(*mine))


def select(
    connection: sa.Connection,
    stream: str | None,
    since: datetime | None,
    until: datetime | None,
    *,
    firing: bool | None,
    limit: int | None,
) -> list[Alert]:
    """See `AlertStore.alerts`."""
    newest = (alerts.c.opened_at.desc(), alerts.c.stream, alerts.c.rule, alerts.c.id)
    query = sa.select(alerts).order_by(*newest).limit(limit)
    if stream is not None:
        query = query.where(alerts.c.stream == stream)
    if since is not None:
        query = query.where(sa.or_(alerts.c.closed_at.is_(None), alerts.c.closed_at >= since))
    if until is not None:
        query = query.where(alerts.c.opened_at < until)
    if firing is not None:
        query = query.where(alerts.c.closed_at.is_(None) == firing)
    return [alert(found) for found in connection.execute(query)]


def find(connection: sa.Connection, beginning: str) -> Alert | None:
    """The alert with this id, or the only one whose id begins so."""
    found = _beginning(connection, alerts, beginning, "alerts")
    return alert(found) if found else None


def change(connection: sa.Connection, beginning: str, values: Mapping[str, Any]) -> Alert | None:
    """Change one alert; return it as it is then."""
    found = _beginning(connection, alerts, beginning, "alerts")
    if found is None:
        return None
    changed = {name: plain_text(value) for name, value in values.items()}
    connection.execute(sa.update(alerts).where(alerts.c.id == found.id).values(changed))
    return find(connection, found.id)


def select_silences(connection: sa.Connection, now: datetime | None) -> list[Silence]:
    """The first to end in front."""
    query = sa.select(silences).order_by(silences.c.expires_at, silences.c.id)
    if now is not None:
        query = query.where(silences.c.expires_at > now)
    return [_silence(found) for found in connection.execute(query)]


def end_silence(connection: sa.Connection, beginning: str, at: datetime) -> Silence | None:
    """It ends now, and stays readable as history."""
    found = _beginning(connection, silences, beginning, "silences")
    if found is None:
        return None
    ends = min(at, found.expires_at)
    connection.execute(sa.update(silences).where(silences.c.id == found.id).values(expires_at=ends))
    return _silence(found)


def states(connection: sa.Connection, instance: str) -> dict[str, dict[str, Any]]:
    """By stream."""
    query = sa.select(alert_states).where(alert_states.c.instance == instance)
    return {found.stream: found.state for found in connection.execute(query)}


def prune(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete what ended before; return how many alerts."""
    old = sa.select(alerts.c.id).where(alerts.c.closed_at < before).limit(limit)
    gone = connection.execute(sa.delete(alerts).where(alerts.c.id.in_(old))).rowcount
    connection.execute(sa.delete(silences).where(silences.c.expires_at < before))
    return gone


def row(alert: Alert) -> dict[str, Any]:
    """An alert as its row."""
    return {name: plain_text(getattr(alert, name)) for name in ALERT_FIELDS}


def alert(found: sa.Row[Any]) -> Alert:
    """A row as its alert."""
    given = {name: getattr(found, name) for name in ALERT_FIELDS}
    return Alert(**given | {"evidence": tuple(given["evidence"])})


def plain_text(value: Any) -> Any:
    """As both databases take it; times stay times."""
    return value if isinstance(value, datetime) else plain(value)


def _silence(found: sa.Row[Any]) -> Silence:
    return Silence(**{name: getattr(found, name) for name in SILENCE_FIELDS})


def _beginning(
    connection: sa.Connection, table: sa.Table, beginning: str, what: str
) -> sa.Row[Any] | None:
    """The row with this id, or the only one whose id begins so. Raises StoreError."""
    if not beginning:
        return None
    query = (
        sa.select(table)
        .where(table.c.id.startswith(beginning, autoescape=True))
        .order_by(table.c.id)
        .limit(3)
    )
    found = connection.execute(query).all()
    if len(found) > 1 and found[0].id != beginning:
        examples = ", ".join(it.id for it in found)
        raise StoreError(f"several {what} begin with {beginning!r} ({examples}): give more of it")
    return found[0] if found else None


def _upsert(
    connection: sa.Connection, table: sa.Table, key: Sequence[str], changed: Iterable[str]
) -> sa.Executable:
    """INSERT, or where the key is there already change these columns."""
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert: Any = kind.insert(table)
    values = {name: insert.excluded[name] for name in changed}
    statement: sa.Executable = insert.on_conflict_do_update(index_elements=key, set_=values)
    return statement
