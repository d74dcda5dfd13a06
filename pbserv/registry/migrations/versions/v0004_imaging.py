"""Imaging: options, priority and waking of work; figures of jobs; identities of devices and pools of names."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pbserv.registry.models import UtcTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def _text(name: str, length: int | None) -> sa.Column[str]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default="")


def _number(name: str, kind: type[sa.Integer] = sa.Integer) -> sa.Column[int]:
    return sa.Column(name, kind, nullable=False, server_default="0")


def _flag(name: str) -> sa.Column[bool]:
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false())


WORK = ("options", "priority", "wake", "woken", "woken_times")
JOB = ("store", "verified", "bytes_sent", "waited_ms", "queued_s")


def upgrade() -> None:
    for column in (
        _text("options", None), _number("priority"), _flag("wake"), sa.Column("woken", UtcTime), _number("woken_times"),
    ):  # fmt: skip
        op.add_column("work", column)
    for column in (
        _text("store", 32), _text("verified", 16), _number("bytes_sent", sa.BigInteger),
        _number("waited_ms", sa.BigInteger), _number("queued_s"),
    ):  # fmt: skip
        op.add_column("job", column)
    op.create_index("ix_job_image", "job", ["image"])
    op.create_table(
        "identity",
        sa.Column("mac", sa.String(17), sa.ForeignKey("device.mac"), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        _flag("just_imaged"),
        _text("image", 64),
        sa.Column("version", sa.Integer),
        sa.Column("changed", UtcTime, nullable=False),
    )
    op.create_table(
        "name_pool",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
    )
    op.create_table(
        "pool_value",
        sa.Column("pool", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(64), primary_key=True),
        sa.Column("mac", sa.String(17), sa.ForeignKey("device.mac"), nullable=False, index=True),
        sa.Column("given", UtcTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("pool_value", "name_pool", "identity"):
        op.drop_table(table)
    op.drop_index("ix_job_image", "job")
    for name in JOB:
        op.drop_column("job", name)
    for name in WORK:
        op.drop_column("work", name)
