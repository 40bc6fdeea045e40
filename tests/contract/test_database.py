"""The database when things go wrong: what is said, how long it takes, and that nothing is lost."""

from __future__ import annotations

import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import sqlalchemy as sa

from vqmon.domain import Segment
from vqmon.errors import StoreError
from vqmon.store import open_store

if TYPE_CHECKING:
    from tests.contract.conftest import Postgres

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
numbers = count()


def batch(size: int = 5) -> list[Segment]:
    """Segments of which no two are alike."""
    return [
        Segment("news", NOON + timedelta(seconds=10 * n), 10.0 * n, 10.0, quality=50.0)
        for _, n in zip(range(size), numbers, strict=False)
    ]


def file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


def test_a_missing_file_is_made_with_its_folders(tmp_path: Path) -> None:
    """The first start needs no preparation."""
    file = tmp_path / "some where" / "with ümlaut" / "vqmon.db"

    with open_store(f"sqlite:///{file}") as store:
        store.add(batch())

        assert file.is_file()
        assert store.folder == file.parent


def test_a_new_file_is_set_up_for_readers_and_for_shrinking(sqlite_url: str) -> None:
    """Both can be chosen only while the file is empty; a year later is too late."""
    open_store(sqlite_url).close()

    with closing(sqlite3.connect(file_of(sqlite_url))) as raw:
        assert raw.execute("PRAGMA auto_vacuum").fetchone() == (2,)  # 2 is incremental
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert raw.execute("PRAGMA page_size").fetchone() == (8192,)


def test_a_relative_path_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`sqlite:///vqmon.db` in a service's log says nothing about where to look."""
    monkeypatch.chdir(tmp_path)

    with open_store("sqlite:///vqmon.db") as store:
        assert store.name == f"sqlite:///{tmp_path}/vqmon.db"
    assert (tmp_path / "vqmon.db").exists()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "not given as a URL"),
        ("/var/lib/vqmon.db", "not given as a URL"),
        ("vqmon.db", "not given as a URL"),
        ("sqlite://vqmon.db", "three slashes"),
        ("sqlite:///file:x.db?uri=true", "by path"),
        ("mysql://user:topsecret@host/db", "cannot use a database of kind 'mysql'"),
        ("postgresql+asyncpg://user:topsecret@host/db", "kind 'postgresql\\+asyncpg'"),
        ("postgresql://user:topsecret@host:port/db", "not given as a URL"),
    ],
)
def test_a_url_that_names_no_usable_database_is_explained(url: str, words: str) -> None:
    """With an example of a right one, and never with the password of the wrong one."""
    with pytest.raises(StoreError, match=words) as caught:
        open_store(url)

    assert "topsecret" not in str(caught.value)


def _text_file(folder: Path) -> Path:
    file = folder / "notes.db"
    file.write_text("not a database, but long enough to have a header that could be one\n" * 9)
    return file


def _below_a_file(folder: Path) -> Path:
    (folder / "file").write_text("")
    return folder / "file" / "vqmon.db"


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (_text_file, "no SQLite database: name another file"),
        (lambda folder: folder, "it is a folder"),
        (_below_a_file, "cannot be created"),
        (lambda _: Path("/proc/vqmon/vqmon.db"), "cannot be created"),
    ],
)
def test_a_place_that_cannot_hold_a_database_is_explained(
    tmp_path: Path, place: Callable[[Path], Path], words: str
) -> None:
    """Found at start, with the path, instead of at the first segment."""
    file = place(tmp_path)

    with pytest.raises(StoreError, match=words) as caught:
        open_store(f"sqlite:///{file}")

    assert str(file) in str(caught.value)


def test_a_damaged_file_is_said_to_be_damaged(sqlite_url: str) -> None:
    """Power failures on cheap disks happen; the remedy is a command."""
    with open_store(sqlite_url) as store:
        store.add(batch(300))
    content = file_of(sqlite_url).read_bytes()
    file_of(sqlite_url).write_bytes(content[:20_000] + b"\xa5" * (len(content) - 20_000))

    with pytest.raises(StoreError, match="damaged"), open_store(sqlite_url) as store:
        store.segments()


def test_a_full_disk_is_said_to_be_full_and_nothing_is_half_written(sqlite_url: str) -> None:
    """The daemon keeps the batch and gives it again when there is room."""
    some = batch(2000)
    with open_store(sqlite_url) as store:
        store.add(batch(1))
        database = store._database
        database.close()
        limit = "PRAGMA max_page_count = {}"

        def fill(raw: Any, _: Any) -> None:
            raw.execute(limit.format(30))

        sa.event.listen(database.engine, "connect", fill)
        with pytest.raises(StoreError, match="disk is full: free space"):
            store.add(some)
        assert len(store.segments()) == 1
        sa.event.remove(database.engine, "connect", fill)
        database.close()

        store.add(some)

        assert sum(r.segments for r in store.rollups(3600)) == 2001


def test_a_file_that_may_only_be_read_is_explained(sqlite_url: str) -> None:
    """A service that lost its rights on the file must say so."""
    with open_store(sqlite_url) as store:
        sa.event.listen(
            store._database.engine, "connect", lambda raw, _: raw.execute("PRAGMA query_only = 1")
        )
        store._database.close()

        with pytest.raises(StoreError, match="write permission"):
            store.add(batch())


def test_another_writer_is_waited_for_but_not_for_ever(sqlite_url: str) -> None:
    """Someone's forgotten transaction must not stop the daemon's loop, nor any reader."""
    first, second = batch(), batch()
    with open_store(sqlite_url, timeout=0.4) as store:
        store.add(first)
        with closing(sqlite3.connect(file_of(sqlite_url), isolation_level=None)) as raw:
            raw.execute("BEGIN IMMEDIATE")

            with within(3), pytest.raises(StoreError, match="another program"):
                store.add(second)
            assert len(store.segments()) == len(first)

            raw.execute("ROLLBACK")
        store.add(second)

        assert len(store.segments()) == len(first) + len(second)


def test_reading_what_was_never_recorded_is_explained(sqlite_url: str) -> None:
    """`vqmon report` with a mistyped path must not leave an empty database behind."""
    with pytest.raises(StoreError, match="does not exist yet"):
        open_store(sqlite_url, migrate=False)

    assert not file_of(sqlite_url).exists()


def test_a_missing_driver_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL is optional, so its driver is too."""
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(StoreError, match=r"pip install 'vqmon\[postgres\]'"):
        open_store("postgresql://host/db")


def test_a_server_that_is_not_there_is_explained() -> None:
    """With host and port, and at once."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    pytest.importorskip("psycopg", reason="psycopg is missing: pip install 'vqmon[postgres]'")
    with within(5), pytest.raises(StoreError, match="start the server, or check host") as caught:
        open_store(f"postgresql://user:topsecret@127.0.0.1:{port}/db")

    assert f"127.0.0.1:{port}" in str(caught.value)
    assert "topsecret" not in str(caught.value)


def test_a_server_that_accepts_and_says_nothing_is_given_up() -> None:
    """A firewall or a stuck proxy looks like this."""
    pytest.importorskip("psycopg", reason="psycopg is missing: pip install 'vqmon[postgres]'")
    with closing(socket.create_server(("127.0.0.1", 0))) as mute:
        port = mute.getsockname()[1]

        with within(8), pytest.raises(StoreError, match="does not answer in time"):
            open_store(f"postgresql://127.0.0.1:{port}/db?connect_timeout=2")


def test_a_wrong_password_is_said_without_repeating_it(postgres: Postgres) -> None:
    """Messages end up in tickets."""
    with pytest.raises(StoreError, match="refuses the login") as caught:
        open_store(postgres.url(password="topsecret"))
    assert "topsecret" not in str(caught.value)

    url = f"postgres://vqmon@127.0.0.1:{postgres.port}/postgres?password=topsecret"
    with pytest.raises(StoreError, match="refuses the login") as caught:
        open_store(url)
    assert "topsecret" not in str(caught.value)


def test_a_database_that_was_not_created_is_explained(postgres: Postgres) -> None:
    """The commonest slip of a first installation."""
    with pytest.raises(StoreError, match="createdb"):
        open_store(postgres.url("nowhere"))


def test_a_restart_of_the_server_costs_nothing(postgres: Postgres, postgres_url: str) -> None:
    """Servers are patched; the daemon goes on by itself, in the very next call."""
    before, after = batch(), batch()
    with open_store(postgres_url) as store:
        store.add(before)

        postgres.stop()
        postgres.start()

        store.add(after)
        assert [s.id for s in store.segments()] == [s.id for s in before + after]
        assert sum(r.segments for r in store.rollups(60)) == len(before + after)


def test_while_the_server_is_away_the_batch_stays_with_the_caller(
    postgres: Postgres, postgres_url: str
) -> None:
    """It fails within a moment, and the same batch is stored once the server is back."""
    some = batch()
    with open_store(postgres_url) as store:
        postgres.stop()

        with within(10), pytest.raises(StoreError, match=r"check host and port|ended the connect"):
            store.add(some)

        postgres.start()
        store.add(some)
        assert len(store.segments()) == len(some)


def test_ended_sessions_are_replaced(postgres: Postgres, postgres_url: str) -> None:
    """Administrators end sessions, and so do idle timeouts of firewalls."""
    with open_store(postgres_url) as store:
        store.add(batch())
        postgres.sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{postgres_url.rpartition('/')[2]}'"
        )

        store.add(batch())

        assert len(store.segments()) == 10


def test_a_locked_table_is_waited_for_but_not_for_ever(postgres_url: str) -> None:
    """A backup or a migration by hand may hold it."""
    import psycopg

    with open_store(postgres_url, timeout=0.5) as store, psycopg.connect(postgres_url) as other:
        other.execute("LOCK TABLE segments IN ACCESS EXCLUSIVE MODE")

        with within(4), pytest.raises(StoreError, match="locked by another session"):
            store.add(batch())

        other.rollback()
        store.add(batch())
        assert len(store.segments()) == 5


def test_a_frozen_server_is_given_up_after_the_timeout(
    postgres: Postgres, postgres_url: str
) -> None:
    """A stalled disk or a paused machine answers neither with rows nor with an error."""
    some = batch()
    with open_store(postgres_url, timeout=0.5) as store:
        store.add(batch(1))

        with frozen(postgres), within(6), pytest.raises(StoreError, match="did not answer within"):
            store.add(some)

        store.add(some)
        assert len(store.segments()) == 1 + len(some)


@contextmanager
def frozen(postgres: Postgres) -> Iterator[None]:
    assert postgres.process is not None
    server = psutil.Process(postgres.process.pid)
    everyone = [server, *server.children(recursive=True)]
    for process in everyone:
        process.suspend()
    try:
        yield
    finally:
        for process in everyone:
            process.resume()


WRITER = """
import sys, time
from datetime import UTC, datetime, timedelta
from vqmon.domain import Finding, Segment
from vqmon.store import open_store

noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
with open_store(sys.argv[1]) as store:
    print("ready", flush=True)
    for batch in range(100_000):
        segments = [
            Segment("news", noon + timedelta(seconds=10 * n), 10.0 * n, 10.0, quality=50.0,
                    findings=(Finding("blur", 2, 1, 1, 1, "", None, 10.0 * n, 5.0),))
            for n in range(10 * batch, 10 * batch + 10)
        ]
        store.add(segments)
        print(*(s.id for s in segments), flush=True)
"""


def test_a_kill_loses_nothing_that_was_acknowledged(url: str) -> None:
    """`kill -9` in the middle of a batch: what `add` returned from is there, whole batches only,
    and the sums fit the rows.
    """
    acknowledged: list[str] = []
    for batches in (3, 5, 8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for _ in range(batches):
            acknowledged += writer.stdout.readline().split()
        writer.send_signal(signal.SIGKILL)
        # A line cut short by the kill was not given out whole, so its batch may or may not be.
        acknowledged += [i for i in writer.stdout.read().split() if len(i) == 32]
        writer.wait(10)
        writer.stdout.close()

    with open_store(url) as store:
        stored = store.segments()

        assert set(acknowledged) <= {s.id for s in stored}
        assert len(stored) % 10 == 0
        for period in (60, 3600):
            rollups = store.rollups(period)
            assert sum(r.segments for r in rollups) == len(stored)
            assert sum(r.watched_seconds for r in rollups) == pytest.approx(10 * len(stored))
            blur = sum(r.fault_seconds["blur"] for r in rollups)
            assert blur == pytest.approx(5 * len(stored))
