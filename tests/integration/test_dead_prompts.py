"""Prompts that fail each time: their neighbours go on, they are dead after their attempts, and
what the iteration does without them."""

from typing import Any
from uuid import UUID

import pytest

from rewardloop.clients import generator as generator_client
from rewardloop.clients import judge as judge_client
from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.server import Server
from rewardloop.errors import Conflict, UpstreamFailed, UpstreamMismatch, UpstreamUnavailable
from rewardloop.store import dead_prompts
from services.generator.stub_faults import PAGE, Faults
from tests.integration.doomed import dead, in_rollout, pause_shortly, states

POISONS = ("500", "503", "502", "hang", "cut", "html", "empty", "few")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    pause_shortly(monkeypatch)


async def test_one_bad_prompt_of_60_ends_no_iteration(world: Any) -> None:
    contents = [f"question {number}" for number in range(59)]
    made = await in_rollout(world, *contents[:20], "[poison 500] bad", *contents[20:])
    engine = world.serve(Faults(heeds_poison=True))
    await world.roll_out(made)
    assert await states(world) == {"done": 59, "dead": 1}
    (found,) = await dead(world, made)
    assert (found.prompt_id, found.num_attempts, found.num_responses) == (21, 3, 0)
    assert "EngineCore encountered an issue" in found.error
    assert found.error_kind == "upstream-failed"
    num_asked = engine.num_requests
    after = await world.advance(made)
    assert after.phase == "train"
    assert after.report["dead_prompts"] == {
        "num_prompts": 60,
        "num_dead": 1,
        "max_dead": 1,
        "error": found.error,
        "num_of_error": 1,
    }
    assert engine.num_requests == num_asked  # nothing is asked for twice
    (event,) = await world.rows("SELECT payload FROM events WHERE kind = 'prompt.dead'")
    assert event["payload"]["prompt_id"] == 21
    assert await world.rows("SELECT 1 FROM events WHERE kind = 'iteration.retry'") == []


def hangs_are_short(world: Any, seconds: float = 3.0) -> None:
    """A hanging call is given up after so long; an answer may take nearly as long."""
    world.monkeypatch.setattr(generator_client, "REQUEST_SECONDS", seconds)
    world.monkeypatch.setattr(judge_client, "REQUEST_SECONDS", seconds)
    # Longer than a breaker stays open, as it always is but in these tests.
    for client in ("generator", "judge"):
        world.monkeypatch.setattr(f"rewardloop.clients.{client}.RETRY_SECONDS", 5.0)


@pytest.mark.parametrize("poison", POISONS)
async def test_every_kind_of_failure_is_the_prompts_while_others_succeed(
    world: Any, poison: str
) -> None:
    hangs_are_short(world)
    bad = f"[poison {poison}]"
    made = await in_rollout(
        world, bad, *(f"question {n}" for n in range(10)), rollout={"max_prompts_in_flight": 3}
    )
    world.serve(Faults(heeds_poison=True))
    await world.roll_out(made)
    assert await states(world) == {"done": 10, "dead": 1}
    (found,) = await dead(world, made)
    assert (found.prompt_id, found.num_attempts) == (1, 3)
    assert (await world.iteration(made)).state == "running"


@pytest.mark.parametrize("poison", ["500", "html"])
async def test_a_row_of_bad_prompts_at_the_beginning_or_the_end_is_no_bad_server(
    world: Any, poison: str
) -> None:
    """More than are in flight, and more than make a server suspect."""
    bad = [f"[poison {poison}] {number}" for number in range(10)]
    good = [f"question {number}" for number in range(5)]
    made = await in_rollout(
        world, *bad, *good, *(f"{b} again" for b in bad), rollout={"max_prompts_in_flight": 4}
    )
    world.serve(Faults(heeds_poison=True))
    await world.roll_out(made)
    assert await states(world) == {"done": 5, "dead": 20}


@pytest.mark.parametrize("poison", ["500", "hang", "html"])
async def test_what_is_stored_of_a_prompt_stays_and_a_retry_goes_on_from_it(
    world: Any, poison: str
) -> None:
    made = await in_rollout(world, f"[poison judge {poison}]", "good", "better")
    engine = world.serve(Faults(heeds_poison=True))
    hangs_are_short(world)
    await world.roll_out(made)
    assert await states(world) == {"done": 2, "dead": 1}
    (found,) = await dead(world, made)
    assert found.num_responses == 4
    kept = await world.rows("SELECT id FROM responses WHERE prompt_id = 1 ORDER BY id")
    engine.faults = Faults()
    hangs_are_short(world, 60.0)  # a busy machine is no hanging engine
    async with world.store.transaction() as session:
        retried = await dead_prompts.retry(session, made)
    assert retried.prompt_ids == [1]
    num_asked = engine.num_requests
    await world.roll_out(made)
    assert await states(world) == {"done": 3}
    # The judgements alone, and perhaps a client's look whether the engine is there again.
    assert num_asked + 4 <= engine.num_requests <= num_asked + 8
    assert await world.rows("SELECT id FROM responses WHERE prompt_id = 1 ORDER BY id") == kept


async def test_the_scored_responses_of_a_dead_prompt_make_no_pair(world: Any) -> None:
    """Three of its four may be scored; the fourth might have been the best."""
    made = await in_rollout(world, "one", "two")
    await world.rows("UPDATE iterations SET state = 'queued' RETURNING 1")
    await world.judged(made, {1: [[1.0], [4.0]], 2: [[1.0], [4.0]]})
    await world.rows(
        "UPDATE iteration_prompts SET state = 'dead', last_error = 'e', last_error_kind = 'k'"
        " WHERE prompt_id = 1 RETURNING 1"
    )
    await world.advance(made)
    assert await world.rows("SELECT prompt_id FROM preference_pairs") == [{"prompt_id": 2}]
    (progress,) = await world.rows("SELECT * FROM iteration_progress")
    assert (progress["prompts"], progress["responses_expected"], progress["responses"]) == (2, 4, 2)
    assert (progress["judgements_expected"], progress["judgements"]) == (12, 2)


async def test_too_many_dead_prompts_fail_the_iteration_and_say_what_to_do(world: Any) -> None:
    bad = [f"[poison 500] {number}" for number in range(3)]
    made = await in_rollout(world, *bad, "[poison html]", *(f"question {n}" for n in range(6)))
    world.serve(Faults(heeds_poison=True))
    await world.roll_out(made)
    failed = await world.advance(made)
    assert (failed.state, failed.error_kind) == ("failed", "too-many-dead")
    for told in (
        "4 of 10 prompts are dead",
        "rollout.max_dead_share 0.01 allows 1",
        "of 3 of them, prompt 1 for one",
        "EngineCore encountered an issue",
        f"`rewardloop dead {made}`",
        f"`rewardloop retry-prompts {made}`",
    ):
        assert told in failed.error, failed.error


async def test_a_larger_share_lets_them_be_left_out(world: Any) -> None:
    bad = [f"[poison 500] {number}" for number in range(4)]
    made = await in_rollout(
        world, *bad, *(f"question {n}" for n in range(6)), rollout={"max_dead_share": 0.4}
    )
    world.serve(Faults(heeds_poison=True))
    await world.roll_out(made)
    assert (await world.advance(made)).phase == "train"


async def test_a_share_of_none_allows_none_and_attempts_are_counted_as_configured(
    world: Any,
) -> None:
    made = await in_rollout(
        world,
        "[poison cut]",
        *(f"question {n}" for n in range(20)),
        rollout={"max_dead_share": 0.0, "max_attempts": 1},
    )
    world.serve(Faults(heeds_poison=True))
    await world.roll_out(made)
    (found,) = await dead(world, made)
    assert found.num_attempts == 1
    assert "1 of 21 prompts" in (await world.advance(made)).error


async def seconds_of_the_good(world: Any, iteration_id: UUID) -> float:
    """From the first answer to the last judgement: bad prompts have neither."""
    seconds = await world.value(
        "SELECT extract(epoch FROM max(j.created_at) - min(r.created_at))"
        " FROM judgements j JOIN responses r ON r.id = j.response_id WHERE r.iteration_id = :made",
        made=iteration_id,
    )
    return float(seconds)


async def test_4_bad_prompts_of_200_cost_the_others_no_time(world: Any) -> None:
    """Both sides run in this test, so a slow machine slows both. Bad prompts stand twice as
    close as 10 in 1,000 do."""
    bad = [f"[poison {p}] {n}" for n in range(2) for p in ("500", "hang")]
    contents = [f"question {number}" for number in range(200)]
    seconds = {}
    hangs_are_short(world, 2.5)
    await world.with_base()
    world.serve(Faults(latency_seconds=0.8, heeds_poison=True))
    for name, prompts in (("undisturbed", contents), ("disturbed", [*bad, *contents[len(bad) :]])):
        await world.add_prompts(*prompts, dataset=name)
        (made,) = await world.new_run(
            prompts={"dataset": name, "num_per_iteration": 200},
            sampling={"num_samples": 2},
            judging={"num_judgements": 1},
            rollout={"max_prompts_in_flight": 16},
        )
        await world.in_rollout(made)
        await world.roll_out(made)
        seconds[name] = await seconds_of_the_good(world, made)
        listed = await dead(world, made)
        await world.rows("UPDATE iterations SET state = 'succeeded', phase = 'done' RETURNING 1")
    assert len(listed) == len(bad)
    assert all(found.num_attempts == 3 and found.error for found in listed)
    assert seconds["disturbed"] <= 1.5 * seconds["undisturbed"], seconds


async def test_a_server_that_fails_on_everything_uses_up_no_attempts(world: Any) -> None:
    made = await in_rollout(world, *(f"question {number}" for number in range(12)))
    engine = world.serve(Faults(error_rate=1.0))
    with pytest.raises(UpstreamFailed, match="EngineCore"):
        await world.roll_out(made)
    assert await states(world) == {"pending": 12}
    assert await world.value("SELECT max(num_attempts) FROM iteration_prompts") == 0
    failing = await world.iteration(made)
    assert (failing.state, failing.failing_since is not None) == ("running", True)
    engine.faults = Faults()
    await world.rows("UPDATE iteration_prompts SET not_before = NULL RETURNING 1")
    await world.roll_out(made)
    assert await states(world) == {"done": 12}


async def test_a_server_that_is_away_uses_up_no_attempts(world: Any) -> None:
    made = await in_rollout(world, *(f"question {number}" for number in range(12)))
    for _ in range(4):
        with pytest.raises(UpstreamUnavailable, match="does not answer"):
            await world.roll_out(made)
    assert await states(world) == {"pending": 12}
    assert await world.value("SELECT max(num_attempts) FROM iteration_prompts") == 0


@pytest.mark.parametrize("num_prompts", [1, 40])
async def test_a_wrong_server_still_fails_the_iteration_at_once(
    world: Any, num_prompts: int
) -> None:
    """A page for every request, whatever its prompt: the address is wrong."""
    made = await in_rollout(world, *(f"question {number}" for number in range(num_prompts)))
    sampled: list[Any] = []

    async def page(self: GeneratorClient, server: Server, path: str, body: Any, **_: Any) -> Any:
        sampled.append(path)
        raise rollout_page()

    world.monkeypatch.setattr(GeneratorClient, "_post_once", page)
    world.serve_judge()
    with pytest.raises(UpstreamMismatch, match="something else than JSON"):
        await world.roll_out(made)
    failed = await world.iteration(made)
    assert (failed.state, failed.error_kind) == ("failed", "upstream-mismatch")
    assert "is this the address of the service that is wanted?" in failed.error
    assert await dead(world, made) == []


def rollout_page() -> Exception:
    from rewardloop.errors import UnreadableAnswer

    return UnreadableAnswer(
        f"http://x answered /v1 with something else than JSON ({PAGE[:5]}); is this the address "
        "of the service that is wanted?"
    )


async def test_one_page_of_a_proxy_is_no_wrong_server(world: Any) -> None:
    made = await in_rollout(world, *(f"question {number}" for number in range(12)))
    world.serve()
    post_once = GeneratorClient._post_once
    pages = iter(range(6))

    async def odd(self: GeneratorClient, server: Server, path: str, body: Any, **how: Any) -> Any:
        if next(pages, None) is not None:
            raise rollout_page()
        return await post_once(self, server, path, body, **how)

    world.monkeypatch.setattr(GeneratorClient, "_post_once", odd)
    await world.roll_out(made)
    assert await states(world) == {"done": 12}


async def test_only_before_its_pairs_can_an_iteration_try_them_again(world: Any) -> None:
    made = await in_rollout(world, "[poison 500]", *(f"question {n}" for n in range(5)))
    world.serve(Faults(heeds_poison=True))
    await world.roll_out(made)
    assert (await world.advance(made)).phase == "train"
    async with world.store.transaction() as session:
        with pytest.raises(Conflict, match="has gone on without its dead prompts"):
            await dead_prompts.retry(session, made)
