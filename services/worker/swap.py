"""Brings every replica to one version, or none."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from rewardloop import checkpoints
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
        committed = {
            known: checkpoints.digest_of((await versions.get(session, known)).manifest)
            for known in {version, serving or version}
        }
    return await activate_everywhere(settings, version, serving, committed)


async def activate_everywhere(
    settings: Settings,
    version: str,
    fallback: str | None,
    committed: Mapping[str, str | None] | None = None,
) -> list[dict[str, Any]]:
    """Activate `version` on every replica and return what each of them verified.

    `committed` holds the digests of the manifests in Postgres, for the replicas to compare.

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
        *(_activate(ReplicaAdmin(url, key, committed), version) for url in urls),
        return_exceptions=True,
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
            await _return_to([ReplicaAdmin(url, key, committed) for url in reports], fallback)
        raise errors[0]
    return [
        {"url": url, "canary": report["canary"], "num_tensors": len(report["checksums"])}
        for url, report in reports.items()
    ]


async def _activate(replica: ReplicaAdmin, version: str) -> dict[str, Any]:
    async with replica:
        report = await replica.activate(version)
    if report["version"] != version:
        raise SwapFailed(f"{replica.url} says {report['version']} after activating {version}")
    return report


async def _return_to(replicas: Sequence[ReplicaAdmin], version: str) -> None:
    for replica in replicas:
        try:
            await _activate(replica, version)
        except RewardloopError as error:
            raise SwapFailed(
                f"{replica.url} could not return to {version} ({error.message}); restart it: it "
                "starts on the version that is marked as served"
            ) from error
