"""Prompts and rankings over REST are held to the rules of files."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

URL = "/v1/datasets/mine/prompts"
RANKED = "/v1/datasets/mine/ranked"
GOOD = {"messages": [{"role": "user", "content": "good"}]}


@pytest.fixture
async def api(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with world.api() as client:
        yield client


def turns(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in pairs]


ODD = [
    ([], "prompt_empty"),
    (turns(("user", " \n")), "prompt_empty"),
    (turns(("assistant", "hi"), ("user", "q")), "turns_out_of_order"),
    (turns(("user", "a"), ("user", "b")), "turns_out_of_order"),
    (turns(("user", "a"), ("system", "s"), ("user", "b")), "turns_out_of_order"),
    (turns(("user", "a"), ("assistant", "b")), "turns_out_of_order"),
    (turns(("system", "only this")), "turns_out_of_order"),
    (turns(("user", "a"), ("assistant", ""), ("user", "b")), "empty_turn"),
    (turns(*[("user", "a"), ("assistant", "b")] * 50, ("user", "c")), "too_many_turns"),
    (turns(("user", "a" * 20_001)), "prompt_too_long"),
    (turns(("user", "a\0b")), "unstorable"),
    (turns(("user", "\ud800")), "unstorable"),
]


@pytest.mark.parametrize(("messages", "reason"), ODD)
async def test_an_odd_prompt_is_left_out_by_name_and_the_others_are_stored(
    api: httpx.AsyncClient, messages: Any, reason: str
) -> None:
    body = json.dumps({"prompts": [{"messages": messages}, GOOD]})
    headers = {"content-type": "application/json"}
    answer = await api.post(URL, content=body, headers=headers)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert (found["added"], list(found["left_out"])) == (1, [reason])
    assert found["left_out"][reason]["count"] == 1
    assert found["left_out"][reason]["first"] == "prompts.0"
    strict = await api.post(f"{URL}?strict=true", content=body, headers=headers)
    assert strict.status_code == 422
    assert reason in strict.json()["detail"]


async def test_a_long_source_is_cut_and_counted_and_no_reason_to_refuse(
    api: httpx.AsyncClient, world: Any
) -> None:
    prompt = {**GOOD, "source": "i" * 600}
    answer = await api.post(f"{URL}?strict=true", json={"prompts": [prompt]})
    assert answer.status_code == 201
    assert answer.json()["left_out"]["cut_source"]["count"] == 1
    assert await world.value("SELECT length(source) FROM prompts") == 500


async def test_a_reference_that_is_no_answer_is_left_out_alone(
    api: httpx.AsyncClient, world: Any
) -> None:
    prompts = [{**GOOD, "reference": "\n"}]
    assert (await api.post(URL, json={"prompts": prompts})).json()["left_out"]["empty"][
        "count"
    ] == 1
    assert await world.value("SELECT reference FROM prompts") is None


RANKINGS = [
    ([(" \n", 0), ("a", 1), ("b", 2)], 201, {"empty": 1}),
    ([("a", 0), (" a", 1), ("b", 2)], 201, {"repeated_text": 1}),
    ([("z" * 20_001, 2), ("a", 0), ("b", 1)], 201, {"too_long": 1}),
    ([("a\0", 2), ("a", 0), ("b", 1)], 201, {"unstorable": 1}),
    ([(" \n", 0), ("a", 1)], 422, {"empty": 1, "fewer_than_two": 1}),
    ([("a", 0), ("a\n", 1)], 422, {"repeated_text": 1, "fewer_than_two": 1}),
    ([("a", 0), ("b", 0)], 422, {"no_order": 1}),
    ([("a", 0)], 422, {"fewer_than_two": 1}),
    ([], 422, {"fewer_than_two": 1}),
    ([(str(n), n) for n in range(101)], 422, {"too_many_responses": 1}),
]


@pytest.mark.parametrize(("responses", "status", "left_out"), RANKINGS)
async def test_a_ranking_is_held_to_the_rules_of_files(
    api: httpx.AsyncClient, responses: Any, status: int, left_out: dict[str, int], world: Any
) -> None:
    prompt = {**GOOD, "responses": [{"text": t, "rank": r} for t, r in responses]}
    answer = await api.post(RANKED, json={"prompts": [prompt]})
    assert answer.status_code == status, answer.text
    if status == 201:
        found = {reason: told["count"] for reason, told in answer.json()["left_out"].items()}
        assert found == left_out
        rows = await world.rows("SELECT text FROM ranked_responses ORDER BY position")
        assert [row["text"] for row in rows] == ["a", "b"]
        return
    for reason, num in left_out.items():
        assert f"{num} {reason}" in answer.json()["detail"]
    assert await world.value("SELECT count(*) FROM prompts") == 0


@pytest.mark.parametrize("rank", [True, False, 1.0, 0.5, "1", None, -1, 2**31])
async def test_a_rank_that_is_no_whole_number_is_refused_with_its_place(
    api: httpx.AsyncClient, rank: Any
) -> None:
    responses = [{"text": "a", "rank": 0}, {"text": "b", "rank": rank}]
    prompts = [{**GOOD, "responses": [{"text": "a", "rank": 0}, {"text": "b", "rank": 1}]}]
    prompts.append({**GOOD, "responses": responses})
    answer = await api.post(RANKED, json={"prompts": prompts})
    assert answer.status_code == 422
    assert "prompts.1.responses.1.rank" in answer.json()["detail"]


async def test_a_second_push_adds_responses_and_says_what_it_could_not_place(
    api: httpx.AsyncClient,
) -> None:
    def pushed(*texts: str) -> dict[str, Any]:
        ranked = [{"text": text, "rank": rank} for rank, text in enumerate(texts)]
        return {"prompts": [{**GOOD, "responses": ranked}]}

    first = (await api.post(RANKED, json=pushed("a", "b"))).json()
    assert (first["added"], first["known"], first["extended"]) == (1, 0, 0)
    second = (await api.post(RANKED, json=pushed("a", "b", "c"))).json()
    assert (second["added"], second["known"], second["extended"]) == (0, 1, 1)
    assert second["responses_added"] == 1
    third = (await api.post(RANKED, json=pushed("x", "y"))).json()
    assert (third["responses_added"], third["unplaced"]) == (0, {"order_unknown": 2})


async def test_overlap_with_other_datasets_is_told_in_both_directions(
    api: httpx.AsyncClient, world: Any
) -> None:
    await world.add_prompts("  GOOD", "else", dataset="evaluation")
    found = (await api.post(URL, json={"prompts": [GOOD]})).json()
    assert found["elsewhere"] == {"evaluation": 1}
    other = {"messages": turns(("system", "Be kind."), ("user", "Good"))}
    found = (await api.post("/v1/datasets/evaluation/prompts", json={"prompts": [other]})).json()
    assert found["elsewhere"] == {"mine": 1}


async def test_an_answer_that_is_not_to_be_imitated_stays_so(
    api: httpx.AsyncClient, world: Any
) -> None:
    """Also after a later push has put a good answer before it."""
    bad = {"text": "bad", "rank": 0, "imitate": False}
    for responses in (
        [bad, {"text": "worse", "rank": 1, "imitate": False}],
        [{"text": "good", "rank": 0}, {"text": "bad", "rank": 1}],
    ):
        body = {"prompts": [{**GOOD, "responses": responses}]}
        assert (await api.post(RANKED, json=body)).status_code == 201
    rows = await world.rows("SELECT text, imitate FROM ranked_responses ORDER BY position")
    found = [(row["text"], row["imitate"]) for row in rows]
    assert found == [("good", True), ("bad", False), ("worse", False)]
