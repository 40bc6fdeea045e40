"""Database URLs: what they name, and how they may be shown."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from vqmon.errors import StoreError

EXAMPLES = "sqlite:////var/lib/vqmon/vqmon.db or postgresql://user:password@host/database"
POSTGRESQL = ("postgresql", "postgres", "postgresql+psycopg")
MEMORY = (None, "", ":memory:")


def parse(url: str) -> sa.URL:
    """The URL with its driver settled and SQLite's path made absolute.

    Raises StoreError, without repeating the text, which may hold a password.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise StoreError(f"the database is not given as a URL: write {EXAMPLES}") from error
    if parsed.drivername == "sqlite":
        return _sqlite(parsed)
    if parsed.drivername in POSTGRESQL:
        return parsed.set(drivername="postgresql+psycopg")
    raise StoreError(f"vqmon cannot use a database of kind {parsed.drivername!r}: use {EXAMPLES}")


def sqlite_file(url: sa.URL) -> Path | None:
    """Where an SQLite database lies; None for one in memory or on a server."""
    if url.drivername != "sqlite" or url.database in MEMORY:
        return None
    return Path(str(url.database))


def shown(url: sa.URL) -> str:
    """The URL without its password, for messages and logs."""
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.render_as_string(hide_password=True).replace("+psycopg://", "://")


def redacted(text: str, url: sa.URL) -> str:
    """The text without the password of the URL, should a driver have repeated it."""
    secrets = [url.password, url.query.get("password")]
    for secret in secrets:
        if isinstance(secret, str) and secret:
            text = text.replace(secret, "***")
    return text


def _sqlite(url: sa.URL) -> sa.URL:
    if url.host:
        raise StoreError(
            f"sqlite://{url.host}… names a server, and SQLite has none: write three slashes before "
            "a relative path (sqlite:///vqmon.db), four before an absolute one"
        )
    if (url.database or "").startswith("file:"):
        raise StoreError("vqmon opens SQLite by path, not by file: URI: write sqlite:///PATH")
    if url.database in MEMORY:
        return url.set(database=":memory:")
    path = Path(str(url.database)).expanduser()
    return url.set(database=str(path.resolve()))
