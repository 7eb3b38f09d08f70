"""Looking at files and prompts before anything is stored."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from rewardloop import checkpoints
from services.api import token_lengths
from tests.integration.conftest import ranked_prompt

FILE = """\
{"prompt": "one two three", "chosen": "yes it is", "rejected": "no"}
{"prompt": "one two three four", "completion": "fine", "mood": "calm"}
not json
"""


@pytest.fixture
async def api(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    await world.with_base()
    async with world.api() as client:
        yield client


def write_tokenizer(world: Any) -> None:
    """Every word is a token of the served version."""
    tokenizer = Tokenizer(WordLevel({"?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    folder = checkpoints.folder_of(world.settings.checkpoint_root, "base")
    tokenizer.save(str(folder / "tokenizer.json"))


async def post_file(api: httpx.AsyncClient, content: str, **params: Any) -> httpx.Response:
    query = {"filename": "data.jsonl", **params}
    return await api.post("/v1/datasets/inspect", content=content.encode(), params=query)


async def test_a_file_is_inspected_and_nothing_is_stored(
    api: httpx.AsyncClient, world: Any
) -> None:
    write_tokenizer(world)
    world.serve_generator(max_model_len=515)
    await world.add_prompts("one two three", dataset="mine")
    await world.add_prompts("ONE two three", dataset="evaluation")
    await world.add_ranked(*(ranked_prompt(f"topic {n}", "good", "poor") for n in range(3)))
    await world.add_ranked(ranked_prompt("one two three  four", "good", "poor"))
    await world.new_run(bootstrap={"eft": {"held_out_fraction": 0.75}}, prompts={"dataset": "mine"})
    await world.rows("UPDATE ranked_splits SET held_out = true RETURNING 1")
    before = await world.value("SELECT count(*) FROM prompts")
    answer = await post_file(api, FILE, dataset="mine")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["account"]["num_rows"] == 3
    assert found["account"]["columns_unknown"] == {"mood": 1}
    assert found["account"]["left_out"]["broken_line"]["first_line"] == 3
    assert found["ranked"]["num_responses"] == 2
    assert found["stored"] == {
        "dataset": "mine",
        "known": 1,
        "elsewhere": {"evaluation": 1, "ranked": 1},
        "held_out": 1,
    }
    assert found["lengths"] == {
        "unit": "tokens",
        "version": "base",
        "prompt": {"num": 2, "p50": 3, "p90": 4, "p99": 4, "max": 4},
        "answer": {"num": 3, "p50": 1, "p90": 3, "p99": 3, "max": 3},
    }
    assert found["limits"]["context"] == 515
    assert found["limits"]["prompts_over_context"] == 1  # 515 - 512 leaves room for 3 tokens
    assert found["limits"]["answers_over_max_length"] == 0
    assert await world.value("SELECT count(*) FROM prompts") == before


async def test_without_a_tokenizer_lengths_are_in_characters(
    api: httpx.AsyncClient, world: Any
) -> None:
    found = (await post_file(api, FILE)).json()
    assert found["lengths"]["unit"] == "characters"
    assert found["lengths"]["prompt"]["max"] == len("one two three four")
    assert found["limits"] is None


async def test_a_file_that_cannot_be_read_is_named_without_our_folders(
    api: httpx.AsyncClient,
) -> None:
    answer = await post_file(api, "not json\n")
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith("data.jsonl has 1 broken line")


@pytest.mark.parametrize("name", ["../data.jsonl", "/etc/passwd", "data.jsonl.gz", "x.parquet", ""])
async def test_a_name_that_is_a_path_or_of_another_kind_is_refused(
    api: httpx.AsyncClient, name: str
) -> None:
    assert (await post_file(api, FILE, filename=name)).status_code == 422


async def test_a_file_that_is_too_large_is_refused(api: httpx.AsyncClient) -> None:
    async def file() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b" " * 2**20

    answer = await api.post(
        "/v1/datasets/inspect", params={"filename": "data.jsonl"}, content=file()
    )
    assert (answer.status_code, answer.json()["type"]) == (413, "urn:rewardloop:error:too-large")
    assert "64 MiB; inspect it with `rewardloop inspect`" in answer.json()["detail"]


async def test_a_name_that_no_folder_can_hold_is_refused(api: httpx.AsyncClient) -> None:
    """Of 246 characters, but two bytes each."""
    answer = await post_file(api, FILE, filename="\u00e9" * 240 + ".jsonl")
    assert (answer.status_code, "give a shorter name" in answer.text) == (422, True)


async def test_prompts_are_compared_in_their_order(api: httpx.AsyncClient, world: Any) -> None:
    write_tokenizer(world)
    prompts = [
        {"messages": [{"role": "user", "content": "a b"}], "answers": ["c", "d e"]},
        {"messages": [{"role": "user", "content": "a"}]},
    ]
    found = (await api.post("/v1/datasets/mine/compare", json={"prompts": prompts})).json()
    assert found["lengths"] == [[2, [1, 2]], [1, []]]
    assert (found["unit"], found["context"]) == ("tokens", None)  # no engine answers


@pytest.mark.parametrize("text", ["a\0b", "\ud800"])
async def test_a_text_that_cannot_be_stored_cannot_be_compared(
    api: httpx.AsyncClient, text: str
) -> None:
    user = {"role": "user", "content": "a"}
    for prompt in (
        {"messages": [{**user, "content": text}]},
        {"messages": [user], "answers": [text]},
    ):
        body = json.dumps({"prompts": [prompt]})
        answer = await api.post(
            "/v1/datasets/mine/compare",
            content=body,
            headers={"content-type": "application/json"},
        )
        assert answer.status_code == 422


async def test_an_engine_that_does_not_answer_is_not_waited_for(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_lengths, "ENGINE_SECONDS", 0.2)
    assert await token_lengths.context(world.settings) is None
