"""Roll-ups in SQL. Adding is done by the database, so a row is never read to be written back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from vqmon.domain import Rollup
from vqmon.store.tables import HISTOGRAM, rollup_faults, rollups
from vqmon.summing import PERIODS

SUMS = ("watched_seconds", "up_seconds", "scored_seconds", "quality_sum", "segments", *HISTOGRAM)
KEY = ("stream", "period", "starts_at")


def accumulate(connection: sa.Connection, some: Iterable[Rollup]) -> None:
    """Add these to what is stored; each key at most once, and in order of keys, so that two
    writers never wait for each other in a ring.
    """
    ordered = sorted(some, key=lambda r: (r.stream, r.period, r.starts_at))
    rows = [row(rollup) for rollup in ordered]
    faults = [
        _key(rollup) | {"name": name, "seconds": seconds}
        for rollup in ordered
        for name, seconds in sorted(rollup.fault_seconds.items())
    ]
    if rows:
        connection.execute(_adding(connection, rollups, KEY, SUMS), rows)
    if faults:
        connection.execute(_adding(connection, rollup_faults, (*KEY, "name"), ("seconds",)), faults)


def select(
    connection: sa.Connection,
    period: int,
    stream: str | None,
    since: datetime | None,
    until: datetime | None,
) -> list[Rollup]:
    """See `SegmentStore.rollups`."""
    faults: dict[tuple[str, datetime], dict[str, float]] = {}
    for fault in connection.execute(_within(rollup_faults, period, stream, since, until)):
        faults.setdefault((fault.stream, fault.starts_at), {})[fault.name] = fault.seconds
    query = _within(rollups, period, stream, since, until)
    query = query.order_by(rollups.c.starts_at, rollups.c.stream)
    return [
        rollup(found, faults.get((found.stream, found.starts_at), {}))
        for found in connection.execute(query)
    ]


def prune(connection: sa.Connection, before: datetime, limit: int) -> int:
    """Delete at most `limit` roll-ups that start before; return how many."""
    key = [rollups.c[name] for name in KEY]
    oldest = (
        sa.select(*key)
        .where(rollups.c.period.in_(PERIODS), rollups.c.starts_at < before)
        .limit(limit)
    )
    return connection.execute(sa.delete(rollups).where(sa.tuple_(*key).in_(oldest))).rowcount


def row(rollup: Rollup) -> dict[str, Any]:
    """A roll-up as its row, fault seconds aside."""
    return _key(rollup) | {
        "watched_seconds": rollup.watched_seconds,
        "up_seconds": rollup.up_seconds,
        "scored_seconds": rollup.scored_seconds,
        "quality_sum": rollup.quality_sum,
        "quality_worst": rollup.quality_worst,
        "segments": rollup.segments,
        **dict(zip(HISTOGRAM, rollup.histogram, strict=True)),
    }


def rollup(found: sa.Row[Any], fault_seconds: Mapping[str, float]) -> Rollup:
    """A row and its fault seconds as a roll-up."""
    return Rollup(
        stream=found.stream,
        starts_at=found.starts_at,
        period=found.period,
        watched_seconds=found.watched_seconds,
        up_seconds=found.up_seconds,
        scored_seconds=found.scored_seconds,
        quality_sum=found.quality_sum,
        quality_worst=found.quality_worst,
        histogram=tuple(getattr(found, name) for name in HISTOGRAM),
        fault_seconds=dict(sorted(fault_seconds.items())),
        segments=found.segments,
    )


def _key(rollup: Rollup) -> dict[str, Any]:
    return {name: getattr(rollup, name) for name in KEY}


def _adding(
    connection: sa.Connection, table: sa.Table, key: tuple[str, ...], sums: tuple[str, ...]
) -> sa.Executable:
    """INSERT, or where the key is there already add to its sums and keep the lower worst."""
    kind = postgresql if connection.dialect.name == "postgresql" else sqlite
    insert: Any = kind.insert(table)
    new = insert.excluded
    values = {name: table.c[name] + new[name] for name in sums}
    if "quality_worst" in table.c:
        values["quality_worst"] = _lower(table.c.quality_worst, new.quality_worst)
    statement: sa.Executable = insert.on_conflict_do_update(index_elements=key, set_=values)
    return statement


def _lower(old: sa.ColumnElement[float], new: sa.ColumnElement[float]) -> sa.ColumnElement[float]:
    """The lower of two of which either may be null."""
    return sa.case((old.is_(None), new), (new < old, new), else_=old)


def _within(
    table: sa.Table,
    period: int,
    stream: str | None,
    since: datetime | None,
    until: datetime | None,
) -> sa.Select[Any]:
    query = sa.select(table).where(table.c.period == period)
    if stream is not None:
        query = query.where(table.c.stream == stream)
    if since is not None:
        query = query.where(table.c.starts_at >= since)
    if until is not None:
        query = query.where(table.c.starts_at < until)
    return query
