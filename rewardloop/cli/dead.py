"""What an iteration leaves out, why, and trying it again."""

from typing import Any
from uuid import UUID

from rich.table import Column, Table

from rewardloop.cli.remote import client
from rewardloop.cli.terminal import Console
from rewardloop.clients.api import ApiClient
from rewardloop.embedded.home import Home
from rewardloop.errors import InvalidInput, NotFound

console = Console()

PROMPT_WIDTH = 40
ERROR_WIDTH = 70


async def list_dead(home: Home, iteration: str | None) -> None:
    """Every dead prompt and ranked response of the iteration, with its last error."""
    async with client(home) as api:
        chosen = await _chosen_iteration(api, iteration)
        prompts, others = await _all_dead(api, chosen)
    if not prompts and not others:
        console.print(f"nothing of iteration {chosen} is dead", soft_wrap=True)
        return
    table = Table(
        Column("prompt", no_wrap=True),
        Column("attempts", justify="right"),
        Column("text", max_width=PROMPT_WIDTH, no_wrap=True, overflow="ellipsis"),
        Column("last error", max_width=ERROR_WIDTH),
        box=None,
    )
    for prompt in prompts:
        text = " ".join(prompt["messages"][-1]["content"].split())
        num_attempts = prompt["num_attempts"] or prompt["num_lost_leases"]
        table.add_row(str(prompt["prompt_id"]), str(num_attempts), text, prompt["error"])
    for other in others:
        table.add_row(other["item"], str(other["num_attempts"]), "", other["error"])
    console.print(table)
    console.print(
        f"{_number(len(prompts), len(others))} of iteration {chosen}; mend the cause, then "
        f"`rewardloop retry-prompts {chosen}`",
        soft_wrap=True,
    )


async def retry(home: Home, iteration: str, prompt_ids: list[int]) -> None:
    """Let the iteration's dead prompts be tried again: all of them where none is named."""
    body = {"prompt_ids": prompt_ids or None}
    async with client(home) as api:
        path = f"/v1/iterations/{_uuid(iteration)}/dead-prompts/retry"
        found = await api.post(path, body)
    for prompt_id in sorted(set(prompt_ids) - set(found["prompt_ids"])):
        console.print(f"prompt {prompt_id} is not dead in this iteration", soft_wrap=True)
    num = _number(len(found["prompt_ids"]), found["num_ranked_responses"])
    console.print(f"tried again: {num}", soft_wrap=True)


def _number(num_prompts: int, num_ranked_responses: int) -> str:
    """As in `3 prompts`, or `3 prompts, 1 ranked response`."""
    counted = ((num_prompts, "prompt"), (num_ranked_responses, "ranked response"))
    told = [f"{num} {what}{'' if num == 1 else 's'}" for num, what in counted if num]
    return ", ".join(told) or "nothing"


async def _all_dead(
    api: ApiClient, iteration: str
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    prompts: list[dict[str, Any]] = []
    after: int | None = 0
    while after is not None:
        page = await api.get(f"/v1/iterations/{iteration}/dead-prompts", after=after, limit=1000)
        prompts += page["items"]
        after = page["next_after"]
    return prompts, page["ranked_responses"]


async def _chosen_iteration(api: ApiClient, iteration: str | None) -> str:
    """`iteration`, or the newest one that has begun.

    Raises:
        InvalidInput: `iteration` is none.
        NotFound: none has begun.
    """
    if iteration is not None:
        return str(_uuid(iteration))
    for view in (await api.get("/v1/iterations", limit=200))["items"]:
        if view["started_at"] is not None:
            return str(view["id"])
    raise NotFound("no iteration has begun yet; start one with `rewardloop start`")


def _uuid(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(
            f"{text!r} is no iteration's id; `rewardloop dead` names the newest one's"
        ) from None
