"""Rankings as first released."""

from alembic import op

from node.store.rankings_tables import metadata

revision = "rankings_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    metadata.create_all(op.get_bind())
