"""The policy: more of devices and of work, the policy's objects, persistent counters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pbserv.registry.models import CAPTURING, UtcTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def _text(name: str, length: int | None, default: str = "") -> sa.Column[str]:
    return sa.Column(name, sa.String(length) if length else sa.Text(), nullable=False, server_default=default)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")


DEVICE = {
    "serial": (128, ""), "asset": (128, ""), "folder": (600, "/"), "labels": (None, "{}"), "learned": (None, "{}"),
    "menu": (64, ""), "loader": (1024, ""), "arguments": (1024, ""),
}  # fmt: skip
WORK = ("bundle", "document", "assignment", "expires", "retries", "attempts", "ended")


def upgrade() -> None:
    for name, (length, default) in DEVICE.items():
        op.add_column("device", _text(name, length, default))
    op.create_table(
        "device_mac",
        sa.Column("mac", sa.String(17), primary_key=True),
        sa.Column("device", sa.String(17), sa.ForeignKey("device.mac"), nullable=False, index=True),
    )
    op.create_table(
        "device_group",
        sa.Column("mac", sa.String(17), sa.ForeignKey("device.mac"), primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True, index=True),
    )
    op.create_table(
        "device_run",
        sa.Column("mac", sa.String(17), sa.ForeignKey("device.mac"), primary_key=True),
        sa.Column("assignment", sa.String(160), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("ended", UtcTime, nullable=False),
    )
    for column in (
        _text("bundle", 64),
        _text("document", None),
        _text("assignment", 80),
        sa.Column("expires", UtcTime),
        _number("retries"),
        _number("attempts"),
        sa.Column("ended", UtcTime),
    ):
        op.add_column("work", column)
    op.create_index(
        "ux_work_capture", "work", ["image"], unique=True, sqlite_where=CAPTURING, postgresql_where=CAPTURING
    )
    op.create_table(
        "document",
        sa.Column("kind", sa.String(16), primary_key=True),
        sa.Column("name", sa.String(600), primary_key=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("changed", UtcTime, nullable=False),
    )
    op.create_table(
        "counter",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    for table in ("counter", "document", "device_run", "device_group", "device_mac"):
        op.drop_table(table)
    op.drop_index("ux_work_capture", "work")
    for column in WORK:
        op.drop_column("work", column)
    for column in DEVICE:
        op.drop_column("device", column)
