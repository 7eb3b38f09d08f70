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
from services.api import evaluations, inspection, iterations, keys, models, prompts, reports, runs
from services.api.access import Access, guard
from services.api.context import Context
from services.api.stored_metrics import refresh
from services.headers import SafeHeaders, page_policy
from services.named import NamesWork
from services.web import add_common_routes, add_error_handlers, keys_given_once

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
        # Their pages run scripts from elsewhere beside the dashboard, which holds a key.
        docs_url=None,
        redoc_url=None,
    )
    app.state.context = context
    app.state.access = Access(context.store, settings.api_key.get_secret_value())
    app.add_middleware(SafeHeaders)
    app.add_middleware(NamesWork)

    async def refresh_metrics() -> None:
        await refresh(context.store)

    add_common_routes(app, guard, refresh_metrics)
    add_error_handlers(app, RewardloopError.problem)
    for room in (runs, iterations, prompts, inspection, models, evaluations, reports, keys):
        app.include_router(room.router, prefix="/v1", dependencies=[Depends(guard)])

    policy = page_policy(DASHBOARD.read_text(encoding="utf-8"))

    @app.get("/", include_in_schema=False)
    async def dashboard() -> FileResponse:
        headers = {"cache-control": "no-cache", "content-security-policy": policy}
        return FileResponse(DASHBOARD, headers=headers)

    return app
