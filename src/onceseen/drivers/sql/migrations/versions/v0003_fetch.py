"""URLs that wait to be fetched."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; a release before this one does not see it."""
    op.create_table(
        "fetch",
        sa.Column("job", sa.LargeBinary(length=16), nullable=False),
        sa.Column("n", sa.BigInteger(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("fresh", sa.SmallInteger(), nullable=False),
        sa.Column("server", sa.Integer(), nullable=False),
        sa.Column("tries", sa.SmallInteger(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("job", "n"),
        sqlite_with_rowid=False,
    )
    op.create_index("fetch_due", "fetch", ["server", "job", "next_at", "n"])
