"""Apprise, the real library, against a receiver on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.contract.servers import accepting, free_port
from tests.receivers import Answer, Receiver, receiving
from vqmon.domain import Alert, AlertEvent, Delivery, Segment
from vqmon.errors import ConfigError, DeliveryFailed
from vqmon.notifiers import open_notifier
from vqmon.notifying import Target, deliveries, trial

pytest.importorskip("apprise", reason="Apprise is missing: pip install 'vqmon[notify]'")

NOW = datetime.now(UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as running:
        yield running


def target(receiver_port: int, **fields: Any) -> Target:
    return Target("ops", "apprise", url=f"json://127.0.0.1:{receiver_port}/x", **fields)


@pytest.mark.parametrize(
    ("kind", "severity", "title", "urgency"),
    [
        ("firing", "critical", "[firing] news: black", "failure"),
        ("repeat", "warning", "[still firing] news: black", "warning"),
        ("firing", "info", "[firing] news: black", "info"),
        ("resolved", "critical", "[resolved] news: black", "success"),
    ],
)
def test_an_alert_becomes_a_message_for_people(
    receiver: Receiver, kind: Any, severity: str, title: str, urgency: str
) -> None:
    """What, where, how urgent, and the reason step by step."""
    segment = Segment("news", NOW, 0.0, 10.0, explanation="1. The picture is black.")
    alert = Alert("news", "black", severity, NOW, "black for 31 s", note="Ann looks into it")
    [made] = deliveries([AlertEvent(kind, alert, NOW, segment)], [target(receiver.port)])

    open_notifier(target(receiver.port)).send(made, NOW)

    [got] = receiver.received
    assert (got.json["title"], got.json["type"]) == (title, urgency)
    assert got.json["message"] == (
        "news: black for 31 s\n\n1. The picture is black.\n\nAnn looks into it"
    )


def test_a_plugins_message_is_shown_as_it_is(receiver: Receiver) -> None:
    """People may be the encoder."""
    made = Delivery("p1", "ops", "plugin", {"bitrate_kbps": 4000}, NOW, stream="news")

    open_notifier(target(receiver.port)).send(made, NOW)

    assert receiver.received[0].json["title"] == "vqmon: plugin message about news"
    assert '"bitrate_kbps": 4000' in receiver.received[0].json["message"]


def test_a_failure_says_why(receiver: Receiver) -> None:
    """Apprise itself says only that it failed; the reason is in its log."""
    receiver.answer = lambda _: Answer(500)
    refused = target(free_port())

    for broken, reason in ((target(receiver.port), "error"), (refused, "(?i)connection error")):
        with pytest.raises(DeliveryFailed, match=reason):
            open_notifier(broken).send(trial(broken, NOW, "t1"), NOW)


def test_the_deadline_is_ours(receiver: Receiver) -> None:
    """A mail server that says nothing must not hold the worker."""
    with accepting(lambda _: time.sleep(30)) as port:
        slow = target(port, timeout=0.5)
        begun = time.monotonic()

        with pytest.raises(DeliveryFailed, match=r"not sent within 0.5 s"):
            open_notifier(slow).send(trial(slow, NOW, "t1"), NOW)

    assert time.monotonic() - begun < 5


def test_an_address_that_apprise_does_not_know_is_a_mistake_of_the_configuration() -> None:
    """With where to look it up."""
    with pytest.raises(ConfigError, match=r"notifiers.ops.url: Apprise does not know.*appriseit"):
        open_notifier(Target("ops", "apprise", url="nonsense"))


def test_without_apprise_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not part of a plain installation."""
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)

    with pytest.raises(ConfigError, match=r"pip install 'vqmon\[notify\]'"):
        open_notifier(Target("ops", "apprise", url="json://127.0.0.1/"))
