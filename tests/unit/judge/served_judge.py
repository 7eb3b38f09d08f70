"""The judge's app in this process, over an engine that a test serves."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from rewardloop.config import Settings
from services.judge import app as judge_app

KEY = "a-key-of-16-chars"


def judge_settings(engine_url: str, **changed: Any) -> Settings:
    return Settings(
        database_url=SecretStr("postgresql://x"),
        broker_url=SecretStr("redis://x"),
        api_key=SecretStr(KEY),
        admin_key=SecretStr("b" * 16),
        checkpoint_root=Path("/nowhere"),
        judge_upstream_url=engine_url,
        **changed,
    )


@asynccontextmanager
async def judge_over(engine_url: str, **changed: Any) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the judge that asks the engine at this address."""
    app = judge_app.make_app(judge_settings(engine_url, **changed))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://judge",
            headers={"authorization": f"Bearer {KEY}"},
        ) as client,
    ):
        yield client
