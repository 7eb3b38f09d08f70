"""`rewardloop dead` and `retry-prompts` against an API that answers as it is told."""

import io
from typing import Any

import pytest
from rich.console import Console

from rewardloop.cli import dead
from rewardloop.errors import InvalidInput, NotFound

ITERATION = "01234567-89ab-cdef-0123-456789abcdef"
PATH = f"/v1/iterations/{ITERATION}/dead-prompts"


def item(prompt_id: int, error: str, text: str = "Why?") -> dict[str, Any]:
    return {
        "prompt_id": prompt_id,
        "messages": [{"role": "user", "content": text}],
        "error": error,
        "error_kind": "upstream-failed",
        "num_attempts": 3,
        "num_lost_leases": 0,
        "num_responses": 0,
    }


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    console = Console(file=written, width=160, markup=False, highlight=False)
    monkeypatch.setattr(dead, "console", console)
    return written


async def test_dead_prompts_of_all_pages_are_listed_with_their_errors(
    stack: Any, shown: io.StringIO
) -> None:
    other = {"item": "ranked response 9, assessment 1", "error": "cut", "num_attempts": 3}
    home, api = await stack(
        {
            ("GET", PATH): [
                {"items": [item(3, "a 500")], "next_after": 3, "ranked_responses": [other]},
                {
                    "items": [item(8, "[red]a page[/red]", "Two\nlines")],
                    "next_after": None,
                    "ranked_responses": [other],
                },
            ]
        }
    )
    await dead.list_dead(home, ITERATION)
    text = shown.getvalue()
    for told in ("3 ", "a 500", "[red]a page[/red]", "Two lines", "ranked response 9", "cut"):
        assert told in text
    assert f"2 prompts, 1 ranked response of iteration {ITERATION}" in text
    assert f"`rewardloop retry-prompts {ITERATION}`" in text
    assert [query["after"] for _, _, query in api.requests] == ["0", "3"]


async def test_the_newest_iteration_that_has_begun_is_meant(stack: Any, shown: io.StringIO) -> None:
    waiting = {"id": "f" * 32, "started_at": None}
    begun = {"id": ITERATION, "started_at": "2026-01-01T00:00:00Z"}
    none = {"items": [], "next_after": None, "ranked_responses": []}
    home, _ = await stack(
        {("GET", "/v1/iterations"): {"items": [waiting, begun]}, ("GET", PATH): none}
    )
    await dead.list_dead(home, None)
    assert f"nothing of iteration {ITERATION} is dead" in shown.getvalue()


async def test_without_an_iteration_there_is_nothing_to_list(stack: Any) -> None:
    home, _ = await stack({("GET", "/v1/iterations"): {"items": []}})
    with pytest.raises(NotFound, match="no iteration has begun yet"):
        await dead.list_dead(home, None)


async def test_what_is_no_iterations_id_is_not_asked_for(stack: Any) -> None:
    home, api = await stack({})
    for asks in (dead.list_dead(home, "../x"), dead.retry(home, "one", [])):
        with pytest.raises(InvalidInput, match="is no iteration's id"):
            await asks
    assert api.requests == []


@pytest.mark.parametrize(("named", "sent"), [([], None), ([8, 3], [8, 3])])
async def test_all_or_some_are_tried_again(
    stack: Any, shown: io.StringIO, named: list[int], sent: list[int] | None
) -> None:
    answer = {"prompt_ids": [3], "num_ranked_responses": 0}
    home, api = await stack({("POST", f"{PATH}/retry"): answer})
    await dead.retry(home, ITERATION, named)
    assert api.requests[0][2] == {"prompt_ids": sent}
    assert "tried again: 1 prompt\n" in shown.getvalue()
    assert ("prompt 8 is not dead in this iteration" in shown.getvalue()) is bool(named)
