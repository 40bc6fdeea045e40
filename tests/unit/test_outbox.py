"""The loop that delivers: retries, order, targets that are slow, gone or changed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from vqmon.domain import Delivery, Queued, Receipt
from vqmon.errors import ConfigError, DeliveryFailed, StoreError, TargetGone
from vqmon.notifying import Target
from vqmon.outbox import JITTER, RETRY_SECONDS, Deliverer
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
DOWN = DeliveryFailed("connection refused", unreachable=True)
WRONG = DeliveryFailed("HTTP 500", status=500)


class Scene:
    """An outbox, targets that answer as told, and a clock that moves when told.

    answers: for each target, what its next messages meet: an error to raise, a function to call,
    or None for success, which also follows when the list is empty.
    """

    def __init__(self) -> None:
        self.now = NOON
        self.store = MemoryStore()
        self.answers: dict[str, list[Any]] = {}
        self.sent: list[tuple[str, str, datetime]] = []

    def enqueue(self, *ids: str, target: str = "encoder", **fields: Any) -> None:
        given: dict[str, Any] = {"kind": "firing", "body": {}, "created_at": self.now} | fields
        self.store.enqueue([Delivery(id=it, target=target, **given) for it in ids])

    def open(self, target: Target) -> Scene._Notifier:
        return Scene._Notifier(self, target)

    class _Notifier:
        def __init__(self, scene: Scene, target: Target) -> None:
            self.scene, self.target = scene, target

        def send(self, delivery: Delivery, at: datetime) -> Receipt:
            self.scene.sent.append((self.target.name, delivery.id, at))
            waiting = self.scene.answers.get(self.target.name)
            answer = waiting.pop(0) if waiting else None
            if isinstance(answer, Exception):
                raise answer
            if answer is not None:
                answer()
            return Receipt(200)

    def ids(self, target: str = "encoder") -> list[str]:
        return [id_ for name, id_, _ in self.sent if name == target]

    def one(self, id_: str = "e1", target: str = "encoder") -> Queued:
        [found] = [it for it in self.store.queued(target) if it.delivery.id == id_]
        return found

    def at(self, seconds: float) -> None:
        self.now = NOON + timedelta(seconds=seconds)


def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


def settled() -> None:
    """Long enough for many looks into the outbox."""
    time.sleep(0.1)


@contextmanager
def delivering(scene: Scene, *targets: Target, by: str = "vqmon") -> Iterator[Deliverer]:
    running = Deliverer(
        scene.store,
        targets or [Target("encoder")],
        by=by,
        opened=scene.open,
        now=lambda: scene.now,
        poll=0.01,
    )
    running.start()
    try:
        yield running
    finally:
        assert running.stop(5.0)


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_what_is_due_is_delivered_in_order(scene: Scene) -> None:
    """The straight path."""
    scene.enqueue("e1", "e2", "e3")

    with delivering(scene):
        until(lambda: not scene.store.queued(states=["waiting"]))

    assert scene.ids() == ["e1", "e2", "e3"]
    assert {it.state for it in scene.store.queued()} == {"delivered"}
    assert scene.one().delivered_at == NOON


def test_what_became_of_every_attempt_is_counted(scene: Scene) -> None:
    """For metrics: one that failed and then arrived counts as both."""
    scene.answers["encoder"] = [WRONG]
    scene.enqueue("e1")

    with delivering(scene) as running:
        until(lambda: scene.one().error)
        until(lambda: running.counts == {("encoder", "failed"): 1})
        scene.at(60)
        until(lambda: scene.one().state == "delivered")
        until(lambda: running.counts.get(("encoder", "delivered")) == 1)
        scene.answers["encoder"] = [TargetGone("410 Gone")]
        scene.enqueue("e2")
        until(lambda: running.counts.get(("encoder", "given_up")) == 1)

    assert set(running.counts.values()) == {1}


def test_failures_are_retried_at_the_stated_times_then_given_up(scene: Scene) -> None:
    """5 s, 30 s, 5 min, 30 min, 2 h, each a fifth more or less; then a dead letter."""
    scene.answers["encoder"] = [WRONG] * 10
    scene.enqueue("e1")

    with delivering(scene):
        for attempt, step in enumerate(RETRY_SECONDS, start=1):
            until(lambda: len(scene.sent) == attempt and scene.one().error)  # noqa: B023  called at once
            until(lambda: scene.one().due_at > scene.now)
            delay = (scene.one().due_at - scene.now).total_seconds()
            assert step * (1 - JITTER) <= delay <= step * (1 + JITTER)
            scene.now = scene.one().due_at
        until(lambda: scene.one().state == "dead")
        scene.now += timedelta(days=1)
        settled()

    assert scene.ids() == ["e1"] * 6
    assert scene.one().error == "HTTP 500"


def test_one_message_that_fails_holds_up_no_other(scene: Scene) -> None:
    """A body that its receiver cannot take must not stop the alerts behind it."""
    scene.answers["encoder"] = [WRONG]
    scene.enqueue("e1", "e2")

    with delivering(scene):
        until(lambda: scene.one("e2").state == "delivered")

    assert scene.one("e1").state == "waiting"


def test_but_what_is_said_of_one_alert_stays_in_order(scene: Scene) -> None:
    """Its end is not told before its beginning."""
    scene.answers["encoder"] = [WRONG]
    scene.enqueue("begin", topic="a1")
    scene.enqueue("end", topic="a1", kind="resolved")

    with delivering(scene):
        until(lambda: scene.one("begin").error)
        settled()
        assert scene.ids() == ["begin"]
        scene.at(7)
        until(lambda: scene.one("end").state == "delivered")

    assert scene.ids() == ["begin", "begin", "end"]


def test_a_slow_target_delays_no_other(scene: Scene) -> None:
    """Each has its own worker."""
    release = threading.Event()
    scene.answers["slow"] = [lambda: release.wait(10)]
    scene.enqueue("e1", target="slow")
    scene.enqueue("e1", "e2")

    with delivering(scene, Target("slow"), Target("encoder")):
        until(lambda: scene.one("e2").state == "delivered")
        assert scene.one(target="slow").state == "waiting"
        release.set()
        until(lambda: scene.one(target="slow").state == "delivered")


def test_a_target_out_of_reach_is_tried_by_one_message_at_a_time(scene: Scene) -> None:
    """A thousand that wait must not each spend an attempt, nor ten seconds, on it."""
    scene.answers["encoder"] = [DOWN] * 2
    scene.enqueue("e1", "e2", "e3")

    with delivering(scene):
        until(lambda: scene.one("e1").error)
        settled()
        assert scene.ids() == ["e1"]
        scene.at(6.5)
        until(lambda: len(scene.sent) == 2)
        settled()
        assert len(scene.sent) == 2


def test_a_target_that_is_back_gets_everything_at_once(scene: Scene) -> None:
    """What waits for its next attempt in two hours is sent when another message arrives."""
    scene.answers["encoder"] = [DOWN, DOWN]
    scene.enqueue("e1")

    with delivering(scene):
        until(lambda: scene.one("e1").error)
        scene.at(7)
        until(lambda: len(scene.sent) == 2 and scene.one("e1").due_at > scene.now)
        scene.at(20)
        scene.enqueue("e2")
        until(lambda: scene.one("e1").state == "delivered")

    assert scene.ids() == ["e1", "e1", "e2", "e1"]


def test_retry_after_holds_back_the_whole_target(scene: Scene) -> None:
    """It asked to be left alone, whatever the message."""
    scene.answers["encoder"] = [DeliveryFailed("HTTP 429", status=429, retry_after=60.0)]
    scene.enqueue("e1", "e2")

    with delivering(scene):
        until(lambda: scene.one("e1").error)
        scene.at(59)
        settled()
        assert scene.ids() == ["e1"]
        scene.at(60)
        until(lambda: scene.one("e2").state == scene.one("e1").state == "delivered")

    assert scene.one("e1").attempts == 2


def test_a_long_retry_after_is_longer_than_the_usual_step(scene: Scene) -> None:
    """Ours are only the least that is waited."""
    scene.answers["encoder"] = [DeliveryFailed("HTTP 503", status=503, retry_after=3600.0)]
    scene.enqueue("e1")

    with delivering(scene):
        until(lambda: scene.one().error)

    assert scene.one().due_at == NOON + timedelta(seconds=3600)


def test_a_message_that_was_for_the_moment_is_not_sent_late(scene: Scene) -> None:
    """An encoder that comes back must not obey what was meant an hour ago."""
    scene.enqueue("late", expires_at=NOON)
    scene.enqueue("failing", expires_at=NOON + timedelta(seconds=3))
    scene.answers["encoder"] = [WRONG]

    with delivering(scene):
        until(lambda: {it.state for it in scene.store.queued()} == {"dead"})

    assert scene.ids() == ["failing"]
    assert scene.one("late").error == "it was no longer of use"
    assert scene.one("failing").error == "HTTP 500"


# Gone for good


def test_a_target_that_is_gone_is_sent_nothing_more(scene: Scene) -> None:
    """Not what waits, and not what comes; all is seen as dead letters."""
    scene.answers["encoder"] = [TargetGone("HTTP 410 Gone", status=410)]
    scene.enqueue("e1", "e2")

    with delivering(scene):
        until(lambda: scene.one("e2").state == "dead")
        scene.enqueue("e3")
        until(lambda: scene.one("e3").state == "dead")

    assert scene.ids() == ["e1"]
    assert {it.error for it in scene.store.queued()} == {"HTTP 410 Gone"}
    [disabled] = scene.store.disabled()
    assert (disabled.target, disabled.at) == ("encoder", NOON)


def test_it_stays_gone_over_a_restart_until_its_configuration_changes(scene: Scene) -> None:
    """A daemon that restarts every night must not ask every night."""
    scene.answers["encoder"] = [TargetGone("HTTP 410 Gone", status=410)]
    scene.enqueue("e1")
    with delivering(scene):
        until(scene.store.disabled)
    scene.enqueue("e2")

    with delivering(scene) as running:
        until(lambda: scene.one("e2").state == "dead")
        running.take([Target("encoder", url="http://new")])
        scene.enqueue("e3")
        until(lambda: scene.one("e3").state == "delivered")

    assert scene.ids() == ["e1", "e3"]
    assert scene.store.disabled() == []


def test_an_operator_can_bring_it_back(scene: Scene) -> None:
    """While the daemon runs."""
    scene.answers["encoder"] = [TargetGone("HTTP 410 Gone", status=410)]
    scene.enqueue("e1")

    with delivering(scene):
        until(scene.store.disabled)
        scene.store.retry(scene.now, target="encoder")
        until(lambda: scene.one().state == "delivered")


# Targets that keep state


STATE = Target("am", type="alertmanager")


def test_a_firing_alert_is_told_every_minute_until_it_is_resolved(scene: Scene) -> None:
    """Alertmanager takes silence for the end."""
    scene.enqueue("begin", target="am", topic="a1", replaces=True)

    with delivering(scene, STATE):
        for minute in range(3):
            scene.at(60 * minute)
            until(lambda: len(scene.sent) == minute + 1)  # noqa: B023  called at once
        until(lambda: scene.one("begin", "am").due_at == NOON + timedelta(minutes=3))
        scene.enqueue("end", target="am", topic="a1", replaces=True, kind="resolved")
        until(lambda: scene.one("end", "am").state == "delivered")
        scene.at(3600)
        settled()

    assert scene.ids("am") == ["begin", "begin", "begin", "end"]


def test_a_restart_goes_on_telling(scene: Scene) -> None:
    """The state lies in the outbox, not in the process."""
    scene.enqueue("begin", target="am", topic="a1", replaces=True)
    with delivering(scene, STATE):
        until(lambda: scene.one("begin", "am").delivered_at)
    scene.at(61)

    with delivering(scene, STATE):
        until(lambda: len(scene.sent) == 2)
        until(lambda: scene.one("begin", "am").due_at > scene.now)


def test_a_state_is_never_given_up(scene: Scene) -> None:
    """After a day's outage the alert still fires, and must be seen within a minute."""
    scene.answers["am"] = [DOWN] * 9
    scene.enqueue("begin", target="am", topic="a1", replaces=True)

    with delivering(scene, STATE):
        for attempt in range(1, 10):
            until(lambda: len(scene.sent) >= attempt)  # noqa: B023  called at once
            until(lambda: scene.one("begin", "am").due_at > scene.now)
            assert scene.one("begin", "am").due_at <= scene.now + timedelta(seconds=60)
            scene.now += timedelta(seconds=75)
        until(lambda: scene.one("begin", "am").delivered_at)


# What goes wrong around it


def test_claims_of_an_earlier_life_are_given_up_at_the_start(scene: Scene) -> None:
    """After kill -9 nothing waits for a lease to end."""
    scene.enqueue("e1", "e2")
    scene.store.claim("encoder", "vqmon", NOON, seconds=3600)
    scene.store.claim("encoder", "another instance", NOON, seconds=3600)

    with delivering(scene):
        until(lambda: scene.one("e1").state == "delivered")
        settled()

    assert scene.ids() == ["e1"]


def test_an_unexpected_error_of_a_notifier_is_a_failure(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """A library's fault costs one attempt, not the worker."""
    scene.answers["encoder"] = [ZeroDivisionError("oops")]
    scene.enqueue("e1", "e2")

    with delivering(scene):
        until(lambda: scene.one("e2").state == "delivered")

    assert scene.one("e1").error == "unexpected ZeroDivisionError: oops"
    assert "notifier_fault" in caplog.messages


def test_a_target_that_cannot_be_opened_waits_until_it_can(scene: Scene) -> None:
    """A certificate that is missing for now; the others go on."""
    broken = [True]
    opened = scene.open

    def open_(target: Target) -> Any:
        if target.name == "encoder" and broken[0]:
            raise ConfigError("no such file")
        return opened(target)

    scene.open = open_  # type: ignore[method-assign]
    scene.enqueue("e1")
    scene.enqueue("e1", target="other")

    with delivering(scene, Target("encoder"), Target("other")):
        until(lambda: scene.one(target="other").state == "delivered")
        until(lambda: scene.one().error == "no such file")
        broken[0] = False
        scene.at(7)
        until(lambda: scene.one().state == "delivered")


def test_a_database_that_is_away_is_asked_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Said once, not twice a second."""
    monkeypatch.setattr("vqmon.outbox.AWAY_SECONDS", 0.01)
    scene.enqueue("e1")
    due = scene.store.due
    refused: list[datetime] = []

    def away(now: datetime) -> list[str]:
        if len(refused) < 5:
            refused.append(now)
            raise StoreError("away")
        return due(now)

    monkeypatch.setattr(scene.store, "due", away)

    with delivering(scene):
        until(lambda: scene.one().state == "delivered")

    assert caplog.messages.count("outbox_away") == 1


def test_a_result_that_could_not_be_noted_is_sent_again_under_its_id(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least once: the receiver knows the id."""
    delivered = scene.store.delivered
    refused: list[Queued] = []

    def note(one: Queued, at: datetime, **again: Any) -> None:
        if not refused:
            refused.append(one)
            raise StoreError("away")
        delivered(one, at, **again)

    monkeypatch.setattr(scene.store, "delivered", note)
    scene.enqueue("e1")

    with delivering(scene):
        until(lambda: refused)
        scene.at(31)
        until(lambda: scene.one().state == "delivered")

    assert scene.ids() == ["e1", "e1"]


# Changes and the end


def test_targets_can_change_while_it_runs(scene: Scene) -> None:
    """A reload adds, changes and removes; what waits for a removed one waits on."""
    scene.enqueue("e1")

    with delivering(scene, Target("encoder"), Target("old")) as running:
        until(lambda: scene.one().state == "delivered")
        running.take([Target("encoder", url="http://other"), Target("new")])
        scene.enqueue("e2", target="new")
        until(lambda: scene.one("e2", "new").state == "delivered")
        scene.enqueue("e3", target="old")
        scene.enqueue("e4")
        until(lambda: scene.one("e4").state == "delivered")
        settled()

    assert scene.one("e3", "old").state == "waiting"


def test_stopping_does_not_wait_longer_than_it_may(scene: Scene) -> None:
    """What is under way stays claimed, and is sent again at the next start."""
    release = threading.Event()
    scene.answers["encoder"] = [lambda: release.wait(20)]
    scene.enqueue("e1")
    running = Deliverer(
        scene.store, [Target("encoder")], by="v", opened=scene.open, now=lambda: scene.now
    )
    running.start()
    until(lambda: scene.sent)

    begun = time.monotonic()
    assert not running.stop(0.2)

    assert time.monotonic() - begun < 3
    assert scene.one().state == "waiting"
    release.set()


def test_failing_and_coming_back_are_each_said_once(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    """One line per change of state, with names and no secrets."""
    caplog.set_level("INFO")
    scene.answers["encoder"] = [WRONG, WRONG]
    scene.enqueue("e1", "e2", "e3")

    with delivering(scene, replace(Target("encoder"), url="http://u:p@host/secret")):
        until(lambda: scene.one("e3").state == "delivered")

    assert caplog.messages.count("target_failing") == 1
    assert caplog.messages.count("target_back") == 1
    assert "secret" not in caplog.text
