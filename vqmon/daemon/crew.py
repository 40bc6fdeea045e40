"""One ingest process as the supervisor sees it: its streams, its health, its replacement."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from vqmon.daemon import ingest
from vqmon.daemon.ingest import IngestPlan
from vqmon.daemon.messages import Beat, Finish, Standing, Watch
from vqmon.daemon.processes import Child, Inbox, Restarts

log = logging.getLogger("vqmon.daemon")

START_SECONDS = 60.0
"""Until the first beat: imports on a loaded machine."""

BEAT_SECONDS = 10.0
"""Without a beat for so long a process hangs as a whole."""

PACKET_PATIENCE = 1.5
"""In read timeouts of the stream. The source's own timeout has failed then."""

CONNECT_PATIENCE = 6.0
"""In read timeouts: an open that ends neither well nor badly."""

EXCUSED_SECONDS = 20.0
"""After a standstill: time to hear of every process and to receive packets again."""

LINGER_SECONDS = 60.0
"""A watch that was left and still has not ended."""

FINISH_SECONDS = 6.0
HEALTHY_SECONDS = 30.0
RETRY_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a process must be replaced. stream: which one made it necessary, None for no one.

    orderly: it still listens, so it may finish its segments.
    """

    reason: str
    stream: str | None = None
    orderly: bool = False


@dataclass(slots=True)
class Crew:
    """A process and the watches that it has, or will have once it runs (again)."""

    name: str
    plan: IngestPlan
    inbox: Inbox
    watches: dict[str, Watch] = field(default_factory=dict)
    child: Child | None = None
    beat: Beat | None = None
    ending: bool = False
    _untold: list[str] = field(default_factory=list)
    _beat_at: float = 0.0
    _end_by: float = float("inf")
    _restarts: Restarts = field(default_factory=lambda: Restarts(RETRY_SECONDS, HEALTHY_SECONDS))
    _excused_until: float = 0.0

    def give(self, order: Watch) -> None:
        """Have a stream watched, now or when the process is ready."""
        name = order.stream.name
        self.watches[name] = order
        if name not in self._untold:
            self._untold.append(name)

    def take(self, name: str) -> None:
        """Never mind a stream."""
        self.watches.pop(name, None)
        if name in self._untold:
            self._untold.remove(name)

    def heard(self, beat: Beat, clock: float) -> None:
        self.beat, self._beat_at = beat, clock

    def standings(self) -> Mapping[str, Standing]:
        """How the present generation of each watch stands."""
        told = self.beat.standings if self.beat and self.child else ()
        return {
            it.name: it
            for it in told
            if it.name in self.watches and it.generation == self.watches[it.name].generation
        }

    def look(self, clock: float) -> None:
        """Start the process when it is due; tell it about new streams; end what will not end."""
        if self.child is None:
            if self._restarts.due(clock):
                self._start(clock)
        elif self.ending:
            if clock >= self._end_by:
                self.child.kill(show_where=True)
        elif self.beat:
            while self._untold and self.child.send(self.watches[self._untold[0]]):
                self._untold.pop(0)

    def fault(self, clock: float, max_memory: int) -> Fault | None:
        """Why the process must be replaced, if it must."""
        if self.child is None or self.ending or clock < self._excused_until:
            return None
        if self.beat is None:
            return Fault("never_ready") if clock - self._restarts.begun > START_SECONDS else None
        if clock - self._beat_at > BEAT_SECONDS:
            return Fault("hangs")
        for standing in self.standings().values():
            if _stuck(standing, clock):
                return Fault("stream_hangs", standing.name)
        if self.beat.lingering > LINGER_SECONDS:
            return Fault("watch_does_not_end", orderly=True)
        if self.beat.resident_bytes > max_memory:
            return Fault("memory", orderly=True)
        return None

    def excuse(self, clock: float) -> None:
        """Judge again later: it was us who did not listen, or the whole machine stood still."""
        self._beat_at = clock
        self._excused_until = clock + EXCUSED_SECONDS

    def replace(self, fault: Fault, clock: float) -> None:
        """End the process; once it is gone the next one starts."""
        assert self.child
        self.ending = True
        orderly = fault.orderly and self.child.send(Finish(FINISH_SECONDS))
        self._end_by = clock + FINISH_SECONDS + 2.0 if orderly else clock
        self.look(clock)

    def finish(self, patience: float, clock: float) -> None:
        """End the process in order, at the latest a second after `patience`."""
        self.ending, self._end_by = True, clock + patience + 1.0
        if self.child and not self.child.send(Finish(patience)):
            self._end_by = clock

    def gone(self, clock: float) -> None:
        """The process has ended; all its streams need to be told to the next one."""
        child, self.child = self.child, None
        if child is None:
            return
        child.wait(1.0)
        delay = self._restarts.ended(clock)
        if not self.ending:
            fields = {"ingest": self.name, "exit_code": child.exit_code, "again_in": delay}
            log.error("ingest_ended", extra=fields)
        child.close()
        self.beat, self.ending = None, False

    def _start(self, clock: float) -> None:
        try:
            self.child = Child(self.name, ingest.main, self.name, self.plan, inbox=self.inbox)
        except OSError as error:
            self._restarts.refused(clock)
            _not_started(self.name, error)
            return
        self._restarts.started(clock)
        self._beat_at, self._end_by = clock, float("inf")
        self._untold = list(self.watches)


def _not_started(name: str, error: OSError) -> None:
    """No memory or no process left: the limits of the machine or of its container."""
    log.error("ingest_not_started", extra={"ingest": name, "error": str(error)})


def _stuck(standing: Standing, clock: float) -> bool:
    """Whether the source's own timeouts have failed."""
    if standing.state == "up":
        last = max(standing.last_packet or 0.0, standing.since)
        return clock - last > PACKET_PATIENCE * standing.read_timeout + 2.0
    if standing.state == "connecting":
        return clock - standing.since > CONNECT_PATIENCE * standing.read_timeout
    return False
