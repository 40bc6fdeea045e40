"""The process that asks the writer, and the supervisor's care for it.

A large model, its libraries and its server may do whatever they like to a process of its own:
watching and storing go on. It gives way to everything else on the processor, and is the first that
the kernel ends when memory runs out.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

from vqmon.asking import Asker, AskingPlan
from vqmon.daemon.messages import Alive, Finish, Troubled
from vqmon.daemon.processes import (
    Child,
    Forwarding,
    Inbox,
    Restarts,
    bind_to_supervisor,
    send_safely,
)
from vqmon.errors import StoreError

log = logging.getLogger("vqmon.daemon")

POLL_SECONDS = 1.0
BEAT_SECONDS = 1.0
STORE_RETRY_SECONDS = 2.0
SILENT_SECONDS = 90.0
"""A process that says nothing for so long is replaced: native code holds all of it up."""

FINISH_SECONDS = 1.0
"""For the answer under way when the daemon ends; what is cut off is asked again later."""

RETRY_SECONDS = (0.0, 5.0, 30.0, 120.0, 600.0)
HEALTHY_SECONDS = 600.0
PARKED_AFTER = 3
"""Ends in a row, without ten minutes of good work in between, that are worth an alert."""

OVERDUE = 3
"""Exit code of a process whose writer did not answer in time."""

ENDED_FIRST = "500"
"""Of the -1000 to 1000 by which Linux chooses whom to end when memory runs out."""

NICENESS = 10


@dataclass(frozen=True, slots=True)
class Orders:
    """What the process is told when it starts.

    name: whose claims its are. before: name of a process that ended without being told to, and
    ended: how; empty after a start of the daemon.
    """

    plan: AskingPlan
    database: str
    log_level: int
    name: str
    before: str = ""
    ended: str = ""


def main(pipe: Connection, orders: Orders) -> None:
    """The main function of the process: until told to finish, or nobody is there."""
    bind_to_supervisor("vqmon-writer")
    _give_way()
    send = send_safely(pipe, threading.Lock())
    Forwarding.install(send, orders.log_level)
    try:
        _ask_all(pipe, orders, send)
    except EOFError:
        return
    except Exception:
        log.exception("asking_failed")
        raise


def _give_way() -> None:
    with suppress(OSError):
        os.nice(NICENESS)
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write(ENDED_FIRST)


def _ask_all(pipe: Connection, orders: Orders, send: Callable[[object], None]) -> None:
    from vqmon.store import open_store

    while True:
        try:
            store = open_store(orders.database, migrate=False)
            break
        except StoreError as error:
            log.warning("questions_away", extra={"error": str(error)})
        send(Alive())
        if pipe.poll(STORE_RETRY_SECONDS) and isinstance(pipe.recv(), Finish):
            return
    with store:
        asker = Asker(store, orders.plan, by=orders.name)
        thread = _Asking(asker, orders, lambda: store.release_questions(orders.plan.instance))
        thread.start()
        patience = _told(pipe, asker, orders.plan, send)
        thread.stop(patience)


def _told(
    pipe: Connection, asker: Asker, plan: AskingPlan, send: Callable[[object], None]
) -> float:
    """Until the supervisor says to finish; within how many seconds. Watches over the writer."""
    told = None
    while True:
        send(Alive())
        if asker.trouble is not None and asker.trouble != told:
            told = asker.trouble
            send(Troubled(told))
        if asker.overdue(time.monotonic()):
            _end(asker, plan)
        if pipe.poll(BEAT_SECONDS):
            match pipe.recv():
                case Finish() as finish:
                    return finish.patience


def _end(asker: Asker, plan: AskingPlan) -> None:
    """Nothing else ends a writer that does not come back: it sits in native code."""
    one = asker.under_way
    if one is None:
        return
    reason = f"The writer gave no answer within {plan.timeout:g} s."
    with suppress(StoreError):
        asker.give_up(one, reason)
    os._exit(OVERDUE)


class _Asking(threading.Thread):
    """Takes turn after turn; a database that is away is waited for."""

    def __init__(self, asker: Asker, orders: Orders, release: Callable[[], None]) -> None:
        super().__init__(name="asker", daemon=True)
        self._asker = asker
        self._orders = orders
        self._release = release
        self._begun = False
        self._away = False
        self._stopping = threading.Event()

    def stop(self, patience: float) -> None:
        self._stopping.set()
        self.join(patience)

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._begin()
                busy = self._asker.turn() is not None
                self._away = False
            except StoreError as error:
                busy = self._was_away(error)
            if not busy:
                self._stopping.wait(STORE_RETRY_SECONDS if self._away else POLL_SECONDS)

    def _was_away(self, error: StoreError) -> bool:
        if not self._away:
            log.error("questions_away", extra={"error": str(error)})
        self._away = True
        return False

    def _begin(self) -> None:
        """What was under way before us: it ended its process, or ended with the daemon."""
        if self._begun:
            return
        if self._orders.ended:
            self._asker.take_over(self._orders.before, self._orders.ended)
        self._release()
        self._begun = True


class Asking:
    """Keeps one asking process going while there is a writer. For the supervisor's thread."""

    def __init__(
        self, plan: AskingPlan | None, database: str, log_level: int, inbox: Inbox
    ) -> None:
        self._plan = plan
        self._database = database
        self._log_level = log_level
        self._inbox = inbox
        self._child: Child | None = None
        self._name = self._before = self._ended = ""
        self._heard = 0.0
        self._restarts = Restarts(RETRY_SECONDS, HEALTHY_SECONDS)
        self._expected = False
        self.ended = 0
        """Processes that have ended though they were needed, so far."""
        self.trouble = ""
        """Why the writer cannot be asked, a sentence; empty while all is well."""

    @property
    def asks(self) -> bool | None:
        """Whether the writer can be asked; None when there is none."""
        return not self.trouble if self._plan else None

    def owns(self, who: object) -> bool:
        return who is self._child

    def look(self, clock: float) -> None:
        """Start it when it is due, replace it when it hangs."""
        if self._child is None:
            if self._plan and self._restarts.due(clock):
                self._start(self._plan, clock)
        elif clock - max(self._restarts.begun, self._heard) > SILENT_SECONDS:
            log.error("asking_hangs", extra={"silent_seconds": round(SILENT_SECONDS)})
            self._child.kill(show_where=True)

    def alive(self, clock: float) -> None:
        """It has said so."""
        self._heard = clock

    def excuse(self, clock: float) -> None:
        """Judge its silence anew from now on."""
        self._heard = clock

    def troubled(self, text: str) -> None:
        """It says why it cannot ask, or that it can again."""
        self.trouble = text

    def take(self, plan: AskingPlan | None) -> None:
        """This writer from now on; what is under way is asked anew."""
        if plan == self._plan:
            return
        self._plan, self.trouble = plan, ""
        self._restarts.forget()
        if self._child:
            self._expected = True
            self._child.kill()

    def gone(self, clock: float) -> None:
        """The process has ended."""
        child, self._child = self._child, None
        if child is None:
            return
        child.wait(1.0)
        if self._expected:
            self._expected, self._before, self._ended = False, "", ""
        else:
            self._note_end(child.exit_code, clock)
        child.close()

    def finish(self) -> None:
        """Begin to end: an answer under way may still come."""
        if self._child:
            self._child.send(Finish(FINISH_SECONDS))

    def stop(self) -> None:
        """End for good, at most half a second after the patience given to `finish`."""
        if self._child:
            self._child.wait(FINISH_SECONDS + 0.5)
            self._child.close()

    def _note_end(self, code: int | None, clock: float) -> None:
        delay, failures = self._restarts.ended(clock), self._restarts.failures
        self._before, self._ended = self._name, _how(code)
        if failures >= PARKED_AFTER:
            self.trouble = f"{self._ended} It was the {failures}th time in a row."
        log.error("asking_ended", extra={"exit_code": code, "again_in": delay})
        self.ended += 1

    def _start(self, plan: AskingPlan, clock: float) -> None:
        self._name = f"{plan.instance} {uuid.uuid4().hex}"
        orders = Orders(
            plan, self._database, self._log_level, self._name, self._before, self._ended
        )
        try:
            self._child = Child("writer", main, orders, inbox=self._inbox)
        except OSError as error:
            self._restarts.refused(clock)
            _not_started(error)
        self._restarts.started(clock)


def _how(code: int | None) -> str:
    """How the process ended, for people."""
    if code == OVERDUE:
        return "The writer did not answer in time, so its process was ended."
    if code == -9:
        return "The writer's process was killed, as it is when memory runs out."
    if code is not None and code < 0:
        return f"The writer's process crashed (signal {-code})."
    return f"The writer's process ended by itself (exit code {code})."


def _not_started(error: OSError) -> None:
    log.error("asking_not_started", extra={"error": str(error)})
