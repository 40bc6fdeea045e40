"""The scoring process, and the supervisor's care for it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from vqmon.daemon.messages import Failed
from vqmon.daemon.processes import (
    Child,
    Forwarding,
    Inbox,
    Restarts,
    bind_to_supervisor,
    send_safely,
)
from vqmon.errors import ScorerUnavailable, VqmonError

log = logging.getLogger("vqmon.daemon")

ASK_SECONDS = 2.0
LOADING_SECONDS = 120.0
"""A model on a GPU may take this long until it answers for the first time."""

SILENT_SECONDS = 20.0
"""Without an answer for so long, a scoring process that once answered is replaced."""

RETRY_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
HEALTHY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """What the scoring process is told when it starts."""

    model: str | Path | None
    device: str
    threads: int
    address: Path
    log_level: int


def main(pipe: Connection, plan: ScoringPlan) -> None:
    """The main function of the scoring process."""
    bind_to_supervisor("vqmon-scoring")
    send = send_safely(pipe, threading.Lock())
    Forwarding.install(send, plan.log_level)
    try:
        from vqmon.scorers.shared import serve

        serve(plan.model, plan.address, device=plan.device, threads=plan.threads, lifeline=pipe)
    except VqmonError as error:
        send(Failed(str(error)))
    except Exception as error:
        log.exception("scoring_failed")
        send(Failed(f"the scoring process failed: {error!r}"))


class Scoring:
    """Keeps one scoring process going. All but the asking happens in the supervisor's thread."""

    def __init__(
        self,
        plan: ScoringPlan,
        inbox: Inbox,
        told: Callable[[Mapping[str, Any] | None], None] = lambda _: None,
    ) -> None:
        """told: given what `SharedScorer.stats` says every two seconds, or None for no answer,
        in a thread of its own; must be quick.
        """
        from vqmon.scorers.shared import SharedScorer

        self._plan = plan
        self._inbox = inbox
        self._told = told
        self.ended = 0
        """Processes that have ended though they were needed, so far."""
        self._child: Child | None = None
        self._answered = self._excused = 0.0
        self._restarts = Restarts(RETRY_SECONDS, HEALTHY_SECONDS)
        self._stopping = threading.Event()
        self._client = SharedScorer(plan.address, deadline=ASK_SECONDS)
        threading.Thread(target=self._ask, name="asks scoring", daemon=True).start()

    @property
    def model(self) -> str:
        """name@version, empty until it has answered for the first time."""
        return self._client.model

    @property
    def answers(self) -> bool:
        return self._answered > self._restarts.begun

    @property
    def here(self) -> bool:
        """Whether there is a process, and it has answered."""
        return self._child is not None and self.answers

    def owns(self, who: object) -> bool:
        return who is self._child

    def look(self, clock: float) -> None:
        """Start it when it is due, replace it when it hangs."""
        if self._child is None:
            if self._restarts.due(clock):
                self._start(clock)
            return
        patience = SILENT_SECONDS if self.answers else LOADING_SECONDS
        if clock - max(self._restarts.begun, self._answered, self._excused) > patience:
            log.error("scoring_hangs", extra={"silent_seconds": round(patience)})
            self._child.kill(show_where=True)

    def excuse(self, clock: float) -> None:
        """Judge its silence anew from now on."""
        self._excused = clock

    def gone(self, clock: float) -> None:
        """The process has ended."""
        child, self._child = self._child, None
        if child is None:
            return
        child.wait(1.0)
        delay = self._restarts.ended(clock, worked=self.answers)
        fields = {"exit_code": child.exit_code, "again_in": delay}
        log.error("scoring_ended", extra=fields)
        child.close()
        self.ended += 1

    def stop(self) -> None:
        self._stopping.set()
        self._client.close()
        if self._child:
            self._child.close()
        with suppress(OSError):
            self._plan.address.unlink(missing_ok=True)

    def _start(self, clock: float) -> None:
        try:
            self._child = Child("scoring", main, self._plan, inbox=self._inbox)
        except OSError as error:
            self._restarts.refused(clock)
            _not_started(error)
        self._restarts.started(clock)

    def _ask(self) -> None:
        """In its own thread: whether the process answers."""
        while not self._stopping.wait(ASK_SECONDS if self._answered else 0.1):
            try:
                stats = self._client.stats()
            except ScorerUnavailable:
                self._told(None)
            else:
                self._answered = time.monotonic()
                self._told(stats)


def _not_started(error: OSError) -> None:
    log.error("scoring_not_started", extra={"error": str(error)})
