"""What every outbox promises: SQLite, PostgreSQL and the public fake alike."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import nan
from typing import Any

import pytest

from vqmon.domain import Delivery, Disabled
from vqmon.ports import Outbox
from vqmon.store import open_store
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def outbox(request: pytest.FixtureRequest) -> Iterator[Outbox]:
    if request.param == "memory":
        yield MemoryStore()
        return
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    with open_store(request.getfixturevalue(kind)) as opened:
        yield opened


def delivery(id_: str = "e1", target: str = "encoder", **fields: Any) -> Delivery:
    given: dict[str, Any] = {"kind": "firing", "body": {"status": "firing"}, "stream": "news"}
    return Delivery(id=id_, target=target, created_at=NOON, **given | fields)


def claimed(outbox: Outbox, target: str = "encoder", at: datetime = NOON) -> str | None:
    found = outbox.claim(target, "me", at, seconds=3000)
    return found.delivery.id if found else None


def test_a_delivery_comes_back_as_it_went_in(outbox: Outbox) -> None:
    """What is sent after a restart is what was decided before it."""
    given = delivery(
        body={"alerts": [{"labels": {"stream": "Öffentlich 📺"}}], "vqmon": {"n": 1.5, "x": None}},
        topic="a1",
        expires_at=NOON + MINUTE,
    )

    outbox.enqueue([given])

    [queued] = outbox.queued()
    assert queued.delivery == given
    assert (queued.state, queued.attempts, queued.due_at) == ("waiting", 0, NOON)


def test_a_known_delivery_is_left_alone(outbox: Outbox) -> None:
    """The work of a killed daemon is done again; its messages must not be sent again."""
    outbox.enqueue([delivery()])
    found = outbox.claim("encoder", "me", NOON, seconds=30)
    assert found
    outbox.delivered(found, NOON)

    outbox.enqueue([delivery(body={"other": 1}), delivery(target="other")])

    assert [(it.delivery.target, it.state) for it in outbox.queued()] == [
        ("other", "waiting"),
        ("encoder", "delivered"),
    ]
    assert claimed(outbox) is None


def test_each_target_has_its_own_queue_in_order(outbox: Outbox) -> None:
    """One that is slow or gone keeps nothing from another."""
    outbox.enqueue([delivery("e1"), delivery("e2"), delivery("e1", "other")])

    assert outbox.due(NOON) == ["encoder", "other"]
    assert [claimed(outbox), claimed(outbox), claimed(outbox)] == ["e1", "e2", None]
    assert outbox.due(NOON) == ["other"]
    assert claimed(outbox, "other") == "e1"
    assert claimed(outbox, "third") is None


def test_a_claim_keeps_others_away_until_it_ends(outbox: Outbox) -> None:
    """Two daemons on one database must not both send; a killed one must not keep it for ever."""
    outbox.enqueue([delivery()])

    first = outbox.claim("encoder", "one", NOON, seconds=30)

    assert outbox.claim("encoder", "two", NOON + timedelta(seconds=29), seconds=30) is None
    again = outbox.claim("encoder", "two", NOON + timedelta(seconds=30), seconds=30)
    assert first
    assert again
    assert (first.attempts, again.attempts) == (1, 2)


def test_a_claim_that_was_lost_cannot_be_failed(outbox: Outbox) -> None:
    """Whoever took over decides."""
    outbox.enqueue([delivery()])
    first = outbox.claim("encoder", "one", NOON, seconds=30)
    assert first
    outbox.claim("encoder", "two", NOON + MINUTE, seconds=30)

    outbox.failed(first, "one", "too late", due_at=None)

    [queued] = outbox.queued()
    assert (queued.state, queued.error) == ("waiting", None)


def test_releasing_gives_back_the_claims_of_one_only(outbox: Outbox) -> None:
    """A daemon that starts again need not wait for the claims of its killed predecessor."""
    outbox.enqueue([delivery("e1"), delivery("e2")])
    outbox.claim("encoder", "dead", NOON, seconds=3000)
    outbox.claim("encoder", "alive", NOON, seconds=3000)

    outbox.release("dead")

    again = outbox.claim("encoder", "me", NOON, seconds=30)
    assert again
    assert (again.delivery.id, again.attempts) == ("e1", 1)
    assert claimed(outbox) is None


def test_many_claimants_share_without_doubles(outbox: Outbox) -> None:
    """Each delivery is given to exactly one of those who ask at the same time."""
    outbox.enqueue([delivery(f"e{n:02}") for n in range(24)])
    got: list[str] = []

    def take(by: str) -> None:
        while found := outbox.claim("encoder", by, NOON, seconds=30):
            got.append(found.delivery.id)

    threads = [threading.Thread(target=take, args=(f"worker {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert sorted(got) == [f"e{n:02}" for n in range(24)]


def test_a_failed_attempt_is_due_again_later(outbox: Outbox) -> None:
    """With what went wrong, for the operator."""
    outbox.enqueue([delivery()])
    found = outbox.claim("encoder", "me", NOON, seconds=30)
    assert found

    outbox.failed(found, "me", "503 Service Unavailable", due_at=NOON + MINUTE)

    assert claimed(outbox, at=NOON + MINUTE / 2) is None
    assert outbox.due(NOON + MINUTE) == ["encoder"]
    [queued] = outbox.queued()
    assert (queued.error, queued.tried_at) == ("503 Service Unavailable", NOON)
    assert claimed(outbox, at=NOON + MINUTE) == "e1"


def test_what_is_given_up_is_a_dead_letter_until_it_is_retried(outbox: Outbox) -> None:
    """Nothing disappears: the operator sees it and can send it after all."""
    outbox.enqueue([delivery("e1", expires_at=NOON), delivery("e2", "other")])
    found = outbox.claim("encoder", "me", NOON, seconds=30)
    assert found
    outbox.failed(found, "me", "no route to host", due_at=None)

    assert outbox.due(NOON + MINUTE) == ["other"]
    assert [it.delivery.id for it in outbox.queued(states=["dead"])] == ["e1"]
    assert outbox.retry(NOON + MINUTE, target="other") == []
    [again] = outbox.retry(NOON + MINUTE, delivery_id="e")

    assert (again.state, again.attempts, again.delivery.expires_at) == ("waiting", 0, None)
    assert claimed(outbox, at=NOON + MINUTE) == "e1"


def test_what_waits_and_what_is_dead_is_counted_by_target(outbox: Outbox) -> None:
    """For metrics: a number for each, without the messages themselves."""
    assert outbox.backlog() == {}
    outbox.enqueue([delivery("e1"), delivery("e2"), delivery("e3"), delivery("e4", "other")])
    for at, given_up in ((NOON, True), (NOON, False)):
        found = outbox.claim("encoder", "me", at, seconds=30)
        assert found
        if given_up:
            outbox.failed(found, "me", "refused", due_at=None)
        else:
            outbox.delivered(found, NOON)

    assert outbox.backlog() == {
        ("encoder", "waiting"): 1,
        ("encoder", "dead"): 1,
        ("other", "waiting"): 1,
    }


def test_a_dead_letter_can_be_renewed_with_another_expiry(outbox: Outbox) -> None:
    """For senders that must be heard in the end: same id, all attempts before it."""
    outbox.enqueue([delivery(expires_at=NOON + MINUTE), delivery("e1", "other")])
    found = outbox.claim("encoder", "me", NOON, seconds=30)
    assert found
    assert not outbox.renew(delivery())  # it is on its way
    outbox.failed(found, "me", "refused", due_at=None)

    assert outbox.renew(replace(delivery(), created_at=NOON + MINUTE))

    standing = outbox.standing("e1", "encoder")
    assert standing
    assert (standing.state, standing.attempts) == ("waiting", 0)
    assert (standing.due_at, standing.delivery.expires_at) == (NOON + MINUTE, None)
    assert standing.delivery.created_at == NOON
    assert not outbox.renew(delivery())
    assert outbox.standing("e9", "encoder") is None


def test_what_is_meant_for_a_target_that_is_gone_is_not_renewed(outbox: Outbox) -> None:
    """It said 410; only a person or another configuration brings it back."""
    outbox.enqueue([delivery()])
    outbox.disable(Disabled("encoder", "f1", "410 Gone", NOON))

    assert not outbox.renew(delivery())

    outbox.enable("encoder")
    assert outbox.renew(delivery())


def test_retrying_brings_forward_what_waits_after_a_failure(outbox: Outbox) -> None:
    """The operator mended the receiver and does not want to wait two hours."""
    outbox.enqueue([delivery()])
    found = outbox.claim("encoder", "me", NOON, seconds=30)
    assert found
    outbox.failed(found, "me", "refused", due_at=NOON + 120 * MINUTE)

    assert len(outbox.retry(NOON + MINUTE)) == 1

    assert claimed(outbox, at=NOON + MINUTE) == "e1"


def test_a_target_that_is_back_gets_at_once_what_failed_before(outbox: Outbox) -> None:
    """After an hour's outage the alerts of that hour must not wait two hours more."""
    outbox.enqueue([delivery("e1"), delivery("e1", "other")])
    for target in ("encoder", "other"):
        found = outbox.claim(target, "me", NOON, seconds=30)
        assert found
        outbox.failed(found, "me", "refused", due_at=NOON + 120 * MINUTE)

    outbox.hasten("encoder", NOON + MINUTE)

    assert outbox.due(NOON + MINUTE) == ["encoder"]
    again = outbox.claim("encoder", "me", NOON + MINUTE, seconds=30)
    assert again
    assert again.attempts == 2


def test_a_topic_keeps_its_order_over_failures(outbox: Outbox) -> None:
    """A receiver that hears of the end before the beginning believes in an alert for ever."""
    outbox.enqueue([delivery("begin", topic="a1"), delivery("end", topic="a1")])
    outbox.enqueue([delivery("other", topic="a2")])
    found = outbox.claim("encoder", "me", NOON, seconds=30)
    assert found

    assert [claimed(outbox), claimed(outbox)] == ["other", None]
    outbox.failed(found, "me", "refused", due_at=NOON + MINUTE)
    assert claimed(outbox, at=NOON + MINUTE / 2) is None
    assert claimed(outbox, at=NOON + MINUTE) == "begin"
    outbox.delivered(found, NOON)
    assert claimed(outbox, at=NOON + MINUTE) == "end"


def test_a_newer_state_replaces_the_waiting_one(outbox: Outbox) -> None:
    """A target that keeps state wants to know what is, not what was."""
    outbox.enqueue([delivery("begin", topic="a1", replaces=True), delivery("b", topic="a2")])
    outbox.enqueue([delivery("x", "other", topic="a1")])

    outbox.enqueue([delivery("end", topic="a1", replaces=True)])

    states = {(it.delivery.id, it.state) for it in outbox.queued()}
    assert states == {
        ("begin", "replaced"),
        ("b", "waiting"),
        ("x", "waiting"),
        ("end", "waiting"),
    }
    assert [claimed(outbox), claimed(outbox)] == ["b", "end"]


@pytest.mark.parametrize("outcome", ["delivered", "again", "failed", "dead"])
def test_what_was_replaced_while_it_was_sent_stays_replaced(outbox: Outbox, outcome: str) -> None:
    """And its successor goes only after it is off the wire."""
    outbox.enqueue([delivery("begin", topic="a1", replaces=True)])
    begin = outbox.claim("encoder", "me", NOON, seconds=30)
    assert begin
    outbox.enqueue([delivery("end", topic="a1", replaces=True)])

    assert claimed(outbox) is None
    match outcome:
        case "delivered":
            outbox.delivered(begin, NOON)
        case "again":
            outbox.delivered(begin, NOON, again_at=NOON + MINUTE)
        case "failed":
            outbox.failed(begin, "me", "refused", due_at=NOON)
        case "dead":
            outbox.failed(begin, "me", "refused", due_at=None)

    assert [claimed(outbox), claimed(outbox)] == ["end", None]
    assert [it.delivery.id for it in outbox.queued(states=["replaced"])] == ["begin"]


def test_a_state_is_sent_again_and_again(outbox: Outbox) -> None:
    """Each time with all attempts before it."""
    outbox.enqueue([delivery(topic="a1", replaces=True)])
    found = outbox.claim("encoder", "me", NOON, seconds=30)
    assert found

    outbox.delivered(found, NOON, again_at=NOON + MINUTE)

    assert claimed(outbox, at=NOON + MINUTE / 2) is None
    again = outbox.claim("encoder", "me", NOON + MINUTE, seconds=30)
    assert again
    assert (again.attempts, again.delivered_at) == (1, NOON)


def test_disabling_a_target_gives_up_what_waits_for_it(outbox: Outbox) -> None:
    """A receiver that is gone for good collects no backlog."""
    outbox.enqueue([delivery("e1"), delivery("e2"), delivery("e3", "other")])
    gone = Disabled("encoder", "f1", "410 Gone", NOON)
    outbox.claim("encoder", "me", NOON, seconds=30)

    outbox.disable(gone)
    outbox.disable(replace(gone, fingerprint="f2"))

    assert outbox.disabled() == [replace(gone, fingerprint="f2")]
    assert {(it.delivery.id, it.error) for it in outbox.queued(states=["dead"])} == {
        ("e1", "410 Gone"),
        ("e2", "410 Gone"),
    }
    assert outbox.due(NOON + MINUTE) == ["other"]
    outbox.enable("encoder")
    assert outbox.disabled() == []


def test_retrying_enables_the_target_again(outbox: Outbox) -> None:
    """Asking for it says that the receiver is back."""
    outbox.enqueue([delivery()])
    outbox.disable(Disabled("encoder", "f1", "410 Gone", NOON))

    outbox.retry(NOON)

    assert outbox.disabled() == []
    assert claimed(outbox) == "e1"


def test_old_deliveries_are_pruned_once_settled(outbox: Outbox) -> None:
    """The queue stays small; what still waits, and alerts that still fire, stay in it."""
    outbox.enqueue([delivery(name) for name in ("done", "dead", "again", "waiting")])
    late = NOON + 10 * MINUTE
    outbox.enqueue([replace(delivery("new"), created_at=late)])
    for name in ("done", "dead", "again"):
        found = outbox.claim("encoder", "me", NOON, seconds=30)
        assert found
        assert found.delivery.id == name
        if name == "done":
            outbox.delivered(found, NOON)
        elif name == "dead":
            outbox.failed(found, "me", "refused", due_at=None)
        else:
            outbox.delivered(found, NOON, again_at=late)

    assert outbox.prune_deliveries(NOON) == 0
    assert outbox.prune_deliveries(NOON + MINUTE, limit=1) == 1
    assert outbox.prune_deliveries(NOON + MINUTE) == 2

    assert [it.delivery.id for it in outbox.queued()] == ["new", "again"]


def test_queued_can_be_narrowed(outbox: Outbox) -> None:
    """A thousand delivered messages must not hide the one that failed."""
    outbox.enqueue([delivery(f"e{n}") for n in range(3)] + [delivery("x", "other")])

    assert [it.delivery.id for it in outbox.queued("encoder", limit=2)] == ["e2", "e1"]
    assert [it.delivery.id for it in outbox.queued(states=["waiting"], limit=1)] == ["x"]
    assert outbox.queued(states=["dead"]) == []


def test_what_is_no_json_does_no_harm(outbox: Outbox) -> None:
    """One odd number must not stop the rows of all streams from being stored."""
    outbox.enqueue([delivery(body={"nan": nan, "text": "a\0b"})])

    assert claimed(outbox) == "e1"
