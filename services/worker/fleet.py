"""Which generator replicas there are, and which of them are asked.

Replicas are named by hand (`generator_urls`) or registered themselves (`store.replicas`). A
client of a roll-out follows the registry while it works: a replica that joins gets requests
within seconds, one that is swapped, leaves or dies gets no more. Where the settings name one
address for requests, a router's, only swaps go to the replicas themselves.

While it works, the client hears what the engines report, and sends as many calls at once as
keep them busy (`rewardloop.clients.allowance`).
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from rewardloop.clients.allowance import Load
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.loads import Loads
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError, UpstreamUnavailable
from rewardloop.store import Store, replicas

logger = logging.getLogger("rewardloop.worker")

FOLLOW_SECONDS = 1.0


@dataclass(frozen=True)
class Fleet:
    """The replicas that new weights are brought to."""

    control_urls: list[str]
    is_watched: bool
    """Whether somebody, a router or a client, looks at their readiness."""


async def fleet(store: Store, settings: Settings) -> Fleet:
    """
    Raises:
        UpstreamUnavailable: there is no replica.
    """
    async with store.transaction() as session:
        registered = [one.control_url for one in await replicas.alive(session)]
    urls = _each_once(settings.generator_urls, registered)
    if not urls:
        raise UpstreamUnavailable(
            "no generator is there: none is named in REWARDLOOP_GENERATOR_URLS, and none has "
            "registered itself within the last seconds"
        )
    return Fleet(urls, is_watched=bool(registered or settings.data_url))


@asynccontextmanager
async def generators(
    store: Store, settings: Settings, version: str | None = None
) -> AsyncIterator[GeneratorClient]:
    """A client of whatever answers for the generators while the block runs.

    With `version` it takes no answer of other weights, whoever serves them.

    Raises:
        UpstreamUnavailable: there is no replica.
    """
    key = settings.api_key.get_secret_value()
    router = settings.data_url
    urls = [router] if router is not None else await _data_urls(store, settings)
    async with GeneratorClient(urls, key) as client, Loads(key) as loads:
        client.version = version
        following = asyncio.create_task(_follow(store, settings, client, loads))
        try:
            yield client
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            logger.info("%s", client.standing())


async def _follow(store: Store, settings: Settings, client: GeneratorClient, loads: Loads) -> None:
    look = _look_at_all if settings.data_url is None else _look_behind_router
    while True:
        await asyncio.sleep(FOLLOW_SECONDS)
        try:
            await look(store, settings, client, loads)
        except RewardloopError as error:  # those that were there are asked on
            logger.warning("looking for generators: %s", error.message)


async def _look_at_all(
    store: Store, settings: Settings, client: GeneratorClient, loads: Loads
) -> None:
    urls = await _data_urls(store, settings)
    client.follow(urls)
    client.hear(await loads.of(urls))


async def _look_behind_router(
    store: Store, settings: Settings, client: GeneratorClient, loads: Loads
) -> None:
    """The router gets as many calls as the replicas together that are known."""
    assert settings.data_url is not None
    found = await loads.of(await _known_urls(store, settings))
    if found:
        client.hear({settings.data_url: sum(found.values(), start=Load(0, 0))})


async def _known_urls(store: Store, settings: Settings) -> list[str]:
    async with store.transaction() as session:
        registered = await replicas.data_urls(session)
    return _each_once(settings.generator_urls, registered)


async def _data_urls(store: Store, settings: Settings) -> list[str]:
    urls = await _known_urls(store, settings)
    if not urls:
        raise UpstreamUnavailable(
            "no generator is ready: none is named in REWARDLOOP_GENERATOR_URLS, and no registered "
            "one serves the version that is marked as served"
        )
    return urls


def _each_once(named: list[str], registered: list[str]) -> list[str]:
    return list(dict.fromkeys(url.rstrip("/") for url in (*named, *registered)))
