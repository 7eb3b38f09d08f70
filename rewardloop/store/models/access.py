"""Who may call the API."""

from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import ARRAY, CheckConstraint, Index, Text, func, text
from sqlalchemy.orm import Mapped, mapped_column

from rewardloop.records import Scope
from rewardloop.store.models.base import Base

_KNOWN = ", ".join(f"'{scope}'" for scope in Scope)


class ApiKey(Base):
    """A key that was given to somebody. The key itself is stored nowhere, only its digest."""

    __tablename__ = "api_keys"
    id: Mapped[UUID] = mapped_column(primary_key=True, default=uuid4)
    name: Mapped[str]
    sha256: Mapped[str] = mapped_column(unique=True)
    scopes: Mapped[list[str]] = mapped_column(ARRAY(Text))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    """Written at most once a minute."""
    __table_args__ = (
        CheckConstraint("sha256 ~ '^[0-9a-f]{64}$'", name="sha256_is_a_digest"),
        CheckConstraint(
            f"scopes <@ ARRAY[{_KNOWN}] AND cardinality(scopes) > 0", name="scopes_are_known"
        ),
        # A name says which key is meant, so two keys that work do not share one.
        Index(
            "one_live_key_a_name", "name", unique=True, postgresql_where=text("revoked_at IS NULL")
        ),
    )
