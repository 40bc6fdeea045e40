"""Mail, chat and the hundred other services that Apprise reaches (``pip install 'vqmon[notify]'``)."""

from __future__ import annotations

import logging
import queue
import threading
import time
from datetime import datetime
from typing import Any

from vqmon.domain import Delivery, Receipt
from vqmon.errors import ConfigError, DeliveryFailed
from vqmon.notifiers.wording import Message, message
from vqmon.notifying import Target

TYPES = {"critical": "failure", "warning": "warning", "resolved": "success"}
"""Apprise's words for how urgent a message is; others are info."""


class ByApprise:
    """`vqmon.ports.Notifier` for one Apprise URL."""

    def __init__(self, target: Target) -> None:
        """Raises ConfigError when Apprise is missing, or does not know the URL."""
        try:
            self._service = service(target.url)
        except ValueError as error:
            raise ConfigError(f"notifiers.{target.name}.url: {error}") from error
        self._seconds = target.timeout

    def send(self, delivery: Delivery, at: datetime) -> Receipt:  # noqa: ARG002  the port's shape
        begun = time.monotonic()
        answer: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # Apprise's own timeouts are for each step; one that outlasts ours is left behind.
        sending = threading.Thread(target=self._send, args=(message(delivery), answer), daemon=True)
        sending.start()
        try:
            complaint = answer.get(timeout=self._seconds)
        except queue.Empty:
            raise DeliveryFailed(f"not sent within {self._seconds:g} s", unreachable=True) from None
        if complaint is not None:
            raise DeliveryFailed(complaint)
        return Receipt(seconds=time.monotonic() - begun)

    def _send(self, told: Message, answer: queue.SimpleQueue[str | None]) -> None:
        said = _Said()
        logger = logging.getLogger("apprise")
        logger.addHandler(said)
        try:
            good = self._service.notify(
                title=told.title, body=told.text, notify_type=TYPES.get(told.urgency, "info")
            )
            answer.put(None if good else said.last or "Apprise could not send it")
        except Exception as error:  # a service of Apprise may raise anything
            answer.put(f"Apprise failed: {error}")
        finally:
            logger.removeHandler(said)


def service(url: str) -> Any:
    """Apprise, ready to send to one URL. Raises ValueError with the remedy."""
    try:
        import apprise
    except ImportError as error:
        raise ValueError("Apprise is not installed: pip install 'vqmon[notify]'") from error
    logging.getLogger("apprise").setLevel(logging.WARNING)
    # One service and not a group of them, which would send from threads of its own.
    found = apprise.Apprise.instantiate(url)
    if found is None:
        raise ValueError(
            "Apprise does not know such a URL; its services and their URLs are listed at "
            "https://appriseit.com/services/"
        )
    return found


class _Said(logging.Handler):
    """The last complaint of this thread: Apprise says why only in its log."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._thread = threading.get_ident()
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread:
            self.last = record.getMessage()
