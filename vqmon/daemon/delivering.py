"""The delivery process, and the supervisor's care for it.

What waits in the outbox is sent from a process of its own: whatever a receiver, a library or a
resolver does to it, watching and storing go on, and it can be replaced.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from vqmon.daemon.messages import Alive, Finish, Sent
from vqmon.daemon.processes import (
    Child,
    Forwarding,
    Inbox,
    Restarts,
    bind_to_supervisor,
    send_safely,
)
from vqmon.errors import StoreError
from vqmon.notifying import Target

if TYPE_CHECKING:
    from vqmon.outbox import Deliverer

log = logging.getLogger("vqmon.daemon")

BEAT_SECONDS = 1.0
SILENT_SECONDS = 90.0
"""A process that has not looked into the outbox for so long is replaced; a database that is away
is asked again within less."""

STORE_RETRY_SECONDS = 2.0
FINISH_SECONDS = 2.5
"""For the messages under way when the daemon ends; what is cut off is sent again later."""

RETRY_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
HEALTHY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class DeliveryPlan:
    """What the delivery process is told when it starts."""

    database: str
    instance: str
    targets: tuple[Target, ...]
    log_level: int


@dataclass(frozen=True, slots=True)
class Take:
    """Deliver to these targets from now on."""

    targets: tuple[Target, ...]


def main(pipe: Connection, plan: DeliveryPlan) -> None:
    """The main function of the delivery process: until told to finish, or nobody is there."""
    bind_to_supervisor("vqmon-delivery")
    send = send_safely(pipe, threading.Lock())
    Forwarding.install(send, plan.log_level)
    try:
        _deliver(pipe, plan, send)
    except EOFError:
        return
    except Exception:
        log.exception("delivery_failed")
        raise


def _deliver(pipe: Connection, plan: DeliveryPlan, send: Callable[[object], None]) -> None:
    from vqmon.outbox import Deliverer
    from vqmon.store import open_store

    targets = plan.targets
    while True:
        try:
            store = open_store(plan.database, migrate=False)
            break
        except StoreError as error:
            log.warning("outbox_away", extra={"error": str(error)})
        send(Alive())
        match pipe.recv() if pipe.poll(STORE_RETRY_SECONDS) else None:
            case Finish():
                return
            case Take() as told:
                targets = told.targets
    with store:
        deliverer = Deliverer(store, targets, by=plan.instance)
        deliverer.start()
        patience = _told(pipe, deliverer.take, lambda: _beat(send, deliverer))
        deliverer.stop(patience)


def _told(
    pipe: Connection, take: Callable[[tuple[Target, ...]], None], beat: Callable[[], None]
) -> float:
    """Do as the supervisor says until it says to finish; within how many seconds."""
    while True:
        beat()
        match pipe.recv() if pipe.poll(BEAT_SECONDS) else None:
            case Take() as told:
                take(told.targets)
            case Finish() as told:
                return told.patience


def _beat(send: Callable[[object], None], deliverer: Deliverer) -> None:
    if time.monotonic() - deliverer.beat < SILENT_SECONDS:
        send(Alive())
    send(Sent(deliverer.counts))


class Delivering:
    """Keeps one delivery process going while there is a target. For the supervisor's thread."""

    def __init__(self, plan: DeliveryPlan, inbox: Inbox) -> None:
        self._plan = plan
        self._targets = plan.targets
        self._inbox = inbox
        self._child: Child | None = None
        self._heard = 0.0
        self.ended = 0
        """Processes that have ended though they were needed, so far."""
        self._restarts = Restarts(RETRY_SECONDS, HEALTHY_SECONDS)

    def owns(self, who: object) -> bool:
        return who is self._child

    def look(self, clock: float) -> None:
        """Start it when it is due, replace it when it hangs."""
        if self._child is None:
            if self._targets and self._restarts.due(clock):
                self._start(clock)
        elif clock - max(self._restarts.begun, self._heard) > SILENT_SECONDS:
            log.error("delivery_hangs", extra={"silent_seconds": round(SILENT_SECONDS)})
            self._child.kill(show_where=True)

    def alive(self, clock: float) -> None:
        """It has said so."""
        self._heard = clock

    def excuse(self, clock: float) -> None:
        """Judge its silence anew from now on."""
        self._heard = clock

    def take(self, targets: tuple[Target, ...]) -> None:
        """Deliver to these from now on."""
        if targets == self._targets:
            return
        self._targets = targets
        if self._child and not self._child.send(Take(targets)):
            self._child.kill()  # the next one begins with them

    def gone(self, clock: float) -> None:
        """The process has ended."""
        child, self._child = self._child, None
        if child is None:
            return
        child.wait(1.0)
        delay = self._restarts.ended(clock)
        log.error("delivery_ended", extra={"exit_code": child.exit_code, "again_in": delay})
        child.close()
        self.ended += 1

    def finish(self) -> None:
        """Begin to end: what is under way may still arrive."""
        if self._child:
            self._child.send(Finish(FINISH_SECONDS))

    def stop(self) -> None:
        """End for good, at most a second after the patience given to `finish`."""
        if self._child:
            self._child.wait(FINISH_SECONDS + 0.5)
            self._child.close()

    def _start(self, clock: float) -> None:
        plan = DeliveryPlan(
            self._plan.database, self._plan.instance, self._targets, self._plan.log_level
        )
        try:
            self._child = Child("delivery", main, plan, inbox=self._inbox)
        except OSError as error:
            self._restarts.refused(clock)
            _not_started(error)
        self._restarts.started(clock)


def _not_started(error: OSError) -> None:
    log.error("delivery_not_started", extra={"error": str(error)})
