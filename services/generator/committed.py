"""What Postgres says of a version: the one source that a folder cannot rewrite."""

import logging

from rewardloop import checkpoints
from rewardloop.config import Settings
from rewardloop.store import Store, versions

logger = logging.getLogger("rewardloop.generator")


async def manifest_digest(settings: Settings, version: str) -> str | None:
    """The digest of the manifest that was committed; None for a row without one.

    Raises:
        NotFound: no such version was committed.
        UpstreamUnavailable: Postgres does not answer.
    """
    return (await _read(settings, version))[1]


async def serving(settings: Settings) -> tuple[str, str | None]:
    """The version that is marked as served, and the digest of its manifest.

    Raises:
        NotFound: no version was ever marked as served.
        UpstreamUnavailable: Postgres does not answer.
    """
    return await _read(settings, None)


async def _read(settings: Settings, version: str | None) -> tuple[str, str | None]:
    store = Store(settings.database_url.get_secret_value())
    try:
        async with store.transaction() as session:
            known = version or await versions.require_serving(session)
            digest = checkpoints.digest_of((await versions.get(session, known)).manifest)
    finally:
        await store.close()
    if digest is None:
        logger.warning("%s was committed without a manifest; its folder's own is used", known)
    return known, digest
