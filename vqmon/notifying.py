"""What is told about alerts, and to whom: events become deliveries. Pure.

    AlertEvent ─▶ wanted by a Target? ─▶ Delivery with its complete body ─▶ outbox

The body is that of Alertmanager's webhook, version 4, so that whatever reads those reads ours; one
more object, ``vqmon``, says what a monitor of video knows besides. Every type of target is given
the same body; the adapters in `vqmon.notifiers` send what their receiver understands of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from vqmon.domain import Alert, AlertEvent, Delivery, Segment

VERSION = "4"
"""Of Alertmanager's webhook body."""

NOT_ENDED = "0001-01-01T00:00:00Z"
"""How Alertmanager writes the end of an alert that is still firing."""

ALERT_FIELDS = tuple(
    it.name for it in fields(Alert) if it.name not in ("stream", "segment", "evidence")
)
"""What stands under ``vqmon.alert``; the others stand beside it."""

LASTING = ("firing", "repeat")
"""Kinds of messages that a target which keeps state must hear again and again."""

TargetType = Literal["webhook", "alertmanager", "apprise", "log"]


@dataclass(frozen=True, slots=True)
class Target:
    """Someone who is told. Empty filters let everything through; filters are joined by "and".

    streams, rules: names, or patterns such as ``studio-*``; severities: some of
        ALERT_SEVERITIES.
    alerts: False for a target that only plugins write to.
    send_resolved, repeat: whether the end of an alert, and reminders while it lasts, are told. A
        state target is always told both.
    url: with credentials; never shown. secrets: keys that sign, the newest first.
    private: whether addresses inside (loopback, private, link-local) may be reached.
    allow: where given, the only networks and host names that may be reached.
    redirects: how many are followed. timeout: seconds for everything, name resolution included.
    """

    name: str
    type: TargetType = "webhook"
    url: str = ""
    secrets: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    private: bool = True
    allow: tuple[str, ...] = ()
    redirects: int = 0
    timeout: float = 10.0
    ca_file: Path | None = None
    alerts: bool = True
    streams: tuple[str, ...] = ()
    rules: tuple[str, ...] = ()
    severities: tuple[str, ...] = ()
    send_resolved: bool = True
    repeat: bool = True

    @property
    def keeps_state(self) -> bool:
        """It must hear of a firing alert again and again, or it takes it for resolved."""
        return self.type == "alertmanager"

    @property
    def fingerprint(self) -> str:
        """Another one whenever anything was configured differently."""
        plain = json.dumps(asdict(self), sort_keys=True, default=str)
        return hashlib.sha256(plain.encode()).hexdigest()[:16]

    def wants(self, event: AlertEvent) -> bool:
        """Whether it is told of this event."""
        alert = event.alert
        return (
            self.alerts
            and self._wants_kind(event.kind)
            and _matches(alert.stream, self.streams)
            and _matches(alert.rule, self.rules)
            and (not self.severities or alert.severity in self.severities)
        )

    def _wants_kind(self, kind: str) -> bool:
        if kind == "resolved":
            return self.send_resolved or self.keeps_state
        if kind == "repeat":
            return self.repeat or self.keeps_state
        return True


def deliveries(events: Sequence[AlertEvent], targets: Sequence[Target]) -> list[Delivery]:
    """One delivery for each event and target that wants it, in the order of the events."""
    return [
        delivery(event, target) for event in events for target in targets if target.wants(event)
    ]


def delivery(event: AlertEvent, target: Target) -> Delivery:
    """What tells one target of an event."""
    return Delivery(
        id=event.id,
        target=target.name,
        kind=event.kind,
        body=alert_body(event, target.name),
        created_at=event.at,
        stream=event.alert.stream,
        topic=event.alert.id,
        replaces=target.keeps_state,
    )


def trial(target: Target, at: datetime, id_: str) -> Delivery:
    """A message that tries a target out: an alert that says it is none, as `kind` "test"."""
    alert = Alert(
        stream="vqmon-test",
        rule="vqmon_test",
        severity="info",
        opened_at=at,
        reason="this is a test of vqmon's notifiers; nothing is wrong",
        id=id_,
    )
    body = alert_body(AlertEvent("firing", alert, at, id=id_), target.name)
    body["vqmon"]["event"] = "test"
    return Delivery(id_, target.name, "test", body, at, stream=alert.stream)


def alert_body(event: AlertEvent, receiver: str) -> dict[str, Any]:
    """Alertmanager's webhook body of one alert, and the ``vqmon`` object. JSON values only."""
    alert = event.alert
    labels, annotations = labels_of(alert), _annotations(alert, event.segment)
    status = "resolved" if event.kind == "resolved" else "firing"
    return {
        "version": VERSION,
        "groupKey": f"{{}}:{{stream={json.dumps(alert.stream, ensure_ascii=False)}}}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": {"stream": alert.stream},
        "commonLabels": labels,
        "commonAnnotations": annotations,
        "externalURL": "",
        "alerts": [
            {
                "status": status,
                "labels": labels,
                "annotations": annotations,
                "startsAt": timestamp(alert.opened_at),
                "endsAt": timestamp(alert.closed_at or event.at)
                if status == "resolved"
                else NOT_ENDED,
                "generatorURL": "",
                "fingerprint": fingerprint(labels),
            }
        ],
        "vqmon": _facts(event),
    }


def labels_of(alert: Alert) -> dict[str, str]:
    """What identifies an alert to its receiver: the same from its raising to its clearing.

    The stream's own labels come first, so that none of them hides one of ours.
    """
    labels = {str(name): str(value) for name, value in alert.labels.items()}
    labels |= {"alertname": alert.rule, "severity": alert.severity, "stream": alert.stream}
    if alert.finding:
        labels["finding"] = alert.finding
    return dict(sorted(labels.items()))


def fingerprint(labels: Mapping[str, str]) -> str:
    """Sixteen hexadecimal digits that are the same for the same labels."""
    pairs = json.dumps(sorted(labels.items()), ensure_ascii=False)
    return hashlib.sha256(pairs.encode("utf-8", "replace")).hexdigest()[:16]


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC, milliseconds, as Alertmanager reads and writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(name, pattern) for pattern in patterns)


def _annotations(alert: Alert, segment: Segment | None) -> dict[str, str]:
    told = {
        "summary": f"{alert.stream}: {alert.reason}",
        "description": segment.explanation if segment else "",
        "note": alert.note,
    }
    return {name: text for name, text in told.items() if text}


def _facts(event: AlertEvent) -> dict[str, Any]:
    """The ``vqmon`` object: what happened, and the segment behind it as far as it is known."""
    alert, segment = event.alert, event.segment
    return {
        "event": event.kind,
        "event_id": event.id,
        "at": timestamp(event.at),
        "stream": alert.stream,
        "alert": dict(_alert(alert)),
        "segment": segment.id if segment else alert.segment,
        "started_at": timestamp(segment.started_at) if segment else None,
        "seconds": segment.seconds if segment else None,
        "score": _score(segment) if segment else None,
        "findings": [_plain(asdict(it)) for it in segment.findings] if segment else [],
        "explanation": segment.explanation if segment else "",
        "thumbnail": segment.thumbnail if segment else None,
        "evidence": list(segment.evidence if segment else alert.evidence),
        "model": segment.model if segment else None,
        "facts": _plain(dict(segment.facts)) if segment else {},
    }


def _alert(alert: Alert) -> Iterator[tuple[str, Any]]:
    for name in ALERT_FIELDS:
        yield name, _plain(getattr(alert, name))
    yield "fingerprint", fingerprint(labels_of(alert))


def _score(segment: Segment) -> dict[str, Any]:
    return {
        "quality": segment.quality,
        "quality_worst": segment.quality_worst,
        "uncertainty": segment.uncertainty,
        "no_score_reason": segment.no_score_reason,
    }


def _plain(value: Any) -> Any:
    """The value with tuples as lists and NumPy's numbers as Python's."""
    match value:
        case Mapping():
            return {str(key): _plain(inside) for key, inside in value.items()}
        case list() | tuple():
            return [_plain(inside) for inside in value]
        case datetime():
            return timestamp(value)
    return value.item() if hasattr(value, "item") else value
