"""What acting on segments needs: alerts, silences, the outbox, decisions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

NAME = sa.String().with_variant(sa.String(collation="C"), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """New tables only: the vqmon before it never sees them."""
    _outbox()
    _decisions()
    _alerts()


def _outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("id", NAME, nullable=False),
        sa.Column("target", NAME, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("topic", NAME, nullable=False),
        sa.Column("stream", NAME),
        sa.Column("body", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("state", NAME, nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("tried_at", TIME),
        sa.Column("delivered_at", TIME),
        sa.Column("claimed_by", NAME),
        sa.Column("claimed_until", TIME),
    )
    op.create_index("outbox_by_id", "outbox", ["id", "target"], unique=True)
    op.create_index("outbox_by_due", "outbox", ["state", "target", "due_at"])
    op.create_index("outbox_by_topic", "outbox", ["target", "topic"])
    op.create_index("outbox_by_time", "outbox", ["created_at"])
    op.create_table(
        "outbox_disabled",
        sa.Column("target", NAME, primary_key=True),
        sa.Column("fingerprint", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sqlite_with_rowid=False,
    )


def _decisions() -> None:
    op.create_table(
        "decisions",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        sa.Column("id", NAME, nullable=False),
        sa.Column("plugin", NAME, nullable=False),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("kind", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("segment", NAME),
        sa.Column("alert", NAME),
    )
    op.create_index("decisions_by_id", "decisions", ["id"], unique=True)
    op.create_index("decisions_by_plugin", "decisions", ["plugin", "stream", "at"])
    op.create_index("decisions_by_time", "decisions", ["at"])


def _alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("stream", NAME, nullable=False),
        sa.Column("rule", NAME, nullable=False),
        sa.Column("severity", sa.String, nullable=False),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("closed_at", TIME),
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
        sa.Column("acknowledged_at", TIME),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("alerts_by_time", "alerts", ["opened_at"])
    op.create_index("alerts_by_stream", "alerts", ["stream", "opened_at"])
    op.create_index("alerts_by_end", "alerts", ["closed_at"])
    op.create_table(
        "silences",
        sa.Column("id", NAME, primary_key=True),
        sa.Column("author", sa.String, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("stream", sa.String, nullable=False),
        sa.Column("rule", sa.String, nullable=False),
        sa.Column("severity", sa.String, nullable=False),
    )
    op.create_index("silences_by_end", "silences", ["expires_at"])
    op.create_table(
        "alert_states",
        sa.Column("instance", NAME, primary_key=True),
        sa.Column("stream", NAME, primary_key=True),
        sa.Column("state", sa.JSON, nullable=False),
        sqlite_with_rowid=False,
    )
