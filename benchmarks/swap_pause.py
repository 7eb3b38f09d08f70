"""How long a swap holds requests back, against bare reload plus canaries.

    python -m benchmarks.swap_pause [--rounds 5] [--home DIR]

One real vLLM server with SmolLM2-135M behind the gate. Two versions take turns. Our side is
the whole swap, as the controller asks for it: its time is what the replica reports as
`held_seconds`, from the moment in which new requests wait until they are let in. The bare side
does in the same server what no swap can leave out: pause, reload in place, set the version,
resume, and ask for the canaries; it verifies no file and compares no checksum. Nothing else is
asked meanwhile, so neither waits for answers. The sides take turns, and the ratio is the median
of the rounds'. The first swap of each side is not counted: it fills the file cache.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from safetensors.torch import load_file, save_file
from starlette.types import ASGIApp, Receive, Scope, Send

from rewardloop import checkpoints
from rewardloop.clients.generator import POLICY
from services.generator import canaries
from services.generator.gate import Gate
from services.trainer import base_model
from services.trainer.canaries import write_canaries
from tests.security.real_replica import START_SECONDS, Replica, replica

ROUTE = "/bench/bare-reload"
FIRST, SECOND = "m0", "m1"
MAX_MODEL_LEN = 2048


class BareReload:
    """A middleware outside of the gate, with one route that reloads weights and no more."""

    def __init__(self, app: ASGIApp) -> None:
        assert isinstance(app, Gate), "name this middleware after the gate"
        self._gate = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != ROUTE:
            await self._gate(scope, receive, send)
            return
        folder = Path((await receive())["body"].decode())
        answer = json.dumps(await self._reload(scope["app"], folder)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": answer})

    async def _reload(self, fastapi_app: Any, folder: Path) -> dict[str, float]:
        engine = fastapi_app.state.engine_client
        began = time.monotonic()
        await engine.pause_generation(mode="wait", clear_cache=True)
        await engine.collective_rpc("reload_weights", kwargs={"weights_path": str(folder)})
        await engine.collective_rpc("pack_shared_heads")
        await engine.update_weight_version(folder.name)
        await engine.resume_generation()
        reloaded = time.monotonic()
        await canaries.compare(self._gate._app, fastapi_app, folder, POLICY)
        ended = time.monotonic()
        await engine.compute_weight_checksums()
        return {
            "seconds": ended - began,
            "canaries": ended - reloaded,
            "checksums": time.monotonic() - ended,
        }


def publish(root: Path) -> dict[str, dict[str, Any]]:
    """SmolLM2, and the same with a slightly louder embedding."""
    first = checkpoints.publish(root, FIRST, lambda folder: _write_base(folder), {"parent": None})

    def louder(folder: Path) -> None:
        for file in (root / FIRST).iterdir():
            if file.name not in (checkpoints.MANIFEST, checkpoints.CANARIES):
                shutil.copy(file, folder)
        tensors = load_file(folder / "model.safetensors")
        tensors["model.embed_tokens.weight"] *= 1.1
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        write_canaries(folder)

    second = checkpoints.publish(root, SECOND, louder, {"parent": FIRST})
    return {FIRST: first, SECOND: second}


def _write_base(folder: Path) -> None:
    base_model._write(None, folder)


async def rounds(served: Replica, number: int) -> list[dict[str, float]]:
    """Each round swaps by the gate to one version and reloads barely to the other; which side
    begins alternates, so that a machine that becomes busier or calmer favours neither."""
    found: list[dict[str, float]] = []
    async with served.client(admin=True) as client:
        for turn in range(number + 1):
            ours, other = (SECOND, FIRST) if turn % 2 == 0 else (FIRST, SECOND)
            sides = [_ours(client, ours), _bare(client, served.home.checkpoints / other)]
            one: dict[str, float] = {}
            for side in sides if turn % 2 == 0 else reversed(sides):
                one |= await side
            if turn:
                found.append(one)
                print(_row(turn, one), flush=True)
    return found


async def _ours(client: httpx.AsyncClient, version: str) -> dict[str, float]:
    answer = await client.post("/admin/activate", json={"version": version})
    answer.raise_for_status()
    return {"held": answer.json()["held_seconds"]}


def _row(number: int, one: dict[str, float]) -> str:
    return (
        f"{number:>5} {one['held']:>8.3f} {one['seconds']:>8.3f} {one['canaries']:>15.3f}"
        f" {one['checksums']:>12.3f}"
    )


async def _bare(client: httpx.AsyncClient, folder: Path) -> dict[str, float]:
    answer = await client.post(ROUTE, content=str(folder))
    answer.raise_for_status()
    found: dict[str, float] = answer.json()
    return found


async def measure(number: int, home: Path) -> list[dict[str, float]]:
    async with replica(home, publish) as served:
        server = served.start(MAX_MODEL_LEN, options=["--middleware", f"{__name__}.BareReload"])
        try:
            await server.wait_until(served.is_healthy, START_SECONDS)
            return await rounds(served, number)
        finally:
            server.stop()


def summary(found: list[dict[str, float]]) -> dict[str, float]:
    return {
        "swap_pause_ratio": round(statistics.median(r["held"] / r["seconds"] for r in found), 3),
        "held_seconds": round(statistics.median(r["held"] for r in found), 3),
        "bare_seconds": round(statistics.median(r["seconds"] for r in found), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--home", type=Path, help="keep the published versions here")
    options = parser.parse_args()
    print(f"{'round':>5} {'held s':>8} {'bare s':>8} {'of it canaries':>15} {'(checksums)':>12}")
    with tempfile.TemporaryDirectory(prefix="rewardloop-pause-") as folder:
        home = options.home or Path(folder) / "home"
        found = asyncio.run(measure(options.rounds, home))
    print(json.dumps(summary(found)))


if __name__ == "__main__":
    from benchmarks.swap_pause import main as main_of_the_module

    main_of_the_module()  # so that the server can import the middleware by its module's name
