"""Nothing measured is lost: segments wait in a file until the database has them.

    supervisor ─▶ Journal.append ─▶ file ─▶ Writer ─▶ database

A segment is safe from the moment it is appended: the file outlives a killed supervisor, and a
database that is away delays nothing. The file is the only queue, so order is kept and memory
stays flat however long the database is away. It is emptied whenever everything is stored.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from vqmon.domain import Finding, Segment
from vqmon.errors import StoreError

log = logging.getLogger("vqmon.daemon")

LARGEST_BYTES = 1 << 30
"""Some 300,000 segments, a day of 40 streams; what comes then waits in memory."""

MOST_IN_MEMORY = 20_000
"""Segments kept in memory while the file cannot grow; then the oldest of them are given up."""

BATCH = 200
RETRY_SECONDS = (0.5, 1.0, 2.0, 5.0, 10.0)
ASK_SECONDS = 5.0
"""How often the writer asks whether this daemon is still the active one."""

SUSPECT_AFTER = 5
"""Failures in a row after which one segment of the batch is suspected instead of the database."""

AWAY_AFTER = 8
"""So many refusals more than stored segments: it is the database after all."""


class Journal:
    """A queue of segments in a file. Thread-safe; for one process at a time."""

    def __init__(self, path: Path, *, largest: int = LARGEST_BYTES) -> None:
        """Goes on with what an earlier process left. Raises OSError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.frozen = False
        """The disk is nearly full: rows wait in memory, which is bounded."""
        self._largest = largest
        self._file: BinaryIO = open(path, "a+b", buffering=0)  # noqa: SIM115  until close()
        self._begin, self._end = 0, _mended(self._file)
        self._memory: deque[Segment] = deque()
        self._lost = 0
        self._changed = threading.Condition()

    @property
    def waiting(self) -> bool:
        return self._begin < self._end or bool(self._memory)

    @property
    def waiting_bytes(self) -> int:
        """Size of what waits in the file."""
        return self._end - self._begin

    @property
    def lost(self) -> int:
        """Segments given up so far, for want of room."""
        return self._lost

    def append(self, segment: Segment) -> None:
        """Keep a segment until it is stored. Never raises: memory stands in for a full disk."""
        with self._changed:
            if self._memory or not self._written(_line(segment)):
                self._hold(segment)
            self._changed.notify_all()

    def oldest(self, limit: int = BATCH) -> tuple[list[Segment], int]:
        """Those that wait longest, and the mark to give to `stored` once they are stored."""
        with self._changed:
            if self._begin == self._end:
                some = list(islice(self._memory, limit))
                return some, -len(some)
            with os.fdopen(os.dup(self._file.fileno()), "rb") as file:
                file.seek(self._begin)
                lines = list(islice(file, limit))
        parsed = (_parsed(line) for line in lines)
        return [segment for segment in parsed if segment], sum(map(len, lines))

    def stored(self, mark: int) -> None:
        """Forget what `oldest` gave with this mark."""
        with self._changed:
            for _ in range(-mark):
                self._memory.popleft()
            self._begin += max(0, mark)
            if self._begin == self._end:
                self._file.truncate(0)
                self._begin = self._end = 0

    def wait(self, seconds: float) -> None:
        """Until something waits to be stored, at most so long."""
        with self._changed:
            if not self.waiting:
                self._changed.wait(seconds)

    def wake(self) -> None:
        """End `wait`."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        self._file.close()

    def _written(self, line: bytes) -> bool:
        if self.frozen or self._end + len(line) > self._largest:
            return False
        with suppress(OSError):
            if self._file.write(line) == len(line):
                self._end += len(line)
                return True
        with suppress(OSError):
            self._file.truncate(self._end)
        return False

    def _hold(self, segment: Segment) -> None:
        if not self._memory:
            log.error("journal_full", extra={"file": str(self.path), "bytes": self._end})
        self._memory.append(segment)
        if len(self._memory) > MOST_IN_MEMORY:
            self._memory.popleft()
            self._lost += 1
            if self._lost % 1000 == 1:
                log.error("segments_lost", extra={"segments": self._lost})


class Keeper(Protocol):
    """Where the segments go."""

    def add(self, some: Iterable[Segment], /) -> None:
        """Store all in one transaction; a known id is left alone."""
        ...


class Writer(threading.Thread):
    """Takes segments from the journal to the database, in order, again until it succeeds.

    still_active: asked every few seconds; False (another daemon has taken over) ends the
    writing for good and is told to `superseded`. It may raise StoreError.
    """

    def __init__(
        self,
        store: Keeper,
        journal: Journal,
        *,
        still_active: Callable[[], bool] = lambda: True,
        superseded: Callable[[], None] = lambda: None,
        stored: Callable[[Sequence[Segment]], None] = lambda _some: None,
    ) -> None:
        """stored: told of segments once they are in the database; must be quick."""
        super().__init__(name="writer", daemon=True)
        self._store = store
        self._journal = journal
        self._still_active = still_active
        self._superseded = superseded
        self._stored = stored
        self._stopping = threading.Event()
        self._failures = 0
        self._asked_at = time.monotonic()
        self.beat = time.monotonic()
        self.paused = False
        """The disk is nearly full: nothing is stored until there is room again."""

    @property
    def away(self) -> bool:
        """Whether the database does not take segments now."""
        return self._failures > 0

    def stop(self, patience: float) -> bool:
        """Store what waits, for at most so long; True when nothing was left for the next start."""
        self._stopping.set()
        self._journal.wake()
        self.join(patience)
        return not self._journal.waiting

    def run(self) -> None:
        while not self._stopping.is_set() or (self._journal.waiting and not self.paused):
            self.beat = time.monotonic()
            try:
                if not self._active():
                    self._superseded()
                    return
                self._store_some()
            except Exception as error:
                if self._stopping.is_set():
                    return  # the next start goes on with the journal
                self._failed(error)

    def _active(self) -> bool:
        """Asks again only after some seconds: the answer costs a round trip."""
        if time.monotonic() - self._asked_at < ASK_SECONDS:
            return True
        active = self._still_active()
        self._asked_at = time.monotonic()
        return active

    def _store_some(self) -> None:
        if self.paused:
            self._stopping.wait(1.0)
            return
        batch, mark = self._journal.oldest()
        if not mark:
            self._journal.wait(1.0)
            return
        store = self._add if self._failures < SUSPECT_AFTER else self._one_by_one
        taken = store(batch)
        self._journal.stored(mark)
        self._stored(taken)
        if self._failures:
            log.info("database_back", extra={"attempts": self._failures})
        self._failures = 0

    def _add(self, batch: Sequence[Segment]) -> Sequence[Segment]:
        """Returns what was stored."""
        try:
            self._store.add(batch)
        except ValueError:
            return self._one_by_one(batch)
        return batch

    def _one_by_one(self, batch: Sequence[Segment]) -> Sequence[Segment]:
        """Set aside what the database refuses while it takes others; else raise StoreError.

        Returns what was stored.
        """
        taken: list[Segment] = []
        refused: list[tuple[Segment, Exception]] = []
        for segment in batch:
            self.beat = time.monotonic()
            try:
                self._store.add([segment])
                taken.append(segment)
            except ValueError as error:
                refused.append((segment, error))
            except Exception as error:
                refused.append((segment, error))
                if len(refused) - len(taken) >= AWAY_AFTER or self._stopping.is_set():
                    raise
        if not taken and any(not isinstance(it, ValueError) for _, it in refused):
            raise refused[0][1]
        self._store.add(taken[:1])  # once more: it may have gone away in between
        for segment, reason in refused:
            self._set_aside(segment, reason)
        return taken

    def _set_aside(self, segment: Segment, error: Exception) -> None:
        path = self._journal.path.with_suffix(".refused")
        with open(path, "ab") as file:
            file.write(_line(segment))
        about = {"stream": segment.stream, "file": str(path), "error": str(error)}
        log.error("segment_refused", extra=about)

    def _failed(self, error: Exception) -> None:
        delay = RETRY_SECONDS[min(self._failures, len(RETRY_SECONDS) - 1)]
        if self._failures == 1:  # one is noise, such as another writer of SQLite
            log.error("database_away", extra={"error": str(error)}, exc_info=_unexpected(error))
        self._failures += 1
        self._stopping.wait(delay)


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, StoreError) else error


def _mended(file: BinaryIO) -> int:
    """The length of the file, cut where a crash of the machine tore its last line."""
    length, at = file.seek(0, os.SEEK_END), 0
    if length:
        file.seek(0)
        with os.fdopen(os.dup(file.fileno()), "rb") as lines:
            at = sum(len(line) for line in lines if line.endswith(b"\n"))
        file.truncate(at)
    return at


def _line(segment: Segment) -> bytes:
    return json.dumps(_fields(segment), separators=(",", ":"), default=_plain).encode() + b"\n"


def _fields(value: Any) -> dict[str, Any]:
    return {it.name: getattr(value, it.name) for it in fields(value)}


def _plain(value: Any) -> Any:
    """What JSON does not know: findings, times, mappings, NumPy's numbers; else the text."""
    if isinstance(value, Finding):
        return _fields(value)
    if isinstance(value, Mapping):
        return dict(value)
    return value.item() if hasattr(value, "item") else str(value)


def _parsed(line: bytes) -> Segment | None:
    """None for a line that cannot be read, which is logged."""
    try:
        given = json.loads(line)
        whole = given | {
            "started_at": datetime.fromisoformat(given["started_at"]),
            "findings": tuple(_finding(it) for it in given["findings"]),
            "outputs": tuple({k: tuple(v) for k, v in it.items()} for it in given["outputs"]),
            "evidence": tuple(given["evidence"]),
        }
        return Segment(**whole)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        _damaged(line, error)
        return None


def _damaged(line: bytes, error: Exception) -> None:
    begins = line[:200].decode("utf-8", "replace")
    log.error("journal_line_damaged", extra={"line": begins, "error": str(error)})


def _finding(given: dict[str, Any]) -> Finding:
    region = given["region"]
    return Finding(**given | {"region": None if region is None else tuple(region)})
