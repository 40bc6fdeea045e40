"""What every store of alerts promises: SQLite, PostgreSQL and the public fake alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from vqmon.domain import Acting, Alert, Delivery, Segment, Silence
from vqmon.errors import StoreError
from vqmon.store import SqlStore, open_store
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)

Store = SqlStore | MemoryStore


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    kind = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    with open_store(request.getfixturevalue(kind)) as opened:
        yield opened


def alert(id_: str = "a1", hours: float = 0.0, **fields: Any) -> Alert:
    given: dict[str, Any] = {"stream": "news", "rule": "black", "severity": "critical"} | fields
    opened_at = NOON + hours * HOUR
    return Alert(opened_at=opened_at, reason="Black for 30 s.", incident=id_, id=id_, **given)


def resolved(given: Alert, hours: float) -> Alert:
    return replace(given, closed_at=NOON + hours * HOUR, cleared="No black for 10 s.")


def keep(store: Store, *alerts: Alert) -> None:
    store.add([], Acting("vqmon", alerts))


def full() -> Alert:
    return alert(
        stream="Öffentlich 📺",
        finding="black",
        value=31.5,
        limit=0.5,
        unit="s",
        segment="s1",
        labels={"site": "Köln"},
        evidence=("a/b.jpg", "a/c.jpg"),
    )


def test_an_alert_comes_back_as_it_went_in(store: Store) -> None:
    """What people read is what was raised."""
    keep(store, full())

    assert store.alerts() == [full()]
    assert store.alert("a") == full()
    assert store.alert("b") is None
    assert store.alert("") is None


def test_everything_is_stored_together(store: Store) -> None:
    """A crash leaves a segment with its alert, its message and the state behind it, or none."""
    segment = Segment("news", NOON, 0.0, 10.0, id="s1")
    message = Delivery("e1", "encoder", "firing", {"a": 1}, NOON)

    store.add([segment], Acting("vqmon", (alert(),), {"news": {"n": 1.5}}, (message,)))

    assert store.segments() == [segment]
    assert store.alerts() == [alert()]
    assert store.alert_states("vqmon") == {"news": {"n": 1.5}}
    assert [it.delivery for it in store.queued()] == [message]
    assert store.missing(["s1", "s2"]) == {"s2"}


def test_nothing_is_stored_when_one_segment_cannot_be(store: Store) -> None:
    """An alert about a segment that is not there would lead nowhere."""
    bad = Segment("news", NOON, 0.0, -1.0)

    with pytest.raises(ValueError):
        store.add([bad], Acting("vqmon", (alert(),), {"news": {}}))

    assert store.alerts() == []
    assert store.alert_states("vqmon") == {}


def test_doing_it_again_after_a_crash_changes_nothing(store: Store) -> None:
    """Nobody knows whether the last transaction before a crash went through."""
    message = Delivery("e1", "encoder", "firing", {"a": 1}, NOON)
    for _ in range(2):
        store.add([], Acting("vqmon", (alert(),), {"news": {"n": 1}}, (message,)))

    assert store.alerts() == [alert()]
    assert len(store.queued()) == 1


def test_resolving_keeps_what_people_said(store: Store) -> None:
    """The daemon knows nothing of an acknowledgement when it writes the end."""
    keep(store, alert())
    taken = store.acknowledge("a1", "ada", NOON + HOUR, "on it")
    assert taken == replace(
        alert(), acknowledged_by="ada", acknowledged_at=NOON + HOUR, note="on it"
    )

    keep(store, resolved(alert(), 2))

    assert taken
    assert store.alerts() == [resolved(taken, 2)]
    assert store.acknowledge("zz", "ada", NOON) is None


def test_alerts_are_listed_newest_first_and_by_what_is_asked(store: Store) -> None:
    """On call, what fires now comes first."""
    keep(
        store,
        resolved(alert("a1", 0), 1),
        alert("a2", 2),
        resolved(alert("b3", 3, stream="sports"), 4),
        alert("a0", 2, rule="aaa"),
    )

    def ids(**asked: Any) -> list[str]:
        return [it.id for it in store.alerts(**asked)]

    assert ids() == ["b3", "a0", "a2", "a1"]
    assert ids(stream="sports") == ["b3"]
    assert ids(firing=True) == ["a0", "a2"]
    assert ids(firing=False, limit=1) == ["b3"]
    assert ids(since=NOON + 1.5 * HOUR) == ["b3", "a0", "a2"]
    assert ids(since=NOON + HOUR) == ["b3", "a0", "a2", "a1"]
    assert ids(until=NOON + 2 * HOUR) == ["a1"]
    assert ids(since=NOON + 1.5 * HOUR, until=NOON + 2 * HOUR) == []


def test_an_ambiguous_beginning_is_refused(store: Store) -> None:
    """The wrong alert acknowledged is one that nobody takes on."""
    keep(store, alert("a1"), alert("a12"), alert("a13"))

    assert store.alert("a1") == alert("a1")
    with pytest.raises(StoreError, match="several alerts begin with 'a'"):
        store.alert("a")
    with pytest.raises(StoreError, match="give more of it"):
        store.acknowledge("a", "ada", NOON)


def test_rules_remember_by_daemon_and_stream(store: Store) -> None:
    """Two daemons on one database keep apart, and a stream that is gone is forgotten."""
    store.add([], Acting("one", states={"news": {"n": 1}, "sports": {"n": 2}}))
    store.add([], Acting("two", states={"news": {"n": 3}}))
    store.add(
        [], Acting("one", states={"news": {"n": 4, "deep": {"x": [1, None]}}, "sports": None})
    )

    assert store.alert_states("one") == {"news": {"n": 4, "deep": {"x": [1, None]}}}
    assert store.alert_states("two") == {"news": {"n": 3}}
    assert store.alert_states("three") == {}


def silence(id_: str = "q1", hours: float = 1.0, **fields: Any) -> Silence:
    return Silence("ada", "known", NOON, NOON + hours * HOUR, id=id_, **fields)


def test_silences_come_back_until_they_end(store: Store) -> None:
    """A forgotten silence must not outlive its reason."""
    whole = silence("q2", 2, stream="stu*", rule="black", severity="info")
    store.silence(whole)
    store.silence(silence())

    assert store.silences() == [silence(), whole]
    assert store.silences(NOON + HOUR) == [whole]
    assert store.silences(NOON + 2 * HOUR) == []


def test_a_silence_can_be_ended_early_and_is_not_forgotten(store: Store) -> None:
    """Who silenced what is part of the story."""
    store.silence(silence())

    ended = store.unsilence("q", NOON + HOUR / 2)

    assert ended is not None
    assert ended.id == "q1"
    assert store.silences(NOON + HOUR / 2) == []
    assert store.silences()[0].expires_at == NOON + HOUR / 2
    assert store.unsilence("nothing", NOON) is None


def test_old_alerts_are_deleted_and_firing_ones_never(store: Store) -> None:
    """However old it is: it still fires."""
    keep(store, resolved(alert("a1"), 1), resolved(alert("a2"), 1), alert("a3"))
    store.silence(silence())

    assert store.prune_alerts(NOON + HOUR) == 0
    assert store.prune_alerts(NOON + 2 * HOUR, limit=1) == 1
    assert store.prune_alerts(NOON + 2 * HOUR) == 1
    assert [it.id for it in store.alerts()] == ["a3"]
    assert store.silences() == []


def test_times_are_utc_and_need_a_zone(store: Store) -> None:
    """Guessing a zone would file an alert hours away from what it tells of."""
    east = timezone(timedelta(hours=9))
    keep(store, replace(alert(), opened_at=NOON.astimezone(east)))
    naive = datetime(2026, 3, 1, 12, 0)  # noqa: DTZ001 the mistake under test
    calls: list[Callable[[], object]] = [
        lambda: store.alerts(since=naive),
        lambda: store.alerts(until=naive),
        lambda: store.acknowledge("a1", "ada", naive),
        lambda: store.silence(replace(silence(), expires_at=naive)),
        lambda: store.unsilence("q1", naive),
        lambda: store.prune_alerts(naive),
    ]

    assert store.alerts()[0].opened_at == NOON
    for call in calls:
        with pytest.raises(ValueError, match="time zone"):
            call()


def test_text_that_no_database_takes_is_mended(url: str) -> None:
    """A note is typed by people, a reason may quote a server."""
    with open_store(url) as store:
        keep(store, replace(alert(), reason="a\0b"))

        store.acknowledge("a1", "ada\0", NOON, "\ud800")

        [found] = store.alerts()
    assert found.reason == "a\ufffdb"
    assert found.acknowledged_by == "ada\ufffd"
