"""Segments with their findings and pictures, and roll-ups with their fault seconds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

NAME = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Nothing was there before."""
    op.create_table(
        "segments",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
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
    )
    op.create_index("segments_by_stream", "segments", ["stream", "started_at"])
    op.create_index("segments_by_time", "segments", ["started_at", "bytes"])
    _side_tables()
    _rollups()


def _side_tables() -> None:
    op.create_table(
        "findings",
        _of_segment("findings_of_segment"),
        sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("name", NAME, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("severity", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("findings_by_name", "findings", ["stream", "name", "started_at"])
    op.create_table(
        "pictures",
        _of_segment("pictures_of_segment"),
        sa.Column("path", NAME, primary_key=True),
        sa.Column("started_at", TIME, nullable=False),
        sqlite_with_rowid=False,
    )
    op.create_index("pictures_by_path", "pictures", ["path"])
    op.create_index("pictures_by_time", "pictures", ["started_at"])


def _rollups() -> None:
    op.create_table(
        "rollups",
        *_period(),
        sa.Column("watched_seconds", sa.Double, nullable=False),
        sa.Column("up_seconds", sa.Double, nullable=False),
        sa.Column("scored_seconds", sa.Double, nullable=False),
        sa.Column("quality_sum", sa.Double, nullable=False),
        sa.Column("quality_worst", sa.Double),
        sa.Column("segments", sa.Integer, nullable=False),
        *(sa.Column(f"bin_{index}", sa.Double, nullable=False) for index in range(10)),
        sqlite_with_rowid=False,
    )
    op.create_index("rollups_by_time", "rollups", ["period", "starts_at"])
    op.create_table(
        "rollup_faults",
        *_period(),
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


def _of_segment(constraint: str) -> sa.Column[str]:
    return sa.Column(
        "segment_id",
        NAME,
        sa.ForeignKey("segments.id", ondelete="CASCADE", name=constraint),
        primary_key=True,
    )


def _period() -> tuple[sa.Column[str], sa.Column[int], sa.Column[object]]:
    return (
        sa.Column("stream", NAME, primary_key=True),
        sa.Column("period", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("starts_at", TIME, primary_key=True),
    )
