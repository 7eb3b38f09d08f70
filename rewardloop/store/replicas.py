"""Generator replicas that registered themselves: who is there, and who may be asked.

A replica writes a heartbeat every HEARTBEAT_SECONDS; one that has written none for DEAD_SECONDS
is left out everywhere. Joining and marking another version as served take one lock, so that
no replica joins on a version that is no longer served. Times are Postgres' own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession

from rewardloop.errors import UpstreamUnavailable
from rewardloop.records import ReplicaState
from rewardloop.store import versions
from rewardloop.store.models import Replica, Serving

HEARTBEAT_SECONDS = 2.0
DEAD_SECONDS = 8.0
FORGOTTEN = timedelta(days=1)
"""So long the row of a replica that died is kept, for people."""


@dataclass(frozen=True)
class Standing:
    """What a replica says of itself."""

    control_url: str
    data_url: str
    instance: UUID
    version: str
    state: ReplicaState


async def lock(session: AsyncSession) -> None:
    """Until the transaction ends, nobody joins, and no other version is marked as served."""
    await session.execute(text("SELECT pg_advisory_xact_lock(hashtext('rewardloop:replicas'))"))


async def join(session: AsyncSession, standing: Standing) -> str | None:
    """Register a verified replica; returns the version that it has to serve first, where that
    is another one, and then it has not joined."""
    await lock(session)
    serving = await versions.serving(session)
    if serving not in (None, standing.version):
        return serving
    old = Replica.heartbeat_at < func.clock_timestamp() - FORGOTTEN
    await session.execute(delete(Replica).where(old))
    values = {
        "data_url": standing.data_url,
        "instance": standing.instance,
        "version_id": standing.version,
        "state": standing.state,
        "joined_at": func.clock_timestamp(),
        "heartbeat_at": func.clock_timestamp(),
    }
    row = insert(Replica).values(control_url=standing.control_url, **values)
    await session.execute(row.on_conflict_do_update(index_elements=["control_url"], set_=values))
    return None


async def beat(session: AsyncSession, standing: Standing) -> bool:
    """Write a heartbeat; returns False where the replica has to join again, because others hold
    it for dead or another one has taken its address."""
    known = await session.scalar(
        update(Replica)
        .where(
            Replica.control_url == standing.control_url,
            Replica.instance == standing.instance,
            _is_fresh(),
        )
        .values(
            version_id=standing.version,
            state=standing.state,
            heartbeat_at=func.clock_timestamp(),
        )
        .returning(Replica.control_url)
    )
    return known is not None


async def leave(session: AsyncSession, standing: Standing) -> None:
    await session.execute(
        delete(Replica).where(
            Replica.control_url == standing.control_url, Replica.instance == standing.instance
        )
    )


async def alive(session: AsyncSession) -> list[Replica]:
    """Those that new weights are brought to: neither dead nor leaving nor out of service."""
    there = Replica.state.in_([ReplicaState.READY, ReplicaState.SWAPPING])
    found = await session.scalars(
        select(Replica).where(_is_fresh(), there).order_by(Replica.control_url)
    )
    return list(found)


async def data_urls(session: AsyncSession) -> list[str]:
    """Where requests may be sent: replicas that are ready, on the version that is served."""
    found = await session.scalars(
        select(Replica.data_url)
        .join(Serving, Serving.version_id == Replica.version_id)
        .where(_is_fresh(), Replica.state == ReplicaState.READY)
        .order_by(Replica.control_url)
    )
    return list(found)


async def note_version(session: AsyncSession, control_urls: Iterable[str], version: str) -> None:
    """What a swap has just verified, before the replicas say it themselves."""
    await session.execute(
        update(Replica)
        .where(Replica.control_url.in_(list(control_urls)))
        .values(version_id=version)
    )


async def require_all_on(session: AsyncSession, version: str) -> None:
    """No replica that is there serves another version; holds until the transaction ends.

    Raises:
        UpstreamUnavailable: one joined while the others were swapped; the next try brings it
            along.
    """
    await lock(session)
    others = [one.control_url for one in await alive(session) if one.version_id != version]
    if others:
        raise UpstreamUnavailable(
            f"{', '.join(others)} joined during the swap to {version}; it is brought along next"
        )


def _is_fresh() -> ColumnElement[bool]:
    return Replica.heartbeat_at > func.clock_timestamp() - timedelta(seconds=DEAD_SECONDS)
