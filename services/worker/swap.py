"""Brings every replica to one version, or none.

Several replicas go one after another, so that others answer meanwhile (`swap_order`). That
serves whoever else asks: an iteration samples nothing before all of them are through.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rewardloop import checkpoints
from rewardloop.clients.replicas import ReplicaAdmin
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError, SwapFailed
from rewardloop.store import Store, replicas, versions
from services.worker.fleet import Fleet, fleet

Admin = Callable[[str], ReplicaAdmin]
Outcomes = tuple[dict[str, dict[str, Any]], list[BaseException]]
"""Reports by address, and what went wrong elsewhere."""


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
    found = await fleet(store, settings)
    reports = await activate_everywhere(settings, version, serving, committed, found)
    async with store.transaction() as session:
        await replicas.note_version(session, found.control_urls, version)
    return reports


async def activate_everywhere(
    settings: Settings,
    version: str,
    fallback: str | None,
    committed: Mapping[str, str | None] | None = None,
    found: Fleet | None = None,
) -> list[dict[str, Any]]:
    """Activate `version` on every replica and return what each of them verified.

    `committed` holds the digests of the manifests in Postgres, for the replicas to compare.
    Without `found` these are the replicas that the settings name.

    If one fails, those that hold `version` by now go back to `fallback`, and the
    error is raised; a replica whose own swap failed has gone back by itself.
    Replicas that differ in any tensor's checksum have failed.

    Raises:
        UpstreamUnavailable: a replica does not answer; worth trying again.
        SwapFailed, CheckpointInvalid: a replica refused the version.
    """
    found = found or Fleet(settings.generator_urls, is_watched=False)
    key = settings.admin_key.get_secret_value()
    is_rolling = settings.swap_order == "rolling" and len(found.control_urls) > 1
    notice = settings.notice_seconds if is_rolling and found.is_watched else 0.0
    urls = found.control_urls

    def admin(url: str) -> ReplicaAdmin:
        return ReplicaAdmin(url, key, committed, notice)

    activating = (
        _one_after_another(admin, urls, version, notice)
        if is_rolling
        else _all(admin, urls, version)
    )
    reports, errors = await activating
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


async def _all(admin: Admin, urls: Sequence[str], version: str) -> Outcomes:
    outcomes = await asyncio.gather(
        *(_activate(admin(url), version) for url in urls), return_exceptions=True
    )
    told = list(zip(urls, outcomes, strict=True))
    reports = {url: report for url, report in told if not isinstance(report, BaseException)}
    return reports, [error for _, error in told if isinstance(error, BaseException)]


async def _one_after_another(
    admin: Admin, urls: Sequence[str], version: str, notice_seconds: float
) -> Outcomes:
    """The next one begins when routers have seen that the last one is ready again. The first
    that fails is the last that is tried; where one is away, none is touched."""
    looked = await asyncio.gather(*(_look(admin(url)) for url in urls), return_exceptions=True)
    if errors := [error for error in looked if error is not None]:
        return {}, errors
    reports: dict[str, dict[str, Any]] = {}
    for number, url in enumerate(urls, 1):
        done, errors = await _all(admin, [url], version)
        if errors:
            return reports, errors
        reports |= done
        if done[url].get("held_seconds") and number < len(urls):
            await asyncio.sleep(notice_seconds)
    return reports, []


async def _look(replica: ReplicaAdmin) -> None:
    async with replica:
        await replica.require_there()


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
