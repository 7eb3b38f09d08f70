"""The judge over engines that are not ours: their streams, and what callers send."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiohttp import web

from rewardloop.method.rubrics import rubric_text
from tests.unit.judge.served_judge import judge_over

REQUEST = {"role": "user", "content": "Name a colour."}
RESPONSE = {"role": "assistant", "content": "Blue."}
URL = "/v1/chat/completions"

Serve = Callable[[Callable[[web.Request], Awaitable[web.StreamResponse]]], Awaitable[str]]

pytestmark = pytest.mark.usefixtures("no_waiting")


@asynccontextmanager
async def answering(
    serve: Serve, body: bytes, asked: list[Any]
) -> AsyncIterator[httpx.AsyncClient]:
    """A judge whose engine answers every request with `body`, as it stands."""

    async def engine(request: web.Request) -> web.StreamResponse:
        asked.append(await request.json())
        kind = "text/event-stream" if asked[-1].get("stream") else "application/json"
        return web.Response(body=body, content_type=kind)

    url = await serve(engine)
    ours = {"generator_urls": ["http://generator:8001"], "judge_upstream_model": "big"}
    async with judge_over(url, **ours) as client:
        yield client


def asking(**fields: Any) -> dict[str, Any]:
    return {"model": "judge", "n": 1, "messages": [REQUEST, RESPONSE], **fields}


async def streamed(serve: Serve, body: str, **fields: Any) -> httpx.Response:
    async with answering(serve, body.encode(), []) as client:
        return await client.post(URL, json=asking(stream=True, **fields))


def data_of(answer: httpx.Response) -> list[dict[str, Any]]:
    assert answer.status_code == 200
    *events, done, end = answer.text.split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def judgements(chunks: list[dict[str, Any]]) -> list[tuple[int, Any, Any]]:
    return [
        (choice["index"], choice["judgement"]["score"], choice["judgement"]["reason"])
        for chunk in chunks
        for choice in chunk["choices"]
        if "judgement" in choice
    ]


def chunk(content: Any, finish: str | None = None, **choice: Any) -> str:
    delta = {"index": 0, "delta": {"content": content}, "finish_reason": finish, **choice}
    return json.dumps({"model": "big", "choices": [delta]}, ensure_ascii=False)


START, LAST = chunk("Fine \U0001f44d.\nSco"), chunk("re 7f3a: 4")
LAST_STOP = chunk("re 7f3a: 4", "stop")
STREAMS = {
    "usual": f"data: {START}\n\ndata: {LAST_STOP}\n\ndata: [DONE]\n\n",
    "cr lf": f"data: {START}\r\n\r\ndata: {LAST_STOP}\r\n\r\ndata: [DONE]\r\n\r\n",
    "cr": f"data: {START}\r\rdata: {LAST_STOP}\r\rdata: [DONE]\r\r",
    "no blank after the colon": f"data:{START}\n\ndata:{LAST_STOP}\n\ndata:[DONE]\n\n",
    "events, ids and comments": f": hi\n\nevent: x\nid: 1\nretry: 9\ndata: {START}\n\n"
    f": ping\n\nid: 2\ndata: {LAST_STOP}\n\nevent: done\ndata: [DONE]\n\n",
    "a byte order mark": f"\ufeffdata: {START}\n\ndata: {LAST_STOP}\n\n",
    "data on several lines": "data: "
    + json.dumps(json.loads(START), indent=1).replace("\n", "\ndata: ")
    + f"\n\ndata: {LAST_STOP}\n\ndata: [DONE]\n\n",
    "null texts": f"data: {chunk(None)}\n\ndata: {START}\n\ndata: {LAST}\n\n"
    f"data: {chunk(None, 'stop')}\n\ndata: [DONE]\n\n",
    "a null delta": f"data: {START}\n\ndata: {LAST}\n\ndata: "
    + chunk(None, "stop", delta=None)
    + "\n\ndata: [DONE]\n\n",
    "no delta": f"data: {START}\n\ndata: {LAST}\n\n"
    'data: {"choices": [{"index": 0, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n',
    "no index": f"data: {START}\n\n"
    'data: {"choices": [{"delta": {"content": "re 7f3a: 4"}, "finish_reason": "stop"}]}\n\n',
    "null choices": f"data: {START}\n\ndata: {LAST}\n\n"
    f'data: {chunk("", "stop")}\n\ndata: {{"choices": null, "usage": {{}}}}\n\ndata: [DONE]\n\n',
    "no finish reason": f"data: {START}\n\ndata: {LAST}\n\ndata: [DONE]\n\n",
    "no end at all": f"data: {START}\n\ndata: {LAST}\n\n",
    "no blank line at the end": f"data: {START}\n\ndata: {LAST}",
    "whole messages": "data: "
    + json.dumps(
        {"choices": [{"message": {"content": "Fine.\nScore 7f3a: 4"}, "finish_reason": "stop"}]}
    )
    + "\n\ndata: [DONE]\n\n",
    "the whole message at the end": f"data: {START}\n\ndata: {LAST}\n\ndata: "
    + chunk(None, "stop", delta={}, message={"content": "Fine \U0001f44d.\nScore 7f3a: 4"})
    + "\n\ndata: [DONE]\n\n",
    "events without data": f"data:\n\ndata: {START}\n\ndata: \n\ndata: {LAST_STOP}\n\n",
    "two finish reasons": f"data: {START}\n\ndata: {LAST_STOP}\n\n"
    f"data: {chunk('', 'stop')}\n\ndata: [DONE]\n\n",
}


@pytest.mark.parametrize("body", STREAMS.values(), ids=STREAMS)
async def test_a_foreign_stream_is_judged_once_at_its_end(serve: Serve, body: str) -> None:
    chunks = data_of(await streamed(serve, body))
    assert judgements(chunks) == [(0, 4.0, None)]
    assert {chunk["model"] for chunk in chunks} == {"judge"}


async def test_choices_that_end_without_a_reason_are_each_judged(serve: Serve) -> None:
    body = "".join(f"data: {chunk(f'Score 7f3a: {i}', index=i)}\n\n" for i in (2, 0, 1))
    chunks = data_of(await streamed(serve, body + "data: [DONE]\n\n", n=3))
    assert judgements(chunks) == [(0, 0.0, None), (1, 1.0, None), (2, 2.0, None)]


async def test_choices_whose_index_is_a_text_are_not_mixed(serve: Serve) -> None:
    texts = ((1, "Score 7f3a: "), (0, "Score 7f3a: "), (0, "4"), (1, "2"))
    body = "".join(f"data: {chunk(text, index=str(i))}\n\n" for i, text in texts)
    chunks = data_of(await streamed(serve, body + "data: [DONE]\n\n", n=2))
    assert judgements(chunks) == [(0, 4.0, None), (1, 2.0, None)]


async def test_a_stream_that_stops_in_mid_judgement_is_truncated(serve: Serve) -> None:
    chunks = data_of(await streamed(serve, f"data: {chunk('Score 7f3a: 4 is what')}\n\n"))
    assert judgements(chunks) == [(0, None, "truncated")]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"error": {"message": "out of memory", "code": 500}}, "upstream-failed"),
        ({"error": {"message": "out of memory", "code": 400}}, "upstream-rejected"),
        ({"error": {"message": "out of memory", "code": "oom"}}, "upstream-failed"),
        ({"error": "out of memory"}, "upstream-failed"),
        ({"object": "error", "message": "out of memory", "code": 400}, "upstream-rejected"),
    ],
)
async def test_an_error_in_mid_stream_is_an_event_and_before_it_a_status(
    serve: Serve, error: dict[str, Any], kind: str
) -> None:
    event = f"data: {json.dumps(error)}\n\n"
    *before, told = data_of(await streamed(serve, f"data: {START}\n\n{event}"))
    assert told["error"]["type"] == kind
    assert "out of memory" in told["error"]["message"]
    assert judgements(before) == []
    at_once = await streamed(serve, event)
    assert at_once.status_code in (502, 503)
    assert at_once.json()["error"]["type"] == kind


@pytest.mark.parametrize(
    "body", ["", "\n\n", ": ping\n\n", "data: [DONE]\n\n", "data: hello\n\n", "data: 4\n\n"]
)
async def test_what_is_no_stream_of_choices_is_named(serve: Serve, body: str) -> None:
    answer = await streamed(serve, body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream-mismatch")
    assert "the judging engine http://" in answer.json()["detail"]


async def test_a_stream_with_too_few_choices_says_so(serve: Serve) -> None:
    *_, told = data_of(await streamed(serve, STREAMS["usual"], n=2))
    assert "asked for n=2 choices and streamed 1" in told["error"]["message"]


async def plain(serve: Serve, choices: list[dict[str, Any]], **fields: Any) -> tuple[Any, Any]:
    """The answer, and what the engine was asked."""
    asked: list[Any] = []
    body = json.dumps({"model": "big", "choices": choices}).encode()
    async with answering(serve, body, asked) as client:
        return await client.post(URL, json=asking(**fields)), asked


GOOD = [
    {"message": {"role": "assistant", "content": "Fine.\nScore 7f3a: 4"}, "finish_reason": "stop"}
]


async def test_an_answer_without_index_or_usage_is_read(serve: Serve) -> None:
    for choice in (GOOD[0], {**GOOD[0], "index": None}, {**GOOD[0], "finish_reason": 3}):
        answer, _ = await plain(serve, [choice])
        assert answer.json()["choices"][0]["judgement"]["score"] == 4.0


async def test_an_engines_half_surrogate_passes_as_an_escape(serve: Serve) -> None:
    choice = {"index": 0, "message": {"content": "Nice \ud83d\nScore 7f3a: 4"}}
    answer, _ = await plain(serve, [choice])
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Nice \ud83d\nScore 7f3a: 4"


def shown(asked: list[Any]) -> str:
    text: str = asked[0]["messages"][0]["content"]
    return text.partition("<request>\n")[2].partition("\n</request>")[0]


PART, PICTURE = {"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {}}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([PART], "What is it?"),
        ([PART, {"type": "text", "text": "Say."}], "What is it?\nSay."),
        ("What is it?", "What is it?"),
        ([{"type": "text", "text": ""}], ""),
        ([{"type": "input_text", "text": "What is it?"}], "What is it?"),
        ([{**PART, "cache_control": {"type": "ephemeral"}}], "What is it?"),
    ],
)
async def test_a_string_and_text_parts_are_read_alike(
    serve: Serve, content: Any, expected: str
) -> None:
    answer, asked = await plain(serve, GOOD, messages=[{**REQUEST, "content": content}, RESPONSE])
    assert answer.status_code == 200
    assert shown(asked) == expected


@pytest.mark.parametrize(
    ("turn", "said"),
    [
        ({"content": [PART, PICTURE]}, "part 1 is of type 'image_url'"),
        ({"content": [PICTURE]}, "pictures, sound and files are not judged"),
        ({"content": [{"type": "input_audio", "input_audio": {}}]}, "'input_audio'"),
        ({"content": [{"type": "file", "file": {}}]}, "'file'"),
        ({"content": [{"text": "x"}]}, "part 0 is without a type"),
        ({"content": [{**PART, "image_url": {"url": "x"}}]}, "part 0 holds `image_url`"),
        ({"content": [PART, 5]}, "part 1 is without a type"),
        ({"content": [{"type": "text", "text": None}]}, "its `text` is no string"),
        ({"content": [{"type": "text", "text": 5}]}, "its `text` is no string"),
        ({"content": [{"type": "text"}]}, "its `text` is no string"),
        ({"content": ["What is it?"]}, "part 0 is a bare string"),
        ({"content": [PART, ""]}, "part 1 is a bare string"),
        ({"content": []}, "an empty list of parts"),
        ({"content": None}, "content"),
        ({"content": 5}, "content"),
        ({"content": "x", "images": ["a"]}, "`images` is not read by the judge"),
        ({"content": "x", "tool_calls": [{}]}, "`tool_calls` is not read by the judge"),
    ],
)
async def test_what_a_judge_cannot_see_is_refused(
    serve: Serve, turn: dict[str, Any], said: str
) -> None:
    answer, asked = await plain(serve, GOOD, messages=[{"role": "user", **turn}, RESPONSE])
    assert answer.status_code == 422
    assert said in answer.json()["error"]["message"]
    assert asked == []


async def test_what_clients_send_along_empty_does_not_matter(serve: Serve) -> None:
    turn = {**RESPONSE, "name": "m", "refusal": None, "tool_calls": [], "annotations": None}
    answer, _ = await plain(serve, GOOD, messages=[REQUEST, turn])
    assert answer.status_code == 200


HALF = "\\ud83d"


@pytest.mark.parametrize(
    "body",
    [
        f'{{"model":"judge","messages":[{{"role":"user","content":"x {HALF}"}}]}}',
        f'{{"model":"judge","messages":[{{"role":"user","content":["x {HALF}"]}}]}}',
        f'{{"model":"judge","user":"{HALF}","messages":[]}}',
        f'{{"model":"{HALF}","messages":[]}}',
        f'{{"model":"judge","compare_with":"{HALF}","messages":[]}}',
        f'{{"model":"judge","rubric":{{"template":"{HALF}"}},"messages":[]}}',
        f'{{"model":"judge","{HALF}":1,"messages":[]}}',
        f'["{HALF}"]',
    ],
)
async def test_half_a_surrogate_pair_is_refused_in_the_openai_form(serve: Serve, body: str) -> None:
    async with answering(serve, b"{}", asked := []) as client:
        answer = await client.post(
            URL, content=body.encode(), headers={"content-type": "application/json"}
        )
    assert answer.status_code == 422
    assert answer.json()["error"]["type"] == "invalid-input"
    assert asked == []


async def test_a_request_names_its_rubric(serve: Serve) -> None:
    template = "Grade {response} to {request}.\nScore: <n>"
    answer, asked = await plain(serve, GOOD, rubric={"template": template})
    (message,) = asked[0]["messages"]
    assert message["content"] == "Grade Blue. to Name a colour..\nScore: <n>"
    judgement = answer.json()["choices"][0]["judgement"]
    assert judgement["rubric_version"].startswith("own-")
    answer, asked = await plain(serve, GOOD, rubric="short")
    judgement = answer.json()["choices"][0]["judgement"]
    assert judgement["rubric_version"] == rubric_text("short").version
    assert "How well does the response answer" in asked[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"rubric": {"template": "Grade {response}."}}, "has no {request}"),
        ({"rubric": "long"}, "rubric"),
        ({"rubric": {"file": "x.txt"}}, "send its text"),
        ({"rubric": "short", "compare_with": "Red."}, "a comparison follows no rubric"),
    ],
)
async def test_a_rubric_that_cannot_work_is_refused(
    serve: Serve, fields: dict[str, Any], said: str
) -> None:
    answer, asked = await plain(serve, GOOD, **fields)
    assert answer.status_code == 422
    assert said in answer.json()["detail"]
    assert asked == []
