"""An engine that is only its surface, behind the real gate."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from rewardloop import checkpoints
from services.generator import committed
from services.generator.gate import Gate

API_KEY, ADMIN_KEY = "api-key-of-16-chars", "admin-key-of-16-chars"

LOGPROBS = {"m0": -1.0, "m1": -2.0, "m2": -2.0, "bad": -3.0}
"""What the engine computes for every token under each version's weights. A test that wants
m2 publishes it."""

CANARY_LOGPROBS = {"m0": [-1.0, -1.0], "m1": [-2.04, -2.0], "bad": [-3.0, -3.2]}
"""What the trainer computed: m1's mean difference is 0.02 and bad's is 0.1."""


@dataclass
class FakeEngine:
    """The methods of vLLM's engine client that the gate calls, and an order of events."""

    loaded: str = "m0"
    stale: bool = False
    """Reloads change nothing: what canaries and checksums are for."""
    sampled: str | None = None
    """What the beginnings of tensors always are."""
    unloadable: set[str] = field(default_factory=set)
    logprobs: dict[str, float] = field(default_factory=lambda: dict(LOGPROBS))
    adapters: dict[int, str] = field(default_factory=dict)
    """By number, those that its workers hold."""
    second_sampler: dict[str, Any] = field(
        default_factory=lambda: {"sampler": "head", "reason": None}
    )
    """What the second of its two workers says of its top-p filter."""
    announced: str | None = None
    paused: bool = False
    events: list[str] = field(default_factory=list)
    reloading: asyncio.Event = field(default_factory=asyncio.Event)
    may_reload: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.may_reload.set()

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None:
        assert mode == "wait"
        assert clear_cache, "cached prefixes of the old weights must go"
        self.paused = True
        self.events.append("pause")

    async def resume_generation(self) -> None:
        self.paused = False
        self.events.append("resume")

    async def collective_rpc(self, method: str, *, kwargs: dict[str, Any] | None = None) -> Any:
        if method == "sort_heads_only":
            return [{"sampler": "head", "reason": None}, self.second_sampler]
        if method == "adapter_digest":
            assert kwargs is not None
            return [f"digest of {self.adapters[kwargs['number']]}"] * 2
        if method == "sample_weights":
            return [{"layer.0": self.sampled or f"beginning of {self.loaded}"}]
        assert self.paused
        if method == "pack_shared_heads":
            self.events.append("pack heads")
            return None
        assert method == "reload_weights"
        assert kwargs is not None
        version = Path(kwargs["weights_path"]).name
        self.events.append(f"reload {version}")
        self.reloading.set()
        await self.may_reload.wait()
        if version in self.unloadable:
            raise RuntimeError(f"no shard of {version} fits")
        if not self.stale:
            self.loaded = version
        self.adapters.clear()  # as vLLM's workers do
        return None

    async def remove_lora(self, number: int) -> None:
        self.events.append(f"remove adapter {self.adapters.pop(number)}")

    async def update_weight_version(self, version: str) -> None:
        self.events.append(f"announce {version}")
        self.announced = version

    async def get_weight_version(self) -> str | None:
        return self.announced

    async def compute_weight_checksums(self) -> list[dict[str, str]]:
        return [{"layer.0": f"sum of {self.loaded}"}, {"layer.1": f"sum of {self.loaded}"}]


class FakeModels:
    """vLLM's list of models and adapters, `app.state.openai_serving_models`."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self._number = 0
        self.lora_requests: dict[str, Any] = {}

    async def load_lora_adapter(self, request: Any) -> Any:
        version = Path(request.lora_path).name
        if version in self._engine.unloadable:
            return SimpleNamespace(error=SimpleNamespace(message=f"no layer of {version} fits"))
        self._number += 1
        self._engine.events.append(f"add adapter {version}")
        self._engine.adapters[self._number] = version
        self.lora_requests[request.lora_name] = SimpleNamespace(lora_int_id=self._number)
        return f"Success: LoRA adapter '{request.lora_name}' added successfully."

    async def unload_lora_adapter(self, request: Any) -> str:
        del self.lora_requests[request.lora_name]
        return "Success"


@dataclass
class FakeServer:
    """vLLM's routes. `content` is what the model says; `requests` what it was asked."""

    engine: FakeEngine
    content: str = "Hello."
    num_missing: int = 0
    """Choices that it leaves out."""
    models: "FakeModels" = field(init=False)
    requests: list[dict[str, Any]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.models = FakeModels(self.engine)
        self.may_answer.set()

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        assert int(request.headers["content-length"]) == len(await request.body())
        self.requests.append(body)
        self.arrived.set()
        await self.may_answer.wait()
        if body.get("stream"):
            return StreamingResponse(self._chunks(body), media_type="text/event-stream")
        if body.get("user") == "fail":
            return JSONResponse({"error": {"message": "no", "type": "BadRequestError"}}, 400)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": self.content},
                "finish_reason": "stop",
            }
            for index in range((body.get("n") or 1) - self.num_missing)
        ]
        usage = {"prompt_tokens": 7, "total_tokens": 12, "completion_tokens": 5}
        return JSONResponse({"id": "x", "choices": choices, "usage": usage})

    async def _chunks(self, body: dict[str, Any]) -> AsyncIterator[str]:
        for piece in (self.content, self.content):
            chunk = {"id": "x", "choices": [{"index": 0, "delta": {"content": piece}}]}
            yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"

    async def completions(self, request: Request) -> Response:
        body = await request.json()
        if "prompt_logprobs" not in body:
            return await self.chat(request)
        assert not self.engine.paused
        adapter = body["model"] if body["model"] in self.models.lora_requests else None
        logprob = self.engine.logprobs[adapter or self.engine.loaded]
        positions = [None, *({str(t): {"logprob": logprob}} for t in body["prompt"][1:])]
        return JSONResponse({"choices": [{"index": 0, "prompt_logprobs": positions}]})


def _publish(root: Path, version: str) -> None:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(f"weights of {version}")
        canary = {
            "prompt_token_ids": [1, 2],
            "continuation_token_ids": [3, 4],
            "logprobs": CANARY_LOGPROBS[version],
        }
        (folder / checkpoints.CANARIES).write_text(json.dumps({"canaries": [canary]}))

    checkpoints.publish(root, version, write, {})


@dataclass
class Replica:
    """A server behind the gate, and clients with each key."""

    server: FakeServer
    root: Path
    app: Starlette
    api: httpx.AsyncClient
    admin: httpx.AsyncClient
    stranger: httpx.AsyncClient

    @property
    def engine(self) -> FakeEngine:
        return self.server.engine

    async def chat(self, **fields: Any) -> httpx.Response:
        body = {"model": "policy", "messages": [{"role": "user", "content": "Hi"}], **fields}
        return await self.api.post("/v1/chat/completions", json=body)

    async def activate(self, version: str, **more: Any) -> httpx.Response:
        return await self.admin.post("/admin/activate", json={"version": version, **more})

    async def weights(self) -> dict[str, Any]:
        answer = await self.admin.get("/admin/weights")
        assert answer.status_code == 200, answer.text
        weights: dict[str, Any] = answer.json()
        return weights


@pytest.fixture
async def replica(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Replica]:
    """A replica on version m0, with m1 and bad published beside it."""
    environment = {
        "REWARDLOOP_DATABASE_URL": "postgresql+psycopg://u:p@127.0.0.1/d",
        "REWARDLOOP_BROKER_URL": "redis://127.0.0.1/0",
        "REWARDLOOP_API_KEY": API_KEY,
        "REWARDLOOP_ADMIN_KEY": ADMIN_KEY,
        "REWARDLOOP_CHECKPOINT_ROOT": str(tmp_path),
        "REWARDLOOP_INITIAL_VERSION": "m0",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for version in CANARY_LOGPROBS:
        _publish(tmp_path, version)

    async def without_manifest(*_: object) -> None:
        """What Postgres says of a row that was committed without one."""

    monkeypatch.setattr(committed, "manifest_digest", without_manifest)
    server = FakeServer(FakeEngine())

    async def health(_: Request) -> Response:
        return Response()

    async def text(request: Request) -> Response:
        return PlainTextResponse(request.url.path)

    app = Starlette(
        routes=[
            Route("/health", health),
            Route("/metrics", text),
            Route("/v1/models", text),
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
            Route("/v1/completions", server.completions, methods=["POST"]),
            Route("/collective_rpc", text, methods=["POST"]),
            Route("/tokenize", text, methods=["POST"]),
        ],
        middleware=[Middleware(Gate)],
    )
    app.state.engine_client = server.engine
    app.state.openai_serving_models = server.models

    def client(key: str | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=app),
            base_url="http://replica",
            headers={"authorization": f"Bearer {key}"} if key else {},
        )

    async with client(API_KEY) as api, client(ADMIN_KEY) as admin, client(None) as stranger:
        yield Replica(server, tmp_path, app, api, admin, stranger)


@pytest.fixture
def metric() -> Callable[..., float]:
    """The value of a counter by name and labels."""
    from prometheus_client import REGISTRY

    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    return value
