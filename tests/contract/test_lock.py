"""One active daemon per database and instance, whatever way the one before it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from vqmon.errors import AlreadyRunning, StoreError
from vqmon.store import InstanceLock, open_store, upgrade
from vqmon.store.engine import Database

if TYPE_CHECKING:
    from tests.contract.conftest import Postgres

HOLDER = """
import sys, time
from vqmon.store import InstanceLock

lock = InstanceLock(sys.argv[1], sys.argv[2])
lock.acquire()
print("held", flush=True)
time.sleep(60)
"""


@contextmanager
def holder(url: str, instance: str = "vqmon") -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, url, instance], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


def eventually(condition: object, seconds: float = 5.0) -> bool:
    assert callable(condition)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def test_a_second_daemon_is_refused_and_told_who_is_first(url: str) -> None:
    """Two daemons would double every row; the message says whom to stop, or how to wait."""
    with holder(url) as first:
        with pytest.raises(AlreadyRunning) as caught:
            InstanceLock(url).acquire()

        text = str(caught.value)
        assert str(first.pid) in text
        assert "'vqmon'" in text
        assert os.uname().nodename[:24] in text
        assert "--standby" in text
        assert "not-a-secret" not in text


def test_other_instances_and_databases_are_free(url: str, tmp_path: Path) -> None:
    """Several daemons may share a database under different names."""
    with (
        InstanceLock(url, "vqmon") as one,
        InstanceLock(url, "Haus/1 süd") as other,
        InstanceLock(f"sqlite:///{tmp_path / 'other.db'}", "vqmon") as elsewhere,
    ):
        assert one.held()
        assert other.held()
        assert elsewhere.held()


def test_a_released_lock_can_be_taken(url: str) -> None:
    """Also by the same process, and also twice by its holder."""
    lock = InstanceLock(url)
    assert not lock.held()
    assert lock.acquire()
    assert lock.acquire()
    lock.release()
    lock.release()
    assert not lock.held()

    with InstanceLock(url) as next_one:
        assert next_one.held()


def test_a_killed_daemon_leaves_no_lock(url: str) -> None:
    """`kill -9`, an out-of-memory kill: the next one starts without anybody's help."""
    with holder(url) as first:
        first.send_signal(signal.SIGKILL)
        first.wait(10)
        lock = InstanceLock(url)

        assert eventually(lambda: acquired(lock))
        assert lock.held()
        lock.release()


def acquired(lock: InstanceLock) -> bool:
    try:
        return lock.acquire()
    except AlreadyRunning:
        return False


def test_a_standby_takes_over_when_the_active_one_dies(url: str) -> None:
    """Within seconds, so that two machines can watch over each other."""
    standby, taken = InstanceLock(url), threading.Event()

    def wait() -> None:
        if standby.acquire(wait=True):
            taken.set()

    with holder(url) as first:
        thread = threading.Thread(target=wait)
        thread.start()
        assert not taken.wait(1.5)

        first.kill()

        assert taken.wait(5)
        assert standby.held()
        thread.join()
        standby.release()


def test_a_standby_can_be_told_to_stop(url: str) -> None:
    """SIGTERM must end a waiting daemon, too."""
    stop = threading.Event()
    with holder(url):
        threading.Timer(0.2, stop.set).start()
        began = time.monotonic()

        assert InstanceLock(url).acquire(wait=True, stop=stop) is False

        assert time.monotonic() - began < 3


def test_others_are_never_blocked_by_the_lock(url: str) -> None:
    """`report`, `db upgrade` and even a writer go on while a daemon is active."""
    with holder(url):
        upgrade(url)
        with open_store(url) as store:
            store.add([])

            assert store.segments() == []


def test_children_of_the_holder_do_not_keep_its_lock(sqlite_url: str) -> None:
    """Ingest processes and bridges outlive a killed supervisor for some seconds."""
    lock = InstanceLock(sqlite_url)
    lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        lock.release()

        with InstanceLock(sqlite_url) as next_one:
            assert next_one.held()
    finally:
        child.kill()
        child.communicate()


def test_two_paths_to_one_file_are_one_database(tmp_path: Path) -> None:
    """A symbolic link to the data folder must not let a second daemon in."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")

    with (
        InstanceLock(f"sqlite:///{tmp_path / 'real' / 'vqmon.db'}"),
        pytest.raises(AlreadyRunning),
    ):
        InstanceLock(f"sqlite:///{tmp_path / 'link' / 'vqmon.db'}").acquire()


def test_a_lock_file_that_was_removed_is_noticed(sqlite_url: str) -> None:
    """Someone cleaning up may let a second daemon in; the first must step down then."""
    lock = InstanceLock(sqlite_url)
    lock.acquire()
    [file] = Path(sqlite_url.removeprefix("sqlite:///")).parent.glob("*.lock")
    assert json.loads(file.read_text())["pid"] == str(os.getpid())

    file.unlink()

    assert not lock.held()
    with InstanceLock(sqlite_url) as other:
        assert other.held()


def test_an_unreadable_lock_file_still_locks(sqlite_url: str) -> None:
    """The kernel's lock counts; the text in the file is only for people."""
    with InstanceLock(sqlite_url):
        [file] = Path(sqlite_url.removeprefix("sqlite:///")).parent.glob("*.lock")
        file.write_text("{")

        with pytest.raises(AlreadyRunning, match="instance 'vqmon'"):
            InstanceLock(sqlite_url).acquire()


def test_a_database_in_memory_is_locked_by_its_data_folder(tmp_path: Path) -> None:
    """Its pictures lie on disk, so two daemons would still step on each other."""
    with (
        InstanceLock("sqlite://", data_dir=tmp_path / "data"),
        pytest.raises(AlreadyRunning),
    ):
        InstanceLock("sqlite://", data_dir=tmp_path / "data").acquire()
    with InstanceLock("sqlite://") as one, InstanceLock("sqlite://") as other:
        assert one.held()
        assert other.held()


def test_a_place_that_cannot_be_locked_is_explained() -> None:
    """The first thing that a daemon does with a wrong path is to lock it."""
    with pytest.raises(StoreError, match="cannot be created"):
        InstanceLock("sqlite:////proc/vqmon/vqmon.db").acquire()


def test_a_lost_session_is_noticed(postgres: Postgres, postgres_url: str) -> None:
    """The server gave the lock away with it; going on would mean two daemons."""
    lock = InstanceLock(postgres_url)
    lock.acquire()
    assert lock.held()

    postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name LIKE 'vqmon run%'"
    )

    assert not lock.held()
    with InstanceLock(postgres_url) as other:
        assert other.held()


def test_a_silent_server_counts_as_lost(postgres: Postgres, postgres_url: str) -> None:
    """Nobody can know who holds the lock on the other side; the answer must not take for ever."""
    lock = InstanceLock(postgres_url, patience=0.5)
    lock.acquire()
    assert postgres.process is not None
    server = psutil.Process(postgres.process.pid)
    everyone = [server, *server.children(recursive=True)]
    for process in everyone:
        process.suspend()
    began = time.monotonic()
    try:
        assert not lock.held()
    finally:
        for process in everyone:
            process.resume()

    assert time.monotonic() - began < 4


def test_a_standby_sits_out_a_restart_of_the_server(
    postgres: Postgres, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A standby that dies of a maintenance window would be no standby."""
    caplog.set_level("DEBUG", "vqmon.store")
    standby, taken = InstanceLock(postgres_url), threading.Event()

    def wait() -> None:
        if standby.acquire(wait=True):
            taken.set()

    active = InstanceLock(postgres_url)
    active.acquire()
    thread = threading.Thread(target=wait)
    thread.start()
    assert eventually(lambda: "lock_awaited" in caplog.messages)
    postgres.stop()
    assert not taken.wait(1.5)
    postgres.start()

    assert taken.wait(5)
    thread.join()
    assert not active.held()
    standby.release()


def test_a_missing_server_is_no_lock(postgres: Postgres) -> None:
    """At start a wrong address is a mistake to report, not something to wait for."""
    with pytest.raises(StoreError, match="createdb"):
        InstanceLock(postgres.url("nowhere")).acquire(wait=True)


def test_the_lock_of_another_program_is_no_matter(postgres_url: str) -> None:
    """Advisory locks are shared by all programs of a database; only our key counts."""
    with closing(Database(postgres_url)) as database, database.engine.connect() as other:
        other.exec_driver_sql("SELECT pg_advisory_lock(1), pg_advisory_lock(1, 2)")

        with InstanceLock(postgres_url) as lock:
            assert lock.held()
