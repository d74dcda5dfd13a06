"""Devices, work, jobs, history, tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pbserv.registry.models import ACTIVE, BIG, UtcTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "device",
        sa.Column("mac", sa.String(17), primary_key=True),
        sa.Column("uuid", sa.String(36)),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("arch", sa.Integer),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("address", sa.String(45), nullable=False),
        sa.Column("first_seen", UtcTime, nullable=False),
        sa.Column("last_seen", UtcTime, nullable=False),
    )
    op.create_table(
        "work",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("mac", sa.String(17), sa.ForeignKey("device.mac"), nullable=False, index=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("image", sa.String(64), nullable=False),
        sa.Column("target_disk", sa.String(255), nullable=False),
        sa.Column("finish", sa.String(16), nullable=False),
        sa.Column("overwrite", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created", UtcTime, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ux_work_active", "work", ["mac"], unique=True, sqlite_where=ACTIVE, postgresql_where=ACTIVE)
    op.create_table(
        "job",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("work_id", BIG, sa.ForeignKey("work.id"), nullable=False, index=True),
        sa.Column("mac", sa.String(17), nullable=False, index=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("image", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer),
        sa.Column("address", sa.String(45), nullable=False),
        sa.Column("state", sa.String(16), nullable=False, index=True),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("stage", sa.String(64), nullable=False),
        sa.Column("item", sa.String(64), nullable=False),
        sa.Column("bytes_done", sa.BigInteger, nullable=False),
        sa.Column("bytes_total", sa.BigInteger, nullable=False),
        sa.Column("rate", sa.BigInteger, nullable=False),
        sa.Column("started", UtcTime, nullable=False),
        sa.Column("finished", UtcTime),
        sa.Column("log", sa.Text, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "event",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("time", UtcTime, nullable=False),
        sa.Column("mac", sa.String(17), nullable=False),
        sa.Column("what", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("ix_event_mac_id", "event", ["mac", "id"])
    op.create_table(
        "token",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("name", sa.String(64), nullable=False, unique=True),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created", UtcTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("token", "event", "job", "work", "device"):
        op.drop_table(table)
