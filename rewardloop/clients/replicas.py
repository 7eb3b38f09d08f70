"""The admin routes of one generator replica."""

from collections.abc import Mapping
from typing import Any, Self

import httpx

from rewardloop.clients.http import call, connect, error_of
from rewardloop.errors import UpstreamUnavailable

ACTIVATE_SECONDS = 1800.0
"""A replica ends each of its steps itself, after a time that grows with the model's size;
this is for one that never answers. Celery sends a task again after an hour."""


HEALTH_SECONDS = 10.0


class ReplicaAdmin:
    """Speaks to a replica directly, never through a load balancer."""

    def __init__(
        self,
        url: str,
        admin_key: str,
        committed: Mapping[str, str | None] | None = None,
        notice_seconds: float = 0.0,
    ) -> None:
        """`committed` holds, by version, the digest of the manifest in Postgres. Before it
        holds requests back, the replica says for `notice_seconds` that it is not ready."""
        self.url = url
        self._notice_seconds = notice_seconds
        self._committed = committed or {}
        self._client = connect(url, admin_key, timeout_seconds=ACTIVATE_SECONDS)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.aclose()

    async def require_there(self) -> None:
        """
        Raises:
            UpstreamUnavailable: it does not answer, or is out of service.
        """
        try:
            answer = await self._client.get("/health", timeout=HEALTH_SECONDS)
        except httpx.TransportError as error:
            raise UpstreamUnavailable(f"{self.url} does not answer ({error!r})") from error
        if not answer.is_success:
            raise error_of(answer)

    async def weights(self) -> dict[str, Any]:
        """`version` and `checksums` (tensor name to digest) of what is loaded."""
        answer: dict[str, Any] = await call(self._client, "GET", "/admin/weights")
        return answer

    async def activate(self, version: str) -> dict[str, Any]:
        """Swap `version` in, verified; the answer is that of `weights` plus `canary`.

        Raises:
            SwapFailed: the replica is back on the version before.
            CheckpointInvalid: the files differ from their manifest, or that one from the one in
                Postgres, or they are no model that may be served; nothing was loaded.
            UpstreamUnavailable: the replica does not answer.
        """
        wanted: dict[str, Any] = {"version": version}
        if self._notice_seconds:
            wanted["notice_seconds"] = self._notice_seconds
        if digest := self._committed.get(version):
            wanted["manifest_sha256"] = digest
        answer: dict[str, Any] = await call(self._client, "POST", "/admin/activate", json=wanted)
        return answer
