"""One database, opened: bounded transactions, tried again once when the connection was lost."""

from __future__ import annotations

import logging
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from vqmon.errors import StoreError
from vqmon.store import address, failures

log = logging.getLogger("vqmon.store")

T = TypeVar("T")
Work = Callable[[sa.Connection], T]

READS_TAKE = 6
"""A report over a month may take this many times as long as a write."""

CONNECT_SECONDS = 5
PAGE_BYTES = 8192
"""A segment's row takes 2 to 3 KB: pages of this size waste 30 % less than SQLite's default."""

LARGEST_LOG_BYTES = 64 * 2**20
"""SQLite's write-ahead log is cut back to this after a long reader let it grow."""


class Database:
    """Runs functions of a connection as transactions.

    Such a function may run twice, so it must depend on nothing but the database. One object may
    be used by many threads; not across a fork.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 10.0,
        create: bool = True,
        application: str = "vqmon",
    ) -> None:
        """timeout: seconds that a write may take or wait; a read may take READS_TAKE times that.
        create: make a missing SQLite file and its folder.
        application: how PostgreSQL shows the sessions.

        Raises StoreError; a server is not asked yet.
        """
        self.url = address.parse(url)
        self.file = address.sqlite_file(self.url)
        self.timeout = timeout
        if self.file:
            _settle_file(self.file, self.url, create=create)
        self.engine = _engine(self.url, timeout, application)

    @property
    def name(self) -> str:
        """The URL without its password."""
        return address.shown(self.url)

    @property
    def dialect(self) -> str:
        """Either "sqlite" or "postgresql"."""
        return self.engine.dialect.name

    def read(self, work: Work[T]) -> T:
        """What `work` returns, seeing one state of the database."""
        return self._twice(work, READS_TAKE * self.timeout, write=False)

    def write(self, work: Work[T]) -> T:
        """What `work` returns, once all it wrote is committed; else nothing is written.

        Raises StoreError.
        """
        return self._twice(work, self.timeout, write=True)

    def close(self) -> None:
        """Give all connections back."""
        self.engine.dispose()

    def _twice(self, work: Work[T], seconds: float, *, write: bool) -> T:
        try:
            return self._once(work, seconds, write=write)
        except sa.exc.SQLAlchemyError as error:
            if not _worth_repeating(error):
                raise failures.translated(error, self.url) from error
            log.warning("database_retried", extra={"database": self.name, "error": str(error)})
        try:
            return self._once(work, seconds, write=write)
        except sa.exc.SQLAlchemyError as error:
            raise failures.translated(error, self.url) from error

    def _once(self, work: Work[T], seconds: float, *, write: bool) -> T:
        with self.engine.connect() as connection:
            connection.execution_options(vqmon_write=write)
            with answering(connection, seconds, self.url), connection.begin():
                if write and self.dialect == "postgresql":
                    connection.exec_driver_sql(_statement_timeout(seconds, "SET LOCAL"))
                return work(connection)


@contextmanager
def answering(connection: sa.Connection, seconds: float, url: sa.URL) -> Iterator[None]:
    """Cut the connection to a server that stays silent for longer than the statement timeout
    should allow: a frozen server cannot time its own statements. SQLite bounds itself.

    Raises StoreError when it had to.
    """
    if connection.dialect.name == "sqlite":
        yield
        return
    cut = _Cut(connection.connection.fileno())
    timer = threading.Timer(seconds + 1, cut.now)
    timer.daemon = True
    timer.start()
    try:
        yield
    except sa.exc.DBAPIError as error:
        if cut.done:
            raise failures.unanswered(url, seconds) from error
        raise
    finally:
        timer.cancel()
        cut.never()


class _Cut:
    """Shuts a connection's socket down from another thread, which wakes whoever waits on it."""

    def __init__(self, descriptor: int) -> None:
        self.done = False
        self._descriptor: int | None = descriptor
        self._lock = threading.Lock()

    def now(self) -> None:
        with self._lock:
            if self._descriptor is None:
                return
            self.done = True
            with socket.socket(fileno=os.dup(self._descriptor)) as wire:
                wire.shutdown(socket.SHUT_RDWR)

    def never(self) -> None:
        """The descriptor may belong to someone else from now on."""
        with self._lock:
            self._descriptor = None


def _worth_repeating(error: sa.exc.SQLAlchemyError) -> bool:
    """A lost connection, or a row that another writer added a moment ago."""
    if isinstance(error, sa.exc.IntegrityError):
        return True
    return isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated


def _engine(url: sa.URL, timeout: float, application: str) -> sa.Engine:
    try:
        if url.drivername == "sqlite":
            return _sqlite(url, timeout)
        return _postgresql(url, timeout, application)
    except ImportError as error:
        raise failures.driver_missing(error) from error
    except (sa.exc.ArgumentError, TypeError, ValueError) as error:
        raise failures.translated(error, url) from error


def _sqlite(url: sa.URL, timeout: float) -> sa.Engine:
    arguments: dict[str, Any] = {"timeout": timeout, "check_same_thread": False}
    if address.sqlite_file(url):
        engine = sa.create_engine(url, connect_args=arguments)
    else:
        # One connection for all threads, one at a time: each new one would be an empty database.
        engine = sa.create_engine(
            url, connect_args=arguments, poolclass=sa.QueuePool, pool_size=1, max_overflow=0
        )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(raw: Any, _record: Any) -> None:
    raw.isolation_level = None  # `_begin_sqlite` begins, not the driver
    raw.execute("PRAGMA synchronous = NORMAL")
    raw.execute("PRAGMA foreign_keys = ON")
    raw.execute(f"PRAGMA journal_size_limit = {LARGEST_LOG_BYTES}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A writer takes the lock first: one that reads, then writes, cannot wait for another writer.
    write = connection.get_execution_options().get("vqmon_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _settle_file(file: Path, url: sa.URL, *, create: bool) -> None:
    """Make the file where it is missing, and settle what only an empty file can still choose."""
    if not create and not file.exists():
        raise StoreError(
            f"database {address.shown(url)} does not exist yet: start `vqmon run` to record, "
            "or check the path"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.is_dir():
            raise IsADirectoryError(21, "it is a folder", str(file))
        with closing(sqlite3.connect(file, timeout=CONNECT_SECONDS, isolation_level=None)) as raw:
            _settle(raw)
    except OSError as error:
        raise failures.unreachable(error, url) from error
    except sqlite3.Error as error:
        raise failures.translated(error, url) from error


def _settle(raw: sqlite3.Connection) -> None:
    [pages] = raw.execute("PRAGMA page_count").fetchone()
    [mode] = raw.execute("PRAGMA journal_mode").fetchone()
    if not pages:
        raw.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
    if mode != "wal":
        [mode] = raw.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        log.warning("database_without_wal", extra={"journal_mode": mode})


def _postgresql(url: sa.URL, timeout: float, application: str) -> sa.Engine:
    arguments = {
        "application_name": application,
        "connect_timeout": CONNECT_SECONDS,
        "keepalives_idle": 30,
        "keepalives_interval": 10,
        "keepalives_count": 3,
    }
    chosen = {name: value for name, value in arguments.items() if name not in url.query}
    engine = sa.create_engine(url, connect_args=chosen, pool_timeout=timeout)
    setting = _statement_timeout(READS_TAKE * timeout, "SET")

    def prepare(raw: Any, _record: Any) -> None:
        raw.autocommit = True
        raw.execute(setting)
        raw.autocommit = False

    sa.event.listen(engine, "connect", prepare)
    return engine


def _statement_timeout(seconds: float, verb: str) -> str:
    return f"{verb} statement_timeout = {max(1, round(1000 * seconds))}"
