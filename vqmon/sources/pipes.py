"""A named pipe as a source: FFmpeg would wait without end for a writer, or for its next byte."""

from __future__ import annotations

import os
import select
import stat
from pathlib import Path

from vqmon.sources.addresses import Opening


def is_pipe(path: str) -> bool:
    """Whether a path leads to a pipe; `/dev/stdin` may be one."""
    try:
        return stat.S_ISFIFO(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False


class Pipe:
    """What FFmpeg reads a pipe through. Raises OSError when it cannot be opened."""

    def __init__(self, opening: Opening) -> None:
        self.name = opening.shown
        self._read_timeout = opening.read_timeout
        self._limit = opening.open_timeout
        self._given_up = False
        self._end = os.open(opening.url, os.O_RDONLY | os.O_NONBLOCK)
        self._poll = select.poll()
        self._poll.register(self._end, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" when the writer has left. Raises TimeoutError, once, when nothing
        comes: FFmpeg asks again after an error, and would wait as long again.
        """
        if self._given_up:
            return b""
        if not self._poll.poll(self._limit * 1000):
            self._given_up = True
            raise TimeoutError(f"nothing came for {self._limit:g} s")
        self._limit = self._read_timeout
        return os.read(self._end, size)

    def close(self) -> None:
        os.close(self._end)
