"""Judgements know the nonce that their verdict had to name, and what was asked for in vain.

A response has a mean where more than half of its judgements have a score.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

JUDGED = ("judgements", "ranked_judgements")
ASKED = (*JUDGED, "comparisons")

RESPONSE_SCORES = """
    CREATE OR REPLACE VIEW response_scores AS
    SELECT i.run_id, i."index" AS iteration, r.prompt_id, r.id AS response_id,
           r.sample_index, r.text AS response, r.weight_version,
           count(j.id) AS num_judgements, count(j.score) AS num_scored,
           {mean} AS score_mean, stddev_samp(j.score) AS score_stdev
    FROM responses r
    JOIN iterations i ON i.id = r.iteration_id
    LEFT JOIN judgements j ON j.response_id = r.id
    GROUP BY i.id, r.id
"""
MEAN = "avg(j.score)"
MEAN_OF_MOST = f"CASE WHEN 2 * count(j.score) > count(j.id) THEN {MEAN} END"


def upgrade() -> None:
    for table in ASKED:
        op.add_column(table, sa.Column("nonce", sa.Text(), nullable=True))
    for table in JUDGED:
        op.add_column(
            table,
            sa.Column("unscored_before", sa.ARRAY(sa.Text()), server_default="{}", nullable=False),
        )
    op.execute(RESPONSE_SCORES.format(mean=MEAN_OF_MOST))


def downgrade() -> None:
    op.execute(RESPONSE_SCORES.format(mean=MEAN))
    for table in JUDGED:
        op.drop_column(table, "unscored_before")
    for table in ASKED:
        op.drop_column(table, "nonce")
