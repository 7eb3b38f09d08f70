"""Adapters are versions: each names the version of full weights that it stands on."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("model_versions", sa.Column("base_id", sa.Text(), nullable=True))
    op.create_foreign_key(None, "model_versions", "model_versions", ["base_id"], ["id"])


def downgrade() -> None:
    """Adapters keep their manifests, which name their bases too."""
    op.drop_column("model_versions", "base_id")
