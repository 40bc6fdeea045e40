"""The client of the scoring process: a `Scorer` that many threads and processes share.

The pipeline never learns about batching, and never waits long: when the scoring process is
away, slow or hung, pictures come back without a score ("scorer_unavailable") by the deadline.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NoAnswer
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from vqmon.domain import Assessment, Comparison
from vqmon.errors import ScorerUnavailable
from vqmon.preprocess import Prepared
from vqmon.scorers.comparison import SHARED_ERROR, compare
from vqmon.scorers.serving import serve
from vqmon.scorers.wire import (
    PROTOCOL,
    Arena,
    BadMessage,
    Header,
    Unpacker,
    describe,
    lay_out,
    pack,
    unpack_assessment,
)

__all__ = ["SharedScorer", "serve"]

log = logging.getLogger("vqmon.scorers")

DEADLINE_SECONDS = 5.0
IN_FLIGHT = 16
"""Pictures that one client may have under way: the number of slots of its arena."""

INLINE_BYTES = 4096
"""Inputs up to this size travel in the message itself."""

RETRY_SECONDS = 0.2
"""Between attempts to reach the scoring process; one costs some 20 microseconds."""


class SharedScorer:
    """Scores in another process, over the Unix socket `address`; thread-safe.

    A call lasts at most `deadline` seconds and never raises for want of the other side. Calls
    wait for a scoring process that is starting or being replaced, but once it has been away
    for `deadline` seconds they give up at once, so that monitoring goes on without scores.
    """

    def __init__(
        self, address: Path, *, model: str = "", deadline: float = DEADLINE_SECONDS
    ) -> None:
        """`model` is what `model` says until the scoring process has told its own."""
        self._address = address
        self._model = model
        self._deadline = deadline
        self._changed = threading.Condition()
        self._link: _Link | None = None
        self._away_since = time.monotonic()
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep_linked, name="scorer-link", daemon=True)
        self._keeper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def model(self) -> str:
        return self._model

    def assess(self, pictures: Sequence[Prepared]) -> list[Assessment]:
        """One assessment per picture, in order, by the deadline."""
        deadline = time.monotonic() + self._deadline
        link = self._linked(deadline) if pictures else None
        if link is None:
            return [self._unavailable(picture) for picture in pictures]
        asked = [(picture, link.ask(picture, deadline)) for picture in pictures]
        return [
            link.assessment(question, deadline) or self._unavailable(picture)
            for picture, question in asked
        ]

    def compare(
        self,
        a: Sequence[Assessment],
        b: Sequence[Assessment],
        *,
        same_content: bool = False,
    ) -> Comparison:
        """From what `assess` said of both; raises ScorerError when one has no score."""
        return compare(a, b, shared=SHARED_ERROR if same_content else 0.0)

    def stats(self) -> dict[str, Any]:
        """Counters of the scoring process since its start, for metrics.

        Keys: model, process, up_seconds, clients, queue_length, pictures, batches, failed,
        expired, scoring_seconds, latency_seconds, latency_seconds_max, batch_sizes
        (size -> batches), latencies (pairs of an upper bound in seconds, as a text, and the
        pictures between it and the bound before). Raises ScorerUnavailable when it does not answer by the deadline.
        """
        deadline = time.monotonic() + self._deadline
        link = self._linked(deadline)
        stats = link.stats(deadline) if link else None
        if stats is None:
            raise ScorerUnavailable(f"no scoring process answers on {self._address}")
        return stats

    def close(self) -> None:
        """Hang up; what is under way comes back without a score."""
        self._closed.set()
        with self._changed:
            if self._link:
                self._link.drop()
            self._changed.notify_all()
        self._keeper.join(self._deadline)

    def _linked(self, deadline: float) -> _Link | None:
        """The link, waited for while the other side has not been away for long."""
        with self._changed:
            patience = min(deadline, self._away_since + self._deadline) - time.monotonic()
            self._changed.wait_for(lambda: self._link or self._closed.is_set(), max(0, patience))
            return self._link

    def _keep_linked(self) -> None:
        """In its own thread: connect, hand out answers until the link is lost, begin again."""
        while not self._closed.is_set():
            link = _connect(self._address, self._deadline)
            if link is None:
                self._closed.wait(RETRY_SECONDS)
                continue
            self._model = link.model
            self._note(link)
            link.run()
            self._note(None)

    def _note(self, link: _Link | None) -> None:
        with self._changed:
            self._link = link
            if link is None:
                self._away_since = time.monotonic()
            elif self._closed.is_set():
                link.drop()
            self._changed.notify_all()
        if not self._closed.is_set():
            event = "scoring_linked" if link else "scoring_lost"
            level = logging.INFO if link else logging.WARNING
            log.log(level, event, extra={"address": str(self._address), "model": self._model})

    def _unavailable(self, picture: Prepared) -> Assessment:
        return Assessment(
            picture.position,
            quality=None,
            uncertainty=None,
            model=self._model or None,
            no_score_reason="scorer_unavailable",
        )


@dataclass(frozen=True, slots=True)
class _Question:
    """Something asked of the scoring process. slot: of the arena, given back when it ends."""

    number: int
    slot: int | None = None
    reply: Future[Header | None] = field(default_factory=Future)


class _Link:
    """One connection to a scoring process: questions under way, and the slots they use."""

    def __init__(self, sock: socket.socket, hello: Header, unpacker: Unpacker) -> None:
        self.model = str(hello["model"])
        self._reads: list[str] | None = hello["inputs"]
        self._sock = sock
        self._unpacker = unpacker
        self._sending = threading.Lock()
        self._arena: Arena | None = None
        self._lost = False
        self._heard = time.monotonic()
        self._numbers = itertools.count(1)
        self._open: dict[int, _Question] = {}
        self._slots: queue.LifoQueue[int] = queue.LifoQueue()
        for slot in range(IN_FLIGHT):
            self._slots.put(slot)

    def ask(self, picture: Prepared, deadline: float) -> _Question | None:
        """Send one picture; None when too many are under way until the deadline."""
        try:
            slot = self._slots.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            return None
        question = _Question(next(self._numbers), slot)
        self._post(question, lambda: self._picture(question.number, slot, picture, deadline))
        return question

    def assessment(self, question: _Question | None, deadline: float) -> Assessment | None:
        """What came back; None when nothing did by the deadline."""
        reply = self._reply(question, deadline) if question else None
        return unpack_assessment(reply) if reply else None

    def stats(self, deadline: float) -> dict[str, Any] | None:
        question = _Question(next(self._numbers))
        self._post(question, lambda: pack({"type": "stats", "id": question.number}))
        reply = self._reply(question, deadline)
        return dict(reply["stats"]) if reply else None

    def run(self) -> None:
        """Hand out answers until the link is lost."""
        with contextlib.suppress(OSError, BadMessage, KeyError):
            while data := self._sock.recv(1 << 16):
                self._heard = time.monotonic()
                for header, _ in self._unpacker.feed(data):
                    self._settle(header["id"], header)
        self._end()

    def drop(self) -> None:
        """Give the link up; `run` then returns."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _post(self, question: _Question, message: Callable[[], bytes]) -> None:
        self._open[question.number] = question
        try:
            with self._sending:
                if self._lost:
                    raise ConnectionError("the link is lost")
                self._sock.sendall(message())
        except OSError:
            self._settle(question.number, None)
            self.drop()

    def _picture(self, number: int, slot: int, picture: Prepared, deadline: float) -> bytes:
        """The message that asks for a score; larger inputs are put into the slot."""
        names = picture.inputs if self._reads is None else self._reads
        inputs = {name: picture.inputs[name] for name in names if name in picture.inputs}
        data = lay_out(inputs)
        arena = self._arena_for(len(data))
        if arena:
            arena.write(slot, data)
        header = {
            "type": "picture",
            "id": number,
            "position": picture.position,
            "expires": deadline,
            "arrays": describe(inputs),
            "slot": slot if arena else None,
        }
        return pack(header, b"" if arena else data)

    def _arena_for(self, size: int) -> Arena | None:
        """The arena, if it serves inputs of this size; made for the first that need one."""
        if size <= INLINE_BYTES:
            return None
        if self._arena is None:
            arena = Arena.create(IN_FLIGHT, size)
            facts = {"type": "arena", "slots": arena.slots, "slot_bytes": arena.slot_bytes}
            message = pack(facts)
            sent = socket.send_fds(self._sock, [message], [arena.descriptor])
            self._sock.sendall(message[sent:])
            self._arena = arena
        return self._arena if size <= self._arena.slot_bytes else None

    def _reply(self, question: _Question, deadline: float) -> Header | None:
        """Waits for an answer. A link that says nothing at all in that time is given up."""
        begun = time.monotonic()
        try:
            return question.reply.result(max(0, deadline - begun))
        except NoAnswer:
            self._settle(question.number, None)
            if self._heard < begun:
                self.drop()
            return None

    def _settle(self, number: int, reply: Header | None) -> None:
        """Close a question, once, whoever comes first: the answer or the deadline."""
        question = self._open.pop(number, None)
        if question is None:
            return
        question.reply.set_result(reply)
        if question.slot is not None:
            self._slots.put(question.slot)

    def _end(self) -> None:
        with self._sending:
            self._lost = True
            self._sock.close()
            if self._arena:
                self._arena.close()
                self._arena = None
        for number in list(self._open):
            self._settle(number, None)


def _connect(address: Path, patience: float) -> _Link | None:
    """A link to whoever listens on `address` and introduces itself in time, else None."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(patience)
        sock.connect(str(address))
        unpacker = Unpacker()
        hello = _hello(sock, unpacker)
        sock.settimeout(None)
        # A send that the other side does not read must end as well: the kernel's own timeout
        # leaves the reading thread free to wait for as long as nothing is asked.
        timeout = struct.pack("@ll", int(patience), int(patience % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
        return _Link(sock, hello, unpacker)
    except (OSError, BadMessage, KeyError) as error:
        sock.close()
        log.debug("scoring_unreachable", extra={"address": str(address), "error": str(error)})
        return None


def _hello(sock: socket.socket, unpacker: Unpacker) -> Header:
    while data := sock.recv(1 << 16):
        for header, _ in unpacker.feed(data):
            if header["type"] != "hello" or header["protocol"] != PROTOCOL:
                raise BadMessage(f"expected a greeting of protocol {PROTOCOL}, got {header}")
            return header
    raise ConnectionError("hung up without a greeting")
