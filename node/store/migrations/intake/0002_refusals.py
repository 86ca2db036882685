"""Which instances of a series were offered and not kept (ADR 50)."""

from alembic import op

from node.store.intake_tables import refusals

revision = "intake_0002"
down_revision = "intake_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; a new database has it from the first revision."""
    refusals.create(op.get_bind(), checkfirst=True)
