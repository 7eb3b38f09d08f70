"""Prompts and rankings over REST."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.integration.api_calls import assert_problem, client_of_five_prompts, post_raw


@pytest.fixture
async def api(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of_five_prompts(world) as client:
        yield client


async def test_prompts_are_added_once(api: httpx.AsyncClient) -> None:
    url = "/v1/datasets/mine/prompts"
    new = [{"messages": [{"role": "user", "content": text}]} for text in ("a", "b", "a")]
    first = await api.post(url, json={"prompts": new})
    assert (first.status_code, first.json()["added"], first.json()["known"]) == (201, 2, 1)
    again = (await api.post(url, json={"prompts": new})).json()
    assert (again["added"], again["known"]) == (0, 3)
    assert (await api.get("/v1/datasets")).json() == {"mine": 2, "seed": 5}


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [{"role": "robot", "content": "a"}],
        [{"role": "user", "content": "a\x00b"}],
        [{"role": "user", "content": "\ud800"}],
        [{"role": "user", "content": " \n"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        [{"role": "system", "content": "only this"}],
    ],
    ids=["empty", "unknown role", "NUL", "surrogate", "blank", "ends in an answer", "no user"],
)
async def test_a_prompt_that_cannot_be_answered_is_refused(
    api: httpx.AsyncClient, messages: list[dict[str, str]]
) -> None:
    answer = await post_raw(api, "/v1/datasets/mine/prompts", {"prompts": [{"messages": messages}]})
    assert_problem(answer, 422, "invalid-input")
    assert (await api.get("/v1/datasets")).json() == {"seed": 5}


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
async def test_a_ranked_response_that_cannot_be_stored_is_refused(
    api: httpx.AsyncClient, text: str
) -> None:
    responses = [{"text": "fine", "rank": 0}, {"text": text, "rank": 1}]
    prompt = {"messages": [{"role": "user", "content": "a"}], "responses": responses}
    answer = await post_raw(api, "/v1/datasets/mine/ranked", {"prompts": [prompt]})
    told = assert_problem(answer, 422, "invalid-input")
    assert "1 unstorable (first prompts.0)" in told
    assert (await api.get("/v1/datasets")).json() == {"seed": 5}


async def test_a_blank_reference_is_none(api: httpx.AsyncClient, world: Any) -> None:
    prompt = {"messages": [{"role": "user", "content": "a"}], "reference": " "}
    await api.post("/v1/datasets/mine/prompts", json={"prompts": [prompt]})
    assert await world.value("SELECT reference FROM prompts WHERE dataset = 'mine'") is None
