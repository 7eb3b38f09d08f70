"""`rewardloop pause`, `resume`, `cancel` and `retry`: one iteration, over the API."""

from typing import Any
from uuid import UUID

from rewardloop.cli.remote import client
from rewardloop.cli.terminal import Console
from rewardloop.embedded.home import Home
from rewardloop.errors import InvalidInput
from rewardloop.lifecycle import Ask

console = Console()


async def ask(home: Home, iteration: str, what: Ask) -> None:
    """Prints how the iteration stands now."""
    try:
        iteration_id = UUID(iteration)
    except ValueError:
        raise InvalidInput(
            f"{iteration!r} is no iteration's id; `rewardloop iterations` lists them"
        ) from None
    async with client(home) as api:
        view = await api.post(f"/v1/iterations/{iteration_id}/{what}", None)
    console.print(
        f"iteration {view['index']} of run {view['run_id']}: {told(view)}",
        soft_wrap=True,
    )


def told(view: dict[str, Any]) -> str:
    """As in: running in phase rollout, pauses when its calls in flight have ended."""
    state, phase = str(view["state"]), view["phase"]
    if state == "queued":
        return f"queued; waits for {view['waits_for']}"
    if state == "succeeded":
        return state
    return f"{state} in phase {phase}{_WISHES.get(view['wish'], '')}"


_WISHES = {
    "pause": "; pauses when what is in flight has ended",
    "cancel": "; stops within seconds",
}
