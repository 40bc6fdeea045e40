"""Who is told what: routing and bodies, both pure."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest

from vqmon.domain import Alert, AlertEvent, Finding, Segment
from vqmon.notifying import NOT_ENDED, Target, alert_body, deliveries, labels_of, trial

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

SEGMENT = Segment(
    stream="news",
    started_at=NOON,
    start=0.0,
    seconds=10.0,
    frames_scored=5,
    quality=41.5,
    quality_worst=12.0,
    uncertainty=4.0,
    findings=(Finding("compression", 4, 0.9, 38.0, 30.0, "QP", ("top-left",), 0.0, 10.0, 12.5),),
    explanation="1. The picture is blocky.",
    facts={"bitrate_kbps": np.float64(812.5), "gop": (50, 48)},
    model="lite@1",
    thumbnail="news/t.jpg",
    evidence=("news/worst.jpg",),
    id="s1",
)

ALERT = Alert(
    stream="news",
    rule="quality_low",
    severity="critical",
    opened_at=NOON,
    reason="quality 41.5 is below 50",
    finding="compression",
    value=41.5,
    limit=50.0,
    segment="s1",
    incident="i1",
    labels=MappingProxyType({"site": "north", "severity": "never mine"}),
    evidence=("news/worst.jpg",),
    id="a1",
)


def event(kind: str = "firing", **fields: Any) -> AlertEvent:
    alert = replace(ALERT, **fields)
    if kind == "resolved":
        alert = replace(alert, closed_at=NOON + timedelta(minutes=2))
    return AlertEvent(kind, alert, NOON, SEGMENT, id=f"{kind}-1")  # type: ignore[arg-type]


# Routing


@pytest.mark.parametrize(
    ("filters", "told"),
    [
        ({}, True),
        ({"streams": ("news",)}, True),
        ({"streams": ("sport", "ne*")}, True),
        ({"streams": ("sport",)}, False),
        ({"streams": ("NEWS",)}, False),
        ({"rules": ("quality_*",)}, True),
        ({"rules": ("black",)}, False),
        ({"severities": ("warning", "critical")}, True),
        ({"severities": ("info",)}, False),
        ({"streams": ("news",), "rules": ("black",)}, False),
        ({"alerts": False}, False),
    ],
)
def test_a_target_is_told_what_passes_all_its_filters(filters: dict[str, Any], told: bool) -> None:
    """An encoder must not be told of the streams of another."""
    target = Target("encoder", **filters)

    assert bool(deliveries([event()], [target])) is told


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        ("resolved", {}, True),
        ("resolved", {"send_resolved": False}, False),
        ("resolved", {"send_resolved": False, "type": "alertmanager"}, True),
        ("repeat", {}, True),
        ("repeat", {"repeat": False}, False),
        ("repeat", {"repeat": False, "type": "alertmanager"}, True),
        ("firing", {"send_resolved": False, "repeat": False}, True),
    ],
)
def test_ends_and_reminders_can_be_left_out(kind: str, fields: dict[str, Any], told: bool) -> None:
    """But a target that keeps state would believe in the alert for ever."""
    assert bool(deliveries([event(kind)], [Target("t", **fields)])) is told


def test_every_target_gets_each_event_under_the_id_of_the_event() -> None:
    """So that receivers can tell a retry from news, and a redo after a crash makes no double."""
    targets = [Target("a"), Target("am", type="alertmanager")]

    made = deliveries([event("firing"), event("resolved")], targets)

    assert [(it.id, it.target, it.topic, it.replaces) for it in made] == [
        ("firing-1", "a", "a1", False),
        ("firing-1", "am", "a1", True),
        ("resolved-1", "a", "a1", False),
        ("resolved-1", "am", "a1", True),
    ]
    assert deliveries([event("firing"), event("resolved")], targets) == made


# Bodies


def test_the_body_is_that_of_alertmanagers_webhook() -> None:
    """Receivers made for Alertmanager read ours: all fields of version 4, under their names."""
    body = alert_body(event(), "encoder")

    labels = {
        "alertname": "quality_low",
        "finding": "compression",
        "severity": "critical",
        "site": "north",
        "stream": "news",
    }
    annotations = {
        "summary": "news: quality 41.5 is below 50",
        "description": "1. The picture is blocky.",
    }
    [alert] = body["alerts"]
    assert (
        alert.pop("fingerprint") == alert_body(event("resolved"), "x")["alerts"][0]["fingerprint"]
    )
    assert body.pop("vqmon")
    assert body == {
        "version": "4",
        "groupKey": '{}:{stream="news"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "encoder",
        "groupLabels": {"stream": "news"},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [
            {
                "status": "firing",
                "labels": labels,
                "annotations": annotations,
                "startsAt": "2026-03-01T12:00:00.000Z",
                "endsAt": NOT_ENDED,
                "generatorURL": "",
            }
        ],
    }


def test_a_resolved_alert_says_when_it_ended() -> None:
    """The true end, not the time of telling."""
    body = alert_body(event("resolved"), "encoder")

    assert body["status"] == body["alerts"][0]["status"] == "resolved"
    assert body["alerts"][0]["endsAt"] == "2026-03-01T12:02:00.000Z"


def test_a_reminder_is_firing_to_whoever_knows_nothing_else() -> None:
    """Alertmanager has no third state."""
    body = alert_body(event("repeat"), "encoder")

    assert body["status"] == "firing"
    assert body["vqmon"]["event"] == "repeat"


def test_the_vqmon_object_says_what_was_seen() -> None:
    """An encoder acts on findings and facts, a person on the explanation and the pictures."""
    said = alert_body(event(), "encoder")["vqmon"]

    assert said["stream"] == "news"
    assert said["segment"] == "s1"
    assert said["score"] == {
        "quality": 41.5,
        "quality_worst": 12.0,
        "uncertainty": 4.0,
        "no_score_reason": None,
    }
    [finding] = said["findings"]
    assert (finding["name"], finding["severity"], finding["region"]) == (
        "compression",
        4,
        ["top-left"],
    )
    assert said["explanation"] == "1. The picture is blocky."
    assert (said["evidence"], said["thumbnail"]) == (["news/worst.jpg"], "news/t.jpg")
    assert said["model"] == "lite@1"
    assert said["facts"] == {"bitrate_kbps": 812.5, "gop": [50, 48]}
    assert said["alert"]["id"] == "a1"
    assert said["alert"]["opened_at"] == "2026-03-01T12:00:00.000Z"
    assert said["alert"]["labels"] == {"site": "north", "severity": "never mine"}


def test_an_event_without_a_segment_says_what_the_alert_knows() -> None:
    """Maintenance, a restart, a segment that was pruned: the message still goes out."""
    said = alert_body(replace(event(), segment=None), "encoder")["vqmon"]

    assert (said["segment"], said["score"], said["findings"]) == ("s1", None, [])
    assert said["evidence"] == ["news/worst.jpg"]


def test_bodies_are_json_whatever_goes_in() -> None:
    """A body that cannot be written would block the queue of its target."""
    odd = replace(ALERT, stream='a"b\n第', opened_at=NOON.astimezone(timezone(timedelta(hours=9))))

    body = alert_body(replace(event(), alert=odd), "encoder")

    assert json.loads(json.dumps(body, allow_nan=False)) == body
    assert body["alerts"][0]["startsAt"] == "2026-03-01T12:00:00.000Z"


def test_a_label_of_the_stream_hides_none_of_ours() -> None:
    """Routing by severity must not depend on what an operator calls a stream's label."""
    assert labels_of(ALERT)["severity"] == "critical"


def test_a_trial_says_that_it_is_one() -> None:
    """A plugin or an encoder must not act on it."""
    made = trial(Target("encoder"), NOON, "test-1")

    assert (made.id, made.kind, made.topic) == ("test-1", "test", "")
    assert made.body["vqmon"]["event"] == "test"
    assert made.body["commonLabels"]["alertname"] == "vqmon_test"


# Targets


def test_any_change_of_a_target_changes_its_fingerprint() -> None:
    """A target that said 410 is tried again when its configuration changes, whatever changed."""
    target = Target("encoder", url="http://a/x", secrets=("k",))

    others = [
        replace(target, url="http://a/y"),
        replace(target, secrets=("l",)),
        replace(target, headers={"a": "b"}),
        replace(target, timeout=11.0),
    ]

    assert len({target.fingerprint, *(it.fingerprint for it in others)}) == 5
    assert Target("encoder", url="http://a/x", secrets=("k",)).fingerprint == target.fingerprint
