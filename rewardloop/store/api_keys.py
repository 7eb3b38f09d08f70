"""API keys: made, listed, revoked, and recognised.

Invariant: a key is shown once, when it is made; Postgres holds its SHA-256. A plain digest is
enough here, unlike for passwords: a key is 256 random bits, so nobody finds it by trying, and no
salt or slow hash would make that harder. It also lets a request's key be found by an index.
"""

import hashlib
import secrets
from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import func, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import Conflict, NotFound
from rewardloop.records import Scope
from rewardloop.redaction import KEY_PREFIX
from rewardloop.store import events
from rewardloop.store.models import ApiKey

_KEY_BYTES = 32
_TOUCH_EVERY = text("interval '1 minute'")


async def create(session: AsyncSession, name: str, scopes: Iterable[Scope]) -> tuple[ApiKey, str]:
    """A new key's row, and the key itself, which cannot be had again.

    Raises:
        Conflict: a key that works has this name already.
    """
    key = KEY_PREFIX + secrets.token_urlsafe(_KEY_BYTES)
    wanted = set(scopes)
    row = ApiKey(name=name, sha256=digest(key), scopes=[s for s in Scope if s in wanted])
    session.add(row)
    try:
        await session.flush()
    except IntegrityError as error:
        raise Conflict(
            f"there is a key named {name!r} already; revoke it first, or choose another name"
        ) from error
    await session.refresh(row)
    events.record(session, "key.created", name=name, scopes=row.scopes)
    return row, key


def digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()


async def list_all(session: AsyncSession) -> list[ApiKey]:
    """Every key, oldest first, revoked ones too."""
    found = await session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.name))
    return list(found)


async def revoke(session: AsyncSession, key_id: UUID) -> ApiKey:
    """The key opens nothing from now on; revoking it again changes nothing.

    Raises:
        NotFound: there is no such key.
    """
    row = await session.get(ApiKey, key_id, with_for_update=True)
    if row is None:
        raise NotFound(
            f"there is no key {key_id}; `rewardloop keys list` and GET /v1/keys list them"
        )
    if row.revoked_at is None:
        row.revoked_at = func.now()
        await session.flush()
        await session.refresh(row)
        events.record(session, "key.revoked", name=row.name)
    return row


async def find(session: AsyncSession, key: str) -> ApiKey | None:
    """The row of a key that works; notes its use, at most once a minute."""
    row = await session.scalar(
        select(ApiKey).where(ApiKey.sha256 == digest(key), ApiKey.revoked_at.is_(None))
    )
    if row is not None:
        last = ApiKey.last_used_at
        await session.execute(
            update(ApiKey)
            .where(ApiKey.id == row.id, last.is_(None) | (last < func.now() - _TOUCH_EVERY))
            .values(last_used_at=func.now())
            .execution_options(synchronize_session=False)
        )
    return row
