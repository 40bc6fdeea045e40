"""Streams that are visited now and then: when each is due, and how many may be under way.

A stream between two visits is an entry in a list: it holds no process, thread or connection.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from vqmon.domain import Schedule


@dataclass(frozen=True, slots=True)
class Visit:
    """One visit of one stream, due at a time (UTC)."""

    name: str
    due: datetime


class VisitQueue:
    """Lets at most `most` visits be under way; the others wait, for at most `grace` seconds."""

    def __init__(self, most: int, grace: float) -> None:
        self._most = most
        self._grace = timedelta(seconds=grace)
        self._waiting: deque[Visit] = deque()
        self._under_way: set[str] = set()
        self._overrun: dict[str, Visit] = {}
        self._missed: list[Visit] = []

    def due(self, visit: Visit) -> None:
        """A visit's time has come. If the last one still waits or goes on, this one is missed."""
        if visit.name in self._under_way or any(it.name == visit.name for it in self._waiting):
            self._overrun[visit.name] = visit
        else:
            self._waiting.append(visit)

    def missed(self, now: datetime) -> list[Visit]:
        """Those that have waited too long since the last call, or were overrun by the one before."""
        while self._waiting and now - self._waiting[0].due > self._grace:
            late = self._waiting.popleft()
            self._missed.append(late)
            self._settle(late.name)
        missed, self._missed = self._missed, []
        return missed

    def begin(self) -> Iterator[Visit]:
        """Those that may start now; each counts as under way."""
        while self._waiting and len(self._under_way) < self._most:
            visit = self._waiting.popleft()
            self._under_way.add(visit.name)
            yield visit

    def over(self, name: str) -> None:
        """A visit has ended."""
        self._under_way.discard(name)
        self._settle(name)

    def forget(self, name: str) -> None:
        """A stream is not to be visited any more."""
        self._under_way.discard(name)
        self._overrun.pop(name, None)
        self._waiting = deque(it for it in self._waiting if it.name != name)

    def _settle(self, name: str) -> None:
        if name in self._overrun:
            self._missed.append(self._overrun.pop(name))


class Calendar:
    """The one clock of the daemon: says when visits are due, and does the housekeeping.

    Jobs live in memory: what is due is a matter of the configuration and the time of day, and
    needs no remembering. After a pause (a suspended machine) a job runs once, not once for each
    time that was slept through.
    """

    def __init__(
        self, due: Callable[[Visit], None], missed: Callable[[Visit], None], grace: float
    ) -> None:
        """`due` and `missed` are called in the calendar's own thread and must be quick."""
        from apscheduler.events import EVENT_JOB_MISSED
        from apscheduler.executors.debug import DebugExecutor
        from apscheduler.executors.pool import ThreadPoolExecutor
        from apscheduler.jobstores.memory import MemoryJobStore
        from apscheduler.schedulers.background import BackgroundScheduler

        logging.getLogger("apscheduler").setLevel(logging.ERROR)
        self._due = due
        self._missed = missed
        self._scheduler = BackgroundScheduler(
            jobstores={"default": MemoryJobStore()},
            executors={"default": DebugExecutor(), "housekeeping": ThreadPoolExecutor(2)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": grace},
            timezone=UTC,
        )
        self._scheduler.add_listener(self._note_missed, EVENT_JOB_MISSED)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """At once; a housekeeping job under way goes on until it is done."""
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)

    def visit(self, name: str, schedule: Schedule) -> None:
        """From now on (again) say when this stream is due."""
        from apscheduler.triggers.interval import IntervalTrigger

        trigger = IntervalTrigger(
            seconds=schedule.every,
            start_date=first_visit(name, schedule.every, datetime.now(UTC)),
            timezone=UTC,
        )
        self._scheduler.add_job(
            self._fire, trigger, args=[name], id=name, replace_existing=True, name=f"visit {name}"
        )

    def forget(self, name: str) -> None:
        """Never mind this stream."""
        if self._scheduler.get_job(name):
            self._scheduler.remove_job(name)

    def every(self, seconds: float, work: Callable[[], None], *, first: float) -> None:
        """Do something regularly, `first` seconds from now on, in a thread of its own."""
        self._scheduler.add_job(
            work,
            "interval",
            seconds=seconds,
            next_run_time=datetime.now(UTC) + timedelta(seconds=first),
            executor="housekeeping",
            misfire_grace_time=None,
        )

    def _fire(self, name: str) -> None:
        self._due(Visit(name, datetime.now(UTC)))

    def _note_missed(self, event: Any) -> None:
        self._missed(Visit(event.job_id, event.scheduled_run_time.astimezone(UTC)))


def first_visit(name: str, every: float, now: datetime) -> datetime:
    """The first time from `now` on at which a stream is due.

    Counted from 1970 and shifted by a hash of the name: visits spread evenly over the period,
    and a restart of the daemon moves none of them.
    """
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    offset = int.from_bytes(digest, "big") / 2**64 * every
    ahead = (offset - now.timestamp()) % every
    return now + timedelta(seconds=ahead)
