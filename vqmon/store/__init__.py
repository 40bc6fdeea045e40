"""Segments and roll-ups in SQLite or PostgreSQL.

    open_store(url) ─▶ SqlStore ─▶ engine (bounded transactions) ─▶ segments · rollups (SQL)
                   └─▶ migrations (tables brought up to date)

`lock.InstanceLock` keeps a second daemon from the same database.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy as sa

from vqmon.domain import Acting, Rollup, Segment
from vqmon.store import alerts, migrations, outbox, questions, rollups, segments, tables
from vqmon.store.alerts import SqlAlerts
from vqmon.store.decisions import SqlDecisions
from vqmon.store.engine import Database
from vqmon.store.lock import InstanceLock
from vqmon.store.outbox import SqlOutbox
from vqmon.store.questions import SqlQuestions
from vqmon.store.tables import SCHEMA
from vqmon.summing import PERIODS, checked, summed, utc

__all__ = ["SCHEMA", "InstanceLock", "SqlStore", "open_store", "schema_version", "upgrade"]

log = logging.getLogger("vqmon.store")

PAGES_FREED = 2_000
"""Pages that SQLite gives back to the disk after one small delete."""


def open_store(url: str, *, migrate: bool = True, timeout: float = 10.0) -> SqlStore:
    """The store at this URL, its tables brought up to date.

    migrate: make a missing SQLite file and missing tables, and upgrade old ones; without it,
        a database that is not exactly of this vqmon's schema is refused.
    timeout: seconds that a write may take or wait for other writers; reads may take six times
        that.

    Raises StoreError when the database cannot be used; the text says what to do.
    """
    database = Database(url, timeout=timeout, create=migrate)
    try:
        _settle_schema(database, migrate=migrate)
    except BaseException:
        database.close()
        raise
    return SqlStore(database)


def schema_version(url: str) -> str | None:
    """The schema of the database; None when it has no tables of vqmon. Changes nothing.

    Raises StoreError.
    """
    database = Database(url, create=False)
    with closing(database):
        return migrations.version(database)


def upgrade(url: str, *, to: str = "head") -> str:
    """Bring the tables up to date (or to an older step, for tests); return the new version.

    Safe to call at any time and from several processes at once. Raises StoreError.
    """
    database = Database(url)
    with closing(database):
        migrations.upgrade(database, to)
        return migrations.version(database) or ""


class SqlStore(SqlAlerts, SqlOutbox, SqlDecisions, SqlQuestions):
    """`vqmon.ports.SegmentStore` in SQL. Usable from many threads; not across a fork."""

    def __init__(self, database: Database) -> None:
        """`database` has the tables of this vqmon's schema; see `open_store`."""
        self._database = database

    @property
    def name(self) -> str:
        """The URL without its password."""
        return self._database.name

    @property
    def folder(self) -> Path | None:
        """Where SQLite's file lies; None in memory and on a server."""
        return self._database.file.parent if self._database.file else None

    def add(self, some: Iterable[Segment], acting: Acting | None = None) -> None:
        """Store all in one transaction, roll-ups and what follows from the segments included; a
        known id is left alone.

        When it returns, the segments survive the end of this process. After a StoreError
        (full disk, another writer for longer than the timeout, server away) nothing of the batch
        is stored, and the same batch may be given again. Raises ValueError for a segment that
        no store can keep (see `vqmon.summing.checked`).
        """
        batch: dict[str, Segment] = {}
        for segment in some:
            batch.setdefault(segment.id, checked(segment))
        if batch or acting:
            self._database.write(lambda connection: _add(connection, batch, acting or Acting()))

    def segments(
        self,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        worst_first: bool = False,
        limit: int | None = None,
        finding: str | None = None,
    ) -> list[Segment]:
        """By started_at, oldest first; or by quality, worst first (unscored left out).

        finding: only segments with a finding of this name.
        """
        _check_limit(limit)
        since, until = _utc(since), _utc(until)
        return self._database.read(
            lambda connection: segments.select(
                connection,
                stream,
                since,
                until,
                worst_first=worst_first,
                limit=limit,
                finding=finding,
            )
        )

    def segment(self, segment_id: str) -> Segment | None:
        """By id, or by an unambiguous beginning of it; StoreError when it is ambiguous."""
        return self._database.read(lambda connection: segments.find(connection, segment_id))

    def missing(self, ids: Iterable[str]) -> set[str]:
        """Those of the ids under which no segment is stored."""
        wanted = set(ids)
        return wanted - self._database.read(lambda c: segments.known(c, wanted))

    def streams(self) -> list[str]:
        """Names that have segments or roll-ups, sorted."""
        return self._database.read(segments.streams)

    def last(self, stream: str) -> Segment | None:
        """The newest segment of a stream."""
        return self._database.read(lambda connection: segments.last(connection, stream))

    def rollups(
        self,
        period: int,
        stream: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Rollup]:
        """period: 60 or 3600. Oldest first, then by stream."""
        if period not in PERIODS:
            raise ValueError(f"roll-ups have a period of 60 or 3600 seconds, not {period}")
        since, until = _utc(since), _utc(until)
        return self._database.read(
            lambda connection: rollups.select(connection, period, stream, since, until)
        )

    def prune(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Delete at most `limit` of the oldest segments started before; return the paths of
        their pictures that no other segment names. SQLite's file shrinks at once; PostgreSQL
        uses the space again.
        """
        _check_limit(limit)
        before = utc(before)
        paths = self._database.write(lambda connection: segments.prune(connection, before, limit))
        self._give_back_pages()
        return paths

    def forget_pictures(self, before: datetime, *, limit: int = 500) -> list[str]:
        """Take the pictures off at most `limit` of the oldest segments started before; return
        their paths. The segments stay.
        """
        _check_limit(limit)
        before = utc(before)
        return self._database.write(
            lambda connection: segments.forget_pictures(connection, before, limit)
        )

    def known_pictures(self, paths: Iterable[str]) -> set[str]:
        """Those of the paths that a segment names."""
        wanted = list(paths)
        return self._database.read(lambda connection: segments.known_pictures(connection, wanted))

    def prune_rollups(self, before: datetime) -> int:
        """Delete roll-ups that start before, in small steps; return how many."""
        before, gone = utc(before), 0
        while some := self._database.write(lambda c: rollups.prune(c, before, segments.CHUNK)):
            gone += some
            self._give_back_pages()
        return gone

    def size_bytes(self) -> int:
        """What the database takes on disk, 0 when it has no disk.

        Space left by deleted rows is not counted: SQLite gives it back, and PostgreSQL keeps it
        for new rows without saying how much it is, so segments are counted there by the size
        noted with each row.
        """
        if self._database.dialect == "postgresql":
            return self._database.read(_size_postgresql)
        return self._database.read(_size_sqlite) if self._database.file else 0

    def close(self) -> None:
        """Give all connections back; the store cannot be used afterwards."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _give_back_pages(self) -> None:
        if self._database.dialect != "sqlite":
            return
        # executescript, because a cursor would take one step of the pragma: one page.
        raw = self._database.engine.raw_connection()
        try:
            raw.cursor().executescript(f"PRAGMA incremental_vacuum({PAGES_FREED})")
        except sqlite3.Error as error:
            # The rows are gone and their pictures must be told; the next delete tries again.
            log.info("database_not_shrunk", extra={"database": self.name, "error": str(error)})
        finally:
            raw.close()


def _settle_schema(database: Database, *, migrate: bool) -> None:
    found = migrations.version(database)
    if found == SCHEMA:
        return
    if migrate:
        migrations.upgrade(database)
        found = migrations.version(database)
    migrations.refuse_other_schema(database, found)


def _add(connection: sa.Connection, batch: dict[str, Segment], acting: Acting) -> None:
    new = segments.insert_new(connection, batch)
    rollups.accumulate(connection, summed(new))
    alerts.store(connection, acting)
    outbox.insert(connection, acting.deliveries)
    questions.insert(connection, acting.questions)


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else utc(moment)


def _check_limit(limit: int | None) -> None:
    if limit is not None and limit < 0:
        raise ValueError(f"a limit counts segments, so it is not {limit}")


def _size_sqlite(connection: sa.Connection) -> int:
    pages, free, size = (
        int(connection.exec_driver_sql(f"PRAGMA {name}").scalar_one())
        for name in ("page_count", "freelist_count", "page_size")
    )
    return (pages - free) * size


def _size_postgresql(connection: sa.Connection) -> int:
    total = sa.select(sa.func.coalesce(sa.func.sum(tables.segments.c.bytes), 0))
    outlasting = (tables.rollups.name, tables.rollup_faults.name)
    return int(connection.execute(total).scalar_one()) + sum(
        int(connection.scalar(sa.select(sa.func.pg_total_relation_size(name))) or 0)
        for name in outlasting
    )
