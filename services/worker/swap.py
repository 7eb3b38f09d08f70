"""Brings every replica to one version, or none."""

import asyncio
from collections.abc import Sequence
from typing import Any

from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError, SwapFailed


async def activate_everywhere(
    settings: Settings, version: str, fallback: str | None
) -> list[dict[str, Any]]:
    """Activate `version` on every replica and return what each of them verified.

    If one fails, all go back to `fallback` and its error is raised. Replicas that
    differ in any tensor's checksum have failed.
    """
    key = settings.admin_key.get_secret_value()
    urls = settings.generator_urls
    outcomes = await asyncio.gather(
        *(_activate(url, key, version) for url in urls), return_exceptions=True
    )
    errors = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    reports = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    if not errors and any(r["checksums"] != reports[0]["checksums"] for r in reports):
        errors = [SwapFailed(f"the replicas hold different tensors under version {version}")]
    if errors:
        if fallback is not None:
            await _return_to(urls, key, fallback)
        raise errors[0]
    return [
        {"url": url, "canary": report["canary"], "num_tensors": len(report["checksums"])}
        for url, report in zip(urls, reports, strict=True)
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
