"""Reasons to look closer, each asked until it is settled, and not again too soon."""

from __future__ import annotations

from dataclasses import dataclass

SETTLED_SECONDS = 2.4
"""Dense pictures that settle a doubt, one way or the other."""

PAUSE, PAUSE_LIMIT = 60.0, 960.0
"""Media seconds in which a settled doubt is not raised again; doubled each time that the next
one comes soon after, so that a stream that is always a little odd costs little."""


@dataclass(slots=True)
class Doubt:
    """One reason: open since a position, or closed until one."""

    open: bool = False
    dense: float = 0.0
    quiet_until: float = float("-inf")
    pause: float = PAUSE


class Doubts:
    """What is unclear at the moment; `reason` is the most pressing, None when all is clear."""

    def __init__(self) -> None:
        self._doubts: dict[str, Doubt] = {}

    @property
    def reason(self) -> str | None:
        return next((reason for reason, doubt in self._doubts.items() if doubt.open), None)

    def weigh(self, reason: str, position: float, *, unclear: bool) -> None:
        """Whether `reason` holds at the moment; a doubt closes by itself when it does not."""
        doubt = self._doubts.setdefault(reason, Doubt())
        if not unclear:
            doubt.open, doubt.dense = False, 0.0
        elif not doubt.open and position >= doubt.quiet_until:
            if position > doubt.quiet_until + doubt.pause:
                doubt.pause = PAUSE
            doubt.open, doubt.dense = True, 0.0

    def looked(self, position: float, seconds: float) -> None:
        """`seconds` up to `position` were seen densely."""
        for doubt in self._doubts.values():
            if not doubt.open:
                continue
            doubt.dense += seconds
            if doubt.dense >= SETTLED_SECONDS:
                doubt.open = False
                doubt.quiet_until = position + doubt.pause
                doubt.pause = min(2 * doubt.pause, PAUSE_LIMIT)
