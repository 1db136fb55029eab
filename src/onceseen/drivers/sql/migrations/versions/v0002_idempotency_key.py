"""Keys under which clients repeat a submission without making a second job."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; a release before this one does not see it."""
    op.create_table(
        "idempotency_key",
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("job", sa.LargeBinary(length=16), nullable=False),
        sa.Column("server", sa.Integer(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(length=32), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "key"),
        sqlite_with_rowid=False,
    )
    op.create_index("idempotency_key_age", "idempotency_key", ["created_at"])
