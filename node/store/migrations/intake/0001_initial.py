"""Intake as first released."""

import uuid

from alembic import op
from sqlalchemy import insert

from node.store.intake_tables import generation, metadata

revision = "intake_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables; a new index is a new generation."""
    metadata.create_all(op.get_bind())
    op.get_bind().execute(insert(generation).values(generation=uuid.uuid4().hex[:12]))
