"""Alerts and segments go into the database together, and a crash in between costs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as how
from hypothesis import strategies as st

from vqmon.alerting.own import Trouble
from vqmon.daemon.alerts import Alerts
from vqmon.domain import Acting, AlertEvent, Finding, Segment, Silence
from vqmon.errors import StoreError
from vqmon.notifying import timestamp
from vqmon.settings import Settings
from vqmon.store import open_store
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def configured(**changes: Any) -> Settings:
    return Settings.model_validate(
        {
            "alerts": {"grace": "0s"},
            "notifiers": {"encoder": {"type": "log"}},
            "streams": {"news": {"url": "rtsp://x.example/y"}},
        }
        | changes
    )


USUAL = configured()


def black(number: int, stream: str = "news", *, is_black: bool = True) -> Segment:
    at = 10.0 * number
    found = (Finding("black", 5, 1.0, 9.0, 0.5, "s", None, at, 10.0),) if is_black else ()
    return Segment(
        stream,
        NOON + timedelta(seconds=at),
        at,
        10.0,
        quality=60.0,
        model="m@1",
        findings=found,
        id=f"{stream}{number}",
    )


def story(count: int) -> list[Segment]:
    """Black for a minute, fine for a minute, again and again."""
    return [black(number, is_black=number % 12 < 6) for number in range(count)]


class Flaky(MemoryStore):
    """A database whose next write fails: before or after it was committed."""

    fails: str = ""

    def add(self, some: Iterable[Segment], acting: Acting | None = None) -> None:
        fails, self.fails = self.fails, ""
        if fails == "before":
            raise StoreError("away")
        super().add(some, acting)
        if fails == "after":
            raise StoreError("the answer was lost")


def seen(store: MemoryStore) -> list[tuple[str, str, float]]:
    found = reversed(store.queued())
    return [(it.delivery.id, it.delivery.kind, len(it.delivery.body)) for it in found]


def test_an_alert_its_message_and_its_segment_are_stored_at_once() -> None:
    """And told to whoever listens only then."""
    store = MemoryStore()
    told: list[AlertEvent] = []
    alerts = Alerts(store, configured(), told.extend)

    alerts.add(story(12))

    [alert] = store.alerts()
    assert (alert.rule, alert.stream, alert.segment) == ("black", "news", "news2")
    assert alert.closed_at == NOON + timedelta(seconds=70)
    assert [it.kind for it in told] == ["firing", "resolved"]
    assert [it.alert.cleared for it in told] == ["", "No black picture for 10 s."]
    assert told[1].alert.closed_at == alert.closed_at
    assert [it.delivery.kind for it in reversed(store.queued())] == ["firing", "resolved"]
    assert [it.delivery.id for it in reversed(store.queued())] == [it.id for it in told]


@how(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["ok", "before", "after", "killed", "killed after"]), max_size=40),
    st.integers(1, 5),
)
def test_whatever_fails_everything_is_told_once(fates: list[str], size: int) -> None:
    """Lost answers, lost connections and kill -9 at any point give the same alerts and messages."""
    undisturbed = MemoryStore()
    Alerts(undisturbed, USUAL).add(story(30))
    store = Flaky()
    alerts = Alerts(store, USUAL)
    waiting, begun = story(30), 0

    while begun < len(waiting):
        fate = fates.pop() if fates else "ok"
        store.fails = {"before": "before", "after": "after", "killed after": "after"}.get(fate, "")
        try:
            alerts.add(waiting[begun : begun + size])
        except StoreError:
            if fate == "killed after":
                # The journal gives out everything again, known or not.
                alerts, begun = Alerts(store, USUAL), 0
            continue
        begun += size
        if fate == "killed":
            alerts, begun = Alerts(store, USUAL), max(0, begun - 3 * size)

    assert store.alerts() == undisturbed.alerts()
    assert seen(store) == seen(undisturbed)
    assert store.alert_states("vqmon") == undisturbed.alert_states("vqmon")


def test_a_restart_goes_on_with_what_the_database_knows(tmp_path: Path) -> None:
    """Twenty black seconds before a restart count after it."""
    url = f"sqlite:///{tmp_path}/x.db"
    for part in (story(12)[:2], story(12)[2:5], story(12)[5:]):
        with open_store(url) as store:
            Alerts(store, configured()).add(part)

    with open_store(url) as store:
        [alert] = store.alerts()
        assert alert.opened_at == NOON + timedelta(seconds=30)
        assert alert.closed_at == NOON + timedelta(seconds=70)
        assert [it.delivery.kind for it in store.queued()] == ["resolved", "firing"]


def test_a_silenced_alert_is_in_the_list_but_in_nobodys_mail() -> None:
    """Recorded, not delivered; and it does not come as a surprise later when it is over."""
    store = MemoryStore()
    ends = NOON + timedelta(days=1)
    store.silence(Silence("ada", "known", NOON, ends, stream="ne*"))

    Alerts(store, configured()).add(story(12))

    assert len(store.alerts()) == 1
    assert store.queued() == []


def test_in_maintenance_alerts_are_recorded_but_told_to_nobody() -> None:
    """The night of the new encoder."""
    store = MemoryStore()
    window = {"from": "2026-03-01T11:00", "until": "2026-03-01T13:00"}

    Alerts(store, configured(maintenance={"move": window})).add(story(12))

    assert len(store.alerts()) == 1
    assert store.queued() == []


def test_an_acknowledgement_reaches_the_next_message() -> None:
    """Who reads that it is over reads who has mended it."""
    store = MemoryStore()
    told: list[AlertEvent] = []
    alerts = Alerts(store, configured(), told.extend)
    alerts.add(story(12)[:5])
    store.acknowledge(told[0].alert.id, "ada", NOON, "cable")

    alerts.add(story(12)[5:])

    assert (told[1].kind, told[1].alert.acknowledged_by, told[1].alert.note) == (
        "resolved",
        "ada",
        "cable",
    )
    assert store.alerts()[0].note == "cable"


@pytest.mark.parametrize(
    ("changes", "cleared"),
    [
        ({"rules": {"black": "off"}}, "The rule was removed, switched off or changed."),
        ({"streams": {"other": {"url": "rtsp://x.example/z"}}}, "The stream is no longer watched."),
        ({"rules": {"black": {"for": "20s"}}}, None),
    ],
)
def test_a_reload_resolves_alerts_that_nothing_could_resolve_any_more(
    changes: dict[str, Any], cleared: str | None
) -> None:
    """At once, though no segment may come for hours; other alerts go on."""
    store = MemoryStore()
    alerts = Alerts(store, configured())
    alerts.add(story(5))

    alerts.configure(configured(**changes))
    alerts.look()

    [alert] = store.alerts()
    assert alert.cleared == (cleared or "")
    assert alert.firing is (cleared is None)
    kinds = [it.delivery.kind for it in reversed(store.queued())]
    assert kinds == (["firing", "resolved"] if cleared else ["firing"])


def test_rules_that_changed_while_the_daemon_was_off_are_noticed_at_the_start() -> None:
    """An alert of a rule that is gone would fire for ever."""
    store = MemoryStore()
    Alerts(store, configured()).add(story(5))

    Alerts(store, configured(rules={"black": "off"})).look()

    assert not store.alerts()[0].firing


def test_another_daemon_on_the_same_database_keeps_its_alerts() -> None:
    """They are watched under its name, not ours."""
    store = MemoryStore()
    Alerts(store, configured(instance="roof")).add(story(5))

    Alerts(store, configured(streams={"other": {"url": "rtsp://x.example/z"}})).look()

    assert store.alerts()[0].firing


def test_segments_of_a_stream_that_is_gone_are_stored_without_alerts() -> None:
    """What a reload left in the journal."""
    store = MemoryStore()

    Alerts(store, configured()).add([black(number, "gone") for number in range(9)])

    assert len(store.segments("gone")) == 9
    assert store.alerts() == []


def test_a_segment_that_no_store_can_keep_moves_no_rule() -> None:
    """The writer sets it aside and goes on."""
    store = MemoryStore()
    alerts = Alerts(store, configured())
    alerts.add(story(2))
    before = store.alert_states("vqmon")

    with pytest.raises(ValueError):
        alerts.add([replace(black(2), seconds=-1.0)])

    assert store.alert_states("vqmon") == before
    alerts.add([])
    assert store.alerts() == []


def test_a_stream_has_rules_of_its_own() -> None:
    """The black channel between programmes is meant to be black."""
    store = MemoryStore()
    streams = {
        "news": {"url": "rtsp://x.example/y", "rules": {"black": "off"}},
        "sports": {"url": "rtsp://x.example/z", "rules": {"black": {"severity": "info"}}},
    }
    batch: Sequence[Segment] = [black(n, name) for n in range(5) for name in ("news", "sports")]

    Alerts(store, configured(streams=streams)).add(batch)

    assert [(it.stream, it.severity) for it in store.alerts()] == [("sports", "info")]


# Alerts about vqmon itself


def full(*, wrong: bool = True) -> Trouble:
    return Trouble("storage", "storage_low", "critical", wrong, "Full." if wrong else "Room again.")


def test_trouble_of_our_own_is_one_alert_until_it_is_over() -> None:
    """Fifty streams on one full disk are one call."""
    store = MemoryStore()
    alerts = Alerts(store, configured())
    for trouble in (full(wrong=False), full(), full()):
        alerts.about_us(trouble)
        alerts.look()
    assert [(it.stream, it.rule, it.reason) for it in store.alerts()] == [
        ("(vqmon)", "storage_low", "Full.")
    ]

    alerts.about_us(full(wrong=False))
    alerts.add(story(1))

    assert store.alerts()[0].cleared == "Room again."
    assert [it.delivery.kind for it in store.queued()] == ["resolved", "firing"]


def test_trouble_waits_for_a_database_that_is_away() -> None:
    """It is told when it can be."""
    store = Flaky()
    alerts = Alerts(store, configured())
    alerts.about_us(full())
    store.fails = "before"
    with pytest.raises(StoreError):
        alerts.look()

    alerts.look()
    alerts.look()

    assert len(store.alerts()) == 1
    assert len(store.queued()) == 1


def test_a_new_start_knows_nothing_of_old_trouble_and_a_reload_does() -> None:
    """Whoever notices it says so again."""
    store = MemoryStore()
    alerts = Alerts(store, configured())
    alerts.about_us(full())
    alerts.look()
    alerts.configure(configured(rules={"black": "off"}))
    alerts.look()
    assert store.alerts()[0].firing

    Alerts(store, configured()).look()

    assert store.alerts()[0].cleared == "vqmon was started anew."


ALERTMANAGER = {"type": "alertmanager", "url": "http://127.0.0.1:1"}


def waiting(store: MemoryStore, target: str = "am") -> list[tuple[str, str]]:
    """Kind and stream of what a target has still to hear."""
    found = reversed(store.queued(target, ["waiting"]))
    return [(it.delivery.kind, str(it.delivery.stream)) for it in found]


def test_a_state_target_that_is_new_learns_what_fires() -> None:
    """Alertmanager knows an alert only while it is told of it, and this one began before."""
    store = MemoryStore()
    alerts = Alerts(store, configured())
    alerts.add(story(4))

    with_state = configured(notifiers={"am": ALERTMANAGER, "hook": {"type": "log"}})
    alerts.configure(with_state)
    alerts.look()

    assert waiting(store) == [("repeat", "news")]
    assert waiting(store, "hook") == []  # it is told of events, and none has happened
    [said] = store.queued("am")
    assert said.delivery.body["alerts"][0]["startsAt"] == "2026-03-01T12:00:30.000Z"

    alerts.configure(with_state)
    alerts.look()
    Alerts(store, with_state).look()
    assert waiting(store) == [("repeat", "news")]  # once

    alerts.add(story(12)[4:])
    assert waiting(store) == [("resolved", "news")]


def test_a_state_target_is_not_told_what_it_does_not_want() -> None:
    store = MemoryStore()
    alerts = Alerts(store, configured())
    alerts.add(story(4))

    alerts.configure(configured(notifiers={"am": ALERTMANAGER | {"severities": ["info"]}}))
    alerts.look()

    assert waiting(store) == []


@pytest.mark.parametrize("change", [{"severities": ["info"]}, {"alerts": "false"}])
def test_what_a_state_target_no_longer_wants_is_ended_for_it(change: dict[str, Any]) -> None:
    """Or it would be told for ever that the alert still fires."""
    store = MemoryStore()
    alerts = Alerts(store, configured(notifiers={"am": ALERTMANAGER}))
    alerts.add(story(4))
    assert waiting(store) == [("firing", "news")]

    alerts.configure(configured(notifiers={"am": ALERTMANAGER | change}))
    alerts.look()

    assert waiting(store) == [("resolved", "news")]


def test_a_state_target_that_comes_back_is_told_what_has_ended_meanwhile() -> None:
    """It was out of the configuration when the alert was resolved."""
    store = MemoryStore()
    alerts = Alerts(store, configured(notifiers={"am": ALERTMANAGER}))
    alerts.add(story(4))
    alerts.configure(configured())
    alerts.add(story(12)[4:])
    assert waiting(store) == [("firing", "news")]

    alerts.configure(configured(notifiers={"am": ALERTMANAGER}))
    alerts.look()

    assert waiting(store) == [("resolved", "news")]
    [alert] = store.alerts()
    [said] = store.queued("am", ["waiting"])
    assert alert.closed_at
    assert said.delivery.body["alerts"][0]["endsAt"] == timestamp(alert.closed_at)


ASKING = {"writer": {"model": "remote:http://gpu.example/v1", "pause": "1m"}}


def shown(one: Segment, uncertainty: float = 5.0) -> Segment:
    return replace(one, uncertainty=uncertainty, evidence=(f"news/{one.id}-worst.jpg",))


def test_what_the_writer_is_asked_is_stored_with_its_cause() -> None:
    """The segment that raised the alert, and one weak score of a run."""
    store = MemoryStore()
    rows = [shown(it, 30.0 if number > 8 else 5.0) for number, it in enumerate(story(12))]

    Alerts(store, configured(**ASKING)).add(rows)

    [alert] = store.alerts()
    asked = {it.question.segment: it.question.cause for it in store.questions()}
    assert asked == {"news2": "alert", "news9": "low_confidence"}
    raised = store.question("news2")
    assert raised
    assert raised.question.alert == alert.id


def test_without_a_writer_nobody_is_asked() -> None:
    """The usual daemon."""
    store = MemoryStore()

    Alerts(store, configured()).add([shown(it, 30.0) for it in story(12)])

    assert store.questions() == []


@pytest.mark.parametrize("fails", ["before", "after", "killed"])
def test_a_crash_neither_loses_nor_doubles_a_question(fails: str) -> None:
    """What is asked follows from the segments, however often they are given."""
    smooth, rough = MemoryStore(), Flaky()
    rows = [shown(it, 30.0) for it in story(30)]
    Alerts(smooth, configured(**ASKING)).add(rows)

    alerts = Alerts(rough, configured(**ASKING))
    for begin in range(0, len(rows), 5):
        rough.fails = "" if fails == "killed" else fails
        try:
            alerts.add(rows[begin : begin + 5])
        except StoreError:
            alerts.add(rows[begin : begin + 5])
        if fails == "killed":
            alerts = Alerts(rough, configured(**ASKING))
            alerts.add(rows[begin : begin + 5])

    assert rough.questions() == smooth.questions()
