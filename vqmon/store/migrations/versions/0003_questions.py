"""What the writer is asked, what it answered, and how often it was asked."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NAME = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """New tables only: the vqmon before it never sees them."""
    _questions()
    _askings()


def _questions() -> None:
    op.create_table(
        "questions",
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
        sa.Column("asked_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("state", NAME, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("tried_at", TIME),
        sa.Column("claimed_by", NAME),
        sa.Column("claimed_until", TIME),
        sa.Column("answered_at", TIME),
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
    )
    op.create_index("questions_by_due", "questions", ["instance", "state", "rank", "asked_at"])
    op.create_index("questions_by_time", "questions", ["asked_at"])


def _askings() -> None:
    op.create_table(
        "askings",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("instance", NAME, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("cause", NAME, nullable=False),
        sa.Column("segment", NAME, nullable=False),
    )
    op.create_index("askings_by_time", "askings", ["instance", "at"])
