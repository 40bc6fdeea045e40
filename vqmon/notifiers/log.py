"""A log line: for trying out rules, and where logs are what is watched."""

from __future__ import annotations

import logging
from datetime import datetime

from vqmon.domain import Delivery, Receipt
from vqmon.notifiers.wording import message

log = logging.getLogger("vqmon.alerts")

LEVELS = {"critical": logging.ERROR, "warning": logging.WARNING}


class Log:
    """`vqmon.ports.Notifier` that cannot fail."""

    def send(self, delivery: Delivery, at: datetime) -> Receipt:  # noqa: ARG002  the port's shape
        told = message(delivery)
        fields = {"title": told.title, "text": told.text, "stream": delivery.stream}
        event = "alert" if "alerts" in delivery.body else "plugin_message"
        log.log(LEVELS.get(told.urgency, logging.INFO), event, extra=fields)
        return Receipt()
