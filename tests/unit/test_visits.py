"""Streams that are visited now and then."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from vqmon.daemon.visits import Calendar, Visit, VisitQueue, first_visit
from vqmon.domain import Schedule

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def names(visits: Iterable[Visit]) -> list[str]:
    return [visit.name for visit in visits]


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def test_first_visits_are_spread_over_the_period() -> None:
    """A thousand streams that all opened on the full five minutes would knock each other out."""
    firsts = [first_visit(f"camera-{n}", 300, NOON) for n in range(3000)]

    waits = [(first - NOON).total_seconds() for first in firsts]
    per_tenth = Counter(int(wait // 30) for wait in waits)
    assert min(waits) >= 0
    assert max(waits) < 300
    assert all(220 < per_tenth[tenth] < 380 for tenth in range(10))


def test_a_restart_of_the_daemon_moves_no_visit() -> None:
    """Visits are counted from a fixed day, so measurements stay evenly spaced."""
    before = first_visit("lobby", 300, NOON)
    later = first_visit("lobby", 300, NOON + timedelta(hours=7, seconds=123))

    rest = (later - before).total_seconds() % 300
    assert min(rest, 300 - rest) < 1e-3


def test_no_more_visits_go_on_at_once_than_allowed() -> None:
    """The cap is what makes thousands of streams cheap."""
    queue = VisitQueue(most=2, grace=30)
    for name in "abc":
        queue.due(Visit(name, NOON))

    first, again = names(queue.begin()), names(queue.begin())
    queue.over("a")

    assert (first, again, names(queue.begin())) == (["a", "b"], [], ["c"])


def test_a_visit_that_waits_too_long_is_missed_and_told_once() -> None:
    """The report must show that nobody looked; silence would count as fine."""
    queue = VisitQueue(most=1, grace=30)
    queue.due(Visit("a", NOON))
    queue.due(Visit("b", NOON))
    list(queue.begin())

    assert names(queue.missed(after(29))) == []
    assert names(queue.missed(after(31))) == ["b"]
    assert names(queue.missed(after(32))) == []
    queue.over("a")
    assert names(queue.begin()) == []


def test_a_visit_due_while_the_last_one_goes_on_is_missed_once_that_is_over() -> None:
    """Two visits of one stream at once would measure each other; their rows must not overlap."""
    queue = VisitQueue(most=1, grace=30)
    queue.due(Visit("a", NOON))
    list(queue.begin())

    queue.due(Visit("a", after(10)))
    assert queue.missed(after(11)) == []
    queue.over("a")

    assert queue.missed(after(12)) == [Visit("a", after(10))]
    assert names(queue.begin()) == []


def test_a_visit_due_while_the_last_one_still_waits_is_missed_with_it() -> None:
    """Nobody looked, twice."""
    queue = VisitQueue(most=0, grace=30)
    queue.due(Visit("a", NOON))
    queue.due(Visit("a", after(10)))

    assert queue.missed(after(31)) == [Visit("a", NOON), Visit("a", after(10))]


def test_a_stream_that_is_removed_waits_no_more() -> None:
    """After a reload nobody visits what is not configured any more."""
    queue = VisitQueue(most=1, grace=30)
    queue.due(Visit("a", NOON))
    queue.due(Visit("a", after(10)))

    queue.forget("a")

    assert names(queue.begin()) == []
    assert queue.missed(after(60)) == []


def calendar_with(due: list[Visit], missed: list[Visit], grace: float = 30.0) -> Calendar:
    return Calendar(due.append, missed.append, grace)


def until(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_the_calendar_says_when_streams_are_due_again_and_again() -> None:
    """Measured with the real scheduler: two streams, a second apart from visit to visit."""
    due: list[Visit] = []
    calendar = calendar_with(due, [])
    calendar.visit("a", Schedule(1.0, 0.5))
    calendar.visit("b", Schedule(1.0, 0.5))
    calendar.start()

    assert until(lambda: Counter(names(due))["a"] >= 3)
    calendar.stop()

    times = [visit.due for visit in due if visit.name == "a"]
    gaps = [(b - a).total_seconds() for a, b in pairwise(times)]
    assert gaps == pytest.approx([1.0] * len(gaps), abs=0.2)
    assert "b" in names(due)


def test_a_forgotten_stream_is_never_due_and_a_changed_one_once_a_period() -> None:
    """What a reload does."""
    due: list[Visit] = []
    calendar = calendar_with(due, [])
    calendar.visit("gone", Schedule(1.0, 0.5))
    calendar.visit("kept", Schedule(3600.0, 0.5))
    calendar.visit("kept", Schedule(1.0, 0.5))
    calendar.forget("gone")
    calendar.forget("never known")
    calendar.start()

    assert until(lambda: len(due) >= 2)
    calendar.stop()

    assert set(names(due)) == {"kept"}


def test_what_was_slept_through_is_told_once_as_missed() -> None:
    """After a suspended machine wakes there is one row that says so, and no rush of visits."""
    due: list[Visit] = []
    missed: list[Visit] = []
    calendar = calendar_with(due, missed, grace=1.0)
    calendar.start()
    calendar.visit("a", Schedule(10.0, 5.0))
    job = calendar._scheduler.get_job("a")
    job.modify(next_run_time=datetime.now(UTC) - timedelta(seconds=35))

    assert until(lambda: missed)
    calendar.stop()
    assert names(missed) == ["a"]
    assert due == []


def test_thousands_of_scheduled_streams_cost_next_to_nothing() -> None:
    """Between visits a stream is an entry in a list: no thread, no process, no connection."""
    calendar = calendar_with([], [])
    calendar.start()
    threads, cpu = threading.active_count(), time.process_time()

    for number in range(3000):
        calendar.visit(f"camera-{number}", Schedule(3600.0, 30.0))
    time.sleep(1.0)

    assert threading.active_count() <= threads + 1
    assert time.process_time() - cpu < 5.0
    calendar.stop()


def test_housekeeping_runs_beside_the_visits() -> None:
    """A sweep that takes a minute must not delay what is due meanwhile."""
    due: list[Visit] = []
    calendar = calendar_with(due, [])
    release, swept = threading.Event(), threading.Event()

    def sweep() -> None:
        swept.set()
        release.wait(10)

    calendar.every(60.0, sweep, first=0.0)
    calendar.visit("a", Schedule(1.0, 0.5))
    calendar.start()

    assert swept.wait(5)
    assert until(lambda: due)
    release.set()
    calendar.stop()
