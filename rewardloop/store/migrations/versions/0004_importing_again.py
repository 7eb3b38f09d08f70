"""Same questions are found, imports may add to what is known, and runs keep what they took."""

import hashlib
import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BATCH = 1000


def upgrade() -> None:
    op.add_column("prompts", sa.Column("question_sha256", sa.Text(), nullable=True))
    _fill_digests(op.get_bind())
    op.alter_column("prompts", "question_sha256", nullable=False)
    op.create_index("prompts_by_question", "prompts", ["question_sha256"])
    op.add_column(
        "ranked_splits",
        sa.Column(
            "response_ids",
            postgresql.ARRAY(sa.BigInteger()),
            server_default="{}",
            nullable=False,
        ),
    )
    op.execute(
        "UPDATE ranked_splits s SET response_ids ="
        " ARRAY(SELECT id FROM ranked_responses r WHERE r.prompt_id = s.prompt_id)"
    )
    op.create_table(
        "ift_examples",
        sa.Column("iteration_id", sa.Uuid(), sa.ForeignKey("iterations.id"), primary_key=True),
        sa.Column("prompt_id", sa.BigInteger(), sa.ForeignKey("prompts.id"), primary_key=True),
        sa.Column("answer", sa.Text(), nullable=False),
    )


def downgrade() -> None:
    _restore_digests(op.get_bind())
    op.drop_table("ift_examples")
    op.drop_column("ranked_splits", "response_ids")
    op.drop_index("prompts_by_question", table_name="prompts")
    op.drop_column("prompts", "question_sha256")


def _fill_digests(connection: sa.Connection) -> None:
    """Two stored rows that have become one conversation stay two: runs may have taken both.
    One of them keeps its old digest."""
    for rows in _batches(connection):
        connection.execute(
            sa.text(
                "UPDATE prompts p SET question_sha256 = :question, messages_sha256 = CASE WHEN"
                " EXISTS (SELECT FROM prompts o WHERE o.dataset = p.dataset AND o.id <> p.id"
                "   AND o.messages_sha256 = :conversation)"
                " THEN p.messages_sha256 ELSE :conversation END WHERE p.id = :id"
            ),
            [{"id": row.id, **_digests(row.messages)} for row in rows],
        )


def _restore_digests(connection: sa.Connection) -> None:
    """Of the messages as they are, as 0003 had them; else its imports would add them again."""
    for rows in _batches(connection):
        connection.execute(
            sa.text("UPDATE prompts SET messages_sha256 = :digest WHERE id = :id"),
            [{"id": row.id, "digest": _of_conversation(row.messages)} for row in rows],
        )


def _batches(connection: sa.Connection) -> Iterator[Sequence[sa.Row[Any]]]:
    """All prompts, with their messages."""
    last = 0
    while rows := connection.execute(
        sa.text("SELECT id, messages FROM prompts WHERE id > :last ORDER BY id LIMIT :batch"),
        {"last": last, "batch": BATCH},
    ).all():
        yield rows
        last = rows[-1].id


def _digests(messages: list[dict[str, Any]]) -> dict[str, str]:
    turns = [{**m, "content": unicodedata.normalize("NFC", m["content"]).strip()} for m in messages]
    question = " ".join(messages[-1]["content"].split()).casefold()
    return {
        "conversation": _of_conversation(turns),
        "question": _sha256(unicodedata.normalize("NFC", question)),
    }


def _of_conversation(messages: list[dict[str, Any]]) -> str:
    return _sha256(json.dumps(messages, sort_keys=True, ensure_ascii=False))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
