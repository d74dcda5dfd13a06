"""Boot sessions, and the strategies that reached a device's loader."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from pbserv.registry.models import BIG, UtcTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "boot_session",
        sa.Column("id", BIG, primary_key=True, autoincrement=True),
        sa.Column("mac", sa.String(17), nullable=False),
        sa.Column("started", UtcTime, nullable=False),
        sa.Column("ended", UtcTime, nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("todo", sa.Text, nullable=False),
        sa.Column("steps", sa.LargeBinary, nullable=False),
        sa.Column("packets", sa.Integer, nullable=False),
    )
    op.create_index("ux_boot_session", "boot_session", ["mac", "started"], unique=True)
    op.create_index("ix_boot_session_ended", "boot_session", ["ended"])
    op.create_table(
        "strategy",
        sa.Column("mac", sa.String(17), primary_key=True),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("learned", UtcTime, nullable=False),
    )


def downgrade() -> None:
    for table in ("strategy", "boot_session"):
        op.drop_table(table)
