"""The fixed prompt model writes new prompts; the stub engine stands in its place."""

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Any

import pytest

from rewardloop.clients.generator import GeneratorClient
from rewardloop.errors import Conflict, InvalidInput, TooFewPrompts, UpstreamUnavailable
from rewardloop.lifecycle import Ask
from rewardloop.records import Message, Phase, PromptRecord
from rewardloop.store import candidates, control, iterations, prompts
from rewardloop.store.candidates import Candidate
from services.generator.stub_engine import Faults
from services.worker import prompts as writing
from tests.integration.conftest import ranked_prompt
from tests.integration.prompt_writing import (
    NUM_WRITTEN_AT_ONCE,
    SELF_INSTRUCT,
    SOURCE,
    accepted,
    in_prompts,
    stands,
    with_human_prompts,
    written,
)


@pytest.fixture
async def ready(world: Any) -> Any:
    return await with_human_prompts(world)


async def test_new_prompts_become_the_iterations_own(ready: Any) -> None:
    # Strict enough that the stub, which knows nine words, also writes what is too similar.
    engine = ready.serve()
    (only,) = await in_prompts(ready, self_instruct={**SELF_INSTRUCT, "max_similarity": 0.55})
    assert ready.messages("rollout") == 1
    assert await ready.rows("SELECT * FROM iteration_prompts") == []
    await ready.write_prompts(only)
    found = await written(ready, only)
    kept = [row for row in found if row["reason"] is None]
    rejected = [row for row in found if row["reason"] is not None]
    assert len(kept) == 6
    assert {row["reason"] for row in rejected} == {"similar"}
    assert all("0." in row["detail"] for row in rejected)
    assert [row["attempt"] for row in found] == list(range(len(found)))
    assert engine.num_requests == NUM_WRITTEN_AT_ONCE > len(found)

    run_id = (await ready.iteration(only)).run_id
    own = await ready.rows(
        "SELECT p.id, p.dataset, p.messages, p.reference, p.source FROM iteration_prompts i"
        " JOIN prompts p ON p.id = i.prompt_id WHERE i.iteration_id = :i ORDER BY p.id",
        i=only,
    )
    assert {row["id"]: row["messages"][0]["content"] for row in own} == {
        row["prompt_id"]: row["text"] for row in kept
    }
    assert {row["dataset"] for row in own} == {f"run-{run_id.hex[:12]}-i1"}
    assert own[0]["source"] == f"self_instruct:{run_id}:1:{kept[0]['attempt']}"
    assert (await ready.iteration(only)).report["prompts"] == {
        "num_written": len(found),
        "num_accepted": 6,
        "rejected": {"similar": len(rejected)},
    }
    assert (await ready.iteration(only)).report["prompt_model"] == {
        "name": "base",
        "is_own": False,
    }
    assert stands(await ready.advance(only)) == ("running", "rollout")
    await ready.roll_out(only)
    assert await ready.value("SELECT count(*) FROM responses") == 6 * 4


async def test_each_iteration_gets_prompts_of_its_own_from_the_same_prompt_model(
    ready: Any,
) -> None:
    engine = ready.serve()
    asked: list[str] = []
    write = engine.write

    def listen(prompt: str, index: int, **how: Any) -> str:
        asked.append(prompt)
        return write(prompt, index, **how)

    first, second = await in_prompts(ready, count=2)
    await ready.write_prompts(first)
    version = await ready.improve(first)
    assert stands(await ready.advance(second)) == ("running", "prompts")
    assert await ready.serving() == "base"  # not the version that the iteration starts from
    ready.monkeypatch.setattr(engine, "write", listen)
    await ready.write_prompts(second)
    assert stands(await ready.advance(second)) == ("running", "rollout")
    assert await ready.serving() == version

    old, new = await accepted(ready, first), await accepted(ready, second)
    assert len(old) == len(new) == 6
    assert not set(old) & set(new)
    assert all(text.startswith("[base] ") for text in new)
    # Two of the first iteration's prompts are among the shots of each of the second's.
    assert {sum(f": {text}\n" in prompt for text in old) for prompt in asked} == {2}
    await ready.roll_out(second)
    answered_by = await ready.rows(
        "SELECT DISTINCT weight_version FROM responses WHERE iteration_id = :i", i=second
    )
    assert answered_by == [{"weight_version": version}]


async def test_a_prompt_model_that_repeats_itself_fails_the_iteration_with_counts(
    ready: Any,
) -> None:
    ready.serve(Faults(repeats_itself=True))
    first, second = await in_prompts(ready, count=2)
    with pytest.raises(TooFewPrompts) as raised:
        await ready.write_prompts(first)
    assert raised.value.kind == "too-few-prompts"
    failed = await ready.iteration(first)
    assert stands(failed) == ("failed", "prompts")
    told = "wrote 30 prompts, of which 1 of 6 wanted passed the filters (rejected: 29 duplicate)"
    assert told in failed.error
    assert failed.report["prompts"] == {
        "num_written": 30,
        "num_accepted": 1,
        "rejected": {"duplicate": 29},
    }
    assert len(await written(ready, first)) == 30
    assert stands(await ready.advance(second)) == ("queued", "waiting")


async def test_too_few_prompts_are_never_taken_for_enough(
    ready: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where the task is killed as soon as its counts can be seen."""
    monkeypatch.setattr(writing, "failures_noted", lambda *_: nullcontext())
    ready.serve(Faults(repeats_itself=True))
    (only,) = await in_prompts(ready)
    with pytest.raises(TooFewPrompts):
        await ready.write_prompts(only)
    assert stands(await ready.advance(only)) == ("failed", "prompts")


async def test_a_retry_asks_the_prompt_model_for_as_many_again(ready: Any) -> None:
    """Which somebody has put a better one in the place of, or what is there suffices by now."""
    ready.serve(Faults(repeats_itself=True))
    (only,) = await in_prompts(ready)
    with pytest.raises(TooFewPrompts):
        await ready.write_prompts(only)
    for _ in range(2):
        ready.stop_generator()
    ready.serve()
    async with ready.store.transaction() as session:
        await control.ask(session, only, Ask.RETRY)
    assert stands(await ready.advance(only)) == ("running", "prompts")
    await ready.write_prompts(only)
    again = await ready.advance(only)
    assert stands(again) == ("running", "rollout")
    assert again.report["prompts_before_retry"]["num_accepted"] == 1
    assert again.report["prompts"]["num_accepted"] == 6
    assert 30 < again.report["prompts"]["num_written"] <= 60


def meanwhile(world: Any, happens: Callable[[Any], Awaitable[None]]) -> None:
    """Let `happens` happen in a transaction of its own when the prompt model is first asked."""
    complete, done = GeneratorClient.complete, []

    async def instead(*args: Any, **named: Any) -> str:
        if not done:
            done.append(True)
            async with world.store.transaction() as session:
                await happens(session)
        return await complete(*args, **named)

    world.monkeypatch.setattr(GeneratorClient, "complete", instead)


async def test_a_task_that_comes_late_hands_no_prompts_over(ready: Any) -> None:
    """Its lock died with its connection, and another one took the iteration on."""
    ready.serve()
    (only,) = await in_prompts(ready)

    async def goes_on(session: Any) -> None:
        current = await iterations.get(session, only, lock=True)
        await iterations.enter(session, current, Phase.PREPARE)

    meanwhile(ready, goes_on)
    with pytest.raises(Conflict, match="has gone on from prompts to prepare"):
        await ready.write_prompts(only)
    assert await ready.rows("SELECT * FROM iteration_prompts") == []
    late = await ready.iteration(only)
    assert (late.state, late.failing_since, "prompts" in late.report) == ("running", None, False)


async def test_a_written_batch_is_progress(ready: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    ready.serve()
    (only,) = await in_prompts(ready)
    before = await ready.value(
        "UPDATE iterations SET failing_since = now() RETURNING failing_since"
    )
    complete, calls = GeneratorClient.complete, iter(range(100))

    async def fails_in_its_second_batch(*args: Any, **named: Any) -> str:
        if next(calls) >= 3:
            raise UpstreamUnavailable("away")
        return await complete(*args, **named)

    monkeypatch.setattr(GeneratorClient, "complete", fails_in_its_second_batch)
    monkeypatch.setattr(writing, "BATCH_SIZE", 2)
    with pytest.raises(UpstreamUnavailable):
        await ready.write_prompts(only)
    assert len(await written(ready, only)) == 2
    assert (await ready.iteration(only)).failing_since > before


async def test_what_another_task_wrote_counts(ready: Any) -> None:
    """The database says how many there are, not a task's own counter."""
    ready.serve(Faults(repeats_itself=True))  # one new prompt at most
    (only,) = await in_prompts(ready)
    iteration = await ready.iteration(only)
    others = [Candidate(100 + n, f"written by another, {n}", None, None) for n in range(5)]

    async def writes(session: Any) -> None:
        await candidates.add(session, iteration, others)

    meanwhile(ready, writes)
    await ready.write_prompts(only)
    assert (await ready.iteration(only)).report["prompts"]["num_accepted"] == 6
    assert await ready.value("SELECT count(*) FROM iteration_prompts") == 6


async def test_a_little_less_than_wanted_is_enough(ready: Any) -> None:
    ready.serve(Faults(repeats_itself=True))
    (only,) = await in_prompts(ready, self_instruct={**SELF_INSTRUCT, "min_fraction": 0.1})
    await ready.write_prompts(only)
    assert stands(await ready.advance(only)) == ("running", "rollout")
    assert await ready.value("SELECT count(*) FROM iteration_prompts") == 1


async def test_what_stands_in_an_evaluation_dataset_is_never_trained_on(ready: Any) -> None:
    engine = ready.serve(Faults(repeats_itself=True))
    await ready.add_prompts(engine.write("whatever", 0), dataset="evaluation")
    (only,) = await ready.new_run(prompts=SOURCE, evaluation={})
    await ready.advance(only)
    with pytest.raises(TooFewPrompts, match=r"0 of 6 wanted .* 30 near_evaluation"):
        await ready.write_prompts(only)


async def test_half_a_prompt_is_rejected(ready: Any) -> None:
    """The stub's texts have 5 to 25 words; `max_tokens` cuts after 8."""
    ready.serve()
    how = {**SELF_INSTRUCT, "max_tokens": 8, "max_similarity": 1.0}
    (only,) = await in_prompts(ready, self_instruct={**how, "min_fraction": 0.1})
    await ready.write_prompts(only)
    found = await written(ready, only)
    cut = [row for row in found if row["reason"] == "truncated"]
    assert cut
    assert {(len(row["text"].split()), row["detail"]) for row in cut} == {(8, "after 8 tokens")}
    assert all(row["prompt_id"] is None for row in cut)
    report = (await ready.iteration(only)).report["prompts"]
    assert report["rejected"]["truncated"] == len(cut)


async def test_a_prompt_that_the_bootstrap_learnt_from_is_a_duplicate(ready: Any) -> None:
    """Also where the bootstrap has a dataset of its own."""
    engine = ready.serve()
    await ready.add_ranked(*(ranked_prompt(f"Rank {n} apples", "good", "poor") for n in range(8)))
    how = {**SELF_INSTRUCT, "max_evaluation_similarity": 1.0}
    bootstrap, first = await ready.new_run(bootstrap={}, prompts={**SOURCE, "self_instruct": how})
    known = await ready.value(
        "SELECT min(p.messages->0->>'content') FROM ranked_splits s"
        " JOIN prompts p ON p.id = s.prompt_id WHERE NOT held_out"
    )
    await ready.bootstrap(bootstrap)
    await ready.advance(first)
    ready.monkeypatch.setattr(engine, "write", lambda *_, **__: known)
    with pytest.raises(TooFewPrompts, match="30 duplicate"):
        await ready.write_prompts(first)


async def test_a_held_out_ranking_is_never_shown_nor_trained_on(ready: Any) -> None:
    """Where one dataset serves as ranked data and as shots, as in the paper."""
    engine = ready.serve()
    ranked = [ranked_prompt(f"Rank {n} things of mine", "good", "poor") for n in range(8)]
    await ready.add_ranked(*ranked)
    bootstrap, first = await ready.new_run(bootstrap={}, prompts={**SOURCE, "dataset": "ranked"})
    held_out = await ready.rows(
        "SELECT p.messages->0->>'content' AS text FROM ranked_splits s"
        " JOIN prompts p ON p.id = s.prompt_id WHERE held_out"
    )
    assert len(held_out) == 2
    await ready.bootstrap(bootstrap)
    asked: list[str] = []

    def copy(prompt: str, index: int, **how: Any) -> str:
        asked.append(prompt)
        return held_out[len(asked) % 2]["text"]

    assert stands(await ready.advance(first)) == ("running", "prompts")
    ready.monkeypatch.setattr(engine, "write", copy)
    with pytest.raises(TooFewPrompts, match="30 near_evaluation"):
        await ready.write_prompts(first)
    assert not [1 for prompt in asked for row in held_out if row["text"] in prompt]


async def test_without_a_prompt_of_one_turn_no_iteration_is_queued(world: Any) -> None:
    await world.with_base()
    turns: tuple[Message, ...] = (
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    )
    async with world.store.transaction() as session:
        await prompts.add(session, "seed", [PromptRecord(turns, None, "test")])
    with pytest.raises(InvalidInput, match="'seed' has no prompt of a single turn and"):
        await world.new_run(prompts=SOURCE)
