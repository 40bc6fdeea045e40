"""What goes, what stays, and what stops when the disk fills."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from vqmon.domain import Segment
from vqmon.errors import StoreError
from vqmon.ports import SegmentStore
from vqmon.retention import BATCH, MOST_BATCHES, Retention, RetentionPolicy
from vqmon.store import open_store
from vqmon.testing import MemoryStore

NOW = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
KEEP_ALL = RetentionPolicy(segments=None, rollups=None)


class Disk:
    """A disk whose free share a test sets."""

    def __init__(self, free: float = 50.0) -> None:
        self.free = free
        self.asked: list[Path] = []

    def __call__(self, folder: Path) -> tuple[int, int, int]:
        self.asked.append(folder)
        return 1000_000, 0, round(10_000 * self.free)


def pictured(folder: Path, at: datetime, size: int = 100, *, stream: str = "news") -> Segment:
    """A segment with two pictures that really exist, as old as it is."""
    stem = f"{stream}/{at:%Y-%m-%d/%H%M%S%f}"
    for name in ("thumb", "worst"):
        write(folder / f"{stem}-{name}.jpg", at, size)
    return Segment(
        stream,
        at,
        0.0,
        10.0,
        quality=50.0,
        thumbnail=f"{stem}-thumb.jpg",
        evidence=(f"{stem}-worst.jpg",),
    )


def write(file: Path, at: datetime, size: int = 100) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes(size))
    age(file, at)
    return file


def age(path: Path, at: datetime) -> None:
    os.utime(path, (at.timestamp(), at.timestamp()))


def files(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


@pytest.fixture
def evidence(tmp_path: Path) -> Path:
    return tmp_path / "evidence"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[SegmentStore]:
    with open_store(f"sqlite:///{tmp_path / 'vqmon.db'}") as opened:
        yield opened


def retention(
    store: SegmentStore,
    evidence: Path,
    policy: RetentionPolicy = KEEP_ALL,
    disk: Disk | None = None,
) -> Retention:
    return Retention(store, evidence, policy, disk_usage=disk or Disk())


def test_old_segments_go_with_their_pictures(store: MemoryStore, evidence: Path) -> None:
    """Seven days by default; sums stay, and so does everything younger."""
    old, young = pictured(evidence, NOW - 7.01 * DAY), pictured(evidence, NOW - 6.99 * DAY)
    store.add([old, young])

    swept = retention(store, evidence, RetentionPolicy()).sweep(NOW)

    assert store.segments() == [young]
    assert files(evidence) == {young.thumbnail, *young.evidence}
    assert (swept.pictures, swept.bytes_freed, swept.complete) == (2, 200, True)
    assert sum(r.segments for r in store.rollups(3600)) == 2


def test_old_rollups_go_and_are_counted(store: MemoryStore, evidence: Path) -> None:
    """400 days by default."""
    store.add([Segment("news", NOW - age_, 0.0, 10.0) for age_ in (401 * DAY, 399 * DAY)])

    swept = retention(store, evidence, RetentionPolicy()).sweep(NOW)

    assert swept.rollups == 2
    assert [r.starts_at.date() for r in store.rollups(3600)] == [(NOW - 399 * DAY).date()]


def test_more_than_one_batch_goes_in_one_sweep(store: MemoryStore, evidence: Path) -> None:
    """After a week of downtime there is a week to catch up with."""
    store.add(
        Segment("news", NOW - 8 * DAY + timedelta(seconds=n), 0.0, 1.0)
        for n in range(3 * BATCH + 1)
    )

    swept = retention(store, evidence, RetentionPolicy()).sweep(NOW)

    assert store.segments() == []
    assert swept.complete


def test_a_sweep_ends_and_the_next_one_goes_on(
    store: MemoryStore, evidence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A changed policy may condemn millions of rows; the daemon's scheduler must breathe."""
    monkeypatch.setattr("vqmon.retention.BATCH", 2)
    store.add(
        Segment("news", NOW - 8 * DAY + timedelta(seconds=n), 0.0, 1.0)
        for n in range(2 * MOST_BATCHES + 2)
    )
    sweeper = retention(store, evidence, RetentionPolicy())

    assert not sweeper.sweep(NOW).complete
    assert len(store.segments()) == 2
    assert sweeper.sweep(NOW).complete
    assert store.segments() == []


def test_pictures_may_go_before_their_segments(store: MemoryStore, evidence: Path) -> None:
    """Pictures are most of the space; measurements are most of the worth."""
    old, young = pictured(evidence, NOW - 2 * DAY), pictured(evidence, NOW - DAY / 2)
    store.add([old, young])

    retention(store, evidence, RetentionPolicy(evidence=DAY)).sweep(NOW)

    assert [(s.id, s.thumbnail is None) for s in store.segments()] == [
        (old.id, True),
        (young.id, False),
    ]
    assert files(evidence) == {young.thumbnail, *young.evidence}


def test_pictures_are_kept_within_their_size_oldest_first(
    store: MemoryStore, evidence: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows stay, without pictures."""
    monkeypatch.setattr("vqmon.retention.BATCH", 1)
    some = [pictured(evidence, NOW - timedelta(hours=10 - n)) for n in range(10)]
    store.add(some)

    swept = retention(
        store,
        evidence,
        RetentionPolicy(evidence_max_bytes=1000),  # of 2000
    ).sweep(NOW)

    assert swept.pictures == 10
    assert len(store.segments()) == 10
    assert [s.thumbnail is not None for s in store.segments()] == [False] * 5 + [True] * 5
    assert files(evidence) == {p for s in some[5:] for p in (s.thumbnail, *s.evidence)}


def test_database_and_pictures_together_are_kept_within_their_size(
    sqlite: SegmentStore, evidence: Path
) -> None:
    """The oldest go first, and no more than necessary."""
    some = [
        pictured(evidence, NOW - timedelta(hours=2, seconds=12_000 - 2 * n), size=500)
        for n in range(6000)
    ]
    sqlite.add(some)
    before = sqlite.size_bytes() + 6000 * 1000
    most = before // 2

    swept = retention(sqlite, evidence, RetentionPolicy(max_bytes=most)).sweep(NOW)

    left = sqlite.segments()
    after = sqlite.size_bytes() + sum((evidence / p).stat().st_size for p in files(evidence))
    assert after <= most
    assert after > 0.5 * most
    assert left == some[-len(left) :]
    assert swept.pictures == 2 * (6000 - len(left))


def test_the_last_hour_stays_however_small_the_limit(sqlite: SegmentStore, evidence: Path) -> None:
    """A limit below what an hour needs must not leave a monitor without memory; sums give way."""
    old = [Segment("news", NOW - timedelta(days=n, hours=2), 0.0, 10.0) for n in range(1, 300)]
    young = [Segment("news", NOW - timedelta(minutes=n), 0.0, 10.0) for n in (10, 20, 30)]
    sqlite.add(old + young)

    retention(sqlite, evidence, RetentionPolicy(max_bytes=1)).sweep(NOW)

    assert {s.id for s in sqlite.segments()} == {s.id for s in young}
    oldest = sqlite.rollups(3600)[0].starts_at
    assert NOW - 41 * DAY < oldest < NOW - 39 * DAY


def test_without_limits_nothing_goes(store: MemoryStore, evidence: Path) -> None:
    """None is none."""
    ancient = pictured(evidence, NOW - 4000 * DAY)
    store.add([ancient])

    swept = retention(store, evidence).sweep(NOW)

    assert store.segments() == [ancient]
    assert len(files(evidence)) == 2
    assert (swept.pictures, swept.orphans, swept.rollups) == (0, 0, 0)


def test_orphans_go_after_a_day(store: MemoryStore, evidence: Path) -> None:
    """A kill between file and row leaves one; a young file may still get its row."""
    kept = pictured(evidence, NOW - 2 * DAY)
    store.add([kept])
    write(evidence / "news/2026-03-08/000000-dead-thumb.jpg", NOW - 2 * DAY)
    write(evidence / "news/2026-03-08/.000000-dead-worst.jpg.tmp", NOW - 2 * DAY)
    fresh = write(evidence / "news/2026-03-10/115959-new-thumb.jpg", NOW - timedelta(seconds=1))

    swept = retention(store, evidence).sweep(NOW)

    assert swept.orphans == 2
    assert files(evidence) == {
        kept.thumbnail,
        *kept.evidence,
        str(fresh.relative_to(evidence)),
    }


def test_orphans_are_sought_every_few_hours_only(store: MemoryStore, evidence: Path) -> None:
    """Reading a folder of a million files every few minutes would wear the disk."""
    sweeper = retention(store, evidence)
    sweeper.sweep(NOW)
    write(evidence / "news/2026-03-01/000000-dead-thumb.jpg", NOW - 9 * DAY)

    assert sweeper.sweep(NOW + timedelta(hours=5)).orphans == 0
    assert sweeper.sweep(NOW + timedelta(hours=7)).orphans == 1


def test_only_day_folders_are_touched(store: MemoryStore, evidence: Path) -> None:
    """Packet rings, someone's notes, links to elsewhere: none of retention's business."""
    outside = write(evidence.parent / "elsewhere/2026-03-01/precious.jpg", NOW - 9 * DAY)
    ring = write(evidence / "news/packets/000.mkv", NOW - 9 * DAY)
    note = write(evidence / "README", NOW - 9 * DAY)
    (evidence / "linked").symlink_to(outside.parent.parent)
    (evidence / "news/2026-03-01").symlink_to(outside.parent)

    retention(store, evidence).sweep(NOW)

    assert outside.exists()
    assert ring.exists()
    assert note.exists()


def test_empty_folders_go_once_they_are_cold(store: MemoryStore, evidence: Path) -> None:
    """A warm one may be about to receive a picture."""
    cold, warm, full = (evidence / f"news/2026-03-0{n}" for n in (1, 2, 3))
    gone = evidence / "removed stream"
    for folder in (cold, warm, full, gone / "2026-03-01"):
        folder.mkdir(parents=True)
    kept = pictured(evidence, NOW - 7 * DAY)
    store.add([kept])
    for folder in (cold, full, gone / "2026-03-01", gone):
        age(folder, NOW - 2 * DAY)
    age(warm, NOW)

    sweeper = retention(store, evidence)
    sweeper.sweep(NOW)

    assert not cold.exists()
    assert warm.exists()
    assert full.exists()
    assert not (gone / "2026-03-01").exists()
    age(gone, NOW - 2 * DAY)
    sweeper.sweep(NOW + DAY)
    assert not gone.exists()


def test_a_path_outside_the_folder_is_never_deleted(
    store: MemoryStore, evidence: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A row may come from a plugin or a tampered database."""
    precious = write(evidence.parent / "precious.jpg", NOW)
    evidence.mkdir()
    at = NOW - 8 * DAY
    store.add(
        [
            Segment("a", at, 0.0, 10.0, thumbnail="../precious.jpg"),
            Segment("b", at, 0.0, 10.0, thumbnail=str(precious)),
        ]
    )

    retention(store, evidence, RetentionPolicy()).sweep(NOW)

    assert precious.exists()
    assert store.segments() == []
    assert "evidence_not_removed" in caplog.messages


def test_a_picture_that_is_already_gone_is_no_fault(
    store: MemoryStore, evidence: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Someone cleaned up by hand."""
    old = pictured(evidence, NOW - 8 * DAY)
    store.add([old])
    assert old.thumbnail is not None
    (evidence / old.thumbnail).unlink()

    swept = retention(store, evidence, RetentionPolicy()).sweep(NOW)

    assert swept.pictures == 1
    assert store.segments() == []
    assert caplog.messages == []


def test_a_missing_evidence_folder_is_no_fault(store: MemoryStore, evidence: Path) -> None:
    """Nothing was kept yet, or evidence is switched off."""
    disk = Disk()

    swept = retention(store, evidence, RetentionPolicy(max_bytes=10**9), disk).sweep(NOW)

    assert swept.complete
    assert disk.asked == [evidence.parent]


def test_a_filling_disk_stops_pictures_first_and_rows_last(
    store: MemoryStore, evidence: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """5 % and 2 % by default; each comes back only clearly above, and says so once."""
    caplog.set_level("INFO", "vqmon.retention")
    disk = Disk()
    sweeper = Retention(store, evidence, KEEP_ALL, database_folder=evidence.parent, disk_usage=disk)

    def after(free: float) -> tuple[bool, bool]:
        disk.free = free
        swept = sweeper.sweep(NOW)
        assert swept.free_percent == free
        assert (swept.finding is None) == (sweeper.evidence_allowed())
        return sweeper.evidence_allowed(), sweeper.rows_allowed()

    assert after(5.0) == (True, True)
    assert after(4.9) == (False, True)
    assert after(6.9) == (False, True)
    assert after(7.0) == (True, True)
    assert after(1.9) == (False, False)
    assert after(3.9) == (False, False)
    assert after(4.1) == (False, True)
    assert after(8.0) == (True, True)
    assert caplog.messages == [
        "evidence_stopped",
        "evidence_resumed",
        "rows_stopped",
        "evidence_stopped",
        "rows_resumed",
        "evidence_resumed",
    ]


def test_the_finding_says_how_full_the_disk_is(store: MemoryStore, evidence: Path) -> None:
    """With the limit that it broke, and worse once rows are lost."""
    disk = Disk(3.25)
    sweeper = Retention(store, evidence, KEEP_ALL, database_folder=evidence.parent, disk_usage=disk)

    first = sweeper.sweep(NOW).finding
    disk.free = 0.5
    second = sweeper.sweep(NOW).finding

    assert first is not None
    assert (first.name, first.severity, first.value, first.limit, first.unit) == (
        "storage_low",
        3,
        3.25,
        5.0,
        "%",
    )
    assert second is not None
    assert (second.severity, second.value, second.limit) == (5, 0.5, 2.0)


def test_the_limit_is_the_operators(store: MemoryStore, evidence: Path) -> None:
    """5 % of 20 TB is a terabyte; 0 switches the guard off."""
    disk = Disk(0.9)

    strict = retention(store, evidence, RetentionPolicy(min_free_percent=1.0), disk)
    never = retention(store, evidence, RetentionPolicy(min_free_percent=0.0), disk)
    for sweeper in (strict, never):
        sweeper.sweep(NOW)

    assert not strict.evidence_allowed()
    assert never.evidence_allowed()


def test_rows_on_a_server_go_on_when_the_local_disk_is_full(
    store: MemoryStore, evidence: Path
) -> None:
    """A full evidence disk says nothing about PostgreSQL's."""
    sweeper = Retention(store, evidence, KEEP_ALL, database_folder=None, disk_usage=Disk(0.1))

    sweeper.sweep(NOW)

    assert not sweeper.evidence_allowed()
    assert sweeper.rows_allowed()


def test_an_unknown_disk_changes_nothing(store: MemoryStore, evidence: Path) -> None:
    """A network share that hangs up must neither stop nor start anything."""
    disk = Disk(1.0)
    sweeper = retention(store, evidence, KEEP_ALL, disk)
    sweeper.sweep(NOW)

    def fail(_: Path) -> tuple[int, int, int]:
        raise OSError(5, "Input/output error")

    sweeper._disk_usage = fail

    assert sweeper.sweep(NOW).finding is not None
    assert not sweeper.evidence_allowed()


def test_the_disk_is_looked_at_even_when_the_database_fails(evidence: Path) -> None:
    """A full disk is the likeliest reason for that."""

    class Broken(MemoryStore):
        def segments(self, *_: object, **__: object) -> list[Segment]:
            raise StoreError("disk is full")

    sweeper = retention(Broken(), evidence, RetentionPolicy(), Disk(1.0))

    with pytest.raises(StoreError):
        sweeper.sweep(NOW)

    assert not sweeper.evidence_allowed()
