"""An engine that computes nothing: it serves tests of scale and of faults, and nothing else.

    python -m services.generator.stub_engine --port 8001 [--die-after NUM_REQUESTS]
        [--faults '{"latency_seconds": 1, "hang_rate": 0.02}'] [--calls FILE]

It stands where vLLM stands, behind the real gate, and speaks as much of vLLM's
OpenAI routes as the gate, the judge and the clients use. Tokens are words. What it
writes follows from a hash of prompt, sample index and weight version, so a test can
tell which weights answered; what it "loads" is a checkpoint's folder, whose
`canaries.json` it repeats as its log-probabilities. `Faults` makes it slow, wrong or
dead. It knows nothing of models and has no tokenizer, so it tells no token ids and no text
can be a control token in it.
"""

import argparse
import asyncio
import hashlib
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from rewardloop import telemetry
from rewardloop.config import load_settings
from services.generator import gate
from services.generator.chat_request import begins_answer, text_of
from services.generator.launch import initial_checkpoint
from services.generator.stub_faults import (
    NEVER_SECONDS,
    PAGE,
    CallLog,
    CutResponse,
    Fate,
    Faults,
    Refused,
    poison_of,
    poisoned,
)
from services.generator.stub_load import StubLoad
from services.generator.stub_logprobs import NextToken, next_token, prompt_logprobs
from services.generator.stub_verdict import (
    AskedVerdict,
    asked_by_pattern,
    asked_by_prompt,
    without_nonce,
)

__all__ = ["PAGE", "Faults", "StubEngine", "make_app"]

WORDS = ["apple", "bridge", "candle", "desert", "engine", "forest", "garden", "harbour", "kettle"]


class StubEngine:
    """Holds one checkpoint's folder. The first six methods are those that the gate calls."""

    def __init__(
        self,
        folder: Path,
        *,
        faults: Faults | None = None,
        max_model_len: int = 2048,
        calls: CallLog | None = None,
    ) -> None:
        self.faults = faults or Faults()
        self.calls = calls or CallLog()
        self.max_model_len = max_model_len
        self.num_requests = 0
        self.load = StubLoad(self.faults.max_running)
        self._folder = folder
        self._reloaded = False
        self._version = "default"
        self._running = asyncio.Event()
        self._running.set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._num_in_flight = 0

    async def pause_generation(self, *, mode: str, clear_cache: bool) -> None:
        assert mode == "wait", "the stub can only let requests finish"
        self._running.clear()
        await self._idle.wait()

    async def resume_generation(self) -> None:
        self._running.set()

    async def collective_rpc(self, method: str, *, kwargs: dict[str, Any] | None = None) -> Any:
        if method == "pack_shared_heads":
            return None  # it has no heads
        if method == "sort_heads_only":
            return []  # it sorts nothing
        if method == "sample_weights":
            return await self.compute_weight_checksums()
        assert method == "reload_weights", f"the stub has no {method}"
        assert kwargs is not None
        folder = Path(kwargs["weights_path"])
        (folder / "model.safetensors").stat()  # raises where there is none, as vLLM does
        await asyncio.sleep(self.faults.reload_seconds)
        self._reloaded = True
        if not self.faults.stale_after_reload:
            self._folder = folder
        return None

    async def update_weight_version(self, version: str) -> None:
        self._version = version

    async def get_weight_version(self) -> str:
        return self._version

    async def compute_weight_checksums(self) -> list[dict[str, str]]:
        """One mapping a worker, of which there is one."""
        digest = hashlib.sha256((self._folder / "model.safetensors").read_bytes())
        return [{"model.safetensors": digest.hexdigest()}]

    @asynccontextmanager
    async def request(
        self, num_words: int, *, asked: str = "", faulty: bool = True
    ) -> AsyncIterator[Fate]:
        """Admit a request whose prompt has `num_words` words, with the faults that befall it.

        `asked` is all that the answer depends on.
        """
        await self._running.wait()
        if num_words > self.max_model_len:
            raise Refused(400, "BadRequestError", self._too_long(num_words))
        self._num_in_flight += 1
        self._idle.clear()
        try:
            async with self.load.place():
                yield await self._befall(asked) if faulty else Fate.ANSWER
        finally:
            self._num_in_flight -= 1
            if not self._num_in_flight:
                self._idle.set()

    def _too_long(self, num_words: int) -> str:
        return (
            f"This model's maximum context length is {self.max_model_len} tokens. However, your "
            f"prompt contains {num_words} input tokens, which exceeds this limit even without any "
            "output tokens. Please reduce the length of the input prompt. "
            f"(parameter=input_tokens, value={num_words})"
        )

    async def _befall(self, asked: str) -> Fate:
        self.num_requests += 1
        number, faults = self.num_requests, self.faults
        if faults.die_after is not None and number > faults.die_after:
            os._exit(1)
        fate = faults.fate(number)
        self.calls.begun(number, asked, fate)
        try:
            await asyncio.sleep(faults.seconds(number, fate))
        except asyncio.CancelledError:
            self.calls.ended(number, answered=False)
            raise
        self.calls.ended(number, answered=fate is Fate.ANSWER)
        if fate is Fate.ERROR:
            raise Refused(500, "InternalServerError", "EngineCore encountered an issue.")
        return fate

    def write(self, prompt: str, index: int, *, forced: AskedVerdict | None = None) -> str:
        """The text of sample `index` of `prompt`, in the form of `forced` if a verdict is.

        Free text names the weights that are loaded.
        """
        asked = "" if self.faults.repeats_itself else f"{without_nonce(prompt)}\0{index}"
        chance = Random(f"{self._folder.name}\0{asked}")
        words = " ".join(chance.choices(WORDS, k=chance.randint(4, 24)))
        if forced is not None:
            line = forced.line(chance, self.faults.fixed_score)
            return f"The answer {words[:40].rstrip()}.\n{line}"
        text = f"[{self._folder.name}] {words}"
        if self.faults.writes_nul:
            text += " \x00"
        verdict = asked_by_prompt(prompt)
        if verdict is None:
            return text
        line = verdict.line(chance, self.faults.fixed_score)
        return text if chance.random() < self.faults.unscored_rate else f"{text}\n{line}"

    def next_token(self, body: dict[str, Any], prompt: str) -> NextToken | None:
        return next_token(body, prompt, self._folder.name, self.faults)

    def prompt_logprobs(self, tokens: list[int]) -> list[dict[str, dict[str, float]] | None]:
        error = self.faults.logprob_error if self._reloaded else 0.0
        return prompt_logprobs(tokens, self._folder, error)


def make_app(engine: StubEngine) -> Starlette:
    """The engine's routes behind the real gate, which reads the environment."""
    app = Starlette(
        routes=[
            Route("/health", _health),
            Route("/metrics", _metrics),
            Route("/v1/models", _models),
            Route("/v1/chat/completions", _complete, methods=["POST"]),
            Route("/v1/completions", _complete, methods=["POST"]),
        ],
        middleware=[Middleware(gate.Gate)],
    )
    app.state.engine_client = engine
    return app


async def _health(_: Request) -> Response:
    return Response()


async def _metrics(request: Request) -> Response:
    load: bytes = request.app.state.engine_client.load.metrics()
    return Response(generate_latest() + load, media_type=CONTENT_TYPE_LATEST)


async def _models(request: Request) -> Response:
    length = request.app.state.engine_client.max_model_len
    model = {"id": "policy", "object": "model", "owned_by": "stub", "max_model_len": length}
    return JSONResponse({"object": "list", "data": [model]})


@dataclass(frozen=True)
class _Written:
    """The finished texts of one request; `form` puts them into either route's words."""

    chat: bool
    num_prompt_words: int
    choices: list[tuple[str, str]]
    """Text and finish reason."""

    def head(self, *, chunk: bool = False) -> dict[str, Any]:
        kind = "chat.completion" if self.chat else "text_completion"
        kind += ".chunk" if chunk and self.chat else ""
        return {"id": "stub", "object": kind, "created": int(time.time()), "model": "policy"}

    def usage(self) -> dict[str, int]:
        completion = sum(len(text.split()) for text, _ in self.choices)
        # In vLLM's order, which the gate's stamp relies on.
        return {
            "prompt_tokens": self.num_prompt_words,
            "total_tokens": self.num_prompt_words + completion,
            "completion_tokens": completion,
        }

    def choice(self, index: int, text: str, reason: str | None, *, chunk: bool) -> dict[str, Any]:
        turn = {"role": "assistant", "content": text}
        said = {("delta" if chunk else "message"): turn} if self.chat else {"text": text}
        return {"index": index, **said, "logprobs": None, "finish_reason": reason}

    def body(self) -> dict[str, Any]:
        whole = [self.choice(i, *choice, chunk=False) for i, choice in enumerate(self.choices)]
        return {**self.head(), "choices": whole, "usage": self.usage()}

    async def stream(self, with_usage: bool) -> AsyncIterator[str]:
        """Server-sent events, a word each, the choices taking turns."""
        words = [text.split(" ") for text, _ in self.choices]
        for position in range(max(map(len, words))):
            for index, of_choice in enumerate(words):
                if position < len(of_choice):
                    yield self._event(index, of_choice, position)
        if with_usage:
            yield _sse({**self.head(chunk=True), "choices": [], "usage": self.usage()})
        yield "data: [DONE]\n\n"

    def _event(self, index: int, words: list[str], position: int) -> str:
        last = position == len(words) - 1
        text = words[position] + ("" if last else " ")
        reason = self.choices[index][1] if last else None
        choice = self.choice(index, text, reason, chunk=True)
        return _sse({**self.head(chunk=True), "choices": [choice]})


def _sse(event: dict[str, Any]) -> str:
    return f"data: {json.dumps(event)}\n\n"


async def _complete(request: Request) -> Response:
    body: dict[str, Any] = await request.json()
    try:
        return await _answer(request.app.state.engine_client, body)
    except Refused as refused:
        return refused.response


async def _answer(engine: StubEngine, body: dict[str, Any]) -> Response:
    chat = "messages" in body
    if body.get("model") not in (None, "policy"):
        raise Refused(404, "NotFoundError", f"The model `{body['model']}` does not exist.")
    prompt = _prompt(body)
    num_words = len(prompt.split())
    if body.get("prompt_logprobs") is not None:
        async with engine.request(num_words, faulty=False):
            logprobs = engine.prompt_logprobs(body["prompt"])
        answer = _Written(chat, num_words, [("stub", "length")]).body()
        answer["choices"][0]["prompt_logprobs"] = logprobs
        return JSONResponse(answer)
    forced = _forced(body)
    poison = poison_of(prompt) if engine.faults.heeds_poison else None
    num = body.get("n") or 1
    async with engine.request(num_words, asked=f"{prompt}\0{num}\0{forced}") as fate:
        if poison is not None:
            await _suffer(poison)
        whole = [engine.write(prompt, index, forced=forced) for index in range(num)]
    if (likely := engine.next_token(body, prompt)) is not None:
        whole = [likely.text]
    texts = [_stopped(text, body.get("stop")) for text in whole]
    asked = body.get("max_tokens") or body.get("max_completion_tokens") or engine.max_model_len
    room = min(asked, engine.max_model_len - num_words)
    written = _Written(chat, num_words, [_cut(text, room) for text in texts])
    if body.get("stream"):
        with_usage = (body.get("stream_options") or {}).get("include_usage", False)
        return StreamingResponse(written.stream(with_usage), media_type="text/event-stream")
    answer = written.body()
    if likely is not None:
        answer["choices"][0]["logprobs"] = likely.logprobs()
    return CutResponse(answer) if fate is Fate.CUT else poisoned(answer, poison)


async def _suffer(poison: str) -> None:
    """What comes instead of an answer."""
    if poison == "hang":
        await asyncio.sleep(NEVER_SECONDS)
    if poison.isdecimal():
        raise Refused(int(poison), "InternalServerError", "EngineCore encountered an issue.")


def _prompt(body: dict[str, Any]) -> str:
    if "messages" in body:
        asked = body["messages"][:-1] if begins_answer(body) else body["messages"]
        try:
            return "\n".join(_content(message["content"]) for message in asked)
        except (TypeError, KeyError) as error:
            raise Refused(400, "BadRequestError", f"messages: {error!r}") from error
    if "prompt" not in body:
        raise Refused(400, "BadRequestError", "there are no messages and no prompt")
    prompt = body["prompt"]
    return prompt if isinstance(prompt, str) else " ".join(map(str, prompt))


def _content(content: Any) -> str:
    """Parts are joined as vLLM joins them. The gate lets nothing else than text through."""
    parts = content if isinstance(content, list) else [content]
    return "\n".join(str(text_of(part)) for part in parts)


def _forced(body: dict[str, Any]) -> AskedVerdict | None:
    pattern: str | None = (body.get("structured_outputs") or {}).get("regex")
    if pattern is None:
        return None
    forced = asked_by_pattern(pattern)
    if forced is None:
        raise Refused(400, "BadRequestError", "the stub only knows the judge's patterns")
    return forced


def _stopped(text: str, stop: str | list[str] | None) -> str:
    """The text up to the first stop string, without it."""
    for end in [stop] if isinstance(stop, str) else stop or []:
        text = text.partition(end)[0]
    return text


def _cut(text: str, num_words: int) -> tuple[str, str]:
    if len(text.split()) <= num_words:
        return text, "stop"
    return " ".join(text.split()[:num_words]), "length"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8001)
    parser.add_argument("--die-after", type=int)
    parser.add_argument("--faults", type=json.loads, default={}, help="fields of Faults, as JSON")
    parser.add_argument("--calls", type=Path, help="file to which each call is appended")
    options = parser.parse_args()
    telemetry.log_json()
    faults = Faults(**{"die_after": options.die_after, **options.faults})
    folder = initial_checkpoint(load_settings("generator"))
    engine = StubEngine(folder, faults=faults, calls=CallLog(options.calls))
    uvicorn.run(
        make_app(engine), host=options.host, port=options.port, log_config=None, access_log=False
    )


if __name__ == "__main__":
    main()
