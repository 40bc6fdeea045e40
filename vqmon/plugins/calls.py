"""What a plugin still has to be told: a bounded queue that never makes anybody wait."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from vqmon.domain import Alert, Segment

MOST_WAITING = 200
"""Calls that wait for one plugin. Ten streams fill that in 200 s; what is older is old news."""

Hook = Literal["segment_closed", "alert_opened", "alert_closed"]


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a plugin's method."""

    hook: Hook
    about: Segment | Alert

    @property
    def stream(self) -> str:
        return self.about.stream


class Calls:
    """The calls for one plugin, in order. Thread-safe; `put` returns at once.

    When it is full the oldest segment goes. Alerts go only when nothing else is left, those that
    are over (opened and closed both still waiting) first: a firing alert is never dropped for a
    segment.
    """

    def __init__(self, most: int = MOST_WAITING) -> None:
        self.dropped: Counter[str] = Counter()
        """How many were given up, by hook."""
        self._most = most
        self._waiting: deque[Call] = deque()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, calls: Iterable[Call]) -> bool:
        """Add calls; True when none waited before."""
        with self._lock:
            was_empty = not self._waiting
            self._waiting.extend(calls)
            while len(self._waiting) > self._most:
                self._drop_one()
            return was_empty and bool(self._waiting)

    def take(self) -> Call | None:
        """The oldest, None when there is none."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def clear(self) -> int:
        """Give up all; return how many."""
        with self._lock:
            count = len(self._waiting)
            self.dropped.update(it.hook for it in self._waiting)
            self._waiting.clear()
            return count

    def _drop_one(self) -> None:
        for place, call in enumerate(self._waiting):
            if call.hook == "segment_closed":
                self._drop(place)
                return
        if not self._drop_finished_alert():
            self._drop(0)

    def _drop_finished_alert(self) -> bool:
        """The oldest alert of which both ends wait still: nothing to be done about it."""
        opened: dict[str, int] = {}
        for place, call in enumerate(self._waiting):
            assert isinstance(call.about, Alert)
            if call.hook == "alert_opened":
                opened[call.about.id] = place
            elif call.about.id in opened:
                self._drop(place)
                self._drop(opened[call.about.id])
                return True
        return False

    def _drop(self, place: int) -> None:
        self.dropped[self._waiting[place].hook] += 1
        del self._waiting[place]
