"""An ASGI app that a test serves."""

import threading
import time
from typing import Any

import uvicorn

from tests.integration.trainer_jobs import job, module  # noqa: F401 (fixtures)


class Served:
    """An ASGI app under uvicorn, in a thread of this process."""

    def __init__(self, app: Any, url: str) -> None:
        self.url = url
        self._server = uvicorn.Server(
            uvicorn.Config(
                app,
                port=int(url.rpartition(":")[2]),
                lifespan="on",
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        while not self._server.started:
            assert self._thread.is_alive(), f"{url} did not start"
            time.sleep(0.01)

    def ask_to_stop(self) -> None:
        self._server.should_exit = True

    def stop(self) -> None:
        self.ask_to_stop()
        self._thread.join(10)
        assert not self._thread.is_alive()
