"""An encoder that obeys signed webhooks, reached through vqmon's own outbox."""

from __future__ import annotations

from vqmon import VqmonError
from vqmon_adaptive_encoding.targets.request import Notify, Request, TargetFailed


class Webhook:
    """Accepted means: written to the outbox, which delivers it at least once, over a crash too."""

    live = True

    def __init__(self, notifier: str, notify: Notify) -> None:
        self._notifier = notifier
        self._notify = notify

    def ask(self, request: Request) -> None:
        try:
            self._notify(
                self._notifier,
                request.as_json(),
                event_id=request.id,
                stream=request.stream,
                within=request.within,
            )
        except VqmonError as error:
            raise TargetFailed(f"notifier {self._notifier!r}: {error}") from error
