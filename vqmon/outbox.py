"""From the outbox to the targets, until everything has arrived or is given up.

    Deliverer ─▶ looks twice a second who has something due ─▶ wakes that target's Worker
    Worker    ─▶ claims one ─▶ Notifier.send ─▶ delivered · due again later · given up

A worker for each target: one that is slow, or gone, keeps nothing from another. What arrived
without our hearing of it is sent again under the same id: at least once, never lost.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta

from vqmon.domain import Disabled, Queued
from vqmon.errors import ConfigError, DeliveryFailed, StoreError, TargetGone
from vqmon.notifiers import open_notifier
from vqmon.notifying import LASTING, Target
from vqmon.ports import Notifier, Outbox

log = logging.getLogger("vqmon.outbox")

RETRY_SECONDS = (5.0, 30.0, 300.0, 1800.0, 7200.0)
"""From one attempt to the next; after the last of them a delivery is a dead letter."""

JITTER = 0.2
"""Share by which a delay varies, so that a hundred daemons do not come back at once."""

POLL_SECONDS = 0.5
REPEAT_SECONDS = 60.0
"""How often a target that keeps state is told of an alert that fires."""

LEASE_SECONDS = 20.0
"""A claim outlasts the target's deadline by so much."""

LONGEST_PAUSE = 60.0
"""A target that cannot be reached is tried at least this often while something is due."""

AWAY_SECONDS = 2.0


def _now() -> datetime:
    return datetime.now(UTC)


class Deliverer:
    """Keeps a worker for each target going."""

    def __init__(
        self,
        outbox: Outbox,
        targets: Iterable[Target],
        *,
        by: str,
        opened: Callable[[Target], Notifier] = open_notifier,
        now: Callable[[], datetime] = _now,
        poll: float = POLL_SECONDS,
    ) -> None:
        """by: whose claims these are; at the start, those of an earlier life are given up."""
        self._outbox = outbox
        self._by = by
        self._opened = opened
        self._now = now
        self._poll = poll
        self._workers: dict[str, Worker] = {}
        self._wanted = tuple(targets)
        self._stopping = threading.Event()
        self._away = False
        self._counts: Counter[tuple[str, str]] = Counter()
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)
        self.beat = time.monotonic()

    def start(self) -> None:
        self._thread.start()

    def take(self, targets: Iterable[Target]) -> None:
        """Other targets from now on; those that did not change go on undisturbed."""
        self._wanted = tuple(targets)

    def stop(self, patience: float) -> bool:
        """End within so many seconds; True when no message was cut off under way."""
        self._stopping.set()
        until = time.monotonic() + patience
        workers = list(self._workers.values())
        for worker in workers:
            worker.stop()
        for thread in (self._thread, *workers):
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        return not any(worker.is_alive() for worker in workers)

    @property
    def counts(self) -> Mapping[tuple[str, str], int]:
        """Attempts so far by target and outcome: delivered, failed (tried again) or given_up."""
        with self._counting:
            return dict(self._counts)

    def _count(self, target: str, outcome: str) -> None:
        with self._counting:
            self._counts[target, outcome] += 1

    def _run(self) -> None:
        released = False
        while not self._stopping.is_set():
            self.beat = time.monotonic()
            try:
                if not released:
                    self._outbox.release(self._by)
                    released = True
                self._settle_workers()
                self._wake()
                self._away = False
            except Exception as error:
                self._failed(error)
            self._stopping.wait(AWAY_SECONDS if self._away else self._poll)

    def _wake(self) -> None:
        for name in self._outbox.due(self._now()):
            if worker := self._workers.get(name):
                worker.wake()

    def _settle_workers(self) -> None:
        """A worker for each target as it is wanted now."""
        wanted = {target.name: target for target in self._wanted}
        for name, worker in list(self._workers.items()):
            if wanted.get(name) != worker.target or not worker.is_alive():
                worker.stop()
                del self._workers[name]
        for name, target in wanted.items():
            if name not in self._workers and not self._stopping.is_set():
                worker = Worker(
                    self._outbox, target, self._by, self._opened, self._now, count=self._count
                )
                worker.start()
                self._workers[name] = worker

    def _failed(self, error: Exception) -> None:
        if not self._away:
            unexpected = None if isinstance(error, StoreError) else error
            log.error("outbox_away", extra={"error": str(error)}, exc_info=unexpected)
        self._away = True


class Worker(threading.Thread):
    """Sends what is due for one target, one after the other."""

    def __init__(
        self,
        outbox: Outbox,
        target: Target,
        by: str,
        opened: Callable[[Target], Notifier],
        now: Callable[[], datetime],
        *,
        count: Callable[[str, str], None],
    ) -> None:
        super().__init__(name=f"target {target.name}", daemon=True)
        self.target = target
        self._count = count
        self._outbox = outbox
        self._by = by
        self._opened = opened
        self._notifier: Notifier | None = None
        self._now = now
        self._woken = threading.Event()
        self._ending = False
        self._unreachable = 0
        self._pause_until = datetime.min.replace(tzinfo=UTC)
        self._failing = False
        self._disabled: Disabled | None = None
        self._asked_if_disabled = False

    def wake(self) -> None:
        """Something is due."""
        self._woken.set()

    def stop(self) -> None:
        """End after the message under way."""
        self._ending = True
        self._woken.set()

    def run(self) -> None:
        while not self._ending:
            self._woken.wait()
            self._woken.clear()
            try:
                while not self._ending and not self._pausing and self._next():
                    pass
            except Exception as error:
                # The delivery stays claimed until its lease ends, and is then sent again.
                unexpected = None if isinstance(error, StoreError) else error
                about = {"target": self.target.name, "error": str(error)}
                log.warning("target_interrupted", extra=about, exc_info=unexpected)
                time.sleep(min(AWAY_SECONDS, POLL_SECONDS))

    @property
    def _pausing(self) -> bool:
        return self._now() < self._pause_until

    def _next(self) -> bool:
        """Send the next that is due; False when there is none."""
        if disabled := self._disabled_still():
            self._outbox.disable(disabled)
            return False
        lease = self.target.timeout + LEASE_SECONDS
        one = self._outbox.claim(self.target.name, self._by, self._now(), seconds=lease)
        if one is None:
            return False
        expires_at = one.delivery.expires_at
        if expires_at is not None and expires_at <= self._now():
            self._give_up(one, one.error or "it was no longer of use")
            return True
        self._send(one)
        return True

    def _send(self, one: Queued) -> None:
        try:
            self._open().send(one.delivery, self._now())
        except TargetGone as error:
            self._disable(error)
        except ConfigError as error:
            self._failed(one, DeliveryFailed(str(error)))
        except DeliveryFailed as error:
            self._failed(one, error)
        except Exception as error:
            log.exception("notifier_fault", extra={"target": self.target.name})
            self._failed(one, DeliveryFailed(f"unexpected {type(error).__name__}: {error}"))
        else:
            self._arrived(one)

    def _open(self) -> Notifier:
        """Tried again until it works: a missing file may be put where it belongs."""
        if self._notifier is None:
            self._notifier = self._opened(self.target)
        return self._notifier

    def _arrived(self, one: Queued) -> None:
        now, again_at = self._now(), None
        if self.target.keeps_state and one.delivery.kind in LASTING:
            again_at = now + timedelta(seconds=REPEAT_SECONDS)
        self._outbox.delivered(one, now, again_at=again_at)
        self._count(self.target.name, "delivered")
        if self._unreachable:
            self._outbox.hasten(self.target.name, now)
        if self._failing:
            log.info("target_back", extra={"target": self.target.name})
        self._failing, self._unreachable = False, 0

    def _failed(self, one: Queued, error: DeliveryFailed) -> None:
        self._tell(error)
        self._unreachable = self._unreachable + 1 if error.unreachable else 0
        if self._unreachable:
            pause = RETRY_SECONDS[0] * 2 ** min(self._unreachable - 1, 10)
            self._pause(_varied(min(pause, LONGEST_PAUSE)))
        if error.retry_after is not None:
            self._pause(error.retry_after)
        due_at = self._due_again(one, error)
        if due_at is None:
            self._give_up(one, str(error))
        else:
            self._outbox.failed(one, self._by, str(error), due_at=due_at)
            self._count(self.target.name, "failed")

    def _due_again(self, one: Queued, error: DeliveryFailed) -> datetime | None:
        """When the next attempt is due; None when there is none left, or it would be too late."""
        lasting = self.target.keeps_state and one.delivery.kind in LASTING
        if one.attempts > len(RETRY_SECONDS) and not lasting:
            return None
        delay = _varied(RETRY_SECONDS[min(one.attempts, len(RETRY_SECONDS)) - 1])
        if lasting:
            delay = min(delay, REPEAT_SECONDS)
        due_at = self._now() + timedelta(seconds=max(delay, error.retry_after or 0.0))
        expires_at = one.delivery.expires_at
        return None if expires_at is not None and due_at >= expires_at else due_at

    def _give_up(self, one: Queued, reason: str) -> None:
        self._outbox.failed(one, self._by, reason, due_at=None)
        about = {"target": self.target.name, "id": one.delivery.id, "error": reason}
        log.error("delivery_given_up", extra=about)
        self._count(self.target.name, "given_up")

    def _pause(self, seconds: float) -> None:
        self._pause_until = max(self._pause_until, self._now() + timedelta(seconds=seconds))

    def _tell(self, error: DeliveryFailed) -> None:
        """Once, until it is back."""
        if not self._failing:
            about = {"target": self.target.name, "error": str(error)}
            log.warning("target_failing", extra=about)
        self._failing = True

    # -- gone for good

    def _disable(self, error: TargetGone) -> None:
        name = self.target.name
        self._disabled = Disabled(name, self.target.fingerprint, str(error), self._now())
        self._outbox.disable(self._disabled)
        about = {"target": name, "error": str(error), "until": "its configuration changes"}
        log.error("target_disabled", extra=about)
        self._count(name, "given_up")

    def _disabled_still(self) -> Disabled | None:
        """Since when and why it is gone as it is configured now; a retry by hand brings it back."""
        if self._asked_if_disabled and self._disabled is None:
            return None
        known = [it for it in self._outbox.disabled() if it.target == self.target.name]
        same = [it for it in known if it.fingerprint == self.target.fingerprint]
        if known and not same:
            self._outbox.enable(self.target.name)
        self._asked_if_disabled, self._disabled = True, same[0] if same else None
        return self._disabled


def _varied(seconds: float) -> float:
    return seconds * random.uniform(1 - JITTER, 1 + JITTER)
