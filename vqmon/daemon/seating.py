"""Which process watches which stream. Pure; a stream that has a place keeps it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable


class Seating:
    """Streams over processes, evenly. Processes are named ``<kind>-<number>``, none twice."""

    def __init__(self, kind: str, per_process: int) -> None:
        self._kind = kind
        self._per_process = per_process
        self._count = 0
        self._shared: dict[str, None] = {}
        self._place: dict[str, str] = {}

    def seat(self, names: Iterable[str]) -> None:
        """Give each name that has none a place: where the fewest are, in as few processes as do."""
        new = [name for name in dict.fromkeys(names) if name not in self._place]
        load = Counter(dict.fromkeys(self._shared, 0))
        load.update(place for place in self._place.values() if place in self._shared)
        while len(load) < math.ceil((load.total() + len(new)) / self._per_process):
            load[self._opened()] = 0
        for name in new:
            emptiest = min(load, key=lambda process: load[process])
            self._place[name] = emptiest
            load[emptiest] += 1

    def place(self, name: str) -> str:
        """The process of a stream that was seated."""
        return self._place[name]

    def isolate(self, name: str) -> str:
        """Move a stream that harms its neighbours to a process of its own."""
        process = self._opened()
        del self._shared[process]
        self._place[name] = process
        return process

    def leave(self, name: str) -> None:
        """Free the stream's place; its process stays open for others."""
        self._place.pop(name, None)

    def close(self, process: str) -> None:
        """Seat nobody there any more."""
        self._shared.pop(process, None)

    def _opened(self) -> str:
        self._count += 1
        process = f"{self._kind}-{self._count}"
        self._shared[process] = None
        return process
