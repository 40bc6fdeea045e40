"""What an encoder is asked, and how it can refuse."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from vqmon import VqmonError
from vqmon.domain import Queued
from vqmon_adaptive_encoding.ladder import Level


class TargetFailed(VqmonError):
    """The encoder did not accept; the text says why and is free of credentials."""


@dataclass(frozen=True, slots=True)
class Request:
    """What an encoder is asked. Levels are absolute: a request heard twice does no harm.

    id: of the decision behind it, the same on every try.
    kind: raise, lower, roll_back, or propose.
    within: seconds after which it is not worth hearing any more; None is never. A raise that
        comes when it has been judged already would only have to be taken back.
    """

    id: str
    stream: str
    kind: str
    level: Level
    previous: Level
    reason: str
    at: datetime
    within: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The body of a webhook, as the README of this package documents it."""
        return {
            "type": "vqmon.adaptive_encoding",
            "version": 1,
            "decision": self.id,
            "stream": self.stream,
            "action": self.kind,
            "quality": self.level.quality,
            "cap_kbps": self.level.cap_kbps,
            "previous": self.previous.as_json(),
            "reason": self.reason,
            "at": self.at.isoformat(),
        }


class Target(Protocol):
    """One encoder. live: it changes while it runs; else `ask` only tells a person."""

    @property
    def live(self) -> bool: ...

    def ask(self, request: Request) -> bool:
        """Return within ten seconds: True when it has accepted, False when the request is on its
        way; asking again sends nothing twice, and goes on trying. Raises TargetFailed.
        """
        ...

    def accepted_at(self, request_id: str, asked_at: datetime) -> datetime | None:
        """When it accepted what was asked at that time; None while that is on its way.

        Raises TargetFailed when it will never hear of it.
        """
        ...


class Messages(Protocol):
    """Of `vqmon.ports.PluginContext`: what goes through the outbox, signed."""

    def notify(
        self,
        target: str,
        payload: Mapping[str, Any],
        *,
        event_id: str | None = None,
        stream: str | None = None,
        within: float | None = None,
    ) -> str: ...

    def delivery(self, target: str, event_id: str) -> Queued | None: ...
