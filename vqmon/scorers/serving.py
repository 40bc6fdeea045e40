"""The scoring process: frames of all streams, from all ingest processes, share its batches.

One thread does everything in turn: read what waits, score up to a batch of it, answer. Nothing
waits for a batch to fill, so an idle process adds no delay and a busy one batches by itself.
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import threading
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import Any

from vqmon.domain import Assessment
from vqmon.errors import ScorerError
from vqmon.measures import Measures
from vqmon.ports import Scorer
from vqmon.preprocess import Prepared
from vqmon.scorers import load_scorer
from vqmon.scorers.wire import (
    PROTOCOL,
    Arena,
    BadMessage,
    Header,
    Unpacker,
    array_bytes,
    pack,
    pack_assessment,
    take_up,
)

log = logging.getLogger("vqmon.scorers")

MAX_BATCH = 64
MAX_WAITING = 4096
"""Requests held at most; beyond that clients are not read, and their deadlines do the rest."""

MAX_UNREAD = 1 << 23
"""Bytes of answers that a client may leave unread before it is dropped."""

LOOK_UP_SECONDS = 0.5
"""How often the loop looks whether it shall stop."""

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, float("inf"))
"""Seconds up to which latencies are counted together."""

QUIET_SECONDS = 60.0
"""Between two log lines about pictures that cannot be scored."""

ORPHAN_GRACE_SECONDS = 2.0
"""After the parent's death: how long an inference may still hold up the orderly end."""


def serve(
    spec: str | Path | None,
    address: Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    max_batch: int = MAX_BATCH,
    stop: threading.Event | None = None,
    lifeline: connection.Connection | None = None,
) -> None:
    """Load a scorer and answer on the Unix socket `address` until `stop` or the parent's death.

    The main function of the scoring process. `lifeline` is the reading end of a pipe whose
    other end the supervisor holds: its end of file, or a new parent process, ends the process
    within 5 s. A newer process on the same address replaces this one for new connections.
    Raises ScorerError when the scorer cannot be loaded or the address not be used.
    """
    scorer = load_scorer(spec, device=device, threads=threads)
    serve_scorer(scorer, address, max_batch=max_batch, stop=stop, lifeline=lifeline)


def serve_scorer(
    scorer: Scorer,
    address: Path,
    *,
    max_batch: int = MAX_BATCH,
    stop: threading.Event | None = None,
    lifeline: connection.Connection | None = None,
) -> None:
    """`serve` for a scorer that is already there."""
    stop = stop or threading.Event()
    ended = threading.Event()
    watch = threading.Thread(target=_watch_parent, args=(stop, ended, lifeline), daemon=True)
    watch.start()
    server = ScoringServer(scorer, address, max_batch)
    try:
        while not stop.is_set():
            server.turn(LOOK_UP_SECONDS)
    finally:
        server.close()
        ended.set()


def _watch_parent(
    stop: threading.Event, ended: threading.Event, lifeline: connection.Connection | None
) -> None:
    """Set `stop` when the parent is gone; end the process when even that does not help."""
    parent = os.getppid()
    while not ended.is_set():
        if lifeline is not None:
            hung_up = bool(connection.wait([lifeline], LOOK_UP_SECONDS))
        else:
            hung_up = False
            ended.wait(LOOK_UP_SECONDS)
        if hung_up or os.getppid() != parent:
            stop.set()
            if not ended.wait(ORPHAN_GRACE_SECONDS):
                os._exit(1)
            return


@dataclass(slots=True)
class _Client:
    """One connection: a process that asks."""

    sock: socket.socket
    unpacker: Unpacker = field(default_factory=Unpacker)
    descriptors: list[int] = field(default_factory=list)
    arena: Arena | None = None
    unsent: bytearray = field(default_factory=bytearray)
    gone: bool = False

    def close(self) -> None:
        self.gone = True
        self.sock.close()
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        if self.arena:
            self.arena.close()
            self.arena = None


@dataclass(frozen=True, slots=True)
class _Request:
    client: _Client
    number: int
    picture: Prepared
    expires: float
    arrived: float


@dataclass(slots=True)
class _Counts:
    """What `SharedScorer.stats` reports; seconds are sums since the start."""

    pictures: int = 0
    batches: int = 0
    failed: int = 0
    expired: int = 0
    scoring_seconds: float = 0.0
    latency_seconds: float = 0.0
    latency_seconds_max: float = 0.0
    batch_sizes: Counter[int] = field(default_factory=Counter)
    latencies: list[int] = field(default_factory=lambda: [0] * len(LATENCIES))


class ScoringServer:
    """Clients, the requests that wait, and the scorer between them. Used by one thread."""

    def __init__(self, scorer: Scorer, address: Path, max_batch: int = MAX_BATCH) -> None:
        self._scorer = scorer
        self._max_batch = max_batch
        self._waiting: deque[_Request] = deque()
        self._counts = _Counts()
        self._quiet_until = 0.0
        self._started = time.monotonic()
        self._address = address
        self._listener, self._inode = _listen(address)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        log.info("scoring_started", extra={"model": scorer.model, "address": str(address)})

    def turn(self, patience: float) -> None:
        """Read what has arrived, waiting up to `patience` seconds if idle; score one batch."""
        for key, events in self._selector.select(0 if self._waiting else patience):
            if key.data is None:
                self._accept()
                continue
            client: _Client = key.data
            if events & selectors.EVENT_WRITE:
                self._flush(client)
            if events & selectors.EVENT_READ and len(self._waiting) < MAX_WAITING:
                self._receive(client)
        if self._waiting:
            self._score()

    def close(self) -> None:
        """Hang up on everybody; remove the socket unless a successor has taken its place."""
        for key in list(self._selector.get_map().values()):
            if key.data is not None:
                self._drop(key.data)
        self._selector.close()
        self._listener.close()
        if _inode(self._address) == self._inode:
            self._address.unlink(missing_ok=True)

    # -- connections

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        if _peer_user(sock) not in (os.getuid(), 0):
            log.warning("scoring_refused_foreign_user")
            sock.close()
            return
        sock.setblocking(False)
        client = _Client(sock)
        self._selector.register(sock, selectors.EVENT_READ, client)
        hello = {"type": "hello", "protocol": PROTOCOL, "model": self._scorer.model}
        self._send(client, pack(hello | {"inputs": getattr(self._scorer, "inputs", None)}))

    def _receive(self, client: _Client) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(client.sock, 1 << 18, 4)
        except BlockingIOError:
            return
        except OSError:
            self._drop(client)
            return
        client.descriptors += descriptors
        if not data:
            self._drop(client)
            return
        try:
            for header, body in client.unpacker.feed(data):
                if client.gone:
                    return
                self._take(client, header, body)
        except (BadMessage, KeyError, TypeError) as error:
            log.warning("scoring_bad_message", extra={"error": str(error)})
            self._drop(client)

    def _take(self, client: _Client, header: Header, body: bytes) -> None:
        match header["type"]:
            case "picture":
                self._waiting.append(_request(client, header, body))
            case "arena":
                if not client.descriptors:
                    raise BadMessage("an arena without a descriptor")
                if client.arena:
                    client.arena.close()
                    client.arena = None
                descriptor = client.descriptors.pop(0)
                client.arena = Arena(descriptor, header["slots"], header["slot_bytes"])
            case "stats":
                reply = {"type": "stats", "id": header["id"], "stats": self._stats()}
                self._send(client, pack(reply))
            case other:
                raise BadMessage(f"a message of type {other!r}")

    def _send(self, client: _Client, message: bytes) -> None:
        if client.gone:
            return
        client.unsent += message
        self._flush(client)

    def _flush(self, client: _Client) -> None:
        try:
            sent = client.sock.send(client.unsent) if client.unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        del client.unsent[:sent]
        if len(client.unsent) > MAX_UNREAD:
            log.warning("scoring_client_does_not_read")
            self._drop(client)
            return
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
        self._selector.modify(client.sock, wanted, client)

    def _drop(self, client: _Client) -> None:
        """Forget a client: its socket, its memory and whatever it still waits for."""
        if client.gone:
            return
        self._selector.unregister(client.sock)
        client.close()
        self._waiting = deque(r for r in self._waiting if r.client is not client)

    # -- scoring

    def _score(self) -> None:
        batch = self._next_batch()
        if not batch:
            return
        begun = time.monotonic()
        assessed = self._assess([request.picture for request in batch])
        ended = time.monotonic()
        self._count(batch, assessed, begun, ended)
        for request, assessment in zip(batch, assessed, strict=True):
            self._send(request.client, pack_assessment(request.number, assessment))

    def _next_batch(self) -> list[_Request]:
        """The oldest requests that somebody still waits for."""
        batch: list[_Request] = []
        now = time.monotonic()
        while self._waiting and len(batch) < self._max_batch:
            request = self._waiting.popleft()
            if request.expires < now:
                self._counts.expired += 1
            else:
                batch.append(request)
        return batch

    def _assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        """Scores; when a batch fails, each picture alone, so that one cannot spoil the rest."""
        try:
            return self._scorer.assess(pictures)
        except Exception as error:
            if len(pictures) > 1:
                return [a for picture in pictures for a in self._assess([picture])]
            self._note_failure(error)
            return [_failed(pictures[0], self._scorer.model)]

    def _note_failure(self, error: Exception) -> None:
        """Logged once a minute at most: one bad stream among good ones fails all the time."""
        now = time.monotonic()
        if now >= self._quiet_until:
            log.error("scorer_failed", extra={"error": str(error)}, exc_info=error)
            self._quiet_until = now + QUIET_SECONDS

    def _count(
        self, batch: list[_Request], assessed: list[Assessment], begun: float, ended: float
    ) -> None:
        counts = self._counts
        latencies = [ended - request.arrived for request in batch]
        counts.pictures += len(batch)
        counts.batches += 1
        counts.batch_sizes[len(batch)] += 1
        counts.failed += sum(a.quality is None for a in assessed)
        counts.scoring_seconds += ended - begun
        counts.latency_seconds += sum(latencies)
        counts.latency_seconds_max = max(counts.latency_seconds_max, *latencies)
        for latency in latencies:
            counts.latencies[bisect_left(LATENCIES, latency)] += 1

    def _stats(self) -> dict[str, Any]:
        counts = self._counts
        return {
            "model": self._scorer.model,
            "process": os.getpid(),
            "up_seconds": time.monotonic() - self._started,
            "clients": len(self._selector.get_map()) - 1,
            "queue_length": len(self._waiting),
            "pictures": counts.pictures,
            "batches": counts.batches,
            "failed": counts.failed,
            "expired": counts.expired,
            "scoring_seconds": counts.scoring_seconds,
            "latency_seconds": counts.latency_seconds,
            "latency_seconds_max": counts.latency_seconds_max,
            "batch_sizes": {str(size): n for size, n in sorted(counts.batch_sizes.items())},
            "latencies": [[str(it), n] for it, n in zip(LATENCIES, counts.latencies, strict=True)],
        }


def _request(client: _Client, header: Header, body: bytes) -> _Request:
    arrays = header["arrays"]
    if header["slot"] is not None:
        if client.arena is None:
            raise BadMessage("a slot without an arena")
        body = client.arena.read(header["slot"], array_bytes(arrays))
    inputs = take_up(arrays, body)
    picture = Prepared(
        position=float(header["position"]),
        measures=Measures(values=inputs["measures"], cells={}),
        inputs=inputs,
    )
    return _Request(client, int(header["id"]), picture, float(header["expires"]), time.monotonic())


def _failed(picture: Prepared, model: str) -> Assessment:
    return Assessment(
        picture.position,
        quality=None,
        uncertainty=None,
        model=model,
        no_score_reason="scorer_failed",
    )


def _listen(address: Path) -> tuple[socket.socket, int]:
    """A listening socket at `address`, put there in one step; only this user may connect."""
    temporary = address.with_name(f"{address.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        address.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        listener.bind(str(temporary))
        temporary.chmod(0o600)
        listener.listen(128)
        listener.setblocking(False)
        inode = temporary.stat().st_ino
        temporary.replace(address)
    except OSError as error:
        listener.close()
        raise ScorerError(
            f"the scoring process cannot listen on {address}: {error}. "
            "Give a folder that this user may write to, with a path under 90 characters."
        ) from error
    return listener, inode


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except OSError:
        return None


def _peer_user(sock: socket.socket) -> int:
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[1])
