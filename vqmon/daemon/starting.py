"""From settings to a running supervisor: one active daemon per database and instance."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from vqmon.daemon.journal import Journal
from vqmon.daemon.listening import STANDING_BY, STARTING, Site, listening
from vqmon.daemon.supervisor import Supervisor
from vqmon.daemon.systemd import ServiceManager
from vqmon.errors import StoreError
from vqmon.metrics import Exposition
from vqmon.settings import Settings
from vqmon.store import InstanceLock, open_store

log = logging.getLogger("vqmon.daemon")

FOR_CHILDREN = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
"""Threads that a matrix library starts in every process for work that ours never has."""


def start(settings: Settings, *, standby: bool, **rest: Any) -> int:
    """See `vqmon.daemon.run`."""
    for name, value in FOR_CHILDREN.items():
        os.environ.setdefault(name, value)
    numbers = Exposition()
    site = Site(numbers)
    lock = InstanceLock(settings.database, settings.instance, data_dir=settings.data_dir)
    if not standby:
        lock.acquire()
    try:
        with listening(settings.http.address, site):
            if standby and not _taken_over(lock, settings, site):
                return 0
            with open_store(settings.database) as store, closing(_journal(settings)) as journal:
                supervisor = Supervisor(settings, store, lock, journal, site=site, **rest)
                numbers.show(supervisor.metrics)
                return supervisor.run()
    finally:
        lock.release()


def _taken_over(lock: InstanceLock, settings: Settings, site: Site) -> bool:
    """Whether we are the active one now; False when told to stop while standing by."""
    site.say(STANDING_BY)
    with _stop_signals() as stop:
        # A service manager waits for this before it calls a start a success.
        ServiceManager().say("READY=1", "STATUS=standing by for another vqmon to end")
        log.info("standing_by", extra={"instance": settings.instance})
        acquired = lock.acquire(wait=True, stop=stop)
    if acquired:
        log.info("taking_over", extra={"instance": settings.instance})
        site.say(STARTING)
    return acquired


def _journal(settings: Settings) -> Journal:
    path = settings.data_dir / f"journal-{settings.instance}.jsonl"
    try:
        return Journal(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be written ({error.strerror or error}): make the folder writable for "
            "this user, or name another `data_dir`"
        ) from error


@contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
