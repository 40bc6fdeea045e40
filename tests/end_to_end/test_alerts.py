"""Alerts of a real daemon: raised, told and cleared, whatever happens to it."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Daemon
from vqmon.config import load
from vqmon.daemon.alerts import Alerts
from vqmon.domain import Alert, Queued
from vqmon.store import open_store
from vqmon.testing import MemoryStore

BLACK = "synthetic:?live=1&size=96x64&fps=5&gop=0.5&audio=0&faults=black@1.5-5,black@9-13"
QUICK = {
    "alerts": {"grace": "0s"},
    "rules": {"black": {"for": "1s", "clear": "1s"}},
    "notifiers": {"here": {"type": "log"}},
    "streams": {"news": {"url": BLACK}},
}


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Callable[..., Daemon]]:
    """Makes daemons and ends them."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Daemon:
            made = Daemon(tmp_path, **settings)
            stack.callback(made.close)
            return made

        yield make


def alerts_of(vqmon: Daemon) -> list[Alert]:
    if not vqmon.rows():
        return []
    with open_store(f"sqlite:///{vqmon.folder}/data/vqmon.db", migrate=False) as store:
        return store.alerts()


def outbox_of(vqmon: Daemon) -> list[Queued]:
    with open_store(f"sqlite:///{vqmon.folder}/data/vqmon.db", migrate=False) as store:
        return store.queued()


def ids(some: list[Queued]) -> list[str]:
    return sorted(it.delivery.id for it in some)


def what_the_rows_say(vqmon: Daemon) -> MemoryStore:
    """Alerts and messages as they follow from the stored segments, without any crash."""
    store = MemoryStore()
    Alerts(store, load(vqmon.file, {})).add(vqmon.rows())
    return store


@pytest.mark.slow
@pytest.mark.parametrize("kills", [1, 5])
@pytest.mark.timeout(300)
def test_kill_9_at_any_moment_loses_no_alert_and_raises_none_twice(
    daemon: Callable[..., Daemon], kills: int
) -> None:
    """What is in the database afterwards is what the segments in it call for, neither more nor
    less: the moment of the kill falls anywhere between two writes.
    """
    vqmon = daemon(**QUICK)
    dice = random.Random(kills)

    for _ in range(kills):
        vqmon.said.clear()
        vqmon.started()
        rows = len(vqmon.rows())
        vqmon.wait_for(lambda before=rows: len(vqmon.rows()) > before + 3, 40)  # type: ignore[misc]
        time.sleep(dice.uniform(0, 1))
        assert vqmon.process
        vqmon.process.kill()
        vqmon.process.wait()
    vqmon.said.clear()
    vqmon.started()
    before = len(vqmon.rows())
    vqmon.wait_for(lambda: len(vqmon.rows()) > before + 7, 40)
    assert vqmon.stop() == 0

    expected = what_the_rows_say(vqmon)
    found = alerts_of(vqmon)
    assert len(found) >= 2
    assert found == expected.alerts()
    assert ids(outbox_of(vqmon)) == ids(expected.queued())


def vqmon_says(vqmon: Daemon, *arguments: str) -> Any:
    """What a command prints as JSON."""
    environ = {name: it for name, it in os.environ.items() if not name.startswith("VQMON_")}
    done = subprocess.run(
        [sys.executable, "-m", "vqmon", *arguments, "-c", str(vqmon.file), "--json"],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_operator_silences_acknowledges_and_changes_rules_while_it_runs(
    daemon: Callable[..., Daemon],
) -> None:
    """Without a restart, and without the daemon's help."""
    url = "synthetic:?live=1&size=96x64&fps=5&gop=0.5&audio=0&faults=black@0-300"
    vqmon = daemon(**QUICK | {"streams": {"news": {"url": url}, "lobby": {"url": url}}})
    with open_store(f"sqlite:///{vqmon.folder}/data/vqmon.db"):
        pass
    silence = vqmon_says(
        vqmon,
        "alerts",
        "silence",
        "--stream",
        "lob*",
        "--for",
        "1h",
        "--reason",
        "test",
        "--by",
        "ada",
    )

    vqmon.started()
    vqmon.wait_for(lambda: len(alerts_of(vqmon)) == 2, 30)
    news = next(it for it in alerts_of(vqmon) if it.stream == "news")
    assert {it.delivery.stream for it in outbox_of(vqmon)} == {"news"}
    [listed] = vqmon_says(vqmon, "alerts", "list", "--stream", "news")["alerts"]
    assert (listed["id"], listed["state"], listed["rule"]) == (news.id, "firing", "black")
    assert "black" in listed["reason"]

    taken = vqmon_says(vqmon, "alerts", "ack", news.id[:8], "--by", "ada", "--note", "on it")
    vqmon_says(vqmon, "alerts", "unsilence", silence["id"][:8])
    vqmon.wait_for(lambda: {it.delivery.stream for it in outbox_of(vqmon)} == {"news", "lobby"}, 20)
    off = {"rules": {"black": "off"}}
    vqmon.configure(**QUICK | {"streams": {"news": {"url": url} | off, "lobby": {"url": url}}})
    vqmon.wait_for(lambda: not vqmon_firing(vqmon, "news"), 30)
    vqmon.stop()

    assert taken[0]["acknowledged_by"] == "ada"
    by_stream = {it.stream: it for it in alerts_of(vqmon)}
    assert by_stream["news"].note == "on it"
    assert by_stream["news"].cleared == "The rule was removed, switched off or changed."
    assert by_stream["lobby"].firing
    assert vqmon.events("reloaded")[0]["changed"] == []
    assert datetime.now(UTC) > by_stream["lobby"].opened_at


def vqmon_firing(vqmon: Daemon, stream: str) -> bool:
    return any(it.firing for it in alerts_of(vqmon) if it.stream == stream)


FULL_AS_TOLD = """
import collections, pathlib, shutil

def disk_usage(_path, usage=collections.namedtuple("usage", "total used free")):
    free = int(pathlib.Path({file!r}).read_text())
    return usage(1000, 1000 - free, free)

shutil.disk_usage = disk_usage
"""


@pytest.mark.slow
def test_a_full_disk_is_told_and_told_when_there_is_room_again(
    daemon: Callable[..., Daemon], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures stop first, watching goes on, and the segments say why they have none."""
    free = tmp_path / "free"
    free.write_text("900")
    (tmp_path / "sitecustomize.py").write_text(FULL_AS_TOLD.format(file=str(free)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    running = daemon(**QUICK).started()
    running.wait_for(lambda: len(running.rows()) >= 2)

    free.write_text("40")
    running.wait_for(lambda: "storage_low" in [it.rule for it in alerts_of(running)], 60)
    full = next(it for it in alerts_of(running) if it.rule == "storage_low")
    free.write_text("900")
    running.wait_for(lambda: not firing(running, full.id), 60)

    assert (full.stream, full.severity) == ("(vqmon)", "critical")
    assert full.reason.startswith("The disk is nearly full (4 %, limit 5 %): no pictures")
    low = [it for it in running.rows() if any(f.name == "storage_low" for f in it.findings)]
    assert low
    assert running.stop() == 0
    told = [it.delivery.kind for it in outbox_of(running) if it.delivery.stream == "(vqmon)"]
    assert told == ["resolved", "firing"]


def firing(vqmon: Daemon, alert: str) -> bool:
    return any(it.id == alert and it.firing for it in alerts_of(vqmon))
