"""Room on the disk: what is kept, and what stops being written when it gets scarce.

The work is done in threads of the calendar, since a disk or a database may take its time; what
follows from it is posted to the supervisor.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from vqmon.daemon.visits import Calendar
from vqmon.domain import Finding, Segment
from vqmon.errors import StoreError
from vqmon.evidence import folder_name
from vqmon.explain import explain
from vqmon.retention import Retention, RetentionPolicy
from vqmon.settings import RetentionSettings, Settings
from vqmon.store import SqlStore

log = logging.getLogger("vqmon.daemon")

SWEEP_SECONDS = 300.0
FIRST_SWEEP_SECONDS = 60.0
DISK_SECONDS = 10.0
DELIVERIES_KEPT = timedelta(days=7)
"""For `vqmon webhooks`: what was delivered or given up, and what a removed target never took."""

ASKINGS_KEPT = timedelta(days=1)
"""For the budget of the writer; questions themselves go with their segments."""

ROWS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Storage:
    """Whether the disk has room for pictures and for rows; the finding says so while not."""

    evidence: bool = True
    rows: bool = True
    finding: Finding | None = None

    def told(self, segment: Segment) -> Segment:
        """The segment, with the finding for its whole length while there is one."""
        if self.finding is None:
            return segment
        finding = replace(self.finding, start=segment.start, seconds=segment.seconds)
        segment = replace(segment, findings=(*segment.findings, finding))
        return replace(segment, explanation=explain(segment))


class Housekeeping:
    """Sweeps the database and the pictures, and watches the disk."""

    def __init__(
        self, settings: Settings, store: SqlStore, post: Callable[[Storage], None]
    ) -> None:
        self._settings = settings
        self._store = store
        self._post = post
        self.keep(settings.retention)

    def enter_into(self, calendar: Calendar) -> None:
        calendar.every(SWEEP_SECONDS, self._sweep, first=FIRST_SWEEP_SECONDS)
        calendar.every(DISK_SECONDS, self._look_at_disk, first=0.0)

    def keep(self, retention: RetentionSettings) -> None:
        """From now on keep so much."""
        self._retention = self._kept(retention)
        self._rollups = timedelta(seconds=retention.rollups)

    def tidy_packets(self, settings: Settings) -> None:
        """Remove packets of streams that keep none any more."""
        kept = {folder_name(name) for name, it in settings.streams.items() if it.packet_ring}
        folder = self._settings.packets_dir
        for rest in folder.iterdir() if folder.is_dir() else ():
            if rest.name not in kept:
                shutil.rmtree(rest, ignore_errors=True)

    def _sweep(self) -> None:
        try:
            self._retention.sweep(datetime.now(UTC))
            self._forget_deliveries(datetime.now(UTC) - DELIVERIES_KEPT)
            self._forget_decisions(datetime.now(UTC) - self._rollups)
            self._forget_alerts(datetime.now(UTC) - self._rollups)
            self._store.expire_questions(datetime.now(UTC))
            self._store.prune_askings(datetime.now(UTC) - ASKINGS_KEPT)
        except StoreError as error:
            log.warning("storage_not_swept", extra={"error": str(error)})
        self._say()

    def _forget_deliveries(self, before: datetime) -> None:
        at_once = ROWS_AT_ONCE
        while self._store.prune_deliveries(before, limit=at_once) == at_once:
            pass

    def _forget_decisions(self, before: datetime) -> None:
        """As late as roll-ups: a plugin that was away for a month still knows what it has done."""
        at_once = ROWS_AT_ONCE
        while self._store.prune_decisions(before, limit=at_once) == at_once:
            pass

    def _forget_alerts(self, before: datetime) -> None:
        """What is over, as late as roll-ups."""
        at_once = ROWS_AT_ONCE
        while self._store.prune_alerts(before, limit=at_once) == at_once:
            pass

    def _look_at_disk(self) -> None:
        self._retention.look_at_disk()
        self._say()

    def _say(self) -> None:
        kept = self._retention
        self._post(Storage(kept.evidence_allowed(), kept.rows_allowed(), kept.finding()))

    def _kept(self, retention: RetentionSettings) -> Retention:
        policy = RetentionPolicy(
            segments=timedelta(seconds=retention.segments),
            rollups=timedelta(seconds=retention.rollups),
            max_bytes=retention.max_size,
            evidence_max_bytes=retention.max_pictures,
            min_free_percent=retention.min_free_percent,
        )
        settings, store = self._settings, self._store
        return Retention(store, settings.evidence_dir, policy, database_folder=store.folder)
