"""One active daemon per database and instance name, by a lock that dies with its owner.

Beside SQLite it is a `flock` on a file, which the kernel drops when the process ends; in
PostgreSQL an advisory lock of a session, which the server drops when the connection ends. Nobody
who only reads or migrates is ever blocked by it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import quote

import sqlalchemy as sa

from vqmon.errors import AlreadyRunning, StoreError
from vqmon.store import address, failures
from vqmon.store.engine import Database, answering

log = logging.getLogger("vqmon.store")

ASK_AGAIN_SECONDS = 1.0


class InstanceLock:
    """Held by the daemon for as long as it is active.

        with InstanceLock(url, "vqmon") as lock: ...

    Not thread-safe; the supervisor alone uses it.
    """

    def __init__(
        self,
        url: str,
        instance: str = "vqmon",
        *,
        data_dir: Path | None = None,
        patience: float = 5.0,
    ) -> None:
        """data_dir: where the lock file of a database in memory lies; without it such a database,
        which nobody else can reach, needs no lock. patience: seconds until a silent server
        counts as lost.

        Raises StoreError for a URL that names no database.
        """
        self._instance = instance
        self._name = address.shown(address.parse(url))
        self._lock = _lock(url, instance, data_dir, patience)

    def acquire(self, *, wait: bool = False, stop: threading.Event | None = None) -> bool:
        """Become the active one; True when this succeeded.

        wait: stand by until the other one ends, or until `stop` is set (then False). Once
        waiting, a database that is away for a while is waited for, too.

        Raises AlreadyRunning when another daemon is active and `wait` is off, and StoreError
        when the database cannot be asked at all.
        """
        stop = stop or threading.Event()
        taken = self._lock.take()
        if not taken and not wait:
            raise AlreadyRunning(
                f"another vqmon is active on {self._name} as instance {self._instance!r}"
                f"{self._lock.holder()}: stop it, choose another `instance` name, or start with "
                "--standby to wait for its end"
            )
        if not taken:
            log.debug("lock_awaited", extra={"instance": self._instance, "database": self._name})
        while not taken and not stop.wait(ASK_AGAIN_SECONDS):
            with suppress(AlreadyRunning, StoreError):
                taken = self._lock.take()
        return taken

    def held(self) -> bool:
        """Whether this is still the active one. Once False, another daemon may have begun:
        stop writing. Takes some milliseconds, at most a few seconds when the server is silent.
        """
        return self._lock.held()

    def release(self) -> None:
        """Let another one begin."""
        self._lock.drop()

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Lock(Protocol):
    """One way of holding."""

    def take(self) -> bool: ...
    def held(self) -> bool: ...
    def drop(self) -> None: ...
    def holder(self) -> str: ...


def _lock(url: str, instance: str, data_dir: Path | None, patience: float) -> Lock:
    parsed = address.parse(url)
    if parsed.drivername != "sqlite":
        return AdvisoryLock(url, instance, patience)
    mark = quote(instance, safe="")
    if file := address.sqlite_file(parsed):
        return FileLock(file.with_name(f"{file.name}.{mark}.lock"), parsed)
    return FileLock(data_dir / f"memory.{mark}.lock", parsed) if data_dir else NoLock()


class FileLock:
    """A file whose content names the holder. It stays when dropped: removing it would let two
    others each lock a file of this name.
    """

    def __init__(self, path: Path, url: sa.URL) -> None:
        self._path = path
        self._url = url
        self._descriptor: int | None = None

    def take(self) -> bool:
        if self._descriptor is not None:
            return True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise failures.unreachable(error, self._url) from error
        if not _locked(descriptor, self._path) or not _same_file(descriptor, self._path):
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        with suppress(OSError):  # a full disk is no reason not to run
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(_myself()).encode(), 0)
        return True

    def held(self) -> bool:
        return self._descriptor is not None and _same_file(self._descriptor, self._path)

    def drop(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> str:
        try:
            other = json.loads(self._path.read_text())
            return f" (process {other['pid']} on {other['host']}, since {other['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""  # just being written, or not by vqmon: the lock counts, not its text


class AdvisoryLock:
    """A session of its own, whose application name tells who holds the lock."""

    def __init__(self, url: str, instance: str, patience: float) -> None:
        who = _myself()
        name = f"vqmon run {who['host'][:24]}:{who['pid']} {instance}"[:60]
        self._database = Database(url, timeout=patience, application=name)
        self._instance = instance
        self._key = 0
        self._session: sa.Connection | None = None

    def take(self) -> bool:
        if self._session is not None:
            return True
        try:
            session = self._database.engine.connect()
        except sa.exc.SQLAlchemyError as error:
            raise failures.translated(error, self._database.url) from error
        try:
            taken = self._try(session)
        except BaseException:
            session.invalidate()
            session.close()
            raise
        if not taken:
            session.close()
            return False
        self._session = session
        return True

    def held(self) -> bool:
        if self._session is None:
            return False
        query = _holders(self._key).where(locks.c.pid == sa.func.pg_backend_pid())
        try:
            with answering(self._session, self._database.timeout, self._database.url):
                return self._session.execute(query).first() is not None
        except (sa.exc.SQLAlchemyError, StoreError):
            self.drop()
            return False

    def drop(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.invalidate()  # ends the session, and the lock with it
            session.close()
        self._database.close()

    def holder(self) -> str:
        query = sa.select(sessions.c.application_name, sessions.c.backend_start).where(
            sessions.c.pid.in_(_holders(self._key))
        )
        try:
            found = self._database.read(lambda connection: connection.execute(query).first())
        except StoreError:
            return ""
        if found is None:
            return ""
        return f" ({found[0]}, since {found[1].astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)"

    def _try(self, session: sa.Connection) -> bool:
        session.execution_options(isolation_level="AUTOCOMMIT")
        url = self._database.url
        try:
            with answering(session, self._database.timeout, url):
                where = session.scalar(sa.select(sa.func.current_schema()))
                self._key = _key(str(where), self._instance)
                return bool(session.scalar(sa.select(sa.func.pg_try_advisory_lock(self._key))))
        except sa.exc.SQLAlchemyError as error:
            raise failures.translated(error, url) from error


class NoLock:
    """For a database that no other process can reach."""

    def take(self) -> bool:
        return True

    def held(self) -> bool:
        return True

    def drop(self) -> None:
        """Nothing was taken."""

    def holder(self) -> str:
        return ""


locks = sa.table(
    "pg_locks",
    *(sa.column(name) for name in ("pid", "locktype", "granted", "database", "objsubid")),
    sa.column("classid"),
    sa.column("objid"),
)
databases = sa.table("pg_database", sa.column("oid"), sa.column("datname"))
sessions = sa.table(
    "pg_stat_activity", *(sa.column(n) for n in ("pid", "application_name", "backend_start"))
)
"""What PostgreSQL tells of its locks and who holds them."""


def _key(schema: str, instance: str) -> int:
    digest = hashlib.sha256(f"vqmon\0{schema}\0{instance}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _holders(key: int) -> sa.Select[Any]:
    """Process ids that hold this key; PostgreSQL shows its 64 bits in halves."""
    bits = key & 0xFFFF_FFFF_FFFF_FFFF
    here = sa.select(databases.c.oid).where(databases.c.datname == sa.func.current_database())
    return sa.select(locks.c.pid).where(
        locks.c.locktype == "advisory",
        locks.c.granted,
        locks.c.objsubid == 1,
        locks.c.database == here.scalar_subquery(),
        sa.cast(locks.c.classid, sa.BigInteger) == bits >> 32,
        sa.cast(locks.c.objid, sa.BigInteger) == bits & 0xFFFF_FFFF,
    )


def _locked(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        os.close(descriptor)
        raise StoreError(
            f"cannot lock {path} ({error.strerror}): keep the database on a local disk"
        ) from error
    return True


def _same_file(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the open file; someone may have removed it."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False


def _myself() -> dict[str, str]:
    return {
        "pid": str(os.getpid()),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
    }
