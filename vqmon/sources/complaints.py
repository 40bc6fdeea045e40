"""What FFmpeg says while it works for one stream: counted, damped, kept for error messages.

FFmpeg logs to one place for the whole process. PyAV can capture what is logged on one thread,
and each source works on its own thread with one decoder thread, so a capture around each call
tells streams apart. What other threads say (FFmpeg's UDP receiver) goes to the log, damped.
"""

from __future__ import annotations

import logging
import re
import time
from collections import deque
from types import TracebackType

import av
import av.logging

from vqmon.sources.addresses import Opening, scrub

log = logging.getLogger("vqmon.sources")

_LOST_RTP = re.compile(r"RTP: missed (-?\d+) packets|max delay reached")
_ANSWERED = re.compile(r"HTTP error \d+")
_DAMPING_SECONDS = 60.0
_REMEMBERED = 8


class Complaints:
    """A capture of FFmpeg's log lines, entered around each call into FFmpeg.

    count: errors and lost RTP packets so far. Warnings are captured too because the RTP
    receiver reports losses, which raise nothing, only as warnings, and HTTP its refusals.
    """

    def __init__(self, opening: Opening, name: str) -> None:
        self.count = 0
        self._clean = opening.clean
        self._name = name
        self._capture = av.logging.Capture(local=True)
        self._recent: deque[str] = deque(maxlen=_REMEMBERED)
        self._damper = _Damper()
        self._counting = False

    def __enter__(self) -> None:
        self._capture.__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._capture.__exit__(None, None, None)  # it only ends the capture
        if self._capture.logs:
            self._take(self._capture.logs)

    def add(self, text: str) -> None:
        """Count an error that FFmpeg returned instead of logging."""
        self.count += 1
        self._recent.append(self._clean(text))

    def recent(self) -> str:
        """The last lines, oldest first, without credentials."""
        return "; ".join(self._recent)

    def begin(self) -> None:
        """A new connection: what was said of the last one explains nothing. While it is being
        opened lines are kept but not counted: who joins a stream in its middle sees fragments.
        """
        self._recent.clear()
        self._counting = False

    def opened(self) -> None:
        self._counting = True

    def _take(self, lines: list[tuple[int, str, str]]) -> None:
        for severity, _, message in lines:
            lost = _LOST_RTP.search(message)
            counts = severity <= av.logging.ERROR or lost is not None
            if not counts and not _ANSWERED.match(message):
                continue
            self.count += self._counting and counts
            text = self._clean(message.strip())
            if not self._recent or self._recent[-1] != text:
                self._recent.append(text)
        lines.clear()
        if self._recent and self._counting and self._damper.due(self.count):
            fields = {"stream": self._name, "count": self.count, "example": self._recent[-1]}
            log.warning("stream_complaints", extra=fields)


class _Damper:
    """Lets the first report through and then one a minute, while there is something new."""

    def __init__(self) -> None:
        self._next = 0.0
        self._reported = 0

    def due(self, count: int) -> bool:
        now = time.monotonic()
        if count == self._reported or now < self._next:
            return False
        self._next, self._reported = now + _DAMPING_SECONDS, count
        return True


class _OtherThreads(logging.Handler):
    """Passes on at most one line a minute of what FFmpeg says outside any capture."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self._damper = _Damper()
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self._count += 1
        if self._damper.due(self._count):
            fields = {"count": self._count, "example": scrub(record.getMessage(), "")}
            log.warning("ffmpeg_complaints", extra=fields)


def listen() -> None:
    """Route FFmpeg's log lines to captures and the log; once per process is enough."""
    av.logging.set_level(av.logging.WARNING)
    av.logging.set_skip_repeated(False)
    outlet = logging.getLogger("libav")
    if not any(isinstance(handler, _OtherThreads) for handler in outlet.handlers):
        outlet.addHandler(_OtherThreads())
        outlet.propagate = False
