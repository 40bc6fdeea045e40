"""Decisions of plugins in SQL: their memory across restarts.

Every function takes a connection inside a transaction; times are UTC.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from vqmon.domain import Decision
from vqmon.store.engine import Database
from vqmon.store.segments import plain
from vqmon.store.tables import decisions
from vqmon.summing import utc


class SqlDecisions:
    """`vqmon.ports.Decisions` in SQL; a part of `vqmon.store.SqlStore`."""

    _database: Database

    def record(self, decision: Decision) -> None:
        """Keep it; when this returns, it survives the end of the process. A known id is left
        alone.
        """
        values = row(decision)
        self._database.write(lambda connection: insert(connection, values))

    def decisions(
        self,
        plugin: str | None = None,
        stream: str | None = None,
        since: datetime | None = None,
        *,
        newest: int | None = None,
    ) -> list[Decision]:
        """Oldest first, those of one moment as they were recorded. newest: only the last so many."""
        begin = None if since is None else utc(since)
        return self._database.read(
            lambda connection: select(connection, plugin, stream, begin, newest)
        )

    def prune_decisions(self, before: datetime, *, limit: int = 500) -> int:
        """Delete at most `limit` of the oldest made before; return how many."""
        before = utc(before)
        return self._database.write(lambda connection: prune(connection, before, limit))


def insert(connection: sa.Connection, values: dict[str, Any]) -> None:
    """Add a row of `row`, unless its id is known."""
    known = sa.select(decisions.c.number).where(decisions.c.id == values["id"])
    if connection.execute(known).one_or_none() is None:
        connection.execute(sa.insert(decisions).values(values))


def select(
    connection: sa.Connection,
    plugin: str | None,
    stream: str | None,
    since: datetime | None,
    newest: int | None,
) -> list[Decision]:
    """See `Decisions.decisions`."""
    query = sa.select(decisions).order_by(decisions.c.at.desc(), decisions.c.number.desc())
    if plugin is not None:
        query = query.where(decisions.c.plugin == plugin)
    if stream is not None:
        query = query.where(decisions.c.stream == stream)
    if since is not None:
        query = query.where(decisions.c.at >= since)
    return [_decision(found) for found in connection.execute(query.limit(newest))][::-1]


def prune(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete the oldest made before."""
    numbers = connection.scalars(
        sa.select(decisions.c.number)
        .where(decisions.c.at < before)
        .order_by(decisions.c.at, decisions.c.number)
        .limit(limit)
    ).all()
    if numbers:
        connection.execute(sa.delete(decisions).where(decisions.c.number.in_(numbers)))
    return len(numbers)


def row(decision: Decision) -> dict[str, Any]:
    """Raises ValueError for a time without a time zone."""
    return {
        "id": decision.id,
        "plugin": decision.plugin,
        "stream": decision.stream,
        "kind": decision.kind,
        "reason": plain(decision.reason),
        "at": utc(decision.at),
        "data": plain(decision.data),
        "segment": decision.segment,
        "alert": decision.alert,
    }


def _decision(found: sa.Row[Any]) -> Decision:
    return Decision(
        plugin=found.plugin,
        stream=found.stream,
        kind=found.kind,
        reason=found.reason,
        at=found.at,
        data=found.data,
        segment=found.segment,
        alert=found.alert,
        id=found.id,
    )
