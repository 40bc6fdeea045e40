"""One plugin's process under its host: real processes, quick patience."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from vqmon.domain import Alert, Segment
from vqmon.plugins import Call
from vqmon.plugins.context import PluginPlan
from vqmon.plugins.finding import find
from vqmon.plugins.host import Host, Patience
from vqmon.store import open_store
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
QUICK = Patience(retry=(0.0, 0.1), most=3, window=60.0, parked=0.5)
HEAD = "import os, time\nfrom pathlib import Path\nfrom vqmon import Plugin\n"
NOTES = (
    HEAD
    + """
class Notes(Plugin):
    def __init__(self, context, settings):
        super().__init__(context, settings)
        self.note("made", os.getpid())
    def note(self, *words):
        with open(self.context.data_dir / "notes", "a") as file:
            print(*words, file=file)
    def segment_closed(self, segment):
        self.note("segment", segment.stream)
        if segment.stream == "die":
            os._exit(7)
        if segment.stream == "slow":
            time.sleep(0.5)
    def alert_opened(self, alert):
        self.note("opened", alert.rule)
    def alert_closed(self, alert):
        self.note("closed", alert.rule)
    def stopping(self):
        self.note("stopping")
"""
)

Made = Callable[..., Host]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Made]:
    """Makes hosts of a plugin with this code; they end with the test."""
    made: list[Host] = []
    with open_store(f"sqlite:///{tmp_path}/vqmon.db"):
        pass

    def make(code: str = NOTES, store: MemoryStore | None = None, **fields: Any) -> Host:
        (tmp_path / "notes.py").write_text(code)
        given: dict[str, Any] = {"memory": 500 * 1000**2, "timeout": 30.0, "settings": {}} | fields
        after = given.pop("after", None)
        plan = PluginPlan(
            found=find(tmp_path)["notes"],
            folder=tmp_path,
            database=f"sqlite:///{tmp_path}/vqmon.db",
            data_dir=tmp_path / "own",
            evidence=tmp_path,
            packets=tmp_path,
            scoring=tmp_path / "scoring.sock",
            **given,
        )
        record = (store or MemoryStore()).record
        made.append(Host(plan, (), record, after=after, patience=QUICK))
        return made[-1]

    yield make
    for it in made:
        it.stop(0.0)
        if it.is_alive():
            it.join(10)


@pytest.fixture
def notes(tmp_path: Path) -> Callable[[], list[str]]:
    """What the plugin wrote, but for who it was."""

    def read() -> list[str]:
        try:
            lines = (tmp_path / "own" / "notes").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [it for it in lines if not it.startswith("made")]

    return read


def told(*streams: str) -> list[Call]:
    return [Call("segment_closed", Segment(it, NOON, start=0.0, seconds=10.0)) for it in streams]


def eventually(true: Callable[[], object], seconds: float = 40.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.02)


def test_calls_are_made_in_order_and_the_end_is_told(
    host: Made, notes: Callable[[], list[str]]
) -> None:
    """A plugin that sees effects before causes decides wrongly."""
    one, alert = host(), Alert("a", "black", "critical", NOON, "black for 30 s")
    one.tell([*told("a"), Call("alert_opened", alert), *told("b"), Call("alert_closed", alert)])

    one.start()
    eventually(lambda: len(notes()) == 4)
    one.stop()
    one.join(10)

    assert notes() == ["segment a", "opened black", "segment b", "closed black", "stopping"]
    assert one.state == "stopped"


def test_a_call_that_ends_the_process_is_not_made_again(
    host: Made, notes: Callable[[], list[str]]
) -> None:
    """It would end the next process too; what waits behind it is told to that one."""
    one = host()
    one.tell(told("a", "die", "b"))

    one.start()
    eventually(lambda: "segment b" in notes())

    assert notes() == ["segment a", "segment die", "segment b"]


def test_three_failures_park_a_plugin_and_say_so_where_people_look(
    host: Made, notes: Callable[[], list[str]]
) -> None:
    """Starting it for ever costs a processor; forgetting it costs its work."""
    store = MemoryStore()
    one = host(store=store)
    one.tell(told("die", "die", "die", "b"))

    one.start()
    eventually(lambda: "segment b" in notes())

    [parked] = store.decisions("notes")
    assert (parked.kind, parked.stream) == ("parked", "")
    assert "after 3 failures" in parked.reason
    assert "its process ended in segment_closed (exit code 7)" in parked.reason


def test_two_processes_of_a_plugin_never_run_at_once(
    host: Made, notes: Callable[[], list[str]], tmp_path: Path
) -> None:
    """Both would act on the same stream."""
    one = host()
    one.tell(told("a", "slow"))
    one.start()
    eventually(lambda: "segment slow" in notes())

    other = host(after=one, settings={})
    one.stop()
    other.start()
    other.tell(told("b"))
    eventually(lambda: "segment b" in notes())

    assert notes() == ["segment a", "segment slow", "stopping", "segment b"]
    pids = [it for it in (tmp_path / "own" / "notes").read_text().splitlines() if "made" in it]
    assert len(set(pids)) == 2


def test_telling_never_waits_and_memory_stays_flat(host: Made) -> None:
    """Ten thousand segments for a plugin that does not even start."""
    one = host(f"{HEAD}time.sleep(999)\n")
    one.start()

    begun = time.monotonic()
    for _ in range(10_000):
        one.tell(told("a"))

    assert time.monotonic() - begun < 5
    assert len(one.calls) <= 200


def test_a_stop_in_the_middle_of_a_start_is_quick(host: Made) -> None:
    """The daemon may be told to end right after it has begun."""
    one = host(f"{HEAD}time.sleep(999)\n")
    one.start()
    eventually(lambda: one.state == "starting")

    begun = time.monotonic()
    one.stop(1.0)
    one.join(10)

    assert not one.is_alive()
    assert time.monotonic() - begun < 6


def test_children_of_a_plugin_see_its_end(host: Made, tmp_path: Path) -> None:
    """The process is gone for the kernel too: no zombie, no handle is left."""
    one = host()
    one.start()
    eventually(lambda: one.state == "ready")
    pid = int((tmp_path / "own" / "notes").read_text().split()[1])

    one.stop()
    one.join(10)

    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
