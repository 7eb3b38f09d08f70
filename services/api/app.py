"""The FastAPI application: wiring only. Routes live in a file per noun."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse

from rewardloop import __version__
from rewardloop.config import Settings
from rewardloop.errors import RewardloopError
from rewardloop.queue import make_app as make_celery
from rewardloop.store import Store
from services.api import (
    control,
    dead_prompts,
    evaluations,
    inspection,
    iterations,
    models,
    prompts,
    reports,
    runs,
)
from services.api.context import Context
from services.api.stored_metrics import refresh
from services.web import add_common_routes, add_error_handlers, key_guard, keys_given_once

DASHBOARD = Path(__file__).parent / "static" / "index.html"


def make_app(settings: Settings) -> FastAPI:
    context = Context(
        Store(settings.database_url.get_secret_value(), pool_size=10),
        make_celery(settings),
        settings,
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await context.store.close()

    app = FastAPI(
        title="Rewardloop",
        version=__version__,
        lifespan=lifespan,
        dependencies=[Depends(keys_given_once)],
    )
    app.state.context = context
    guard = key_guard(settings.api_key.get_secret_value())

    async def refresh_metrics() -> None:
        await refresh(context.store)

    add_common_routes(app, guard, refresh_metrics)
    add_error_handlers(app, RewardloopError.problem)
    rooms = (
        runs,
        iterations,
        control,
        dead_prompts,
        prompts,
        inspection,
        models,
        evaluations,
        reports,
    )
    for room in rooms:
        app.include_router(room.router, prefix="/v1", dependencies=[Depends(guard)])

    @app.get("/", include_in_schema=False)
    async def dashboard() -> FileResponse:
        return FileResponse(DASHBOARD, headers={"cache-control": "no-cache"})

    return app
