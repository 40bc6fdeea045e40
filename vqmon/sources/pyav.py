"""Files and live streams through FFmpeg (PyAV): connect, play, and when lost begin again.

    connect ─▶ play ─▶ frames, traffic, events
       ▲         │
       └─ wait ◀─┘ lost

Everything happens on the thread that iterates, and there is no queue: a consumer that is too
slow for a live stream makes it fall behind the wall clock, and then packets are read without
being decoded until it has caught up (`playing.py`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import PurePath
from typing import Literal

from vqmon.domain import Depth, Media
from vqmon.errors import SourceError, SourceRejected
from vqmon.ports import everything
from vqmon.sources.addresses import Opening
from vqmon.sources.complaints import Complaints, listen
from vqmon.sources.connection import Connection
from vqmon.sources.failures import ended
from vqmon.sources.playing import Player, Tee
from vqmon.sources.retry import Backoff, SourceStatus

log = logging.getLogger("vqmon.sources")

WHOLE_FILES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".jpg", ".jpeg", ".png", ".webp"})
"""Behind http these are files; anything else counts as live until opening tells."""

listen()


class PyAVSource:
    """One URL. `open` is for one thread; `stop`, `status` and `live` are for any."""

    def __init__(
        self,
        opening: Opening,
        *,
        name: str = "",
        tee: Tee | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._opening = opening
        self._name = name or opening.shown
        self._tee = tee
        self._backoff = backoff or Backoff()
        self._stopping = threading.Event()
        self._status = SourceStatus(since=time.monotonic(), read_timeout=opening.read_timeout)
        self._live = opening.live
        self._player: Player | None = None

    @property
    def live(self) -> bool:
        """Known from the URL, or from opening it."""
        if self._live is None:
            return PurePath(self._opening.url.partition("?")[0]).suffix.lower() not in WHOLE_FILES
        return self._live

    @property
    def status(self) -> SourceStatus:
        last = self._player.last_packet if self._player else None
        return replace(self._status, last_packet_monotonic=last)

    def stop(self) -> None:
        """End soon: at the next packet, or at once while waiting to try again."""
        self._stopping.set()

    def open(
        self, depth: Callable[[], Depth] = everything
    ) -> AbstractContextManager[Iterator[Media]]:
        """See `vqmon.ports.Source`."""
        return closing(self._watch(depth))

    def _watch(self, depth: Callable[[], Depth]) -> Generator[Media]:
        complaints = Complaints(self._opening, self._name)
        player = Player(self._opening, complaints, depth, self._tee, self._stopping.is_set)
        self._player = player
        try:
            while not self._stopping.is_set():
                try:
                    yield from self._connected(player, complaints)
                except SourceError as error:
                    yield from self._lost(error, player)
                else:
                    if not player.reopen:
                        return
        finally:
            self._set("stopped", self._status.reason, self._status.detail)

    def _connected(self, player: Player, complaints: Complaints) -> Iterator[Media]:
        """From opening to the end; a live stream has no good end."""
        with closing(Connection(self._opening, complaints)) as connection:
            self._live = connection.live
            self._status = replace(self._status, read_timeout=connection.read_timeout)
            opened = player.begin(connection)
            self._up(again=opened.kind == "reconnected")
            yield opened
            yield from player.media()
        if player.reopen or self._stopping.is_set():
            return
        if connection.live and (self._opening.retried or not player.seen):
            raise ended(self._opening)

    def _lost(self, error: SourceError, player: Player) -> Iterator[Media]:
        """Say so and wait for the next attempt; or give up where nothing is tried again."""
        healthy_for = player.interrupted()
        player.reopen = False
        if not self._opening.retried:
            self._give_up(error, player)
            return
        changed = error.reason != self._status.reason
        self._set("down", error.reason, error.message)
        useless = isinstance(error, SourceRejected)
        delay = self._backoff.failed(healthy_for=healthy_for, useless=useless)
        if changed:
            self._say("stream_lost", error)
            yield player.event("lost", reason=error.reason, detail=error.message)
        self._stopping.wait(delay)

    def _give_up(self, error: SourceError, player: Player) -> None:
        """A file that breaks off is watched as far as it goes; all else is an error."""
        if not player.seen or self._opening.scheme != "file":
            self._set("down", error.reason, error.message)
            raise error
        self._say("file_breaks_off", error)
        self._stopping.set()

    def _up(self, *, again: bool) -> None:
        reconnects = self._status.reconnects + again
        self._status = replace(self._status, reconnects=reconnects)
        self._set("up", None, "")
        log.info("stream_up", extra={"stream": self._name, "reconnects": reconnects})

    def _say(self, event: str, error: SourceError) -> None:
        fields = {"stream": self._name, "reason": error.reason, "detail": error.message}
        log.warning(event, extra=fields)

    def _set(
        self, state: Literal["up", "down", "stopped"], reason: str | None, detail: str
    ) -> None:
        since = time.monotonic() if state != self._status.state else self._status.since
        self._status = replace(self._status, state=state, reason=reason, detail=detail, since=since)
