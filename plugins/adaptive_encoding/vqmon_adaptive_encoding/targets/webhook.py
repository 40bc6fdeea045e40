"""An encoder that obeys signed webhooks, reached through vqmon's own outbox."""

from __future__ import annotations

from datetime import datetime

from vqmon import VqmonError
from vqmon.domain import Queued
from vqmon_adaptive_encoding.targets.request import Messages, Request, TargetFailed


class Webhook:
    """Accepted means: answered with 2xx. The outbox keeps it until then, over a crash too."""

    live = True

    def __init__(self, notifier: str, messages: Messages) -> None:
        self._notifier = notifier
        self._messages = messages

    def ask(self, request: Request) -> bool:
        known = self._standing(request.id)
        if known is not None and known.state == "dead":
            self._send(request)  # which tries it anew
            raise self._given_up(known)
        if known is None:
            self._send(request)
            known = self._standing(request.id)
        return known is not None and known.state == "delivered"

    def accepted_at(self, request_id: str, asked_at: datetime) -> datetime | None:
        known = self._standing(request_id)
        if known is None:  # tidied away since, so it is long settled
            return asked_at
        if known.state == "dead":
            raise self._given_up(known)
        return known.delivered_at and max(asked_at, known.delivered_at)

    def _send(self, request: Request) -> None:
        try:
            self._messages.notify(
                self._notifier,
                request.as_json(),
                event_id=request.id,
                stream=request.stream,
                within=request.within,
            )
        except VqmonError as error:
            raise self._failed(error) from error

    def _standing(self, request_id: str) -> Queued | None:
        try:
            return self._messages.delivery(self._notifier, request_id)
        except VqmonError as error:
            raise self._failed(error) from error

    def _given_up(self, known: Queued) -> TargetFailed:
        return TargetFailed(f"notifier {self._notifier!r} did not take it: {known.error}")

    def _failed(self, error: VqmonError) -> TargetFailed:
        return TargetFailed(f"notifier {self._notifier!r}: {error}")
