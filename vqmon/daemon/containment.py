"""A fault of the supervisor's own, met with one stream, must not end the watching of all."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("vqmon.daemon")

REPEAT_SECONDS = 60.0

_told: dict[str, float] = {}


@contextmanager
def contained(what: str, name: str = "") -> Iterator[None]:
    """Go on after an exception inside, which is logged, at most once a minute for each cause."""
    try:
        yield
    except Exception:
        clock, key = time.monotonic(), f"{what} {name}"
        if clock - _told.get(key, float("-inf")) > REPEAT_SECONDS:
            _told[key] = clock
            log.exception("supervisor_fault", extra={"work": what, "about": name})
