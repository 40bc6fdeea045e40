"""The daemon on a database server that goes away and comes back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Daemon, assert_tiled, moving
from vqmon.domain import Segment
from vqmon.errors import StoreError
from vqmon.store import open_store
from vqmon.summing import up


@pytest.fixture
def daemon(tmp_path: Path, postgres_url: str) -> Iterator[Daemon]:
    made = Daemon(tmp_path, streams=moving("news"), database=postgres_url)
    yield made
    made.close()


def rows(url: str) -> list[Segment]:
    try:
        with open_store(url, migrate=False) as store:
            return store.segments()
    except StoreError:
        return []


@pytest.mark.slow
def test_a_restart_of_the_server_costs_no_row_and_no_process(
    daemon: Daemon, postgres: object, postgres_url: str
) -> None:
    """Rows wait in the journal, and the lock, which the server forgot, is taken again."""
    daemon.started()
    daemon.wait_for(lambda: len(rows(postgres_url)) >= 3, 30)
    family = daemon.family()

    postgres.stop()  # type: ignore[attr-defined]  # the class lives in a conftest
    daemon.wait_for(lambda: daemon.events("database_away"), 60)
    time.sleep(5)
    postgres.start()  # type: ignore[attr-defined]
    daemon.wait_for(lambda: daemon.events("database_back"), 60)
    before = len(rows(postgres_url))
    daemon.wait_for(lambda: len(rows(postgres_url)) > before + 2, 30)
    assert daemon.family() == family
    assert daemon.stop() == 0

    stored = rows(postgres_url)
    assert len(stored) > 10
    assert_tiled(stored)
    assert all(up(row) for row in stored)
