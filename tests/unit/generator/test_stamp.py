"""The weight version on every answer, whatever the answer says."""

import asyncio
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.generator.stamp import Stamp

JSON, SSE = b"application/json", b"text/event-stream; charset=utf-8"


async def stamped(
    kind: bytes, *bodies: bytes, status: int = 200, dropped: list[str] | None = None
) -> tuple[dict[bytes, bytes], bytes, Stamp]:
    """Headers and body after the stamp."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    stamp = Stamp(send, "m1", dropped or [])
    headers = [(b"Content-Type", kind)]
    if kind == JSON:
        headers.append((b"Content-Length", str(sum(map(len, bodies))).encode()))
    await stamp({"type": "http.response.start", "status": status, "headers": headers})
    for body in bodies:
        await stamp({"type": "http.response.body", "body": body, "more_body": True})
    await stamp({"type": "http.response.body", "body": b"", "more_body": False})
    return dict(sent[0]["headers"]), b"".join(m["body"] for m in sent[1:]), stamp


def event(content: object) -> bytes:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


async def test_json() -> None:
    headers, body, _ = await stamped(JSON, b'{"id": "x"}')
    assert json.loads(body) == {"weight_version": "m1", "id": "x"}
    assert headers[b"content-length"] == str(len(body)).encode()
    assert headers[b"x-rewardloop-weight-version"] == b"m1"


async def test_json_in_several_parts_is_stamped_once() -> None:
    headers, body, _ = await stamped(JSON, b'{"a": ', b'{"b": 1}}')
    assert json.loads(body) == {"weight_version": "m1", "a": {"b": 1}}
    assert headers[b"content-length"] == str(len(body)).encode()


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_an_error_keeps_its_body(status: int) -> None:
    headers, body, stamp = await stamped(JSON, b'{"error": {}}', status=status)
    assert body == b'{"error": {}}'
    assert headers[b"content-length"] == b"13"
    assert stamp.status == status


async def test_another_kind_keeps_its_body() -> None:
    _, body, _ = await stamped(b"text/plain", b'{"a": 1}', b"data: {")
    assert body == b'{"a": 1}data: {'


async def test_dropped_fields_are_told() -> None:
    headers, _, _ = await stamped(JSON, b'{"a": 1}', dropped=["seed", "n"])
    assert headers[b"x-rewardloop-dropped"] == b"seed, n"


async def test_each_event_is_stamped_also_several_in_one_message() -> None:
    _, body, _ = await stamped(SSE, event({"n": 1}) + event({"n": 2}), event({"n": 3}))
    assert body == b"".join(event({"weight_version": "m1", "n": n}) for n in (1, 2, 3))


async def test_the_end_of_a_stream_and_its_pings_are_left_alone() -> None:
    _, body, _ = await stamped(SSE, b": ping\n\n", event({"n": 1}), b"data: [DONE]\n\n")
    assert body == b": ping\n\n" + event({"weight_version": "m1", "n": 1}) + b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "text",
    ["data: {", "\n\ndata: {", '\n\ndata: {"weight_version": "m9", ', "{", '"', "\u2028data: {"],
)
async def test_what_the_model_says_is_not_altered(text: str) -> None:
    content = {"choices": [{"delta": {"content": text}}]}
    _, body, _ = await stamped(SSE, event(content), event(content))
    assert body == event({"weight_version": "m1", **content}) * 2


@given(st.lists(st.text(), min_size=1, max_size=4), st.booleans())
def test_any_text_survives(texts: list[str], together: bool) -> None:
    contents = [{"text": text} for text in texts]
    events = [event(content) for content in contents]
    bodies = [b"".join(events)] if together else events
    _, body, _ = asyncio.run(stamped(SSE, *bodies))
    assert body == b"".join(event({"weight_version": "m1", **content}) for content in contents)
    _, body, _ = asyncio.run(stamped(JSON, json.dumps(contents[0]).encode()))
    assert json.loads(body) == {"weight_version": "m1", **contents[0]}


USAGE = {"prompt_tokens": 7, "total_tokens": 12, "completion_tokens": 5}


def chat(*texts: str) -> dict[str, Any]:
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i, text in enumerate(texts)
    ]
    return {"choices": choices, "usage": USAGE}


async def test_choices_and_tokens_are_counted() -> None:
    for dumped in (json.dumps(chat("a", "b")), json.dumps(chat("a", "b"), separators=(",", ":"))):
        _, _, stamp = await stamped(JSON, dumped.encode())
        assert (stamp.num_choices, stamp.prompt_tokens, stamp.completion_tokens) == (2, 7, 5)


async def test_a_model_cannot_write_counts() -> None:
    forged = '"index": 0, "message": "usage": {"prompt_tokens": 9, "total_tokens": 9, '
    forged += '"completion_tokens": 9, "finish_reason": "stop"'
    _, _, stamp = await stamped(JSON, json.dumps(chat(forged)).encode())
    assert (stamp.num_choices, stamp.prompt_tokens, stamp.completion_tokens) == (1, 7, 5)


@pytest.mark.parametrize(
    "delta", [{"delta": {"content": "a"}}, {"text": "a"}], ids=["chat", "completions"]
)
async def test_a_streamed_answer_is_one_sample(delta: dict[str, Any]) -> None:
    chunks: list[dict[str, Any]] = [
        {"choices": [{"index": 0, **delta, "finish_reason": None}]},
        {"choices": [{"index": 0, **delta, "finish_reason": None}]},
        {"choices": [{"index": 0, **delta, "finish_reason": "length"}]},
        {"choices": [], "usage": USAGE},
    ]
    _, _, stamp = await stamped(SSE, *map(event, chunks))
    assert (stamp.num_choices, stamp.prompt_tokens, stamp.completion_tokens) == (1, 7, 5)
