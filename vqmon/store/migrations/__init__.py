"""The steps by which a database came to its present tables, and how they are taken.

Each file in `versions/` is one step and is never changed once released. A step must be safe while
the vqmon before it still runs (new columns nullable or with a default first), and runs whole or
not at all: both databases undo table changes with their transaction.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import sqlalchemy as sa

from vqmon.errors import StoreError
from vqmon.store import failures
from vqmon.store.engine import Database
from vqmon.store.tables import SCHEMA, VERSION_TABLE

if TYPE_CHECKING:
    from alembic.config import Config

LOCK = 0x76716D6F6E  # "vqmon"; the key of PostgreSQL's lock
PATIENCE_SECONDS = 60
"""How long a starter waits for another one's upgrade."""

one_at_a_time = threading.Lock()  # alembic keeps its context in a module


def version(database: Database) -> str | None:
    """The schema version; None when no vqmon has written there yet. Raises StoreError."""
    return database.read(_version)


def upgrade(database: Database, to: str = "head") -> None:
    """Take the steps that are missing, all or none; a second starter waits for the first.

    Raises StoreError, also when the database was written by a newer vqmon.
    """
    try:
        with one_at_a_time, database.engine.connect() as connection:
            if database.dialect == "sqlite":
                _upgrade_sqlite(connection, database, to)
            else:
                _upgrade_postgresql(connection, database, to)
    except sa.exc.SQLAlchemyError as error:
        raise failures.translated(error, database.url) from error


def refuse_other_schema(database: Database, found: str | None) -> None:
    """Raises StoreError unless the database has just the tables that this vqmon knows."""
    if found == SCHEMA:
        return
    if found is not None and found not in known():
        raise StoreError(
            f"database {database.name} was written by a newer vqmon (schema {found}, this one "
            f"knows up to {SCHEMA}): upgrade vqmon, or name another database"
        )
    raise StoreError(
        f"database {database.name} has {f'schema {found}' if found else 'no vqmon tables'}, "
        f"this vqmon needs {SCHEMA}: run `vqmon db upgrade`"
    )


def known() -> list[str]:
    """All versions that this vqmon can upgrade from, newest first."""
    from alembic.script import ScriptDirectory

    return [step.revision for step in ScriptDirectory.from_config(_config()).walk_revisions()]


def _version(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(VERSION_TABLE):
        return None
    table = sa.table(VERSION_TABLE, sa.column("version_num"))
    found = connection.execute(sa.select(table.c.version_num)).scalar_one_or_none()
    return None if found is None else str(found)


def _upgrade_sqlite(connection: sa.Connection, database: Database, to: str) -> None:
    raw = connection.connection
    # Rebuilding a table, which is how SQLite changes one, would cascade into its children.
    raw.cursor().execute("PRAGMA foreign_keys = OFF")
    raw.cursor().execute(f"PRAGMA busy_timeout = {1000 * PATIENCE_SECONDS}")
    connection.execution_options(vqmon_write=True)
    try:
        with connection.begin():
            _take_steps(connection, database, to)
    finally:
        raw.cursor().execute("PRAGMA foreign_keys = ON")
        raw.cursor().execute(f"PRAGMA busy_timeout = {round(1000 * database.timeout)}")


def _upgrade_postgresql(connection: sa.Connection, database: Database, to: str) -> None:
    with connection.begin():
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql(f"SET LOCAL lock_timeout = {1000 * PATIENCE_SECONDS}")
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(LOCK)))
        _take_steps(connection, database, to)


def _take_steps(connection: sa.Connection, database: Database, to: str) -> None:
    from alembic import command

    found = _version(connection)
    if found is not None and found not in known():
        refuse_other_schema(database, found)
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, to)


def _config() -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "vqmon.store:migrations")
    return config
