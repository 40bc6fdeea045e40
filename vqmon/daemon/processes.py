"""Child processes that never outlive the supervisor and never make it wait."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import logging
import multiprocessing
import os
import queue
import select
import signal
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any

from vqmon.daemon.messages import Gone, Said

log = logging.getLogger("vqmon.daemon")

Inbox = queue.SimpleQueue[tuple[object, Any]]
"""(who, what): everything that the supervisor reacts to, one after the other."""

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_spawning = multiprocessing.get_context("spawn")


class Child:
    """One process, seen from the supervisor. Create it in the thread that outlives it: the
    kernel kills the process when that thread ends.
    """

    def __init__(self, name: str, main: Callable[..., None], *args: object, inbox: Inbox) -> None:
        """Run ``main(pipe, *args)`` in a new process; what it sends goes to `inbox` as
        ``(self, message)``, and at last ``(self, Gone())``.
        """
        self.name = name
        self._pipe, theirs = _spawning.Pipe()
        self._process = _spawning.Process(target=main, args=(theirs, *args), name=name, daemon=True)
        self._process.start()
        theirs.close()
        reader = threading.Thread(target=self._read, args=(inbox,), name=f"from {name}")
        reader.daemon = True
        reader.start()

    @property
    def pid(self) -> int:
        return self._process.pid or 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the number of the signal that ended it."""
        return self._process.exitcode

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def send(self, message: object) -> bool:
        """False when the process does not take it: it is gone, or has not read for long."""
        try:
            if not select.select([], [self._pipe], [], 0)[1]:
                return False
            self._pipe.send(message)
        except (OSError, ValueError):
            return False
        return True

    def kill(self, *, show_where: bool = False) -> None:
        """End it now. show_where: let it first print where each of its threads stands."""
        if show_where and self.alive:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGUSR1)
            self._process.join(0.2)
        self._process.kill()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after waiting for at most so long."""
        self._process.join(seconds)
        return not self.alive

    def close(self) -> None:
        """Kill what still runs and give everything back."""
        self._process.kill()
        self._process.join(2)
        self._pipe.close()

    def _read(self, inbox: Inbox) -> None:
        """Until the process ends; what it sent before its end is still read."""
        try:
            while True:
                inbox.put((self, self._pipe.recv()))
        except (EOFError, OSError):
            pass
        except Exception:
            log.exception("message_not_understood", extra={"child": self.name})
        inbox.put((self, Gone()))


class Restarts:
    """When a process that has ended begins again: at once after good work, later and later when it
    fails in a row.
    """

    def __init__(self, delays: Sequence[float], healthy: float) -> None:
        """delays: seconds after the first failure in a row, the second, ...; the last for all more.
        healthy: seconds of running after which what failed before is forgotten.
        """
        self._delays, self._healthy = delays, healthy
        self.forget()
        self.begun = 0.0

    def forget(self) -> None:
        """It may begin at once, as if it had never failed."""
        self.failures, self._next = 0, 0.0

    def due(self, clock: float) -> bool:
        return clock >= self._next

    def started(self, clock: float) -> None:
        self.begun = clock

    def refused(self, clock: float) -> None:
        """The machine had no memory or no process left for it: its limits, or its container's."""
        self._next = clock + self._delays[-1]

    def ended(self, clock: float, *, worked: bool = True) -> float:
        """Seconds until it may begin again. worked: False when it did nothing in all its time."""
        if worked and clock - self.begun > self._healthy:
            self.failures = 0
        delay = self._delays[min(self.failures, len(self._delays) - 1)]
        self.failures += 1
        self._next = clock + delay
        return delay


def bind_to_supervisor(name: str) -> None:
    """In a new process: die with the supervisor, leave signals to it, show where one hangs.

    The supervisor coordinates the end, so what a terminal or a service manager sends to the
    whole group must not end its processes one by one.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    supervisor = multiprocessing.parent_process()
    if supervisor is None or os.getppid() != supervisor.pid:
        os._exit(1)  # it died before the kernel knew whom to kill
    libc.prctl(_PR_SET_NAME, name.encode()[:15])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)


class Forwarding(logging.Handler):
    """Log lines of a child go to the supervisor, which writes all of them in one place."""

    def __init__(self, send: Callable[[Said], object]) -> None:
        super().__init__()
        self._send = send

    @classmethod
    def install(cls, send: Callable[[Said], object], level: int) -> None:
        root = logging.getLogger()
        root.handlers = [cls(send)]
        root.setLevel(logging.WARNING)
        logging.getLogger("vqmon").setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        stream = getattr(record, "stream", None) or _stream_of(record.threadName or "")
        try:
            self._send(Said(_portable(record), stream))
        except Exception:
            self.handleError(record)


THREAD_PREFIX = "stream "
"""Threads that watch a stream are named after it."""


def _stream_of(thread: str) -> str | None:
    return thread.removeprefix(THREAD_PREFIX) if thread.startswith(THREAD_PREFIX) else None


_STANDARD = frozenset(vars(logging.makeLogRecord({})))


def _portable(record: logging.LogRecord) -> logging.LogRecord:
    """Text and numbers only: whatever else a line carries may not be known on the other side."""
    fields = {
        name: value if isinstance(value, str | int | float | None) else str(value)
        for name, value in vars(record).items()
        if name not in _STANDARD or name in _KEPT
    }
    plain = logging.makeLogRecord(fields | {"msg": record.getMessage()})
    if record.exc_info:
        traceback = logging.Formatter().formatException(record.exc_info)
        plain.exc_text = plain.__dict__["traceback"] = traceback
    return plain


_KEPT = frozenset({"name", "levelno", "levelname", "created", "msecs", "threadName", "processName"})


def send_safely(pipe: Connection, lock: threading.Lock) -> Callable[[object], None]:
    """A function that sends from any thread and takes a lost supervisor calmly."""

    def send(message: object) -> None:
        with lock, contextlib.suppress(OSError):
            pipe.send(message)

    return send
