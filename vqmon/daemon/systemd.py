"""Tell the service manager how the daemon is: the `sd_notify` protocol, one datagram a message."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping


class ServiceManager:
    """Says nothing when nobody asked (no NOTIFY_SOCKET); never raises, never blocks."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket: socket.socket | None = None
        if self._address[:1] in ("/", "\0"):
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            self._socket.setblocking(False)
        self.watchdog_seconds = _watchdog_seconds(environ)

    def say(self, *lines: str) -> None:
        """Send assignments such as ``READY=1``, ``STATUS=42 up``, ``WATCHDOG=1``."""
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.sendto("\n".join(lines).encode(), self._address)

    def reloading(self) -> None:
        """Before a reload; ``READY=1`` ends it."""
        micros = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self.say("RELOADING=1", f"MONOTONIC_USEC={micros}")


def _watchdog_seconds(environ: Mapping[str, str]) -> float | None:
    """How often ``WATCHDOG=1`` is due: half of what the service manager waits; None for never."""
    micros = environ.get("WATCHDOG_USEC", "")
    if not micros.isdigit() or environ.get("WATCHDOG_PID") not in (None, "", str(os.getpid())):
        return None
    return int(micros) / 2e6 or None
