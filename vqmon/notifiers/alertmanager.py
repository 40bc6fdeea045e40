"""Prometheus' Alertmanager: it takes an alert for over unless it is told again that it is not."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from vqmon.domain import Delivery, Receipt
from vqmon.errors import DeliveryFailed
from vqmon.notifiers.posting import post
from vqmon.notifiers.webhook import call, encoded
from vqmon.notifying import Target, timestamp

PATH = "/api/v2/alerts"

LASTS = timedelta(minutes=4)
"""A firing alert holds for so long, four times what lies between two tellings."""


class Alertmanager:
    """`vqmon.ports.Notifier` for the API of Alertmanager 0.16 and later."""

    def __init__(self, target: Target) -> None:
        self._url = target.url.rstrip("/").removesuffix(PATH) + PATH
        self._call = call(target)

    def send(self, delivery: Delivery, at: datetime) -> Receipt:
        alerts = delivery.body.get("alerts")
        if not alerts:
            raise DeliveryFailed("an Alertmanager takes alerts only; send this to a webhook")
        return post(self._url, encoded([_posted(it, at) for it in alerts]), {}, self._call)


def _posted(alert: dict[str, Any], at: datetime) -> dict[str, Any]:
    resolved = alert["status"] == "resolved"
    return {
        "labels": {name: value for name, value in alert["labels"].items() if value},
        "annotations": alert["annotations"],
        "startsAt": alert["startsAt"],
        "endsAt": alert["endsAt"] if resolved else timestamp(at + LASTS),
    }
