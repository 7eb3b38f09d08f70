"""Model versions and which one is served."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import NotFound
from rewardloop.store.models import ModelVersion, Serving


async def add(
    session: AsyncSession, version: str, *, kind: str, parent: str | None, manifest: dict[str, Any]
) -> None:
    """Commit a published checkpoint; doing it again changes nothing."""
    base = manifest.get("base", {}).get("version")
    await session.execute(
        insert(ModelVersion)
        .values(id=version, kind=kind, parent_id=parent, base_id=base, manifest=manifest)
        .on_conflict_do_nothing()
    )


async def get(session: AsyncSession, version: str) -> ModelVersion:
    """
    Raises:
        NotFound: there is no such version.
    """
    found = await session.get(ModelVersion, version)
    if found is None:
        raise NotFound(
            f"there is no model version {version!r}; `rewardloop models` and GET /v1/models "
            "list them"
        )
    return found


async def list_all(session: AsyncSession) -> list[ModelVersion]:
    found = await session.scalars(select(ModelVersion).order_by(ModelVersion.created_at))
    return list(found)


async def serving(session: AsyncSession) -> str | None:
    """The version that the replicas serve, or None before the first was set."""
    return await session.scalar(select(Serving.version_id))


async def pretrained(session: AsyncSession) -> str | None:
    """The version that was imported first, or None before any was."""
    return await session.scalar(
        select(ModelVersion.id)
        .where(ModelVersion.kind == "base")
        .order_by(ModelVersion.created_at)
        .limit(1)
    )


async def require_serving(session: AsyncSession) -> str:
    """
    Raises:
        NotFound: no version was ever marked as served.
    """
    version = await serving(session)
    if version is None:
        raise NotFound(
            "no model version is marked as served; `rewardloop up` imports one, and so does "
            "`python -m services.trainer.import_base`"
        )
    return version


async def set_serving(session: AsyncSession, version: str) -> None:
    """Mark `version` as the one that every replica has been verified to serve."""
    statement = insert(Serving).values(id=1, version_id=version)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[Serving.id],
            set_={"version_id": version, "since": statement.excluded.since},
        )
    )
