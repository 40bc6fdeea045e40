"""The tables, as the newest migration leaves them (a test compares both).

`segments` holds a whole segment per row; `findings` and `pictures` only make it findable by
fault and by file. `rollups` and `rollup_faults` outlive the segments that they sum up. Names are
compared byte by byte, so that PostgreSQL sorts them as SQLite and Python do, whatever its locale.
"""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from vqmon.summing import BINS

SCHEMA = "0003"
"""The newest migration: what this vqmon reads and writes (a test compares it with the files)."""

VERSION_TABLE = "vqmon_schema"
"""Where alembic notes the version; not its own default name, which other programs use too."""


class UtcTime(sa.types.TypeDecorator[datetime]):
    """A moment: aware UTC in Python, `timestamptz` in PostgreSQL, UTC text in SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(
        self,
        value: datetime | None,
        dialect: sa.Dialect,  # noqa: ARG002 SQLAlchemy's signature
    ) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = sa.MetaData()

NAME = sa.String().with_variant(sa.String(collation="C"), "postgresql")

segments = sa.Table(
    "segments",
    metadata,
    sa.Column("id", NAME, primary_key=True),
    sa.Column("stream", NAME, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("start", sa.Double, nullable=False),
    sa.Column("quality", sa.Double),
    sa.Column("quality_worst", sa.Double),
    sa.Column("uncertainty", sa.Double),
    sa.Column("frames_scored", sa.Integer, nullable=False),
    sa.Column("no_score_reason", sa.String),
    sa.Column("model", sa.String),
    sa.Column("bytes", sa.Integer, nullable=False),
    sa.Column("thumbnail", sa.String),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("findings", sa.JSON, nullable=False),
    sa.Column("explanation", sa.Text, nullable=False),
    sa.Column("facts", sa.JSON, nullable=False),
    sa.Column("outputs", sa.LargeBinary),
    sa.Index("segments_by_stream", "stream", "started_at"),
    sa.Index("segments_by_time", "started_at", "bytes"),
)
"""bytes: about what the row takes, side rows and index entries included (see `size_bytes`)."""

findings = sa.Table(
    "findings",
    metadata,
    sa.Column(
        "segment_id",
        NAME,
        sa.ForeignKey("segments.id", ondelete="CASCADE", name="findings_of_segment"),
        primary_key=True,
    ),
    sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("stream", NAME, nullable=False),
    sa.Column("name", NAME, nullable=False),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.Column("severity", sa.Integer, nullable=False),
    sa.Index("findings_by_name", "stream", "name", "started_at"),
    sqlite_with_rowid=False,
)

pictures = sa.Table(
    "pictures",
    metadata,
    sa.Column(
        "segment_id",
        NAME,
        sa.ForeignKey("segments.id", ondelete="CASCADE", name="pictures_of_segment"),
        primary_key=True,
    ),
    sa.Column("path", NAME, primary_key=True),
    sa.Column("started_at", UtcTime, nullable=False),
    sa.Index("pictures_by_path", "path"),
    sa.Index("pictures_by_time", "started_at"),
    sqlite_with_rowid=False,
)

HISTOGRAM = tuple(f"bin_{index}" for index in range(BINS))
"""Scored seconds with quality 0-10, 10-20, ..., 90-100: columns, because SQL can add columns."""

rollups = sa.Table(
    "rollups",
    metadata,
    sa.Column("stream", NAME, primary_key=True),
    sa.Column("period", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("starts_at", UtcTime, primary_key=True),
    sa.Column("watched_seconds", sa.Double, nullable=False),
    sa.Column("up_seconds", sa.Double, nullable=False),
    sa.Column("scored_seconds", sa.Double, nullable=False),
    sa.Column("quality_sum", sa.Double, nullable=False),
    sa.Column("quality_worst", sa.Double),
    sa.Column("segments", sa.Integer, nullable=False),
    *(sa.Column(name, sa.Double, nullable=False) for name in HISTOGRAM),
    sa.Index("rollups_by_time", "period", "starts_at"),
    sqlite_with_rowid=False,
)

rollup_faults = sa.Table(
    "rollup_faults",
    metadata,
    sa.Column("stream", NAME, primary_key=True),
    sa.Column("period", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("starts_at", UtcTime, primary_key=True),
    sa.Column("name", NAME, primary_key=True),
    sa.Column("seconds", sa.Double, nullable=False),
    sa.ForeignKeyConstraint(
        ["stream", "period", "starts_at"],
        ["rollups.stream", "rollups.period", "rollups.starts_at"],
        ondelete="CASCADE",
        name="faults_of_rollup",
    ),
    sqlite_with_rowid=False,
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", NAME, nullable=False),
    sa.Column("target", NAME, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("topic", NAME, nullable=False),
    sa.Column("stream", NAME),
    sa.Column("body", sa.JSON, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime),
    sa.Column("state", NAME, nullable=False),
    sa.Column("due_at", UtcTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("error", sa.Text),
    sa.Column("tried_at", UtcTime),
    sa.Column("delivered_at", UtcTime),
    sa.Column("claimed_by", NAME),
    sa.Column("claimed_until", UtcTime),
    sa.Index("outbox_by_id", "id", "target", unique=True),
    sa.Index("outbox_by_due", "state", "target", "due_at"),
    sa.Index("outbox_by_topic", "target", "topic"),
    sa.Index("outbox_by_time", "created_at"),
)
"""number: the order in which deliveries were made. claimed_until: nobody else may send it before."""

outbox_disabled = sa.Table(
    "outbox_disabled",
    metadata,
    sa.Column("target", NAME, primary_key=True),
    sa.Column("fingerprint", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sqlite_with_rowid=False,
)
"""Targets whose receiver said that it is gone for good, as they were configured then."""

decisions = sa.Table(
    "decisions",
    metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("id", NAME, nullable=False),
    sa.Column("plugin", NAME, nullable=False),
    sa.Column("stream", NAME, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("segment", NAME),
    sa.Column("alert", NAME),
    sa.Index("decisions_by_id", "id", unique=True),
    sa.Index("decisions_by_plugin", "plugin", "stream", "at"),
    sa.Index("decisions_by_time", "at"),
)
"""number: the order in which decisions were recorded."""

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", NAME, primary_key=True),
    sa.Column("stream", NAME, nullable=False),
    sa.Column("rule", NAME, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Column("opened_at", UtcTime, nullable=False),
    sa.Column("closed_at", UtcTime),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("cleared", sa.Text, nullable=False),
    sa.Column("finding", sa.String),
    sa.Column("value", sa.Double),
    sa.Column("limit", sa.Double),
    sa.Column("unit", sa.String, nullable=False),
    sa.Column("segment", NAME),
    sa.Column("incident", NAME, nullable=False),
    sa.Column("labels", sa.JSON, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.Column("acknowledged_by", sa.String),
    sa.Column("acknowledged_at", UtcTime),
    sa.Column("note", sa.Text, nullable=False),
    sa.Index("alerts_by_time", "opened_at"),
    sa.Index("alerts_by_stream", "stream", "opened_at"),
    sa.Index("alerts_by_end", "closed_at"),
)

silences = sa.Table(
    "silences",
    metadata,
    sa.Column("id", NAME, primary_key=True),
    sa.Column("author", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("stream", sa.String, nullable=False),
    sa.Column("rule", sa.String, nullable=False),
    sa.Column("severity", sa.String, nullable=False),
    sa.Index("silences_by_end", "expires_at"),
)

alert_states = sa.Table(
    "alert_states",
    metadata,
    sa.Column("instance", NAME, primary_key=True),
    sa.Column("stream", NAME, primary_key=True),
    sa.Column("state", sa.JSON, nullable=False),
    sqlite_with_rowid=False,
)
"""What the rules of one daemon remember of a stream (see `vqmon.alerting.states`)."""

questions = sa.Table(
    "questions",
    metadata,
    sa.Column(
        "segment_id",
        NAME,
        sa.ForeignKey("segments.id", ondelete="CASCADE", name="question_about_segment"),
        primary_key=True,
    ),
    sa.Column("stream", NAME, nullable=False),
    sa.Column("instance", NAME, nullable=False),
    sa.Column("cause", NAME, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("alert", NAME),
    sa.Column("asked_at", UtcTime, nullable=False),
    sa.Column("expires_at", UtcTime, nullable=False),
    sa.Column("state", NAME, nullable=False),
    sa.Column("due_at", UtcTime, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("tried_at", UtcTime),
    sa.Column("claimed_by", NAME),
    sa.Column("claimed_until", UtcTime),
    sa.Column("answered_at", UtcTime),
    sa.Column("model", sa.String),
    sa.Column("quality", sa.Double),
    sa.Column("uncertainty", sa.Double),
    sa.Column("findings", sa.JSON),
    sa.Column("explanation", sa.Text),
    sa.Column("pictures", sa.JSON),
    sa.Column("seconds", sa.Double),
    sa.Column("details", sa.JSON),
    sa.Column("differs", sa.Boolean),
    sa.Column("quality_difference", sa.Double),
    sa.Column("difference", sa.JSON),
    sa.Index("questions_by_due", "instance", "state", "rank", "asked_at"),
    sa.Index("questions_by_time", "asked_at"),
)
"""rank: of the cause, 0 is the most urgent. From `answered_at` on: what the writer said.
claimed_until: nobody else may ask before. difference: the rest of a `Disagreement`."""

askings = sa.Table(
    "askings",
    metadata,
    sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
    sa.Column("instance", NAME, nullable=False),
    sa.Column("at", UtcTime, nullable=False),
    sa.Column("cause", NAME, nullable=False),
    sa.Column("segment", NAME, nullable=False),
    sa.Index("askings_by_time", "instance", "at"),
)
"""One row for each time that a writer was asked: what the budget is counted by."""
