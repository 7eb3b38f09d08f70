"""Brings every replica to one version, or none."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError, SwapFailed
from rewardloop.store import Store, versions


async def bring_to(store: Store, settings: Settings, version: str) -> list[dict[str, Any]]:
    """Bring every replica to `version`, or back to what is served; returns their reports.

    The caller marks it as served, in a transaction that checks that it still may.

    Raises:
        UpstreamUnavailable, SwapFailed, CheckpointInvalid: as for `activate_everywhere`.
    """
    async with store.transaction() as session:
        serving = await versions.serving(session)
    return await activate_everywhere(settings, version, fallback=serving)


async def activate_everywhere(
    settings: Settings, version: str, fallback: str | None
) -> list[dict[str, Any]]:
    """Activate `version` on every replica and return what each of them verified.

    If one fails, those that hold `version` by now go back to `fallback`, and the
    error is raised; a replica whose own swap failed has gone back by itself.
    Replicas that differ in any tensor's checksum have failed.

    Raises:
        UpstreamUnavailable: a replica does not answer; worth trying again.
        SwapFailed, CheckpointInvalid: a replica refused the version.
    """
    key = settings.admin_key.get_secret_value()
    urls = settings.generator_urls
    outcomes = await asyncio.gather(
        *(_activate(url, key, version) for url in urls), return_exceptions=True
    )
    reports = {
        url: outcome
        for url, outcome in zip(urls, outcomes, strict=True)
        if not isinstance(outcome, BaseException)
    }
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    if len({json.dumps(r["checksums"], sort_keys=True) for r in reports.values()}) > 1:
        errors.append(SwapFailed(f"the replicas hold different tensors under {version}"))
    if errors:
        if fallback is not None and fallback != version:
            await _return_to(list(reports), key, fallback)
        raise errors[0]
    return [
        {"url": url, "canary": report["canary"], "num_tensors": len(report["checksums"])}
        for url, report in reports.items()
    ]


async def _activate(url: str, key: str, version: str) -> dict[str, Any]:
    async with ReplicaAdmin(url, key) as replica:
        report = await replica.activate(version)
    if report["version"] != version:
        raise SwapFailed(f"{url} says {report['version']} after activating {version}")
    return report


async def _return_to(urls: Sequence[str], key: str, version: str) -> None:
    for url in urls:
        try:
            await _activate(url, key, version)
        except RewardloopError as error:
            raise SwapFailed(
                f"{url} could not return to {version} ({error.message}); restart it: it starts on "
                "the version that is marked as served"
            ) from error
