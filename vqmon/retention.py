"""What is kept, for how long, and what stops first when the disk fills.

Rows go by age and by size, oldest first and a few at a time, and their pictures with them. Near
the end of the disk new pictures stop first, new rows last; a finding says so.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from vqmon.domain import Finding
from vqmon.ports import SegmentStore

log = logging.getLogger("vqmon.retention")

EVIDENCE_RESUMES, ROWS_STOP, ROWS_RESUME = 1.4, 0.4, 0.8
"""In parts of `min_free_percent`, where evidence stops: 5 % means 7, 2 and 4 % for the others.
What stopped resumes only clearly above its limit.
"""

BATCH = 500
MOST_BATCHES = 100
"""A sweep ends after so many batches; the next one goes on."""

LEAST_KEPT = timedelta(hours=1)
"""However small `max_bytes` is, the last hour stays."""

ORPHANS_AFTER = timedelta(days=1)
ORPHANS_EVERY = timedelta(hours=6)
"""Looking for orphans reads the whole evidence folder, so it is done rarely."""

DAY_FOLDER = re.compile(r"\d{4}-\d\d-\d\d")


class DiskUsage(NamedTuple):
    """Bytes, as `shutil.disk_usage` gives them."""

    total: int
    used: int
    free: int


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """How long and how much; None is without limit.

    segments, rollups: age of rows. evidence: age of pictures, where it shall be less than that
    of their segments. max_bytes: database and pictures together. evidence_max_bytes: pictures
    alone. min_free_percent: of the disk; below it no pictures are written any more.
    """

    segments: timedelta | None = timedelta(days=7)
    rollups: timedelta | None = timedelta(days=400)
    evidence: timedelta | None = None
    max_bytes: int | None = None
    evidence_max_bytes: int | None = None
    min_free_percent: float = 5.0


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep did.

    pictures, orphans: files removed. rollups: rows removed. bytes_freed: of files.
    complete: False when more is to go than one sweep may take.
    free_percent: of the fullest disk concerned, None when unknown.
    finding: `storage_low`, while something is stopped.
    """

    pictures: int = 0
    orphans: int = 0
    rollups: int = 0
    bytes_freed: int = 0
    complete: bool = True
    free_percent: float | None = None
    finding: Finding | None = None


class Retention:
    """Sweeps one store and its evidence folder. One thread sweeps; any thread may do the rest."""

    def __init__(
        self,
        store: SegmentStore,
        evidence_folder: Path,
        policy: RetentionPolicy | None = None,
        *,
        database_folder: Path | None = None,
        disk_usage: Callable[[Path], tuple[int, int, int]] = shutil.disk_usage,
    ) -> None:
        """database_folder: where SQLite's file lies; None when rows go to a server, which a full
        disk here does not concern.
        """
        self._store = store
        self._files = Files(evidence_folder)
        self._policy = policy or RetentionPolicy()
        self._database_folder = database_folder
        self._disk_usage = disk_usage
        least = self._policy.min_free_percent
        self._evidence_disk = Gate("evidence", least, EVIDENCE_RESUMES * least)
        self._rows_disk = Gate("rows", ROWS_STOP * least, ROWS_RESUME * least)
        self._looking = threading.Lock()
        self._orphans_at: datetime | None = None
        self._batches = 0

    def evidence_allowed(self) -> bool:
        """Whether new pictures may be written, as of the last sweep or look at the disk."""
        return self._evidence_disk.open

    def rows_allowed(self) -> bool:
        """Whether new rows may be written, as of the last sweep or look at the disk."""
        return self._rows_disk.open

    def sweep(self, now: datetime) -> Swept:
        """Delete what the policy no longer keeps, then look at the disk.

        Raises StoreError when the database cannot be used; the disk is looked at even so.
        """
        self._batches = MOST_BATCHES
        self._files.begin()
        try:
            rollups = self._by_age(now) + self._by_size(now)
            self._evidence_by_size(now)
            pictures = self._files.removed
            self._remove_orphans(now)
        finally:
            self.look_at_disk()
        swept = Swept(
            pictures=pictures,
            orphans=self._files.removed - pictures,
            rollups=rollups,
            bytes_freed=self._files.bytes_freed,
            complete=self._batches > 0,
            free_percent=self._free_percent(),
            finding=self.finding(),
        )
        if swept.pictures or swept.orphans or swept.rollups:
            log.info("storage_swept", extra=_fields(swept))
        return swept

    def look_at_disk(self) -> None:
        """Cheap, so it may be done more often than a sweep."""
        database = self._free(self._database_folder)
        evidence = self._free(self._files.folder)
        known = [free for free in (database, evidence) if free is not None]
        with self._looking:
            self._rows_disk.see(database)
            self._evidence_disk.see(min(known, default=None))

    def finding(self) -> Finding | None:
        """`storage_low` with the free share of the disk, while something is stopped."""
        gate = self._evidence_disk if self.rows_allowed() else self._rows_disk
        if gate.open or gate.free is None:
            return None
        return Finding(
            name="storage_low",
            severity=3 if self.rows_allowed() else 5,
            confidence=1.0,
            value=round(gate.free, 2),
            limit=gate.stops,
            unit="%",
        )

    def _by_age(self, now: datetime) -> int:
        policy = self._policy
        if policy.segments:
            self._prune(now - policy.segments)
        if policy.evidence:
            self._forget(now - policy.evidence)
        return self._store.prune_rollups(now - policy.rollups) if policy.rollups else 0

    def _by_size(self, now: datetime) -> int:
        """Oldest segments first; when only the last hour of them is left, oldest roll-ups."""
        most = self._policy.max_bytes
        if most is None:
            return 0
        pictures = self._files.total_bytes() + self._files.bytes_freed
        while (excess := self._excess(pictures)) > 0:
            if not self._prune(now - LEAST_KEPT, 1):
                break
        age, gone = self._policy.rollups or timedelta(days=400), 0
        for tenths in range(9, 0, -1):
            if excess <= 0 or self._batches <= 0:
                break
            gone += self._store.prune_rollups(now - age * tenths / 10)
            excess = self._excess(pictures)
        return gone

    def _excess(self, pictures: int) -> int:
        """Bytes over `max_bytes`, when there were `pictures` bytes of them before the sweep."""
        assert self._policy.max_bytes is not None
        now = self._store.size_bytes() + pictures - self._files.bytes_freed
        return now - self._policy.max_bytes

    def _evidence_by_size(self, now: datetime) -> None:
        most = self._policy.evidence_max_bytes
        if most is None:
            return
        excess = self._files.total_bytes() - most
        freed_before = self._files.bytes_freed
        while excess > self._files.bytes_freed - freed_before:
            if not self._forget(now, 1):
                break

    def _prune(self, before: datetime, batches: int = MOST_BATCHES) -> bool:
        """Delete segments with their pictures; whether there were any."""
        done = 0
        while done < batches and self._batches > 0 and self._store.segments(until=before, limit=1):
            self._files.remove(self._store.prune(before, limit=BATCH))
            self._batches -= 1
            done += 1
        return done > 0

    def _forget(self, before: datetime, batches: int = MOST_BATCHES) -> bool:
        """Delete pictures of segments that stay; whether there were any."""
        done = 0
        while done < batches and self._batches > 0:
            paths = self._store.forget_pictures(before, limit=BATCH)
            if not paths:
                break
            self._files.remove(paths)
            self._batches -= 1
            done += 1
        return done > 0

    def _remove_orphans(self, now: datetime) -> None:
        """Pictures that a crash left behind between a row and its files, and empty folders."""
        if self._orphans_at and now - self._orphans_at < ORPHANS_EVERY:
            return
        self._orphans_at = now
        old = self._files.older_than(now - ORPHANS_AFTER)
        while some := list(islice(old, BATCH)):
            known = self._store.known_pictures(some)
            self._files.remove(path for path in some if path not in known)
        self._files.remove_empty_folders(now - ORPHANS_AFTER)

    def _free_percent(self) -> float | None:
        known = [g.free for g in (self._evidence_disk, self._rows_disk) if g.free is not None]
        return round(min(known), 2) if known else None

    def _free(self, folder: Path | None) -> float | None:
        """Percent of the disk below a folder, which need not exist yet."""
        if folder is None:
            return None
        place = next((p for p in (folder, *folder.absolute().parents) if p.exists()), Path("/"))
        try:
            total, _, free = self._disk_usage(place)
        except OSError as error:
            log.warning("disk_unknown", extra={"folder": str(place), "error": str(error)})
            return None
        return 100.0 * free / total if total else None


class Gate:
    """Closes below one limit and opens again only above a higher one."""

    def __init__(self, what: str, stops: float, resumes: float) -> None:
        self.open = True
        self.free: float | None = None
        self.stops = stops
        self._what = what
        self._resumes = resumes

    def see(self, free: float | None) -> None:
        """free: percent; None (unknown) changes nothing."""
        if free is None:
            return
        self.free = free
        opens = free >= (self.stops if self.open else self._resumes)
        if opens != self.open:
            self.open = opens
            event = f"{self._what}_{'resumed' if opens else 'stopped'}"
            fields = {"free_percent": round(free, 2)}
            log.log(logging.INFO if opens else logging.WARNING, event, extra=fields)


class Files:
    """The evidence folder: `<stream>/<YYYY-MM-DD>/<picture>`, and nothing else is touched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self.removed = 0
        self.bytes_freed = 0

    def remove(self, paths: Iterable[str]) -> None:
        """Delete pictures by their paths relative to the folder; one that is gone is no fault."""
        failed: dict[str, str] = {}
        for path in paths:
            try:
                self._remove(path)
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                failed[path] = str(error)
        if failed:
            path, error_text = next(iter(failed.items()))
            fields = {"files": len(failed), "first": path, "error": error_text}
            log.warning("evidence_not_removed", extra=fields)

    def total_bytes(self) -> int:
        """Of all pictures."""
        return sum(entry.stat().st_size for entry in self._entries() if entry.is_file())

    def older_than(self, limit: datetime) -> Iterator[str]:
        """Pictures last written before, unfinished ones included; relative paths."""
        for entry in self._entries():
            try:
                if entry.is_file(follow_symlinks=False) and (
                    entry.stat().st_mtime < limit.timestamp()
                ):
                    yield str(Path(entry.path).relative_to(self.folder))
            except FileNotFoundError:
                continue

    def remove_empty_folders(self, limit: datetime) -> None:
        """Day folders without files, then stream folders without days; none that is still warm,
        because someone may be about to write into it.
        """
        for folder in [*self._day_folders(), *_subfolders(self.folder)]:
            try:
                if folder.stat().st_mtime < limit.timestamp():
                    folder.rmdir()
            except OSError:
                continue  # not empty, or gone

    def _remove(self, path: str) -> None:
        file = self.folder / path
        if Path(path).is_absolute() or ".." in Path(path).parts:
            raise ValueError("lies outside the evidence folder")
        size = file.lstat().st_size
        file.unlink()
        self.removed += 1
        self.bytes_freed += size

    def _day_folders(self) -> Iterator[Path]:
        for stream in _subfolders(self.folder):
            yield from (day for day in _subfolders(stream) if DAY_FOLDER.fullmatch(day.name))

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        for day in self._day_folders():
            try:
                with os.scandir(day) as entries:
                    yield from entries
            except FileNotFoundError:
                continue


def _subfolders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            found = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(found)


def _fields(swept: Swept) -> dict[str, int | float | None]:
    return {
        "pictures": swept.pictures,
        "orphans": swept.orphans,
        "rollups": swept.rollups,
        "bytes_freed": swept.bytes_freed,
        "free_percent": swept.free_percent,
    }
