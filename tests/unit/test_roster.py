"""Who watches what, and what becomes of streams when their process does not go on."""

from __future__ import annotations

import logging
import queue
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vqmon.daemon import crew as crew_module
from vqmon.daemon import roster as module
from vqmon.daemon.ingest import IngestPlan
from vqmon.daemon.messages import (
    Allow,
    Beat,
    Closed,
    Ended,
    Gone,
    Leave,
    Pictures,
    Said,
    Standing,
    Watch,
)
from vqmon.daemon.roster import Roster
from vqmon.daemon.visits import Visit
from vqmon.domain import Schedule, Segment, Stream
from vqmon.settings import IngestSettings

PLAN = IngestPlan(Path("e"), Path("p"), Path("s"), 0.25, 20)


class FakeChild:
    """A process that takes everything and does nothing."""

    def __init__(self, name: str, *_: object, **__: object) -> None:
        self.name = name
        self.got: list[Any] = []
        self.killed = False
        self.exit_code = -9

    def send(self, message: object) -> bool:
        self.got.append(message)
        return True

    def kill(self, *, show_where: bool = False) -> None:
        self.killed = True

    def wait(self, seconds: float) -> bool:
        return True

    def close(self) -> None:
        self.killed = True

    def orders(self) -> list[Watch]:
        return [it for it in self.got if isinstance(it, Watch)]


class Room:
    """A roster with fake processes and a clock moved by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = 1000.0
        self.children: list[FakeChild] = []
        self.rows: list[Segment] = []
        self.over: list[str] = []

        def child(name: str, *rest: object, **more: object) -> FakeChild:
            self.children.append(FakeChild(name))
            return self.children[-1]

        monkeypatch.setattr(crew_module, "Child", child)
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: self.clock))
        self.roster = Roster(
            IngestSettings(streams_per_process=2),
            PLAN,
            queue.SimpleQueue(),
            keep=self.rows.append,
            visit_over=self.over.append,
        )

    def watch(self, *names: str) -> None:
        self.roster.watch((stream(name), Pictures()) for name in names)
        self.turn()
        self.turn()

    def turn(self, seconds: float = 1.0) -> None:
        """Time passes, and every process says how its streams stand."""
        self.clock += seconds
        for child in self.children:
            if not child.killed:
                self.beat(child)
        self.roster.look(self.clock)

    def beat(self, child: FakeChild, last_packet: float | None = None) -> None:
        standings = {
            it.stream.name: Standing(
                it.stream.name,
                it.generation,
                "up",
                since=self.clock - 1,
                last_packet=last_packet or self.clock,
            )
            for it in child.orders()
        }
        self.roster.heard(child, Beat(10**8, 1.0, 0.0, tuple(standings.values())))

    def hang(self, child: FakeChild, name: str) -> None:
        """One stream of a process receives nothing for long, whatever its timeouts."""
        self.clock += 60
        for other in self.children:
            if other is not child and not other.killed:
                self.beat(other)
        generation = [it.generation for it in child.orders() if it.stream.name == name][-1]
        stuck = Standing(name, generation, "up", since=0.0, last_packet=self.clock - 50)
        self.roster.heard(child, Beat(10**8, 1.0, 0.0, (stuck,)))
        self.roster.look(self.clock)

    def die(self, child: FakeChild) -> None:
        self.roster.heard(child, Gone())
        self.turn()
        self.turn()


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Room:
    return Room(monkeypatch)


def stream(name: str, **fields: Any) -> Stream:
    return Stream(name, f"udp://{name}", **fields)


def measured(name: str, ago: float = 10.0, **fields: Any) -> Segment:
    started_at = datetime.now(UTC) - timedelta(seconds=ago)
    return Segment(name, started_at, 0.0, 10.0, quality=70.0, **fields)


def watched(child: FakeChild) -> list[str]:
    return [it.stream.name for it in child.orders()]


def test_streams_are_spread_and_opened_one_after_the_other(room: Room) -> None:
    """Two hundred cameras opened in the same millisecond lock each other out."""
    room.watch("a", "b", "c", "d")

    assert [watched(child) for child in room.children] == [["a", "c"], ["b", "d"]]
    delays = {it.stream.name: it.delay for child in room.children for it in child.orders()}
    assert delays == pytest.approx({"a": 0, "b": 0.04, "c": 0.08, "d": 0.12})


def test_a_successor_takes_over_with_new_generations(room: Room) -> None:
    """What the dead process may still have sent cannot be mistaken for the new one's."""
    room.watch("a", "b")
    first = room.children[0]

    room.die(first)

    assert watched(room.children[1]) == ["a", "b"]
    old = {it.generation for it in first.orders()}
    assert not old & {it.generation for it in room.children[1].orders()}


def test_a_stream_that_hangs_costs_its_process_and_the_second_time_is_isolated(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    """One broken camera must not interrupt its neighbours every minute."""
    room.watch("bad", "good")

    room.hang(room.children[0], "bad")
    assert room.children[0].killed
    room.die(room.children[0])
    assert watched(room.children[1]) == ["bad", "good"]
    room.hang(room.children[1], "bad")
    room.die(room.children[1])

    assert sorted(watched(child) for child in room.children[2:]) == [["bad"], ["good"]]
    told = [it for it in caplog.records if it.message == "ingest_replaced"]
    assert [(it.reason, it.stream) for it in told] == [("stream_hangs", "bad")] * 2  # type: ignore[attr-defined]


def test_the_last_log_lines_of_a_stream_are_printed_when_it_is_restarted(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    """Why it hung is in what it said before, minutes up in a busy log."""
    room.watch("bad", "good")
    said = logging.makeLogRecord({"msg": "stream_lost", "levelname": "WARNING"})
    said.detail = "bad cseq"
    room.roster.heard(room.children[0], Said(said, "bad"))

    room.hang(room.children[0], "bad")

    [told] = [it for it in caplog.records if it.message == "stream_last_lines"]
    assert told.stream == "bad"  # type: ignore[attr-defined]
    assert told.lines == ["warning stream_lost bad cseq"]  # type: ignore[attr-defined]


def test_a_standstill_of_the_supervisor_blames_nobody(room: Room) -> None:
    """A paused virtual machine must not cost every stream its process."""
    room.watch("a", "b")

    room.clock += 300
    room.roster.excuse(room.clock)
    room.roster.look(room.clock)
    room.turn()

    assert [child.killed for child in room.children] == [False]


def test_a_fault_with_one_stream_does_not_reach_the_others(
    room: Room, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of ours costs one row of one stream, and is told once a minute."""
    room.watch("a", "b")
    broken = room.roster._watched["a"].coverage
    looked: list[str] = []

    def look(coverage: Any, *_: object) -> list[Segment]:
        looked.append(coverage.stream.name)
        if coverage is broken:
            raise ZeroDivisionError
        return []

    monkeypatch.setattr(type(broken), "look", look)
    room.turn()
    room.turn()

    assert looked == ["a", "b"] * 2
    told = [it for it in caplog.records if it.message == "supervisor_fault"]
    assert [it.about for it in told] == ["a"]  # type: ignore[attr-defined]


def test_a_finite_source_ends_without_being_a_fault(room: Room) -> None:
    """A file is watched once; its process is not kept for it."""
    room.watch("file")
    [child] = room.children
    generation = child.orders()[0].generation

    room.roster.heard(child, Ended("file", generation))

    assert room.roster.all_ended
    assert room.roster.counts() == {"ended": 1}
    room.die(child)
    assert len(room.children) == 1
    assert room.rows == []


def test_the_end_of_an_earlier_watch_does_not_end_the_present_one(room: Room) -> None:
    """After a reload both are there for a while."""
    room.watch("a")
    [child] = room.children
    old = child.orders()[0].generation
    room.watch("a")

    room.roster.heard(child, Ended("a", old))

    assert not room.roster.all_ended


def test_leaving_tells_the_process_and_keeps_late_segments(room: Room) -> None:
    """What was measured before the reload is stored after it."""
    room.watch("a", "b")
    [child] = room.children

    room.roster.leave("a")
    room.roster.heard(child, Closed(1, measured("a")))

    assert Leave("a") in child.got
    assert [row.stream for row in room.rows] == ["a"]
    assert sum(room.roster.counts().values()) == 1


def test_the_last_stream_takes_its_process_with_it(room: Room) -> None:
    """A process without streams is a hundred megabytes for nothing."""
    room.watch("a", "b", "c")
    before = len(room.children)

    for name in ("a", "b", "c"):
        room.roster.leave(name)
    for child in room.children:
        room.roster.heard(child, Gone())
    room.turn()

    assert len(room.children) == before
    assert room.roster.finished


def test_monitoring_that_gets_coarser_is_told_once_and_so_is_its_end(
    room: Room, caplog: pytest.LogCaptureFixture
) -> None:
    """Under overload vqmon says that it looks less closely."""
    caplog.set_level(logging.WARNING)
    room.watch("a")
    [child] = room.children

    for coarser in (1, 2, 4, 4, 1, 1):
        segment = replace(measured("a"), facts={"coarser_by": coarser})
        room.roster.heard(child, Closed(1, segment))

    told = [it.message for it in caplog.records]
    assert told == ["stream_overloaded", "stream_keeps_up_again"]


def test_a_full_disk_is_told_to_processes_now_and_later(room: Room) -> None:
    """A process started while the disk is full must not begin with pictures."""
    room.watch("a", "b")

    room.roster.allow(evidence=False)

    assert Allow(evidence=False) in room.children[0].got
    assert room.roster._plan.evidence_allowed is False


def test_a_new_process_knows_when_the_last_full_pictures_were_kept(room: Room) -> None:
    """Once an hour means once an hour, also when processes come and go."""
    room.watch("a")
    kept = measured("a", evidence=("a/1.jpg",))
    room.roster.heard(room.children[0], Closed(1, kept))

    room.die(room.children[0])

    assert room.children[1].orders()[0].full_set_at == kept.started_at


SCHEDULED = stream("seen", schedule=Schedule(300.0, 30.0))


def begin_visit(room: Room) -> FakeChild:
    room.roster.visit(Visit("seen", datetime.now(UTC)), SCHEDULED, Pictures())
    room.turn()
    room.turn()
    return room.children[-1]


def test_a_visit_ends_by_itself_and_its_process_waits_for_the_next(room: Room) -> None:
    """Starting a process costs more than a short visit."""
    child = begin_visit(room)
    [order] = child.orders()
    assert order.visit_seconds == 30.0
    room.roster.heard(child, Ended("seen", order.generation))

    again = begin_visit(room)

    assert room.over == ["seen"]
    assert again is child


def test_a_visit_that_goes_on_too_long_is_ended(room: Room) -> None:
    """An underfed stream never delivers its thirty seconds."""
    child = begin_visit(room)

    for _ in range(31):
        room.turn()
    assert Leave("seen") not in child.got
    for _ in range(3):
        room.turn()

    assert child.got.count(Leave("seen")) == 1


def test_a_visit_whose_thread_never_ends_is_over_all_the_same(room: Room) -> None:
    """Its place in the queue belongs to others."""
    begin_visit(room)

    for _ in range(60):
        room.turn()

    assert room.over == ["seen"]
    assert not room.roster.counts()


def test_a_visit_that_saw_nothing_at_all_is_a_row(room: Room) -> None:
    """A server that accepts and says nothing for the whole visit."""
    child = begin_visit(room)
    [order] = child.orders()

    room.roster.heard(child, Ended("seen", order.generation))

    [row] = room.rows
    assert (row.no_score_reason, row.seconds) == ("timeout_open", 30.0)
    assert row.facts["represents_seconds"] == 300.0
    assert row.findings[0].name == "no_signal"


def test_a_missed_visit_never_overlaps_the_one_before(room: Room) -> None:
    """A visit that ran late is followed by the record that its successor was missed."""
    child = begin_visit(room)
    [order] = child.orders()
    began = datetime.now(UTC) - timedelta(seconds=12)
    late = replace(measured("seen"), started_at=began, seconds=30.0)
    room.roster.heard(child, Closed(order.generation, late))
    room.roster.heard(child, Ended("seen", order.generation))

    room.roster.missed(Visit("seen", began + timedelta(seconds=20)), SCHEDULED)

    first, second = room.rows
    assert second.no_score_reason == "visit_missed"
    assert second.started_at == first.started_at + timedelta(seconds=30)


def test_without_schedules_no_process_waits_for_visits(room: Room) -> None:
    """After a reload that removed the last one."""
    child = begin_visit(room)
    room.roster.heard(child, Ended("seen", child.orders()[0].generation))

    room.roster.expect_no_visits()
    room.roster.heard(child, Gone())
    room.turn()

    assert len(room.children) == 1
    assert room.roster.finished


def test_the_orderly_end_adds_no_gaps_of_our_own(room: Room) -> None:
    """A stop is not a restart: the last measured row is the last row."""
    room.watch("a")
    [child] = room.children
    room.roster.heard(child, Closed(1, measured("a")))

    room.roster.finish(4.0)
    room.roster.heard(child, Gone())
    room.roster.close()

    assert room.roster.finished
    assert [row.no_score_reason for row in room.rows] == [None]
