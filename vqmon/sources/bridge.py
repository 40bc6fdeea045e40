"""SRT through a helper process: PyAV's wheel cannot speak it, `srt-live-transmit` and `ffmpeg` can.

    srt://… ──▶ helper ──pipe──▶ Bridge.read ──▶ FFmpeg's MPEG-TS demuxer

The helper passes bytes on untouched, so damage in the transport stream stays visible. It runs
under a three-line shell that kills it when our end of a held pipe closes: that happens whenever
this process ends, `kill -9` included.
"""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import cache
from urllib.parse import parse_qsl, urlencode, urlsplit

from vqmon.errors import SourceError, SourceUnavailable
from vqmon.sources.addresses import Opening
from vqmon.sources.failures import rejected, remedy

_LEASH = """exec 3<&0
"$@" </dev/null 3<&- & child=$!
exec >/dev/null 2>&1; read -r _ <&3; kill -9 $child; wait"""
"""Runs a program for as long as the other end of standard input stays open."""

_PARAMETERS = frozenset({"latency", "mode", "passphrase", "pbkeylen", "streamid"})
_REMEMBERED_BYTES = 4096
_LEASH_SECONDS = 2.0
_DEFAULT_LATENCY_MS = "200"

_SIGNS = (
    (
        "auth",
        re.compile(r"BADSECRET|UNSECURE|passphrase|password|FORBIDDEN|UNAUTHORIZED", re.IGNORECASE),
    ),
    ("not_found", re.compile(r"NOTFOUND|BAD_REQUEST|PEER rejected", re.IGNORECASE)),
    (
        "dns",
        re.compile(
            r"resolve|unknown host|Name or service|getaddrinfo|Bad parameters", re.IGNORECASE
        ),
    ),
    ("timeout_open", re.compile(r"time[d]?[ -]?out|NOSERVER|setup failure", re.IGNORECASE)),
    (
        "refused",
        re.compile(r"refused|unreachable|Input/output error|could not|invalid port", re.IGNORECASE),
    ),
)
"""What the helpers write when they fail; the first that matches names the reason."""


class Bridge:
    """A readable pipe with the transport stream. Raises SourceRejected without a helper."""

    def __init__(self, opening: Opening) -> None:
        self.name = opening.shown
        self._opening = opening
        self._said = b""
        self._limit = opening.open_timeout
        self._ended = self._given_up = self._flowed = False
        self._process = subprocess.Popen(
            ["/bin/sh", "-c", _LEASH, "sh", *command(opening)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._out = self._process.stdout.fileno()
        self._err = self._process.stderr.fileno()
        self._poll = select.poll()
        self._poll.register(self._out, select.POLLIN)
        self._poll.register(self._err, select.POLLIN)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises TimeoutError when nothing comes, once: FFmpeg
        asks again after an error, and would wait as long again.
        """
        if self._given_up:
            return b""
        deadline = time.monotonic() + self._limit
        while (left := deadline - time.monotonic()) > 0:
            ready = {fd for fd, _ in self._poll.poll(left * 1000)}
            if self._err in ready:
                self._listen()
            if self._out in ready:
                data = os.read(self._out, size)
                self._ended = not data
                self._flowed = self._flowed or bool(data)
                self._limit = self._opening.read_timeout
                return data
        self._given_up = True
        raise TimeoutError(f"nothing came for {self._limit:g} s")

    def failed(self) -> SourceError | None:
        """Why the helper ended, in our words; None while it runs or when it ended well."""
        if not self._ended:
            return None
        self._drain()
        text = self._opening.clean(self._said.decode(errors="replace"))
        reason = next((name for name, sign in _SIGNS if sign.search(text)), None)
        if reason is None and self._flowed:
            return None
        reason = reason or "refused"
        line = next(reversed(text.strip().splitlines()), "it gave no reason")[:200]
        if reason in ("auth", "not_found"):
            return rejected(self._opening, reason, remedy(self._opening, reason), line)
        message = f"{remedy(self._opening, reason)} ({line})"
        return SourceUnavailable(self._opening.shown, reason, message)

    def close(self) -> None:
        """End the helper at once: letting go of the leash is enough, killing is for sure."""
        try:
            self._process.communicate(timeout=_LEASH_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()

    def _listen(self) -> None:
        text = os.read(self._err, 4096)
        if not text:
            self._poll.unregister(self._err)
        self._said = (self._said + text)[-_REMEMBERED_BYTES:]

    def _drain(self) -> None:
        """What the helper wrote last; it has ended, so this does not wait long."""
        deadline = time.monotonic() + 1.0
        while select.select([self._err], [], [], max(0.0, deadline - time.monotonic()))[0]:
            text = os.read(self._err, 4096)
            if not text:
                return
            self._said = (self._said + text)[-_REMEMBERED_BYTES:]


def command(opening: Opening) -> list[str]:
    """The helper with its arguments; the lighter one first."""
    for program, arguments in _HELPERS.items():
        path = shutil.which(program)
        if path and _speaks_srt(path):
            return arguments(path, opening)
    raise rejected(opening, "bridge_missing", remedy(opening, "bridge_missing"))


@cache
def _speaks_srt(path: str) -> bool:
    """Whether this build of ffmpeg has SRT; srt-live-transmit always has."""
    if not path.endswith("ffmpeg"):
        return True
    found = subprocess.run(
        [path, "-hide_banner", "-protocols"], capture_output=True, text=True, check=False
    )
    return re.search(r"^\s*srt$", found.stdout, re.MULTILINE) is not None


def _transmit(path: str, opening: Opening) -> list[str]:
    host, query = _target(opening)
    query["conntimeo"] = str(int(opening.open_timeout * 1000))
    return [path, "-a:no", "-loglevel:error", f"{host}?{urlencode(query)}", "file://con"]


def _ffmpeg(path: str, opening: Opening) -> list[str]:
    """As a plain pipe: the data (de)muxer passes bytes on as they are."""
    host, query = _target(opening)
    query["latency"] = str(int(float(query["latency"]) * 1000))  # µs here, ms everywhere else
    query["connect_timeout"] = str(int(opening.open_timeout * 1000))
    query["timeout"] = str(int(opening.read_timeout * 1e6))
    given = [part for name, value in query.items() for part in (f"-{name}", value)]
    start = [path, "-hide_banner", "-nostdin", "-loglevel", "error", "-f", "data"]
    return [*start, *given, "-i", host, "-map", "0", "-c", "copy", "-f", "data", "pipe:1"]


_HELPERS: Mapping[str, Callable[[str, Opening], list[str]]] = {
    "srt-live-transmit": _transmit,
    "ffmpeg": _ffmpeg,
}


def _target(opening: Opening) -> tuple[str, dict[str, str]]:
    """srt://host:port and its parameters: from the URL, then from the stream's options."""
    parts = urlsplit(opening.url)
    query = {k: v for k, v in parse_qsl(parts.query) if k in _PARAMETERS}
    return f"srt://{parts.netloc}", {"latency": _DEFAULT_LATENCY_MS} | query | dict(
        opening.bridge or {}
    )
