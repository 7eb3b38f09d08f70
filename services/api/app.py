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
    keys,
    models,
    prompts,
    reports,
    runs,
)
from services.api.access import Access
from services.api.context import Context
from services.api.stored_metrics import refresh
from services.front import Limits
from services.headers import SafeHeaders, page_policy
from services.named import NamesWork
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
        # Their pages run scripts from elsewhere beside the dashboard, which holds a key.
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.state.access = Access(context.store, settings.api_key.get_secret_value())
    stand_in_front(app, app.state.access.authenticate, _limits(settings))
    app.add_middleware(SafeHeaders)
    app.add_middleware(NamesWork)

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
        keys,
    )
    for room in rooms:
        app.include_router(room.router, prefix="/v1", dependencies=[Depends(key_wanted)])

    policy = page_policy(DASHBOARD.read_text(encoding="utf-8"))

    @app.get("/", include_in_schema=False)
    async def dashboard() -> FileResponse:
        headers = {"cache-control": "no-cache", "content-security-policy": policy}
        return FileResponse(DASHBOARD, headers=headers)

    return app


def _limits(settings: Settings) -> Limits:
    return Limits(
        settings.max_requests_in_flight,
        settings.max_requests_per_second,
        BODY,
        by_path={IMPORTS: IMPORTED, INSPECT: inspection.FILE},
    )
