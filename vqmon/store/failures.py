"""What databases complain about, in words that say what to do. The one place for it."""

from __future__ import annotations

import sqlalchemy as sa

from vqmon.errors import StoreError
from vqmon.store import address

REMEDIES = (
    # SQLite
    (
        "unable to open database file",
        "cannot be opened: give this user read and write permission on the file and its folder",
    ),
    (
        "readonly database",
        "may not be written: give this user write permission on the file and its folder",
    ),
    ("file is not a database", "is no SQLite database: name another file"),
    (
        "disk image is malformed",
        "is damaged: stop vqmon and rescue it with `sqlite3 FILE .recover`, or restore a backup",
    ),
    (
        "database or disk is full",
        "cannot grow, its disk is full: free space, or keep less with `retention:`",
    ),
    ("database is locked", "is being written by another program: end that program or wait"),
    ("disk I/O error", "cannot be read or written: check the disk and the system log"),
    # PostgreSQL
    ("password authentication failed", "refuses the login: check user and password"),
    ("no password supplied", "asks for a password: put it into the URL or into ~/.pgpass"),
    ("no pg_hba.conf entry", "lets nobody in from here: add this host to the server's pg_hba.conf"),
    ("starting up", "is starting: wait a moment"),
    ("shutting down", "is shutting down: start it again"),
    ("does not exist", "lacks that database or role: create it with createdb or createuser"),
    ("Connection refused", "does not answer: start the server, or check host and port"),
    ("No such file or directory", "has no socket there: start the server, or check host and port"),
    ("failed to resolve host", "has an unknown host: check its name"),
    ("timeout expired", "does not answer in time: check host, port and firewall"),
    ("too many clients", "has no free connection: raise max_connections"),
    ("remaining connection slots", "has no free connection: raise max_connections"),
    ("No space left on device", "cannot grow, its disk is full: free space on the server"),
    ("permission denied", "does not allow this: grant the user all rights on the database"),
    ("read-only transaction", "is a read-only replica: name the primary server"),
    ("statement timeout", "is too slow or locked by another session: look at pg_stat_activity"),
    ("lock timeout", "is being upgraded by another vqmon: wait until it is done"),
    ("terminating connection", "ended the connection: look at the server's log"),
    ("server closed the connection", "ended the connection: look at the server's log"),
    # both
    ("already exists", "holds tables of another program: give vqmon a database of its own"),
)
"""A piece of what the driver says, and what it means for a person; the first match counts."""


def translated(error: BaseException, url: sa.URL) -> StoreError:
    """The error as a StoreError that names the database and the remedy."""
    cause = _cause(error, url)
    name = address.shown(url)
    for piece, remedy in REMEDIES:
        if piece.lower() in cause.lower():
            return StoreError(f"database {name} {remedy} ({cause})")
    return StoreError(f"database {name} failed: {cause}")


def driver_missing(error: ImportError) -> StoreError:
    """PostgreSQL was asked for and its driver is not installed, or lacks its library."""
    return StoreError(
        f"PostgreSQL needs a driver that is not installed ({error}): pip install 'vqmon[postgres]'"
    )


def unanswered(url: sa.URL, seconds: float) -> StoreError:
    """The server accepts and says nothing."""
    return StoreError(
        f"database {address.shown(url)} did not answer within {seconds:g} s: "
        "check the server's load, its disk and the network"
    )


def unreachable(error: OSError, url: sa.URL) -> StoreError:
    """The file or its folder cannot be made."""
    return StoreError(
        f"database {address.shown(url)} cannot be created ({error.strerror or error}): "
        f"make {error.filename or 'its folder'} writable for this user, or name another place"
    )


def _cause(error: BaseException, url: sa.URL) -> str:
    """What the driver itself said, on one line."""
    origin = error.orig if isinstance(error, sa.exc.StatementError) and error.orig else error
    lines = [line.strip() for line in str(origin).splitlines() if line.strip()]
    return address.redacted("; ".join(lines[:3]), url) or type(origin).__name__
