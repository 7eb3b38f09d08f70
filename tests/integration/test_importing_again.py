"""Importing again adds what is new, and changes nothing that a run has taken."""

from typing import Any

import pytest

from rewardloop.records import PromptRecord, RankedPrompt, RankedText
from rewardloop.store import prompts, rankings
from rewardloop.store.prompts import Added
from tests.integration.conftest import ranked_prompt


def record(content: str, reference: str | None = None) -> PromptRecord:
    return PromptRecord(({"role": "user", "content": content},), reference, "test")


async def add(world: Any, *records: PromptRecord) -> Added:
    async with world.store.transaction() as session:
        return await prompts.add(session, "mine", records)


async def references(world: Any) -> list[tuple[str, str | None]]:
    rows = await world.rows(
        "SELECT messages->0->>'content' AS asked, reference FROM prompts ORDER BY id"
    )
    return [(row["asked"], row["reference"]) for row in rows]


async def test_a_prompt_without_a_reference_gets_one_and_one_with_keeps_it(world: Any) -> None:
    first = await add(world, record("a"), record("b", "good"), record("c", "fine"))
    assert first == Added(3, 0, 0, 0)
    second = await add(world, record("a", "new"), record("b", "other"), record("c", " fine\n"))
    assert second == Added(0, 3, 1, 1)
    assert await references(world) == [("a", "new"), ("b", "good"), ("c", "fine")]
    assert await add(world, record("a", "new"), record("d")) == Added(1, 1, 0, 0)


async def test_within_one_import_the_first_reference_counts(world: Any) -> None:
    found = await add(world, record("a"), record("a", "one"), record("a", "two"), record("a"))
    assert found == Added(1, 3, 0, 1)
    assert await references(world) == [("a", "one")]


async def test_a_conversation_is_known_in_any_unicode_form_and_with_blanks_around(
    world: Any,
) -> None:
    await add(world, record("caf\u00e9?"))
    found = await add(world, record("cafe\u0301?\n", "yes"), record("Caf\u00e9?"))
    assert (found.num_new, found.num_known, found.num_references_added) == (1, 1, 1)
    assert await references(world) == [("caf\u00e9?", "yes"), ("Caf\u00e9?", None)]


def ranking(content: str, **ranks: int) -> RankedPrompt:
    responses = tuple(RankedText(answer, rank) for answer, rank in ranks.items())
    return RankedPrompt(record(content), responses)


async def add_ranked(world: Any, *ranked: RankedPrompt) -> rankings.RankingsAdded:
    async with world.store.transaction() as session:
        return await rankings.add(session, "ranked", ranked)


async def stored(world: Any) -> list[tuple[str, int, int]]:
    rows = await world.rows("SELECT text, rank, position FROM ranked_responses ORDER BY position")
    return [(row["text"], row["rank"], row["position"]) for row in rows]


async def test_a_known_ranking_gets_what_can_be_placed(world: Any) -> None:
    await add_ranked(world, ranking("q", a=2, b=5))
    ids = await world.rows("SELECT id, text FROM ranked_responses")
    found = await add_ranked(world, ranking("q", x=0, a=1, b=2, y=3), ranking("q", a=0, z=1))
    assert (found.num_new, found.num_extended, found.num_responses_added) == (0, 1, 2)
    assert found.left_out == {"order_unknown": 1}
    expected = [("x", 0, 0), ("a", 1, 1), ("b", 2, 2), ("y", 3, 3)]
    assert await stored(world) == expected
    kept = await world.rows("SELECT id, text FROM ranked_responses WHERE text IN ('a', 'b')")
    assert sorted(row["id"] for row in kept) == sorted(row["id"] for row in ids)
    again = await add_ranked(world, ranking("q", x=0, a=1, b=2, y=3))
    assert (again.num_new, again.num_responses_added, again.left_out) == (0, 0, {})
    assert await stored(world) == expected


async def test_a_contradiction_is_counted_and_the_known_order_stays(world: Any) -> None:
    await add_ranked(world, ranking("q", a=0, b=1))
    found = await add_ranked(world, ranking("q", b=0, a=1), ranking("new", c=0, d=1))
    assert (found.num_new, found.num_responses_added) == (1, 0)
    assert found.left_out == {"contradicts_known_order": 2}
    rows = await world.rows("SELECT text FROM ranked_responses ORDER BY prompt_id, position")
    assert [row["text"] for row in rows] == ["a", "b", "c", "d"]


async def test_a_prompt_known_without_a_ranking_gets_one(world: Any) -> None:
    await world.add_prompts("q", dataset="ranked")
    found = await add_ranked(world, ranking("q", a=3, b=3, c=9))
    assert (found.num_new, found.prompts.num_known) == (1, 1)
    assert await stored(world) == [("a", 3, 0), ("b", 3, 1), ("c", 9, 2)]


@pytest.fixture
async def bootstrapping(world: Any) -> Any:
    await world.with_base()
    await world.add_prompts("one", "two")
    await world.add_ranked(*(ranked_prompt(f"topic {n}", "good", "poor") for n in range(8)))
    return world


async def test_a_run_keeps_the_responses_and_answers_that_it_took(bootstrapping: Any) -> None:
    world = bootstrapping
    bootstrap, _ = await world.new_run(bootstrap={"eft": {"judging": {"num_judgements": 6}}})
    await world.advance(bootstrap)
    imitated = await world.rows("SELECT * FROM ift_examples ORDER BY prompt_id")
    better = (ranked_prompt(f"topic {n}", "best", "good", "poor") for n in range(8))
    await world.add_ranked(*better, ranked_prompt("later", "x", "y"))
    assert await world.value("SELECT count(*) FROM ranked_responses") == 8 * 3 + 2
    world.serve()
    _, version = await world.bootstrap(bootstrap)
    assert version
    assert await world.rows("SELECT * FROM ift_examples ORDER BY prompt_id") == imitated
    assert {row["answer"] for row in imitated} == {"good"}
    judged = await world.rows(
        "SELECT DISTINCT r.text FROM ranked_judgements j"
        " JOIN ranked_responses r ON r.id = j.ranked_response_id"
    )
    assert {row["text"] for row in judged} == {"good", "poor"}


async def test_a_later_run_takes_what_was_added(bootstrapping: Any) -> None:
    world = bootstrapping
    await world.new_run(bootstrap={"share_rankings": True})
    await world.add_ranked(ranked_prompt("topic 0", "best", "good", "poor"))
    await world.new_run(bootstrap={"share_rankings": True})
    sizes = await world.rows(
        "SELECT cardinality(s.response_ids) AS num FROM ranked_splits s JOIN runs r"
        " ON r.id = s.run_id JOIN prompts p ON p.id = s.prompt_id"
        " WHERE p.messages->0->>'content' = 'topic 0' ORDER BY num"
    )
    assert [row["num"] for row in sizes] == [2, 3]
