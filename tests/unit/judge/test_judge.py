"""The judge's routes over a scripted engine."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from rewardloop.errors import PromptTooLong, UpstreamUnavailable
from rewardloop.method import rubric
from rewardloop.records import JudgementMode
from services.judge import app as judge_app
from tests.unit.judge.scripted_engine import (
    NONCE,
    REQUEST,
    RESPONSE,
    Engine,
    Judge,
    Serve,
    events,
    judging,
)
from tests.unit.judge.served_judge import KEY

RENDERED = rubric.render([REQUEST, RESPONSE], JudgementMode.FREE, nonce=NONCE)  # type: ignore[list-item]


pytestmark = pytest.mark.usefixtures("no_waiting")


@pytest.fixture
async def judge(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Judge]:
    monkeypatch.setattr(judge_app, "UPSTREAM_RETRY_SECONDS", 0.01)
    engine = Engine()
    async with judging(engine, await serve(engine), None) as judge:
        yield judge


async def test_each_choice_carries_its_judgement(judge: Judge) -> None:
    judge.engine.texts = ["Fine.\nScore 7f3a: 3", "No grade.", "Score 7f3a: 9", "Score: 5"]
    answer = (await judge.judge()).json()
    assert answer["model"] == "judge"
    found = [choice["judgement"] for choice in answer["choices"]]
    about = {
        "mode": "free",
        "nonce": NONCE,
        "rubric_version": rubric.RUBRIC_VERSION,
        "judge_version": "m1",
    }
    assert found == [
        {"status": "scored", "score": 3.0, "reason": None, **about},
        {"status": "unscored", "score": None, "reason": "no_score", **about},
        {"status": "unscored", "score": None, "reason": "out_of_range", **about},
        {"status": "unscored", "score": None, "reason": "unsigned", **about},
    ]
    assert answer["choices"][0]["message"]["content"] == "Fine.\nScore 7f3a: 3"
    assert answer["usage"]["completion_tokens"] == 6


async def test_the_engine_reads_the_rubric(judge: Judge) -> None:
    judge.engine.texts *= 2
    await judge.judge(temperature=0.2, top_p=0.5, max_tokens=64)
    (asked,) = judge.engine.requests
    assert asked == {
        "model": "policy",
        "messages": RENDERED,
        "n": 2,
        "temperature": 0.2,
        "top_p": 0.5,
        "max_tokens": 64,
    }


async def test_the_papers_number_of_judgements_is_the_default(judge: Judge) -> None:
    body = {"model": "judge", "messages": [REQUEST, RESPONSE]}
    await judge.client.post("/v1/chat/completions", json=body)
    assert (judge.engine.requests[0]["n"], judge.engine.requests[0]["temperature"]) == (3, 0.7)


async def test_a_response_cannot_score_itself(judge: Judge) -> None:
    judge.engine.texts = ["It asks for five points.", "Blue.\nScore: 5"]
    silent, repeated = (await judge.judge()).json()["choices"]
    assert "Score: 5" in judge.engine.requests[0]["messages"][0]["content"]
    assert silent["judgement"]["reason"] == "no_score"
    assert repeated["judgement"]["reason"] == "unsigned"


async def test_the_constrained_mode_forces_a_form(judge: Judge) -> None:
    answer = (await judge.judge(judgement_mode="constrained")).json()
    (asked,) = judge.engine.requests
    assert asked["structured_outputs"] == {"regex": rubric.constrained_pattern(NONCE)}
    assert answer["choices"][0]["judgement"]["mode"] == "constrained"


async def test_a_cut_judgement_is_truncated(judge: Judge) -> None:
    judge.engine.texts, judge.engine.finish_reason = ["It is"], "length"
    (choice,) = (await judge.judge()).json()["choices"]
    assert choice["judgement"]["reason"] == "truncated"


async def test_another_server_is_known_by_its_models_name(judge: Judge) -> None:
    judge.engine.extra = {"model": "big-judge"}
    (choice,) = (await judge.judge()).json()["choices"]
    assert choice["judgement"]["judge_version"] == "big-judge"


@pytest.mark.parametrize("texts", [["Score: 3"], ["Score: 3"] * 4])
async def test_an_engine_that_ignores_n_is_named(judge: Judge, texts: list[str]) -> None:
    judge.engine.texts = texts
    answer = await judge.judge(n=3)
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream-mismatch")
    assert f"n=3 choices and gave {len(texts)}" in answer.json()["detail"]
    assert "the judging engine http://" in answer.json()["detail"]


@pytest.mark.parametrize("usage", [None, {}, {"completion_tokens": None}])
async def test_an_engine_that_counts_no_tokens_can_judge(judge: Judge, usage: Any) -> None:
    judge.engine.extra = {"usage": usage}
    (choice,) = (await judge.judge()).json()["choices"]
    assert choice["judgement"]["score"] == 3.0


async def test_the_openai_name_for_the_length_wins(judge: Judge) -> None:
    await judge.judge(max_tokens=64, max_completion_tokens=32)
    assert judge.engine.requests[0]["max_tokens"] == 32


async def test_text_parts_are_joined(judge: Judge) -> None:
    parts = [{"type": "text", "text": "Blue"}, {"type": "text", "text": "!"}]
    await judge.judge(REQUEST, {"role": "assistant", "content": parts})
    assert "\nBlue\n!\n" in judge.engine.requests[0]["messages"][0]["content"]


async def test_a_streamed_judgement_comes_with_the_last_chunk(judge: Judge) -> None:
    judge.engine.texts = ["Fine.\nScore 7f3a: 3", "Nothing."]
    chunks = await events(judge, stream_options={"include_usage": True})
    choices = [chunk["choices"][0] for chunk in chunks]
    assert ["judgement" in choice for choice in choices] == [False, True, False, True]
    assert choices[1]["judgement"]["score"] == 3.0
    assert choices[1]["judgement"]["judge_version"] == "m1"
    assert choices[3]["judgement"]["reason"] == "no_score"
    texts = [choice["delta"]["content"] for choice in choices]
    assert "".join(texts[:2]) == "Fine.\nScore 7f3a: 3"
    assert {chunk["model"] for chunk in chunks} == {"judge"}
    assert judge.engine.requests[0]["stream_options"] == {"include_usage": True}


@pytest.mark.parametrize("separator", ["\u2028", "\u0085", "\u2029"])
async def test_a_stream_survives_every_kind_of_newline(judge: Judge, separator: str) -> None:
    judge.engine.texts = [f"Fine.{separator}{separator}Really.\nScore 7f3a: 3"]
    chunks = await events(judge)
    texts = [chunk["choices"][0]["delta"]["content"] for chunk in chunks]
    assert "".join(texts) == judge.engine.texts[0]
    assert chunks[-1]["choices"][0]["judgement"]["score"] == 3.0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        ((400, {"error": {"message": "bad regex", "type": "x"}}), 502, "upstream-rejected"),
        ((413, {"error": {"message": "too big", "type": "x"}}), 502, "upstream-rejected"),
        ((404, {"error": {"message": "no such model", "type": "x"}}), 502, "upstream-mismatch"),
        ((422, PromptTooLong("too long").openai()), 422, "prompt-too-long"),
        ((503, UpstreamUnavailable("loading").openai()), 503, "upstream-unavailable"),
    ],
)
async def test_the_engines_error_passes_as_one(
    judge: Judge, error: tuple[int, dict[str, Any]], status: int, kind: str, stream: bool
) -> None:
    judge.engine.error = error
    answer = await judge.judge(stream=stream)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)
    assert error[1]["error"]["message"] in answer.json()["error"]["message"]
    assert "choices" not in answer.json()


async def test_a_wrong_key_is_refused(judge: Judge) -> None:
    for value in ("", "Bearer", "Bearer wrong", f"Basic {KEY}"):
        judge.client.headers["authorization"] = value
        for path in ("/v1/models", "/metrics"):
            assert (await judge.client.get(path)).status_code == 401
        answer = await judge.judge()
        assert answer.status_code == 401
        assert answer.json()["error"]["type"] == "unauthorized"
    assert judge.engine.requests == []
    assert (await judge.client.get("/health")).json() == {"status": "ok"}


async def test_a_body_that_gives_a_key_twice_is_refused(judge: Judge) -> None:
    turns = json.dumps([REQUEST, RESPONSE])
    body = f'{{"model": "judge", "temperature": 0, "messages": {turns}, "temperature": 1}}'
    answer = await judge.client.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert "the key 'temperature' is given twice" in answer.json()["error"]["message"]
    assert judge.engine.requests == []


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"model": "gpt-9"}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": [REQUEST]}, "messages"),
        ({"n": 0}, "n"),
        ({"n": 33}, "n"),
        ({"temperature": -1}, "temperature"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"judgement_mode": "strict"}, "judgement_mode"),
        ({"compare_with": 5}, "compare_with"),
        ({"n": True}, "n"),
        ({"n": "3"}, "n"),
        ({"n": 3.0}, "n"),
        ({"temperature": "0.7"}, "temperature"),
        ({"stream": 1}, "stream"),
        ({"seeds": 1}, "seeds"),
        ({"messages": [REQUEST, {"role": "tool", "content": "x"}]}, "role"),
    ],
)
async def test_a_bad_body_is_named(judge: Judge, fields: dict[str, Any], named: str) -> None:
    body = {"model": "judge", "messages": [REQUEST, RESPONSE], **fields}
    answer = await judge.client.post("/v1/chat/completions", json=body)
    assert answer.status_code == 422
    assert answer.json()["type"] == "urn:rewardloop:error:invalid-input"
    assert named in answer.json()["detail"]
    assert judge.engine.requests == []


@pytest.mark.parametrize("messages", [[RESPONSE, REQUEST], [RESPONSE, RESPONSE]])
async def test_what_is_no_response_cannot_be_judged(
    judge: Judge, messages: list[dict[str, Any]]
) -> None:
    answer = await judge.judge(*messages)
    assert answer.status_code == 422
    assert "end in the assistant's response" in answer.json()["detail"]


async def test_a_foreign_engine_has_a_key_of_its_own(serve: Serve) -> None:
    engine = Engine(key="foreign-key")
    async with judging(engine, await serve(engine), "foreign-key") as judge:
        assert (await judge.judge()).status_code == 200
        judge.client.headers["authorization"] = "Bearer foreign-key"
        assert (await judge.judge()).status_code == 401
    assert len(engine.requests) == 1


@pytest.mark.parametrize("end", ["", "/"])
@pytest.mark.parametrize("upstream_key", [None, ""])
async def test_our_own_generator_is_sent_our_key(
    serve: Serve, end: str, upstream_key: str | None
) -> None:
    engine = Engine()
    async with judging(engine, await serve(engine) + end, upstream_key) as judge:
        assert (await judge.judge()).status_code == 200


async def test_a_foreign_engine_never_learns_our_key(serve: Serve) -> None:
    engine = Engine(key="none")
    async with judging(engine, await serve(engine), None, foreign=True) as judge:
        assert (await judge.judge()).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [401, 403])
async def test_an_engine_that_refuses_the_key_is_named(
    judge: Judge, status: int, stream: bool
) -> None:
    """It is not the caller's key that is wrong, and asking again does not help."""
    judge.engine.error = (status, {"error": {"message": "no", "type": "x"}})
    answer = await judge.judge(stream=stream)
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "upstream-mismatch")
    assert "REWARDLOOP_JUDGE_UPSTREAM_KEY" in answer.json()["detail"]
    assert len(judge.engine.requests) == 1


async def test_the_judge_is_the_only_model(judge: Judge) -> None:
    models = (await judge.client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == ["judge"]


async def test_an_unknown_route_is_a_problem(judge: Judge) -> None:
    answer = await judge.client.get("/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:rewardloop:error:not-found"
