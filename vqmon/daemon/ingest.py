"""An ingest process: a few streams, one thread for each, from connection to closed segment.

It imports neither the database nor the model. What it finds out goes to the supervisor through
one thread, so that no stream ever waits for the supervisor.
"""

from __future__ import annotations

import ctypes
import logging
import os
import queue
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vqmon.daemon.counting import Counting
from vqmon.daemon.coverage import RESTARTED
from vqmon.daemon.messages import Allow, Beat, Closed, Ended, Finish, Leave, Said, Standing, Watch
from vqmon.daemon.processes import THREAD_PREFIX, Forwarding, bind_to_supervisor
from vqmon.domain import Stream
from vqmon.errors import SourceError, SourceRejected
from vqmon.evidence import EvidenceKeeper, PacketRing, folder_name
from vqmon.pipeline import monitor
from vqmon.ports import Scorer
from vqmon.sampling import BurstBudget

log = logging.getLogger("vqmon.ingest")

BEAT_SECONDS = 1.0
MOST_UNSENT = 10_000
"""Messages that may wait for the supervisor; far more than it ever falls behind."""

MOST_UNSENT_LINES = 500
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""After a failure that the source itself does not try again."""

REJECTED_RETRY_SECONDS = 300.0
_M_ARENA_MAX = -8


@dataclass(frozen=True, slots=True)
class IngestPlan:
    """What every ingest process is told when it starts."""

    evidence: Path
    packets: Path
    scoring: Path
    burst_cpu: float
    log_level: int
    evidence_allowed: bool = True
    uncertain: float | None = None
    """Points: pictures of segments whose score is that uncertain are kept, for the writer."""


def main(pipe: Connection, name: str, plan: IngestPlan) -> None:
    """The main function of the process; never returns."""
    bind_to_supervisor(f"vqmon-{name}")
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)  # a heap for each thread would grow eightfold
    code = 0
    try:
        _Ingest(pipe, plan).run()
    except Exception:
        traceback.print_exc()
        code = 1
    # Threads may be inside FFmpeg, where an orderly exit would wait for them.
    os._exit(code)


class _Ingest:
    """The streams of this process and the two threads that speak to the supervisor."""

    def __init__(self, pipe: Connection, plan: IngestPlan) -> None:
        from vqmon.scorers.shared import SharedScorer

        self.plan = plan
        self.allowed = plan.evidence_allowed
        self.scorer: Scorer = SharedScorer(plan.scoring)
        self.budget = BurstBudget(plan.burst_cpu)
        self._pipe = pipe
        self._outbox: queue.Queue[Any] = queue.Queue(MOST_UNSENT)
        self._watches: dict[str, _Watching] = {}
        self._left: list[_Watching] = []
        Forwarding.install(self._say, plan.log_level)

    def run(self) -> None:
        for work in (self._send_all, self._beat_forever):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        while True:
            try:
                order = self._pipe.recv()
            except (EOFError, OSError):
                return  # the supervisor is gone
            match order:
                case Watch():
                    self._watch(order)
                case Leave():
                    self._leave(order.name)
                case Allow():
                    self.allowed = order.evidence
                case Finish():
                    self._finish(order.patience)
                    return

    def send(self, message: object) -> None:
        with suppress(queue.Full):  # the supervisor is stuck for hours; it will be replaced
            self._outbox.put_nowait(message)

    def _watch(self, order: Watch) -> None:
        self._leave(order.stream.name)
        self._watches[order.stream.name] = _Watching(order, self)

    def _leave(self, name: str) -> None:
        watch = self._watches.pop(name, None)
        if watch:
            watch.leave()
            self._left.append(watch)

    def _finish(self, patience: float) -> None:
        """Leave all streams, send what they still give, and be done."""
        deadline = time.monotonic() + patience
        for name in list(self._watches):
            self._leave(name)
        for watch in self._left:
            watch.thread.join(max(0.0, deadline - time.monotonic()))
        sent = threading.Event()
        self.send(sent)
        sent.wait(max(1.0, deadline - time.monotonic()))

    def _say(self, line: Said) -> None:
        if self._outbox.qsize() < MOST_UNSENT_LINES:
            self.send(line)

    def _send_all(self) -> None:
        while True:
            message = self._outbox.get()
            if isinstance(message, threading.Event):
                message.set()
                continue
            try:
                self._pipe.send(message)
            except OSError:
                os._exit(0)

    def _beat_forever(self) -> None:
        while True:
            if self._outbox.qsize() < MOST_UNSENT_LINES:
                self.send(self._beat())
            time.sleep(BEAT_SECONDS)

    def _beat(self) -> Beat:
        self._left = [watch for watch in self._left if watch.thread.is_alive()]
        now = time.monotonic()
        return Beat(
            resident_bytes=_resident_bytes(),
            cpu_seconds=time.process_time(),
            lingering=max((now - watch.left_at for watch in self._left), default=0.0),
            standings=tuple(watch.standing() for watch in list(self._watches.values())),
        )


class _Watching:
    """One stream under one generation, in a thread of its own."""

    def __init__(self, order: Watch, ingest: _Ingest) -> None:
        self.left_at = 0.0
        self._order = order
        self._ingest = ingest
        self._stopping = threading.Event()
        self._source: Any = None
        self._trouble: Standing | None = None
        self._counting = Counting()
        self._watched = 0.0
        self._begun = time.monotonic()
        self.thread = threading.Thread(
            target=self._run, name=f"{THREAD_PREFIX}{order.stream.name}", daemon=True
        )
        self.thread.start()

    def leave(self) -> None:
        """End soon; a read under way ends by its own timeout."""
        self.left_at = time.monotonic()
        self._stopping.set()
        if self._source:
            self._source.stop()

    def standing(self) -> Standing:
        trouble, source = self._trouble, self._source
        if trouble:
            return replace(trouble, counts=self._counting.counts)
        if source is None:
            return self._stand("connecting", since=self._begun)
        status = source.status
        return self._stand(
            status.state,
            reason=status.reason,
            detail=status.detail,
            since=status.since,
            reconnects=status.reconnects,
            last_packet=status.last_packet_monotonic,
            read_timeout=status.read_timeout,
        )

    def _stand(self, state: Any, **fields: Any) -> Standing:
        name, generation = self._order.stream.name, self._order.generation
        return Standing(name, generation, state, counts=self._counting.counts, **fields)

    def _run(self) -> None:
        failures = 0
        self._stopping.wait(self._order.delay)
        while not self._stopping.is_set():
            watched = self._watched
            try:
                self._watch_once()
                break
            except Exception as error:
                failures = 1 if self._watched > watched else failures + 1
                self._counting.lost(error.reason if isinstance(error, SourceError) else RESTARTED)
                self._trouble = self._troubled(error)
                self._stopping.wait(_retry_after(error, failures))
        name, generation = self._order.stream.name, self._order.generation
        self._ingest.send(Ended(name, generation, self._counting.counts))

    def _watch_once(self) -> None:
        """From opening to a good end of the source, of the visit, or of the watch."""
        from vqmon.sources import open_source

        ring = self._ring()
        tee = self._tee(ring) if ring else None
        self._source = source = open_source(self._stream(), tee=tee)
        self._trouble = None
        if self._stopping.is_set():
            return
        segments = monitor(
            self._stream(),
            self._counting.over(source),
            self._ingest.scorer,
            evidence=self._keeper(),
            budget=self._ingest.budget,
        )
        try:
            for segment in segments:
                self._ingest.send(Closed(self._order.generation, segment))
                self._watched += segment.seconds
                if self._visit_complete():
                    break
        finally:
            segments.close()  # type: ignore[attr-defined]  # a generator: lets go of the source
            if ring:
                ring.close()

    def _visit_complete(self) -> bool:
        wanted = self._order.visit_seconds
        return wanted is not None and self._watched >= wanted - 0.5

    def _stream(self) -> Stream:
        """A visit shorter than a segment is one segment."""
        stream, visit = self._order.stream, self._order.visit_seconds
        if visit is None:
            return stream
        return replace(stream, segment_seconds=min(stream.segment_seconds, visit))

    def _keeper(self) -> EvidenceKeeper:
        pictures = self._order.pictures
        return EvidenceKeeper(
            self._ingest.plan.evidence,
            self._order.stream.name,
            segment_seconds=self._stream().segment_seconds,
            thumbnails=pictures.thumbnails,
            frames=pictures.frames,
            quality=pictures.jpeg_quality,
            hourly=pictures.hourly,
            full_set_at=self._order.full_set_at,
            uncertain=self._ingest.plan.uncertain,
            below=pictures.below,
            allowed=lambda: self._ingest.allowed,
        )

    def _ring(self) -> PacketRing | None:
        stream = self._order.stream
        if not stream.packet_ring_seconds:
            return None
        folder = self._ingest.plan.packets / folder_name(stream.name)
        return PacketRing(folder, stream.packet_ring_seconds)

    def _tee(self, ring: PacketRing) -> Callable[[Any, Any], None]:
        def tee(packet: Any, container: Any) -> None:
            if self._ingest.allowed:
                ring.tee(packet, container)

        return tee

    def _troubled(self, error: Exception) -> Standing:
        """What went wrong, said once for each cause."""
        now, name, old = time.monotonic(), self._order.stream.name, self._trouble
        if isinstance(error, SourceError):
            standing = self._stand("down", reason=error.reason, detail=error.message, since=now)
            if old is None or old.reason != error.reason:
                fields = {"stream": name, "reason": error.reason, "detail": str(error)}
                log.warning("stream_lost", extra=fields)
        else:
            standing = self._stand("failed", detail=repr(error), since=now)
            if old is None or old.detail != standing.detail:
                log.error("stream_failed", extra={"stream": name}, exc_info=error)
        same = old is not None and old.state == standing.state
        return replace(standing, since=old.since) if old and same else standing


def _retry_after(error: Exception, failures: int) -> float:
    if isinstance(error, SourceRejected):
        return REJECTED_RETRY_SECONDS
    return RETRY_SECONDS[min(failures, len(RETRY_SECONDS)) - 1]


def _resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")
