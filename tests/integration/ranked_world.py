"""Eight ranked prompts and M0, from which bootstraps start."""

from typing import Any
from uuid import UUID

from rewardloop.records import PromptRecord, RankedPrompt, RankedText
from rewardloop.store.models import Iteration
from tests.integration.conftest import ranked_prompt

NUM_JUDGEMENTS = 4
BOOTSTRAP = {
    "share_rankings": True,
    "eft": {"judging": {"num_judgements": NUM_JUDGEMENTS}, "held_out_fraction": 0.25},
}
TOPICS = ["tides", "bread", "chess", "rivers", "clocks", "bees", "glass"]


async def with_ranked_prompts(world: Any) -> Any:
    """M0 and 8 ranked prompts, the last with a tie of two; no service runs yet.

    25 % are 2 prompts held out, and 6 to learn from.
    """
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    three = [
        ranked_prompt(f"about {t}", f"good {t}", f"fair {t}", f"poor {t}", reference=f"best {t}")
        for t in TOPICS
    ]
    tied = RankedPrompt(
        PromptRecord(({"role": "user", "content": "about kites"},), "best kites", "test"),
        (RankedText("good kites", 0), RankedText("poor kites", 1), RankedText("bad kites", 1)),
    )
    await world.add_ranked(*three, tied)
    return world


def stands(iteration: Iteration) -> tuple[str, str]:
    return iteration.state, iteration.phase


async def until_judged(world: Any, bootstrap: UUID) -> str:
    """Take a queued bootstrap to where its baseline shall judge; returns the baseline."""
    await world.advance(bootstrap)
    baseline = await world.train(bootstrap)
    assert stands(await world.advance(bootstrap)) == ("running", "judge_ranked")
    return baseline


async def num_judgements(world: Any) -> int:
    return await world.value("SELECT count(*) FROM ranked_judgements")
