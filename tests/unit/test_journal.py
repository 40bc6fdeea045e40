"""Segments on their way to the database: none is lost, none is stored out of order."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from vqmon.daemon import journal as module
from vqmon.daemon.journal import Journal, Writer
from vqmon.domain import Acting, Finding, Segment
from vqmon.errors import StoreError
from vqmon.testing import MemoryStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def segment(number: int, stream: str = "news") -> Segment:
    started_at = NOON + timedelta(seconds=10 * number, microseconds=7)
    return Segment(stream, started_at, 10.0 * number, 10.0, quality=50.0, id=f"id{number}")


def rich() -> Segment:
    """Everything that a segment may carry, as awkward as it gets."""
    return Segment(
        stream="Bühne 1",
        started_at=NOON + timedelta(microseconds=1),
        start=1 / 3,
        seconds=10.0,
        frames_scored=2,
        quality=66.6666666666667,
        quality_worst=1e-17,
        uncertainty=4.2,
        findings=(Finding("blur", 3, 0.9, 1.5, 1.0, "px", ("top", "left"), 0.5, 2.0, 11.5),
                  Finding("freeze", 5, 1.0, None, None)),
        explanation='seen:\n"a blur"',
        facts=MappingProxyType({"bitrate_kbps": 4000, "why": None, "gop": [1, 2]}),
        outputs=({"quality": (0.1, 0.2)}, {"quality": ()}),
        model="measures@1",
        thumbnail="a/b.jpg",
        evidence=("a/c.jpg", "a/d.jpg"),
    )  # fmt: skip


class Database(MemoryStore):
    """A store that can be away, that refuses some segments, and that notes the order."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.refuses: Callable[[Segment], Exception | None] = lambda _: None
        self.order: list[str] = []
        self.batches: list[int] = []

    def add(self, some: Iterable[Segment], acting: Acting | None = None) -> None:
        batch = list(some)
        if self.away:
            raise StoreError("database is away: wait")
        for it in batch:
            if error := self.refuses(it):
                raise error
        super().add(batch, acting)
        self.batches.append(len(batch))
        self.order += [it.id for it in batch if it.id not in self.order]


@contextmanager
def writing(journal: Journal, database: Database, **how: object) -> Iterator[Writer]:
    writer = Writer(database, journal, **how)  # type: ignore[arg-type]
    writer.start()
    yield writer
    writer.stop(5)


def until(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RETRY_SECONDS", (0.01, 0.02))


def test_a_segment_comes_back_exactly_as_it_was(tmp_path: Path) -> None:
    """What a report says tomorrow must not depend on whether the database was up today."""
    journal = Journal(tmp_path / "j")
    journal.append(rich())

    [back], _ = journal.oldest()

    assert back == replace(rich(), facts=dict(rich().facts), id=back.id)


def test_numbers_of_numpy_are_written_as_numbers(tmp_path: Path) -> None:
    """A measure that slipped through as a NumPy scalar must not cost the segment."""
    journal = Journal(tmp_path / "j")
    journal.append(replace(segment(1), facts={"n": np.int64(3), "f": np.float32(50.5), "odd": {1}}))

    [back], _ = journal.oldest()

    assert back.facts == {"n": 3, "f": 50.5, "odd": "{1}"}


def test_segments_are_stored_soon_in_order_and_the_file_is_empty_again(tmp_path: Path) -> None:
    """The journal is a passage, not a second database."""
    journal, database = Journal(tmp_path / "j"), Database()
    with writing(journal, database):
        begun = time.monotonic()
        for number in range(50):
            journal.append(segment(number))

        assert until(lambda: len(database.order) == 50)
        assert time.monotonic() - begun < 1.0
        assert until(lambda: (tmp_path / "j").stat().st_size == 0)
    assert database.order == [f"id{n}" for n in range(50)]


def test_nothing_is_lost_while_the_database_is_away_and_order_is_kept(tmp_path: Path) -> None:
    """A server's restart, a full disk or a lock of another program."""
    journal, database = Journal(tmp_path / "j"), Database()
    with writing(journal, database) as writer:
        journal.append(segment(0))
        assert until(lambda: database.order)
        database.away = True
        for number in range(1, 450):
            journal.append(segment(number))
        assert until(lambda: writer.away)

        database.away = False

        assert until(lambda: len(database.order) == 450)
        assert not writer.away
    assert database.order == [f"id{n}" for n in range(450)]


def test_a_long_absence_is_said_once_and_its_end_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line in the log for a night without a database."""
    caplog.set_level("INFO")
    journal, database = Journal(tmp_path / "j"), Database()
    database.away = True
    with writing(journal, database):
        journal.append(segment(0))
        time.sleep(0.3)
        database.away = False
        assert until(lambda: database.order)

    assert [it.message for it in caplog.records] == ["database_away", "database_back"]
    assert caplog.records[0].exc_info is None


def test_a_killed_process_leaves_every_appended_segment_behind(tmp_path: Path) -> None:
    """kill -9 takes no more than the segment in progress."""
    code = (
        "import sys, time; from pathlib import Path\n"
        "from vqmon.daemon.journal import Journal; from vqmon.domain import Segment\n"
        "from datetime import datetime, UTC\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(1000):\n"
        "    journal.append(Segment('news', datetime.now(UTC), n, 10.0, id=f'id{n}'))\n"
        "print('done', flush=True); time.sleep(60)\n"
    )
    victim = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "j")], stdout=subprocess.PIPE
    )
    assert victim.stdout
    assert victim.stdout.readline() == b"done\n"
    victim.send_signal(signal.SIGKILL)
    victim.wait()

    database = Database()
    with writing(Journal(tmp_path / "j"), database):
        assert until(lambda: len(database.order) == 1000)

    assert database.order == [f"id{n}" for n in range(1000)]


def test_a_line_torn_by_a_crash_of_the_machine_costs_only_itself(tmp_path: Path) -> None:
    """What was appended before it, and what comes after, is whole."""
    first = Journal(tmp_path / "j")
    first.append(segment(0))
    first.close()
    with open(tmp_path / "j", "ab") as file:
        file.write(b'{"stream":"news","started_at":"2026-0')

    second = Journal(tmp_path / "j")
    second.append(segment(1))

    assert [it.id for it in second.oldest()[0]] == ["id0", "id1"]


def test_a_damaged_line_is_told_and_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad sector must not stop all rows behind it."""
    (tmp_path / "j").write_bytes(b'{"nonsense": 1}\n\xff\xfe\n')
    journal, database = Journal(tmp_path / "j"), Database()
    journal.append(segment(0))

    with writing(journal, database):
        assert until(lambda: database.order == ["id0"])

    assert [it.message for it in caplog.records] == ["journal_line_damaged"] * 2


@pytest.mark.parametrize(
    "error", [ValueError("a quality of 101"), StoreError("invalid byte sequence")], ids=repr
)
def test_a_segment_that_no_database_takes_is_set_aside_and_the_others_go_on(
    tmp_path: Path, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """One poisoned row must neither block the queue for ever nor vanish."""
    journal, database = Journal(tmp_path / "j.jsonl"), Database()
    database.refuses = lambda it: error if it.id == "id3" else None
    for number in range(6):
        journal.append(segment(number))

    with writing(journal, database):
        assert until(lambda: len(database.order) == 5)
        assert until(lambda: not journal.waiting)

    assert database.order == ["id0", "id1", "id2", "id4", "id5"]
    assert b'"id":"id3"' in (tmp_path / "j.refused").read_bytes()
    assert "segment_refused" in [it.message for it in caplog.records]


def test_without_room_for_the_file_memory_stands_in_and_order_is_kept(tmp_path: Path) -> None:
    """A full disk on top of an absent database still loses nothing, for a while."""
    journal, database = Journal(tmp_path / "j", largest=2000), Database()
    for number in range(100):
        journal.append(segment(number))
    assert (tmp_path / "j").stat().st_size <= 2000

    with writing(journal, database):
        assert until(lambda: len(database.order) == 100)
        journal.append(segment(100))
        assert until(lambda: len(database.order) == 101)

    assert database.order == [f"id{n}" for n in range(101)]


def test_memory_is_bounded_and_gives_up_the_oldest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A daemon that is killed for its memory would lose more."""
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 10)
    journal = Journal(tmp_path / "j", largest=0)

    for number in range(25):
        journal.append(segment(number))

    assert [it.id for it in journal.oldest()[0]] == [f"id{n}" for n in range(15, 25)]
    assert [it.message for it in caplog.records] == ["journal_full", "segments_lost"]


def test_while_the_disk_is_nearly_full_nothing_is_written_and_later_everything(
    tmp_path: Path,
) -> None:
    """Rows stop last; what is measured meanwhile waits in memory."""
    journal, database = Journal(tmp_path / "j"), Database()
    with writing(journal, database) as writer:
        journal.frozen = writer.paused = True
        for number in range(5):
            journal.append(segment(number))
        time.sleep(0.2)
        assert (tmp_path / "j").stat().st_size == 0
        assert database.order == []

        journal.frozen = writer.paused = False
        assert until(lambda: len(database.order) == 5)


def test_a_daemon_that_was_superseded_writes_nothing_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two writers would both tell the story of one stream."""
    monkeypatch.setattr(module, "ASK_SECONDS", 0.0)
    told = threading.Event()
    journal, database = Journal(tmp_path / "j"), Database()
    with writing(journal, database, still_active=lambda: False, superseded=told.set) as writer:
        journal.append(segment(0))

        assert told.wait(5)
        assert until(lambda: not writer.is_alive())
    assert database.order == []
    assert journal.waiting


def test_stopping_stores_what_waits(tmp_path: Path) -> None:
    """The last segments of an orderly stop are in the database, not in a file."""
    journal, database = Journal(tmp_path / "j"), Database()
    writer = Writer(database, journal)
    for number in range(500):
        journal.append(segment(number))
    writer.start()

    assert writer.stop(5)
    assert len(database.order) == 500


def test_stopping_does_not_wait_for_a_database_that_is_away(tmp_path: Path) -> None:
    """The next start goes on with what is left."""
    journal, database = Journal(tmp_path / "j"), Database()
    database.away = True
    journal.append(segment(0))
    with writing(journal, database) as writer:
        assert until(lambda: writer.away)
        begun = time.monotonic()

        assert not writer.stop(5)

        assert time.monotonic() - begun < 1.0
    assert [it.id for it in Journal(tmp_path / "j").oldest()[0]] == ["id0"]


def test_an_unwritable_folder_is_an_os_error_at_the_start(tmp_path: Path) -> None:
    """Found out when somebody is looking, not at the first outage."""
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError):
        Journal(tmp_path / "file" / "j")


def test_appending_is_cheap(tmp_path: Path) -> None:
    """It happens in the supervisor's loop: 100 streams make ten segments a second."""
    journal = Journal(tmp_path / "j")
    begun = time.process_time()

    for _ in range(1000):
        journal.append(rich())

    assert time.process_time() - begun < 1.0
    assert len(journal.oldest(1000)[0]) == 1000
