"""Tables and how they came to be: every way from an older database to this one's schema."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from vqmon.domain import Finding, Segment
from vqmon.errors import StoreError
from vqmon.store import SCHEMA, migrations, open_store, schema_version, upgrade
from vqmon.store.engine import Database
from vqmon.store.tables import VERSION_TABLE, metadata

NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def differences(url: str, wanted: sa.MetaData) -> list[Any]:
    with closing(Database(url)) as database, database.engine.connect() as connection:
        options = {"compare_type": True, "version_table": VERSION_TABLE}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, wanted))


def test_migrations_and_tables_agree(url: str) -> None:
    """Whoever changes `tables.py` must write the step that brings old databases there."""
    upgrade(url)

    assert differences(url, metadata) == []


def test_a_column_without_its_migration_is_noticed(url: str) -> None:
    """The test above can fail."""
    changed = sa.MetaData()
    for table in metadata.tables.values():
        table.to_metadata(changed)
    changed.tables["segments"].append_column(sa.Column("mood", sa.String))
    upgrade(url)

    [difference] = differences(url, changed)

    assert difference[0] == "add_column"


def test_the_schema_of_the_code_is_the_newest_step() -> None:
    """`SCHEMA` is written down so that opening a database need not load alembic."""
    assert migrations.known()[0] == SCHEMA


def test_opening_an_up_to_date_database_does_not_load_alembic(sqlite_url: str) -> None:
    """It takes 0.2 s, which every `vqmon report` would pay."""
    open_store(sqlite_url).close()
    code = (
        "import sys; from vqmon.store import open_store; open_store(sys.argv[1]).close(); "
        "print('alembic' in sys.modules)"
    )

    out = subprocess.run(
        [sys.executable, "-c", code, sqlite_url], capture_output=True, text=True, check=True
    )

    assert out.stdout.strip() == "False"


def test_upgrading_twice_changes_nothing(url: str) -> None:
    """`vqmon db upgrade` is part of every deployment script."""
    before = schema_version(url) if url.startswith("postgresql") else None

    assert before is None
    assert upgrade(url) == SCHEMA
    assert upgrade(url) == SCHEMA
    assert schema_version(url) == SCHEMA


def test_asking_for_the_version_creates_nothing(sqlite_url: str) -> None:
    """`vqmon doctor` only looks."""
    with pytest.raises(StoreError, match="does not exist yet"):
        schema_version(sqlite_url)

    assert not Path(sqlite_url.removeprefix("sqlite:///")).exists()


def test_without_migrating_old_tables_are_refused_with_the_remedy(url: str) -> None:
    """Reading commands never change a database."""
    if url.startswith("sqlite"):
        file = Path(url.removeprefix("sqlite:///"))
        file.parent.mkdir()
        file.touch()

    with pytest.raises(StoreError, match=r"no vqmon tables.*run `vqmon db upgrade`"):
        open_store(url, migrate=False)
    upgrade(url)
    with open_store(url, migrate=False) as store:
        assert store.segments() == []


@pytest.mark.parametrize("migrate", [True, False])
def test_a_database_of_a_newer_vqmon_is_refused(url: str, *, migrate: bool) -> None:
    """Writing rows without columns that the newer one relies on would lose data silently."""
    upgrade(url)
    with closing(Database(url)) as database:
        database.write(
            lambda c: c.exec_driver_sql(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
        )

    with pytest.raises(StoreError, match=r"newer vqmon.*9999.*upgrade vqmon"):
        open_store(url, migrate=migrate)
    with pytest.raises(StoreError, match="newer vqmon"):
        upgrade(url)


def test_tables_of_another_program_are_left_alone(url: str) -> None:
    """A database that is already someone else's is named as such, and nothing is changed in it."""
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).parent.mkdir()
    with closing(Database(url)) as database:
        database.write(lambda c: c.exec_driver_sql("CREATE TABLE segments (theirs INTEGER)"))

        with pytest.raises(StoreError, match="database of its own"):
            open_store(url)

        names = database.read(lambda c: sa.inspect(c).get_table_names())
    assert names == ["segments"]


def test_a_step_that_fails_leaves_nothing_behind(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An upgrade runs whole or not at all, so the old vqmon can still be started."""
    from alembic.operations import Operations

    def fail(*_: object, **__: object) -> None:
        raise sa.exc.OperationalError("CREATE INDEX", {}, Exception("power failure"))

    monkeypatch.setattr(Operations, "create_index", fail)
    with pytest.raises(StoreError, match="power failure"):
        open_store(url)
    monkeypatch.undo()

    assert schema_version(url) is None
    with closing(Database(url)) as database:
        assert database.read(lambda c: sa.inspect(c).get_table_names()) == []
    assert upgrade(url) == SCHEMA


def test_starters_do_not_collide(url: str) -> None:
    """A daemon, its standby and a report may all start at once on an empty database."""
    code = "import sys; from vqmon.store import open_store; open_store(sys.argv[1]).close()"
    command = [sys.executable, "-c", code, url]

    starters = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]

    assert [(s.communicate(timeout=60)[1], s.returncode) for s in starters] == [("", 0)] * 3
    assert schema_version(url) == SCHEMA


SAMPLES: dict[str, tuple[str, ...]] = {
    "0001": (
        """INSERT INTO segments (id, stream, started_at, seconds, start, quality, quality_worst,
             uncertainty, frames_scored, no_score_reason, model, bytes, thumbnail, evidence,
             findings, explanation, facts, outputs)
           VALUES ('5f0c', 'news', '2026-03-01 12:00:00.500000', 10.0, 20.0, 61.5, 12.25,
             NULL, 2, NULL, 'signals@1.0', 1000, 'news/2026-03-01/120000-5f0c-thumb.jpg',
             '["news/2026-03-01/120000-5f0c-worst.jpg"]',
             '[{"name": "freeze", "severity": 3, "confidence": 1.0, "value": 2.5, "limit": 1.0,
                "unit": "s", "region": ["top-left"], "start": 21.0, "seconds": 2.5}]',
             '1. Ein Standbild', '{"bitrate_kbps": 4800}', :outputs)""",
        """INSERT INTO findings (segment_id, ordinal, stream, name, started_at, seconds, severity)
           VALUES ('5f0c', 0, 'news', 'freeze', '2026-03-01 12:00:01.500000', 2.5, 3)""",
        """INSERT INTO pictures (segment_id, path, started_at)
           VALUES ('5f0c', 'news/2026-03-01/120000-5f0c-thumb.jpg',
             '2026-03-01 12:00:00.500000'),
                  ('5f0c', 'news/2026-03-01/120000-5f0c-worst.jpg',
             '2026-03-01 12:00:00.500000')""",
        """INSERT INTO rollups (stream, period, starts_at, watched_seconds, up_seconds,
             scored_seconds, quality_sum, quality_worst, segments, bin_0, bin_1, bin_2, bin_3,
             bin_4, bin_5, bin_6, bin_7, bin_8, bin_9)
           VALUES ('news', 60, '2026-03-01 12:00:00.000000', 10.0, 10.0, 10.0, 615.0, 12.25, 1,
             0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 10.0, 0.0, 0.0, 0.0)""",
        """INSERT INTO rollup_faults (stream, period, starts_at, name, seconds)
           VALUES ('news', 60, '2026-03-01 12:00:00.000000', 'freeze', 2.5)""",
    ),
}
SAMPLES["0002"] = (
    *SAMPLES["0001"],
    """INSERT INTO decisions (id, plugin, stream, kind, reason, at, data, segment, alert)
       VALUES ('d1', 'encoder', 'news', 'raise', 'compression is obvious',
         '2026-03-01 12:00:10.000000', '{"kbps": 4000}', '5f0c', NULL)""",
)
SAMPLES["0003"] = (
    *SAMPLES["0002"],
    """INSERT INTO questions (segment_id, stream, instance, cause, rank, alert, asked_at,
         expires_at, state, due_at, attempts, answered_at, model, quality, uncertainty, findings,
         explanation, pictures, seconds, details, differs, quality_difference, difference)
       VALUES ('5f0c', 'news', 'vqmon', 'alert', 1, 'a1', '2026-03-01 12:00:10.000000',
         '2026-03-01 18:00:10.000000', 'answered', '2026-03-01 12:00:10.000000', 1,
         '2026-03-01 12:00:20.000000', 'big@7', 48.5, NULL, '[]', 'It stands still.', '[]', 9.5,
         '{}', true, -13.0, '{"only_scorer": [], "only_writer": [], "sentence": "Worse."}')""",
)
"""Rows just as each step's vqmon wrote them. A new step adds its own; old ones never change."""

OUTPUTS = bytes.fromhex(
    "789c63d4656060a8562aa92c4855b25250b2493351d251504a2b4acc4d2d060a4447472b159626e664965402"
    "c58d6263636b1918ca9c18182a9c00b2910f6e"
)
"""What `packing.pack` of 0001 made of [{"quality": (61.5, 62.0)}]."""

SAMPLE = Segment(
    id="5f0c",
    stream="news",
    started_at=NOON + timedelta(seconds=0.5),
    start=20.0,
    seconds=10.0,
    frames_scored=2,
    quality=61.5,
    quality_worst=12.25,
    findings=(Finding("freeze", 3, 1.0, 2.5, 1.0, "s", ("top-left",), 21.0, 2.5),),
    explanation="1. Ein Standbild",
    facts={"bitrate_kbps": 4800},
    outputs=({"quality": (61.5, 62.0)},),
    model="signals@1.0",
    thumbnail="news/2026-03-01/120000-5f0c-thumb.jpg",
    evidence=("news/2026-03-01/120000-5f0c-worst.jpg",),
)


def write_sample(url: str, step: str) -> None:
    def work(connection: sa.Connection) -> None:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET LOCAL timezone = 'UTC'")
        for statement in SAMPLES[step]:
            query = sa.text(statement)
            values = {"outputs": OUTPUTS} if ":outputs" in statement else {}
            connection.execute(query, values)

    with closing(Database(url)) as database:
        database.write(work)


@pytest.mark.parametrize("step", migrations.known())
def test_rows_of_every_older_vqmon_survive_the_way_to_this_one(url: str, step: str) -> None:
    """An operator upgrades from anywhere and finds last week's segments and last year's sums."""
    upgrade(url, to=step)
    write_sample(url, step)

    with open_store(url) as store:
        assert schema_version(url) == SCHEMA
        assert store.segments(finding="freeze") == [SAMPLE]
        [minute] = store.rollups(60)
        assert minute.quality == 61.5
        assert minute.histogram[6] == 10
        assert minute.fault_seconds == {"freeze": 2.5}
        assert [it.data for it in store.decisions()] == ([{"kbps": 4000}] if step > "0001" else [])
        answers = [it.opinion.explanation for it in store.questions(differing=True) if it.opinion]
        assert answers == (["It stands still."] if step > "0002" else [])

        store.add([SAMPLE, replace(SAMPLE, id="new")])
        assert store.rollups(60)[0].segments == 2
        assert store.prune(NOON + timedelta(days=1)) == [SAMPLE.thumbnail, *SAMPLE.evidence]
