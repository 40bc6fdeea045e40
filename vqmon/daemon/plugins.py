"""The plugins of the daemon: which run, with which settings, and who tells them what."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from vqmon.domain import AlertEvent, Segment
from vqmon.metrics import PluginNow
from vqmon.plugins import Call, find
from vqmon.plugins.calls import Hook
from vqmon.plugins.context import PluginPlan
from vqmon.plugins.host import STOP_SECONDS, Host
from vqmon.ports import Decisions
from vqmon.settings import Settings

log = logging.getLogger("vqmon.daemon")

_HOOKS: dict[str, Hook] = {"firing": "alert_opened", "resolved": "alert_closed"}
"""What is called when an alert is told; a plugin does not need to hear it again and again."""


class Plugins:
    """One host for each plugin that is enabled. No method waits, `join` excepted.

    `take` and the stopping are for the supervisor's thread, telling is for any.
    """

    def __init__(self, store: Decisions, scoring: Path, log_level: int) -> None:
        """scoring: the socket of the scoring process."""
        self._store = store
        self._scoring = scoring
        self._log_level = log_level
        self._hosts: dict[str, Host] = {}
        self._ending: list[threading.Thread] = []

    def take(self, settings: Settings) -> None:
        """Run what these settings say: start, stop and restart only what changed."""
        wanted = {it.name: it for it in self._plans(settings)}
        targets = tuple(settings.notifiers)
        going, hosts = self._hosts, {}
        for name, plan in wanted.items():
            old = going.get(name)
            if old and old.plan == plan:
                old.target(targets)
                hosts[name] = old
            else:
                hosts[name] = Host(plan, targets, self._store.record, after=old)
        self._hosts = hosts
        for name, host in going.items():
            if hosts.get(name) is not host:
                self._end(host)
        for host in hosts.values():
            if not host.is_alive():
                host.start()

    def stored(self, segments: Sequence[Segment]) -> None:
        """These segments are in the database now."""
        calls = [Call("segment_closed", it) for it in segments]
        for host in list(self._hosts.values()):
            host.tell(calls)

    def happened(self, events: Iterable[AlertEvent]) -> None:
        """These alerts are told; it is in the database."""
        calls = [Call(_HOOKS[it.kind], it.alert) for it in events if it.kind in _HOOKS]
        for host in list(self._hosts.values()):
            host.tell(calls)

    @property
    def parked(self) -> frozenset[str]:
        """Those that rest for a while after too many failures."""
        return frozenset(name for name, it in self._hosts.items() if it.state == "parked")

    def standings(self) -> dict[str, PluginNow]:
        """How each plugin that is enabled stands."""
        return {
            name: PluginNow(it.state == "parked", it.calls.dropped.total(), id(it))
            for name, it in self._hosts.items()
        }

    def finish(self) -> None:
        """Begin to end all."""
        hosts, self._hosts = self._hosts, {}
        for host in hosts.values():
            self._end(host)

    def join(self) -> None:
        """Until all have ended, at the latest half a second after their time."""
        until = time.monotonic() + STOP_SECONDS + 0.5
        for thread in self._ending:
            thread.join(max(0.0, until - time.monotonic()))

    def _end(self, host: Host) -> None:
        host.stop()
        self._ending = [it for it in self._ending if it.is_alive()]
        if host.is_alive():
            self._ending.append(host)

    def _plans(self, settings: Settings) -> Iterable[PluginPlan]:
        enabled = {name: it for name, it in settings.plugins.items() if it.enabled}
        known = find(settings.plugins_dir) if enabled else {}
        for name, it in enabled.items():
            if name not in known:  # removed since the configuration was checked
                log.error("plugin_missing", extra={"plugin": name})
                continue
            yield PluginPlan(
                found=known[name],
                settings=it.own,
                folder=settings.folder,
                memory=it.memory,
                timeout=it.timeout,
                database=settings.database,
                data_dir=settings.data_dir / "plugins" / name,
                evidence=settings.evidence_dir,
                packets=settings.packets_dir,
                scoring=self._scoring,
                log_level=self._log_level,
            )
