"""Requests that were made to end an engine, hold it, or show its model another prompt.

`python -m tests.security.killers` sends each to a real vLLM behind its gate. What may come
back is its own answer or a refusal, never an error of the server; and while it runs, another
client, the victim, is served. A small request's time flips threefold by itself, so each killer is
sent several times, the victim being asked alone and beside it in turns: medians are compared.
Prints each request's status and the victim's seconds, then one JSON object.
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.security import stepping_model
from tests.security.real_replica import START_SECONDS, replica

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HI = {"role": "user", "content": "Hi"}
REQUEST_SECONDS = 240.0
NUM_ROUNDS = 7
MIN_ROUNDS = 3
LONG_SECONDS = 30.0
"""A killer that takes so long in all is sent no more."""
Fields = dict[str, Any]


@dataclass(frozen=True)
class Killer:
    name: str
    path: str
    body: bytes


@dataclass(frozen=True)
class Outcome:
    name: str
    statuses: frozenset[int]
    seconds: float
    """The median's."""
    victim_alone_seconds: float
    victim_seconds: float
    """The median of a small request that was sent just after this one."""

    @property
    def ratio(self) -> float:
        return self.victim_seconds / self.victim_alone_seconds


def _deep(levels: int) -> Any:
    value: Any = {"type": "string"}
    for _ in range(levels):
        value = {"type": "array", "items": value}
    return value


def _doubling(levels: int) -> Fields:
    defs: Fields = {"d0": {"type": "string"}}
    for n in range(1, levels):
        defs[f"d{n}"] = {"anyOf": [{"$ref": f"#/$defs/d{n - 1}"}] * 2}
    return {"$defs": defs, "$ref": f"#/$defs/d{levels - 1}"}


_TOOL = {"type": "function", "function": {"name": "f", "description": "x" * 10**6}}
_IMAGE = {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/x.png"}}

CHATS: dict[str, Fields] = {
    "beam search": {"use_beam_search": True, "n": 256, "max_tokens": 64},
    "n = 64": {"n": 64, "max_tokens": 4},
    "n = 65": {"n": 65},
    "n = 2^63": {"n": 2**63},
    "n = -1": {"n": -1},
    "n = true": {"n": True},
    "endless answer": {"ignore_eos": True, "min_tokens": 10**6, "max_tokens": 10**6},
    "min_tokens over max_tokens": {"min_tokens": 100, "max_tokens": 4},
    "max_tokens = 2^31": {"max_tokens": 2**31},
    "max_tokens = 0": {"max_tokens": 0},
    "a tool of 1 MB": {"tools": [_TOOL]},
    "10,000 tools": {"tools": [{"type": "function", "function": {"name": "f"}}] * 10_000},
    "a tool as grammar": {
        "tools": [{"type": "function", "function": {"name": "f", "parameters": _deep(15)}}],
        "tool_choice": "required",
    },
    "a picture": {"messages": [{"role": "user", "content": [_IMAGE]}]},
    "a picture in a text": {"messages": [{"role": "user", "content": [{**_IMAGE, "text": "a"}]}]},
    "a template of one's own": {"chat_template": "{% for a in range(10**9) %}x{% endfor %}"},
    "template arguments": {"chat_template_kwargs": {"chat_template": "{{ 1/0 }}"}},
    "a template's loop": {"chat_template_kwargs": {"messages": list(range(10**5))}},
    "documents": {"documents": [{"title": "a", "text": "b"}]},
    "ids in kv_transfer_params": {"kv_transfer_params": {"prompt_token_ids": [10**9]}},
    "ec_transfer_params": {"ec_transfer_params": {"a": 1}},
    "mm_processor_kwargs": {"mm_processor_kwargs": {"a": 1}},
    "logits_processors": {"logits_processors": ["os.system"]},
    "vllm_xargs": {"vllm_xargs": {"a": "b"}},
    "priority": {"priority": -(2**31)},
    "cache_salt": {"cache_salt": "x" * 1024},
    "bad_words": {"bad_words": ["a"] * 10**5},
    "truncate_prompt_tokens": {"truncate_prompt_tokens": -1},
    "seed = 2^63": {"seed": 2**63},
    "a seed": {"seed": 7, "n": 64, "max_tokens": 2},
    "logit_bias of every token": {"logit_bias": {str(i): 1 for i in range(49_152)}},
    "logit_bias of no token": {"logit_bias": {"999999999": 1}},
    "logit_bias of a word": {"logit_bias": {"word": 1}},
    "logprobs of the vocabulary": {"logprobs": True, "top_logprobs": 49_152},
    "prompt_logprobs of the vocabulary": {"prompt_logprobs": -1},
    "temperature = 1e-300": {"temperature": 1e-300, "max_tokens": 4},
    "temperature = 1e300": {"temperature": 1e300},
    "top_p = 1e-300": {"top_p": 1e-300, "max_tokens": 4},
    "repetition_penalty = 1e-300": {"repetition_penalty": 1e-300},
    "stop at every letter": {"stop": list("abcdefghijklmnopqrstuvwxyz")},
    "stop ids that are none": {"stop_token_ids": [2**31 - 1], "max_tokens": 4},
    "an empty grammar": {"structured_outputs": {"grammar": ""}},
    "a schema that is itself": {"structured_outputs": {"json": {"$ref": "#"}}},
    "a schema in a circle": {
        "structured_outputs": {
            "json": {"$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}
        }
    },
    "a schema that doubles": {"structured_outputs": {"json": _doubling(30)}},
    "a deep schema": {"structured_outputs": {"json": _deep(60)}},
    "a schema without end": {"structured_outputs": {"json": {"maxLength": 10**9}}},
    "a schema of another kind": {"structured_outputs": {"json": {"type": "teapot"}}},
    "a format that is itself": {
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}
    },
    "nested repeats": {"structured_outputs": {"regex": "((a{1000}){1000}){1000}"}, "max_tokens": 4},
    "a costly pattern": {"structured_outputs": {"regex": "(a|b|ab)*c" * 50}, "max_tokens": 4},
    "a look-ahead": {"structured_outputs": {"regex": "(?=a)b"}, "max_tokens": 4},
    "a back-reference": {"structured_outputs": {"regex": r"(a)\1"}, "max_tokens": 4},
    "no pattern": {"structured_outputs": {"regex": "("}},
    "a choice of nothing": {"structured_outputs": {"choice": []}},
    "no messages": {"messages": []},
    "messages of another kind": {"messages": {"role": "user"}},
    "10,000 messages": {"messages": [HI] * 10_000},
    "a role of one's own": {"messages": [{"role": "<|im_start|>", "content": "a"}]},
    "a stream without a reader": {"stream": True, "max_tokens": 8},
}
TEXTS: dict[str, Fields] = {
    "257 prompts": {"prompt": ["a"] * 257},
    "an id of no token": {"prompt": [2**31 - 1]},
    "an id below 0": {"prompt": [-1]},
    "embeddings": {"prompt_embeds": "AAAA"},
    "a prompt of 1 MB": {"prompt": "word " * 200_000},
    "100,000 ids": {"prompt": [1] * 100_000},
    "a suffix": {"prompt": "a", "suffix": "b"},
    "best_of": {"prompt": "a", "best_of": 10_000},
    "no prompt": {},
}
RAW = {
    "100,000 brackets": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "not a number": b'{"messages": [], "temperature": NaN}',
    "half a character": b'{"messages": [{"role": "user", "content": "\\ud800"}]}',
    "no JSON": b"\xff\xfe",
}


def killers() -> Iterator[Killer]:
    for name, fields in CHATS.items():
        yield _killer(name, CHAT, {"messages": [HI], "max_tokens": 8, **fields})
    for name, fields in TEXTS.items():
        yield _killer(name, COMPLETIONS, {"max_tokens": 4, **fields})
    for name, body in RAW.items():
        yield Killer(name, CHAT, body)


def _killer(name: str, path: str, fields: Fields) -> Killer:
    return Killer(name, path, json.dumps({"model": "policy", **fields}).encode())


def attack(url: str, key: str) -> list[Outcome]:
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    with httpx.Client(base_url=url, headers=headers, timeout=REQUEST_SECONDS) as client:
        _victim(client)
        return [_attacked(client, killer) for killer in killers()]


def _attacked(client: httpx.Client, killer: Killer) -> Outcome:
    alone: list[float] = []
    beside: list[tuple[int, float, float]] = []
    end = time.monotonic() + LONG_SECONDS
    while len(alone) < MIN_ROUNDS or (len(alone) < NUM_ROUNDS and time.monotonic() < end):
        alone.append(_victim(client))
        beside.append(_beside(client, killer))
    statuses, seconds, waited = zip(*beside, strict=True)
    outcome = Outcome(
        killer.name,
        frozenset(statuses),
        statistics.median(seconds),
        statistics.median(alone),
        statistics.median(waited),
    )
    tell(outcome)
    return outcome


def _beside(client: httpx.Client, killer: Killer) -> tuple[int, float, float]:
    """The killer's status and seconds, and the victim's seconds."""
    with ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        sent = pool.submit(client.post, killer.path, content=killer.body)
        waited = _victim(client)
        status = sent.result().status_code
    return status, time.monotonic() - started, waited


def _victim(client: httpx.Client) -> float:
    started = time.monotonic()
    body = {"model": "policy", "messages": [HI], "max_tokens": 32, "temperature": 0}
    answer = client.post(CHAT, json=body)
    assert answer.status_code == 200, answer.text
    return time.monotonic() - started


async def run() -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="rewardloop-killers-") as folder:
        async with replica(Path(folder) / "home", _publish) as served:
            server = served.start(stepping_model.MAX_TOKENS)
            try:
                await server.wait_until(served.is_healthy, START_SECONDS)
                key = served.settings.api_key.get_secret_value()
                outcomes = await asyncio.to_thread(attack, served.url, key)
                server.require_alive()
                assert served.is_healthy()
            finally:
                server.stop()
    return _told(outcomes)


def _publish(root: Path) -> dict[str, dict[str, Any]]:
    return {"one": stepping_model.publish(root, "one", 1)}


def tell(outcome: Outcome) -> None:
    statuses = ",".join(map(str, sorted(outcome.statuses)))
    print(
        f"{statuses:8} {outcome.seconds:7.2f} s  victim {outcome.victim_alone_seconds:5.2f} s "
        f"alone, {outcome.victim_seconds:5.2f} s beside ({outcome.ratio:4.1f} x)  {outcome.name}",
        file=sys.stderr,
        flush=True,
    )


def _told(outcomes: list[Outcome]) -> dict[str, Any]:
    failed = [outcome.name for outcome in outcomes if max(outcome.statuses) >= 500]
    alone = statistics.median(outcome.victim_alone_seconds for outcome in outcomes)
    return {
        "killer_requests": len(outcomes),
        "killer_server_errors": len(failed),
        "victim_alone_seconds": round(alone, 3),
        "victim_slowest_ratio": round(max(outcome.ratio for outcome in outcomes), 2),
        "victims_over_twice": [outcome.name for outcome in outcomes if outcome.ratio > 2],
        "failures": failed,
    }


if __name__ == "__main__":
    found = asyncio.run(run())
    print(json.dumps(found))
    sys.exit(bool(found["killer_server_errors"]))
