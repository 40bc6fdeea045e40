"""Who watches what: streams, the processes they are seated in, and what befalls both.

Here a dead or hung process is replaced, so that only its own streams notice, and every second
that a stream is not measured becomes a row that says why.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from vqmon.daemon.containment import contained
from vqmon.daemon.counting import Counts
from vqmon.daemon.coverage import Coverage, no_score
from vqmon.daemon.crew import Crew, Fault
from vqmon.daemon.ingest import IngestPlan
from vqmon.daemon.messages import Allow, Beat, Closed, Ended, Gone, Leave, Pictures, Said
from vqmon.daemon.processes import Inbox
from vqmon.daemon.seating import Seating
from vqmon.daemon.visits import Visit
from vqmon.daemon.watches import Watched, line_of
from vqmon.domain import Segment, Stream
from vqmon.settings import IngestSettings

log = logging.getLogger("vqmon.daemon")

REPEATED_SECONDS = 600.0
"""A stream that makes its process hang twice within this time gets a process of its own."""


class Roster:
    """All streams being watched and all ingest processes. Used by the supervisor's thread.

    keep: takes every finished row, measured or not. visit_over: told when a visit has ended.
    counted: takes what has passed of a stream under a generation, again and again.
    interrupted: told of every stream that has to begin anew because its process was replaced.
    """

    def __init__(
        self,
        settings: IngestSettings,
        plan: IngestPlan,
        inbox: Inbox,
        keep: Callable[[Segment], None],
        visit_over: Callable[[str], None],
        *,
        counted: Callable[[str, int, Counts], None] = lambda *_: None,
        interrupted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._plan = plan
        self._inbox = inbox
        self._keep = keep
        self._visit_over = visit_over
        self._counted = counted
        self._interrupted = interrupted
        self.replaced = 0
        """Processes that have ended though they were needed, so far."""
        self._always = Seating("ingest", settings.streams_per_process)
        self._visits = Seating("visits", settings.streams_per_process)
        self._crews: dict[str, Crew] = {}
        self._watched: dict[str, Watched] = {}
        self._culprits: dict[str, float] = {}
        self._full_sets: dict[str, datetime] = {}
        self._visited_until: dict[str, datetime] = {}
        self._finishing = False

    # -- streams come and go

    def watch(self, streams: Iterable[tuple[Stream, Pictures]]) -> None:
        """Watch these all the time; one that is watched already begins anew."""
        wanted = list(streams)
        self._always.seat(stream.name for stream, _ in wanted)
        for place, (stream, pictures) in enumerate(wanted):
            old = self._watched.get(stream.name)
            coverage = replace(old.coverage, stream=stream) if old else Coverage(stream)
            self._begin(stream, pictures, coverage, self._always.place(stream.name), place)

    def visit(self, visit: Visit, stream: Stream, pictures: Pictures) -> None:
        """Watch a stream for as long as its schedule says."""
        assert stream.schedule
        self._visits.seat([stream.name])
        share = stream.schedule.every / stream.schedule.seconds
        coverage = Coverage(stream, represents=share)
        self._begin(stream, pictures, coverage, self._visits.place(stream.name), 0)
        self._watched[stream.name].visit_due = visit.due

    def missed(self, visit: Visit, stream: Stream) -> None:
        """A visit that could not be made is a row, too, behind those of the one before."""
        assert stream.schedule
        log.warning("visit_missed", extra={"stream": stream.name})
        began = max(visit.due, self._visited_until.get(stream.name, visit.due))
        seconds = stream.schedule.seconds
        facts = {"visit": True, "represents_seconds": stream.schedule.every}
        self._keep(no_score(stream, began, seconds, "visit_missed", facts=facts))
        self._visited_until[stream.name] = began + timedelta(seconds=seconds)

    def leave(self, name: str) -> None:
        """Stop watching; segments that are still under way are kept."""
        watched = self._watched.pop(name, None)
        if watched is None:
            return
        self._tell(watched.crew, Leave(name))
        self._forget(watched, datetime.now(UTC))

    def allow(self, *, evidence: bool) -> None:
        """Whether pictures may be written."""
        self._plan = replace(self._plan, evidence_allowed=evidence)
        for crew in self._crews.values():
            crew.plan = self._plan
            self._tell(crew.name, Allow(evidence))

    def expect_no_visits(self) -> None:
        """End the processes that wait for the next visit."""
        for crew in list(self._crews.values()):
            if crew.name.startswith("visits") and not crew.watches:
                self._dismiss(crew)

    # -- what processes say

    def heard(self, who: object, what: Any) -> None:
        """React to one message of an ingest process."""
        clock = time.monotonic()
        crew = next((it for it in self._crews.values() if it.child is who), None)
        match what:
            case Closed():
                self._measured(what)
            case Said():
                self._remember(what)
            case Beat() if crew:
                self._beat(crew, what, clock)
            case Ended() if crew:
                self._ended(crew, what)
            case Gone() if crew:
                self._gone(crew, clock)

    def look(self, clock: float) -> None:
        """What has to be done now and then: twice a second."""
        now = datetime.now(UTC)
        for crew in list(self._crews.values()):
            with contained("look after process", crew.name):
                self._look_after(crew, clock)
        for watched in list(self._watched.values()):
            with contained("look after stream", watched.stream.name):
                self._look_at(watched, now, clock)

    def excuse(self, clock: float) -> None:
        """After a standstill of the supervisor no process is blamed for its silence."""
        for crew in self._crews.values():
            crew.excuse(clock)

    @property
    def ready(self) -> bool:
        """Whether every process has reported."""
        return all(crew.beat for crew in self._crews.values())

    @property
    def all_ended(self) -> bool:
        """Whether every stream has come to a good end; False without streams."""
        return bool(self._watched) and all(it.ended for it in self._watched.values())

    def states(self) -> dict[str, str]:
        """How each stream that is being watched stands: up, down, connecting, ended."""
        return {name: it.stands_as for name, it in self._watched.items()}

    def counts(self) -> Counter[str]:
        """Streams by how they stand."""
        return Counter(self.states().values())

    def resident_bytes(self) -> dict[str, int]:
        """Memory of each process, by name, as it was last told."""
        crews = self._crews.values()
        return {it.name: it.beat.resident_bytes for it in crews if it.child and it.beat}

    # -- the end

    def finish(self, patience: float) -> None:
        """End all watching in order; go on calling `heard` until `finished`."""
        self._finishing = True
        for crew in self._crews.values():
            crew.finish(patience, time.monotonic())

    @property
    def finished(self) -> bool:
        return all(crew.child is None for crew in self._crews.values())

    def close(self) -> None:
        """End what still runs and give out the rows of what is missing."""
        now = datetime.now(UTC)
        for crew in self._crews.values():
            if crew.child:
                crew.child.close()
        for watched in self._watched.values():
            if not watched.ended:
                for row in watched.coverage.close(now):
                    self._keep(row)

    # -- inside

    def _look_after(self, crew: Crew, clock: float) -> None:
        fault = crew.fault(clock, self._settings.max_memory)
        if fault:
            self._replace(crew, fault, clock)
        crew.look(clock)

    def _look_at(self, watched: Watched, now: datetime, clock: float) -> None:
        if not watched.ended:
            for row in watched.coverage.look(watched.standing, now, clock):
                self._keep(row)
        if watched.visit_is_over(clock):
            watched.left_at = clock
            self._tell(watched.crew, Leave(watched.stream.name))
        elif watched.does_not_end(clock):
            self._end_visit(watched, now)

    def _begin(
        self, stream: Stream, pictures: Pictures, coverage: Coverage, process: str, place: int
    ) -> None:
        full_set_at = self._full_sets.get(stream.name)
        watched = Watched(stream, pictures, coverage, process, time.monotonic(), full_set_at)
        self._watched[stream.name] = watched
        self._crew(process).give(watched.order(place))

    def _crew(self, name: str) -> Crew:
        if name not in self._crews:
            self._crews[name] = Crew(name, self._plan, self._inbox)
        return self._crews[name]

    def _tell(self, crew: str, message: object) -> None:
        child = self._crews[crew].child if crew in self._crews else None
        if child:
            child.send(message)

    def _measured(self, closed: Closed) -> None:
        segment = closed.segment
        watched = self._watched.get(segment.stream)
        if segment.evidence:
            self._full_sets[segment.stream] = segment.started_at
        if watched is None:  # it was left meanwhile
            self._keep(segment)
            return
        watched.full_set_at = self._full_sets.get(segment.stream)
        self._note_load(watched, segment)
        for row in watched.coverage.measured(segment):
            self._keep(row)

    def _note_load(self, watched: Watched, segment: Segment) -> None:
        """Monitoring that became coarser, or fine again, is worth a line."""
        coarser = int(segment.facts.get("coarser_by", 1))
        if (coarser > 1) != (watched.coarser > 1):
            event = "stream_overloaded" if coarser > 1 else "stream_keeps_up_again"
            log.warning(event, extra={"stream": segment.stream, "coarser_by": coarser})
        watched.coarser = coarser

    def _remember(self, said: Said) -> None:
        watched = self._watched.get(said.stream or "")
        if watched:
            watched.lines.append(line_of(said.record))

    def _beat(self, crew: Crew, beat: Beat, clock: float) -> None:
        crew.heard(beat, clock)
        for name, standing in crew.standings().items():
            self._watched[name].stands(standing, clock)
            self._counted(name, standing.generation, standing.counts)

    def _ended(self, crew: Crew, ended: Ended) -> None:
        self._counted(ended.name, ended.generation, ended.counts)
        watched = self._watched.get(ended.name)
        if watched is None or watched.generation != ended.generation or self._finishing:
            return
        if watched.visit_due:
            self._end_visit(watched, datetime.now(UTC))
            return
        log.info("stream_ended", extra={"stream": ended.name})
        watched.ended = True
        crew.take(ended.name)
        self._always.leave(ended.name)
        self._close_if_idle(crew)

    def _end_visit(self, watched: Watched, now: datetime) -> None:
        """Nothing may have been seen at all: then one row says so for the whole visit."""
        coverage, schedule = watched.coverage, watched.stream.schedule
        assert schedule
        for row in coverage.close(now):
            self._keep(row)
        if coverage.until is None:
            reason = watched.standing and watched.standing.reason
            for row in coverage.missing(now, schedule.seconds, reason or "timeout_open"):
                self._keep(row)
        self._watched.pop(watched.stream.name, None)
        self._visited_until[watched.stream.name] = coverage.until or now
        self._forget(watched, now)
        self._visit_over(watched.stream.name)

    def _forget(self, watched: Watched, now: datetime) -> None:
        """Free the place of a stream that is not watched any more."""
        name = watched.stream.name
        for row in watched.coverage.close(now):
            self._keep(row)
        crew = self._crews[watched.crew]
        crew.take(name)
        (self._visits if watched.visit_due else self._always).leave(name)
        self._close_if_idle(crew)

    def _close_if_idle(self, crew: Crew) -> None:
        """A process without streams ends; those for visits wait for the next one."""
        if not crew.watches and crew.name.startswith("ingest"):
            self._dismiss(crew)

    def _dismiss(self, crew: Crew) -> None:
        self._always.close(crew.name)
        self._visits.close(crew.name)
        crew.finish(10.0, time.monotonic())
        if crew.child is None:
            self._crews.pop(crew.name, None)

    def _gone(self, crew: Crew, clock: float) -> None:
        """A process has ended: its streams go on in the next one."""
        unexpected = not crew.ending
        dismissed = crew.ending and not crew.watches
        crew.gone(clock)
        if dismissed:
            self._crews.pop(crew.name, None)
        if self._finishing:
            return
        self.replaced += not dismissed
        for place, name in enumerate(list(crew.watches)):
            watched = self._watched[name]
            self._interrupt(watched)
            if unexpected:
                _print_last_lines(watched, "process_ended")
            crew.give(watched.order(place))

    def _replace(self, crew: Crew, fault: Fault, clock: float) -> None:
        fields = {"ingest": crew.name, "reason": fault.reason, "stream": fault.stream}
        log.error("ingest_replaced", extra={k: v for k, v in fields.items() if v})
        for name in [fault.stream] if fault.stream else list(crew.watches):
            _print_last_lines(self._watched[name], fault.reason)
        crew.replace(fault, clock)
        if fault.stream:
            self._suspect(crew, fault.stream, clock)

    def _suspect(self, crew: Crew, name: str, clock: float) -> None:
        """A stream that does it again harms itself alone from now on."""
        last, self._culprits[name] = self._culprits.get(name), clock
        watched = self._watched[name]
        if last is None or clock - last > REPEATED_SECONDS or len(crew.watches) == 1:
            return
        seating = self._visits if watched.visit_due else self._always
        watched.crew = seating.isolate(name)
        log.warning("stream_isolated", extra={"stream": name, "ingest": watched.crew})
        crew.take(name)
        self._interrupt(watched)
        self._crew(watched.crew).give(watched.order(0))

    def _interrupt(self, watched: Watched) -> None:
        """By a fault of our own."""
        watched.coverage.interrupted(datetime.now(UTC))
        self._interrupted(watched.stream.name)


def _print_last_lines(watched: Watched, reason: str) -> None:
    if watched.lines:
        fields = {"stream": watched.stream.name, "reason": reason, "lines": list(watched.lines)}
        log.warning("stream_last_lines", extra=fields)
        watched.lines.clear()
