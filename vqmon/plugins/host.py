"""Keeps one plugin going, in a thread of its own, so that nobody else ever waits for it."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from vqmon.daemon.messages import Gone, Said
from vqmon.daemon.processes import Child, Inbox
from vqmon.domain import Decision
from vqmon.errors import StoreError
from vqmon.plugins import process
from vqmon.plugins.calls import Call, Calls
from vqmon.plugins.context import PluginPlan
from vqmon.plugins.limits import resident_bytes
from vqmon.plugins.process import Done, Raised, Ready, Stop, Targets

log = logging.getLogger("vqmon.plugins")

LOOK_SECONDS = 0.25
"""How often a process is looked at while it works: how large it is, whether it takes too long."""

IDLE_SECONDS = 1.0
START_SECONDS = 60.0
"""For imports on a loaded machine, on top of the plugin's own time limit."""

STOP_SECONDS = 2.0

PARKED = "parked"
"""The kind of decision that says in the database that a plugin was parked; its stream is empty."""


@dataclass(frozen=True, slots=True)
class Patience:
    """retry: seconds until the next start after the first failure, the second, ...; `most`
    failures within `window` seconds park the plugin for `parked` seconds.
    """

    retry: tuple[float, ...] = (1.0, 5.0)
    most: int = 3
    window: float = 600.0
    parked: float = 600.0


@dataclass(frozen=True, slots=True)
class Wake:
    """Something waits to be told, or it is time to stop."""


class Failed(Exception):
    """The process must be replaced; the text says why."""


class Stopped(Exception):
    """The plugin did not end in time when it was told to."""


class Host(threading.Thread):
    """One plugin: its calls, its process, its failures. All methods return at once.

    record: keeps what happened to the plugin where people look. after: a host of the same plugin
    that has been told to stop; never do two processes of a plugin run at the same time.
    """

    def __init__(
        self,
        plan: PluginPlan,
        targets: tuple[str, ...],
        record: Callable[[Decision], None],
        *,
        after: Host | None = None,
        patience: Patience | None = None,
    ) -> None:
        super().__init__(name=f"plugin {plan.name}", daemon=True)
        self.plan = plan
        self.calls = Calls()
        self.state = "starting"
        """starting · ready · calling · resting · parked · stopped"""
        self._targets = targets
        self._record = record
        self._after = after
        self._patience = patience or Patience()
        self._inbox: Inbox = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._stop_by = float("inf")
        self._failed_at: list[float] = []
        self._dropped = 0

    def tell(self, calls: Iterable[Call]) -> None:
        """Have the plugin called, in this order, as soon as it is free."""
        if self.calls.put(calls):
            self._inbox.put((None, Wake()))

    def target(self, names: tuple[str, ...]) -> None:
        """The names that `notify` takes from now on."""
        if names != self._targets:
            self._targets = names
            self._inbox.put((None, Targets(names)))

    def stop(self, patience: float = STOP_SECONDS) -> None:
        """End it: the call under way may finish within so many seconds, what waits is given up."""
        self._stop_by = time.monotonic() + patience
        self._stopping.set()
        self._inbox.put((None, Wake()))

    def run(self) -> None:
        if self._after:
            self._after.join(2 * STOP_SECONDS)
        while not self._stopping.is_set():
            try:
                self._live()
            except Stopped:
                break
            except Failed as error:
                self._rest(str(error))
            except Exception as error:
                log.exception("plugin_host_failed", extra={"plugin": self.plan.name})
                self._rest(repr(error))
        self.state = "stopped"
        if left := self.calls.clear():
            log.info("plugin_calls_given_up", extra={"plugin": self.plan.name, "calls": left})

    # -- one life of the process

    def _live(self) -> None:
        child = self._new_process()
        try:
            self._await(child, Ready, "when it was made", START_SECONDS + self.plan.timeout)
            log.info(
                "plugin_ready", extra={"plugin": self.plan.name, "from": self.plan.found.where}
            )
            while call := self._next(child):
                self.state = "calling"
                if not child.send(call):
                    raise Failed("its process does not listen")
                self._await(child, Done, f"in {call.hook}", self.plan.timeout)
                self._tell_dropped()
            child.send(Stop())
            self._await(child, Gone, "in stopping", STOP_SECONDS)
        finally:
            child.close()

    def _new_process(self) -> Child:
        self.state = "starting"
        name = f"plugin {self.plan.name}"
        try:
            return Child(name, process.main, self.plan, self._targets, inbox=self._inbox)
        except OSError as error:  # no memory or no process left
            raise Failed(f"its process cannot be started: {error}") from error

    def _next(self, child: Child) -> Call | None:
        """What to call next, waited for; None when it is time to stop."""
        self.state = "ready"
        while not self._stopping.is_set():
            call = self.calls.take()
            if call:
                return call
            self._hear(child, IDLE_SECONDS, "between calls")
        return None

    def _await(self, child: Child, wanted: type[Any], when: str, seconds: float) -> None:
        """Until the process says so. Raises Failed when it does not, Stopped when told to stop.

        Time in which this thread itself stood still does not count.
        """
        waited, looked = 0.0, time.monotonic()
        while waited < seconds:
            if isinstance(self._hear(child, LOOK_SECONDS, when, wanted), wanted):
                return
            now = time.monotonic()
            waited += min(now - looked, 4 * LOOK_SECONDS)
            looked = now
            if now > self._stop_by:
                raise Stopped
        child.kill(show_where=True)
        raise Failed(f"it takes longer than {seconds:g} s {when}")

    def _hear(
        self, child: Child, patience: float, when: str, wanted: type[Any] = object
    ) -> object | None:
        """React to one message of the process. Raises Failed when it must be replaced."""
        size = resident_bytes(child.pid)
        if size > self.plan.memory:
            child.kill()
            raise Failed(f"it takes {_megabytes(size)} of {_megabytes(self.plan.memory)} {when}")
        who, message = None, None
        with suppress(queue.Empty):
            who, message = self._inbox.get(timeout=patience)
        match message:
            case Targets():
                child.send(message)
            case Said() if who is child:
                _log_again(message.record)
            case Raised() if who is child:
                raise Failed(f"{message.text} {when}")
            case Gone() if who is child and wanted is not Gone:
                child.wait(1.0)
                raise Failed(f"its process ended {when} ({_end(child)})")
        return message if who is child else None

    def _tell_dropped(self) -> None:
        dropped = self.calls.dropped.total()
        if dropped > self._dropped:
            fields = {"plugin": self.plan.name, "calls": dropped - self._dropped}
            self._dropped = dropped
            log.warning("plugin_calls_dropped", extra=fields)

    # -- between two lives

    def _rest(self, why: str) -> None:
        """Wait until it is time for the next start."""
        if self._stopping.is_set():
            log.error("plugin_failed", extra={"plugin": self.plan.name, "error": why})
            return
        now, patience = time.monotonic(), self._patience
        self._failed_at = [at for at in self._failed_at if now - at < patience.window] + [now]
        if len(self._failed_at) >= patience.most:
            self._park(why)
            return
        delay = patience.retry[min(len(self._failed_at), len(patience.retry)) - 1]
        fields = {"plugin": self.plan.name, "error": why, "again_in": delay}
        log.error("plugin_failed", extra=fields)
        self.state = "resting"
        self._stopping.wait(delay)

    def _park(self, why: str) -> None:
        self.state = "parked"
        self._failed_at.clear()
        seconds = self._patience.parked
        fields = {"plugin": self.plan.name, "error": why, "again_in": seconds}
        log.error("plugin_parked", extra=fields)
        reason = (
            f"parked for {seconds / 60:g} minutes after {self._patience.most} failures within "
            f"{self._patience.window / 60:g}; the last: {why}"
        )
        decision = Decision(self.plan.name, "", PARKED, reason, datetime.now(UTC))
        try:
            self._record(decision)
        except StoreError as error:
            log.warning("parking_not_recorded", extra={"error": str(error)})
        self._stopping.wait(seconds)


def _log_again(record: logging.LogRecord) -> None:
    """A line of the plugin, as if said here."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


def _megabytes(size: int) -> str:
    return f"{size / 1000**2:.0f} MB"


def _end(child: Child) -> str:
    code = child.exit_code
    if code is None:
        return "its pipe is closed"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
