"""Judgements by expectation: mode `expected`, and the distribution that a score is the mean of."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

JUDGED = ("judgements", "ranked_judgements", "comparisons")
MODES = ("free", "constrained", "expected")


def upgrade() -> None:
    for table in JUDGED:
        op.add_column(table, sa.Column("distribution", JSONB(), nullable=True))
    op.add_column("comparisons", sa.Column("probability", sa.Double(), nullable=True))
    op.create_check_constraint("probability_is_one", "comparisons", "probability BETWEEN 0 AND 1")
    _know(MODES)


def downgrade() -> None:
    """
    Raises:
        IntegrityError: versions were assessed by expectation, which the older schema does not know.
    """
    _know(MODES[:2])
    op.drop_constraint("probability_is_one", "comparisons", type_="check")
    op.drop_column("comparisons", "probability")
    for table in JUDGED:
        op.drop_column(table, "distribution")


def _know(modes: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{mode}'" for mode in modes)
    op.drop_constraint("mode_is_known", "assessments", type_="check")
    op.create_check_constraint("mode_is_known", "assessments", f"mode IN ({listed})")
