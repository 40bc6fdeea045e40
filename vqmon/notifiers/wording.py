"""Bodies of deliveries in words, for targets that people read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from vqmon.domain import Delivery

MARKS = {"firing": "firing", "repeat": "still firing", "resolved": "resolved", "test": "test"}


@dataclass(frozen=True, slots=True)
class Message:
    """title: one line; text: some. urgency: one of ALERT_SEVERITIES, or "resolved"."""

    title: str
    text: str
    urgency: str


def message(delivery: Delivery) -> Message:
    """What a person should read of a delivery."""
    alerts = delivery.body.get("alerts")
    if not alerts or delivery.kind not in MARKS:
        return Message(f"vqmon: {_about(delivery)}", _json(delivery.body), "info")
    labels, annotations = alerts[0]["labels"], alerts[0]["annotations"]
    title = f"[{MARKS[delivery.kind]}] {labels['stream']}: {labels['alertname']}"
    lines = [annotations.get(name) for name in ("summary", "description", "note")]
    urgency = "resolved" if delivery.kind == "resolved" else str(labels["severity"])
    return Message(title, "\n\n".join(it for it in lines if it), urgency)


def _about(delivery: Delivery) -> str:
    return f"{delivery.kind} message about {delivery.stream or 'no stream'}"


def _json(body: Any) -> str:
    return json.dumps(body, indent=2, ensure_ascii=False)
