"""Real servers for contract tests, started by the test run and ended with it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

UNPRIVILEGED = ("nobody", "nogroup")
PASSWORD = "not-a-secret"
START_SECONDS = 30


@dataclass
class Postgres:
    """A PostgreSQL server of our own: socket and data below `folder`, loopback port `port`."""

    programs: Path
    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", password: str = PASSWORD) -> str:
        return f"postgresql://vqmon:{password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Safe from a lost disk it need not be: fsync is off."""
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", self.port]
        command += ["-k", self.folder, "-h", "127.0.0.1", "-F", "-c", "max_connections=40"]
        self.process = subprocess.Popen(
            # The server ends with the test run, however that ends.
            unprivileged(["setpriv", "--pdeathsig", "INT", "--", *map(str, command)]),
            cwd="/",
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("ab"),
        )
        until = time.monotonic() + START_SECONDS
        while not self.answers():
            if self.process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"PostgreSQL did not start: {(self.folder / 'log').read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends all sessions."""
        if self.process:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(START_SECONDS)
            self.process = None

    def sql(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    def answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """The server of the whole run, owned by an unprivileged user: PostgreSQL refuses root."""
    pytest.importorskip("psycopg", reason="psycopg is missing: pip install 'vqmon[postgres]'")
    programs = postgres_programs()
    if programs is None:
        pytest.skip("no PostgreSQL server here: apt install postgresql")
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv here: apt install util-linux")
    # Not below pytest's own folders, which the unprivileged user may not enter.
    with tempfile.TemporaryDirectory(prefix="vqmon-postgres-") as name:
        folder = Path(name)
        if os.geteuid() == 0:
            shutil.chown(folder, *UNPRIVILEGED)
        server = Postgres(programs, folder, free_port())
        initialise(server)
        server.start()
        yield server
        server.stop()


databases = count()


@pytest.fixture
def postgres(postgres_server: Postgres) -> Postgres:
    """The server, running, whatever the test before did to it."""
    if postgres_server.process is None or not postgres_server.answers():
        postgres_server.stop()
        postgres_server.start()
    return postgres_server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """An empty database."""
    name = f"vqmon_{next(databases)}"
    postgres.sql(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    if postgres.process:
        postgres.sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'data' / 'vqmon.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of an empty database, on each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    return str(request.getfixturevalue(name))


def postgres_programs() -> Path | None:
    """The newest server's programs: on PATH, or where Debian keeps them."""
    on_path = shutil.which("initdb")
    debian = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3])
    )
    found = [Path(on_path)] if on_path else debian[-1:]
    return found[0].resolve().parent if found else None


def initialise(server: Postgres) -> None:
    password = server.folder / "password"
    password.write_text(PASSWORD)
    password.chmod(0o644)
    command = [server.programs / "initdb", "-D", server.folder / "data", "-U", "vqmon"]
    command += ["--pwfile", password, "-A", "scram-sha-256", "-E", "UTF8", "--locale=C.UTF-8"]
    command += ["--no-sync"]
    plain = unprivileged([str(part) for part in command])
    done = subprocess.run(plain, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def unprivileged(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    user, group = UNPRIVILEGED
    return ["setpriv", "--reuid", user, "--regid", group, "--clear-groups", "--", *command]


def free_port() -> int:
    with closing(socket.socket()) as wire:
        wire.bind(("127.0.0.1", 0))
        return int(wire.getsockname()[1])
