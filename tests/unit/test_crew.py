"""When an ingest process is replaced, and what its successor is told."""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any

import pytest

from vqmon.daemon import crew as module
from vqmon.daemon.crew import Crew, Fault
from vqmon.daemon.ingest import IngestPlan
from vqmon.daemon.messages import Beat, Finish, Standing, Watch
from vqmon.domain import Stream

PLAN = IngestPlan(Path("e"), Path("p"), Path("s"), 0.25, 20)
NOW = 1000.0
ROOMY = 2_000_000_000


class FakeChild:
    """A process that takes messages, or does not."""

    made: list[FakeChild]

    def __init__(self, name: str, *_: object, **__: object) -> None:
        self.name = name
        self.got: list[Any] = []
        self.listens = True
        self.killed = False
        self.exit_code = -9
        FakeChild.made.append(self)

    def send(self, message: object) -> bool:
        self.got += [message] * self.listens
        return self.listens

    def kill(self, *, show_where: bool = False) -> None:
        self.killed = True

    def wait(self, seconds: float) -> bool:
        return True

    def close(self) -> None:
        self.killed = True


@pytest.fixture(autouse=True)
def no_real_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeChild.made = []
    monkeypatch.setattr(module, "Child", FakeChild)


def watch(name: str, generation: int = 1) -> Watch:
    return Watch(Stream(name, f"udp://{name}"), generation)


def standing(name: str = "a", state: str = "up", **fields: Any) -> Standing:
    fields = {"since": NOW, "last_packet": NOW} | fields
    return Standing(name, 1, state, **fields)  # type: ignore[arg-type]


def beat(*standings: Standing, memory: int = 100_000_000, lingering: float = 0.0) -> Beat:
    return Beat(memory, 1.0, lingering, standings)


@pytest.fixture
def crew() -> Crew:
    """A process that runs and watches a and b since NOW."""
    made = Crew("ingest-1", PLAN, queue.SimpleQueue())
    made.give(watch("a"))
    made.give(watch("b"))
    made.look(NOW)
    made.heard(beat(standing("a"), standing("b")), NOW)
    made.look(NOW)
    return made


def test_streams_are_told_when_the_process_listens(crew: Crew) -> None:
    """Not before its first beat: a pipe that nobody reads fills up."""
    [child] = FakeChild.made
    assert [it.stream.name for it in child.got] == ["a", "b"]

    crew.give(watch("c"))
    child.listens = False
    crew.look(NOW)
    child.listens = True
    crew.look(NOW)

    assert [it.stream.name for it in child.got] == ["a", "b", "c"]


def test_a_healthy_process_is_left_alone(crew: Crew) -> None:
    """Replacing it costs all its streams some seconds."""
    crew.heard(beat(standing("a", last_packet=NOW + 99), standing("b", "down")), NOW + 100)

    assert crew.fault(NOW + 101, ROOMY) is None


@pytest.mark.parametrize(
    ("heard", "later", "fault"),
    [
        (beat(), 10.5, Fault("hangs")),
        (beat(memory=ROOMY + 1), 1, Fault("memory", orderly=True)),
        (beat(lingering=61), 1, Fault("watch_does_not_end", orderly=True)),
    ],
    ids=lambda it: it.reason if isinstance(it, Fault) else "",
)
def test_what_is_wrong_with_a_process_is_named(
    crew: Crew, heard: Beat, later: float, fault: Fault
) -> None:
    """The log says why streams were interrupted; what still listens may finish its segments."""
    crew.heard(heard, NOW)

    assert crew.fault(NOW + later, ROOMY) == fault


@pytest.mark.parametrize(
    ("stands", "since", "stuck"),
    [
        (standing(read_timeout=10), 16.9, False),
        (standing(read_timeout=10), 17.1, True),
        (standing(read_timeout=20), 31.9, False),
        (standing(read_timeout=20), 32.1, True),
        (standing(last_packet=None), 17.1, True),
        (standing("a", "connecting"), 59, False),
        (standing("a", "connecting"), 61, True),
        (standing("a", "down"), 3600, False),
        (standing("a", "failed"), 3600, False),
    ],
)
def test_the_watchdog_looks_at_packets_and_trusts_timeouts_first(
    crew: Crew, stands: Standing, since: float, stuck: bool
) -> None:
    """1.5 times the stream's own read timeout: only a timeout that failed costs a process."""
    crew.heard(beat(stands), NOW + since)

    assert crew.fault(NOW + since, ROOMY) == (Fault("stream_hangs", "a") if stuck else None)


def test_what_an_earlier_watch_of_the_same_name_says_does_not_count(crew: Crew) -> None:
    """After a reload the old connection may still be hanging on its way out."""
    crew.give(watch("a", generation=2))
    crew.heard(beat(standing("a", since=0.0, last_packet=0.0), standing("b")), NOW)

    assert crew.fault(NOW, ROOMY) is None
    assert set(crew.standings()) == {"b"}


def test_a_process_that_never_gets_ready_is_replaced(crew: Crew) -> None:
    """Stuck in an import, on a disk that does not answer."""
    crew.replace(Fault("hangs"), NOW)
    crew.gone(NOW)
    crew.look(NOW)

    assert crew.fault(NOW + 59, ROOMY) is None
    assert crew.fault(NOW + 61, ROOMY) == Fault("never_ready")


def test_an_orderly_replacement_gives_time_to_finish(crew: Crew) -> None:
    """A process that grew too large has good segments in progress."""
    [child] = FakeChild.made

    crew.replace(Fault("memory", orderly=True), NOW)

    assert isinstance(child.got[-1], Finish)
    crew.look(NOW + 7)
    assert not child.killed
    crew.look(NOW + 9)
    assert child.killed


@pytest.mark.parametrize("listens", [True, False])
def test_a_hanging_process_is_killed_at_once(crew: Crew, listens: bool) -> None:
    """Its streams are waiting."""
    [child] = FakeChild.made
    child.listens = listens

    crew.replace(Fault("memory", orderly=True) if not listens else Fault("hangs"), NOW)

    assert child.killed


def test_a_successor_is_told_all_streams(crew: Crew) -> None:
    """Whatever happened, the operator asked for these."""
    crew.gone(NOW + 100)
    crew.look(NOW + 100)
    crew.heard(beat(), NOW + 101)
    crew.look(NOW + 101)

    assert [it.stream.name for it in FakeChild.made[1].got] == ["a", "b"]


def test_a_process_that_dies_again_and_again_is_started_ever_more_slowly(crew: Crew) -> None:
    """A crash at every start must not eat the machine; after half a minute of health it is new."""
    clock, delays = NOW, []
    for _ in range(7):
        crew.gone(clock)
        begun = clock
        while crew.child is None:
            crew.look(clock)
            clock += 0.5 if crew.child is None else 0.0
        delays.append(clock - begun)
    crew.gone(clock + 31)
    crew.look(clock + 31)

    assert delays == [0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 30.0]
    assert crew.child is not None


def test_a_machine_without_room_for_a_process_is_tried_again_later(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A container's limit on processes must not end the daemon."""

    def full(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    crew = Crew("ingest-1", PLAN, queue.SimpleQueue())
    crew.give(watch("a"))
    monkeypatch.setattr(module, "Child", full)
    crew.look(NOW)
    monkeypatch.setattr(module, "Child", FakeChild)
    crew.look(NOW + 1)
    assert not FakeChild.made

    crew.look(NOW + 31)

    assert len(FakeChild.made) == 1
    assert [it.message for it in caplog.records] == ["ingest_not_started"]
