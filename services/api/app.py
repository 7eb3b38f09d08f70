"""The FastAPI application: wiring only. Routes live in a file per noun."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import Depends, FastAPI
from fastapi.responses import FileResponse

from rewardloop import __version__
from rewardloop.config import Settings
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
from services.front import Limits, one_key
from services.request_body import BodyRule
from services.web import add_common_routes, key_wanted, known_parameters, stand_in_front

BODY = BodyRule(2**20)
IMPORTS = re.compile(r"/v1/datasets/[^/]+/(prompts|ranked|compare)")
IMPORTED = BodyRule(64 * 2**20, total_seconds=600, idle_seconds=30)
INSPECT = re.compile(r"/v1/datasets/inspect")
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
        dependencies=[Depends(known_parameters)],
        redirect_slashes=False,
    )
    app.state.context = context
    stand_in_front(app, one_key(settings.api_key.get_secret_value()), _limits(settings))

    async def refresh_metrics() -> None:
        await refresh(context.store)

    add_common_routes(app, refresh_metrics)
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
        app.include_router(room.router, prefix="/v1", dependencies=[Depends(key_wanted)])

    @app.get("/", include_in_schema=False)
    async def dashboard() -> FileResponse:
        return FileResponse(DASHBOARD, headers={"cache-control": "no-cache"})

    return app


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.max_requests_in_flight,
        settings.max_requests_per_second,
        BODY,
        by_path={IMPORTS: IMPORTED, INSPECT: inspection.FILE},
    )
