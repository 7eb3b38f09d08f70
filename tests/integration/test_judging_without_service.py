"""A roll-out asks the judge's engine itself, and judges as the service would."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from rewardloop.clients.generator import GeneratorClient
from rewardloop.clients.judge import JudgeClient
from rewardloop.config import Judging
from rewardloop.config.rubrics import RubricTemplate
from rewardloop.errors import UpstreamUnavailable
from rewardloop.records import JudgementMode, Message, UnscoredReason
from services.generator.stub_engine import Faults
from services.judge import app as judge_app
from tests.integration.rolled_out import PROMPTS, assert_complete

ASKED: list[Message] = [{"role": "user", "content": "Why is the sky blue?"}]
OWN_RUBRIC = RubricTemplate(
    template="Grade.\n{request}\n{response}\nEnd with\nScore {nonce}: <total>"
)
HOWS = [
    Judging(mode=mode, rubric=rubric, num_judgements=1 if mode == "expected" else 3, max_reasks=0)
    for mode in JudgementMode
    for rubric in ("additive", "short", OWN_RUBRIC)
]


@pytest.fixture
async def clients(world: Any) -> AsyncIterator[tuple[JudgeClient, JudgeClient]]:
    """One that goes by the service, and one that does not."""
    await world.with_base()
    world.serve(Faults(unscored_rate=0.3), max_model_len=1000)
    key = world.settings.api_key.get_secret_value()
    async with (
        JudgeClient(world.settings.judge_url, key) as by_service,
        JudgeClient(world.settings.judge_url, key) as itself,
        GeneratorClient(world.settings.generator_urls, key) as generator,
    ):
        await itself.ask_itself(generator)
        yield by_service, itself


@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{how.mode}-{str(how.rubric)[:8]}")
async def test_it_judges_as_the_service_does(
    clients: tuple[JudgeClient, JudgeClient], how: Judging
) -> None:
    found = []
    for client in clients:
        of_client = []
        for number in range(8):
            written = await client.judge(
                ASKED, f"answer {number}", how, how.num_judgements, key=f"{number}"
            )
            of_client += [plain(each) for each in written]
        found.append(of_client)
    assert found[0] == found[1]
    assert len(found[0]) == 8 * how.num_judgements
    assert any(each.verdict.score is not None for each in found[0])


def plain(written: Any) -> Any:
    """Without the nonce, which differs from call to call."""
    if written.nonce is None:
        return written
    return replace(written, nonce="", raw_text=written.raw_text.replace(written.nonce, ""))


async def test_what_the_engine_or_the_rubric_refuses_settles_alike(
    clients: tuple[JudgeClient, JudgeClient],
) -> None:
    long, system = "word " * 2000, [{"role": "system", "content": "You are terse."}]
    how = Judging(max_reasks=0)
    for client in clients:
        (too_long,) = await client.judge(ASKED, long, how, 1)
        assert too_long.verdict.reason is UnscoredReason.REFUSED
        assert "maximum context length" in too_long.raw_text
        (no_user,) = await client.judge(system, "answer", how, 1)  # type: ignore[arg-type]
        assert no_user.verdict.reason is UnscoredReason.REFUSED
        assert "user's turn" in no_user.raw_text


@pytest.fixture
async def iteration_id(world: Any) -> UUID:
    await world.with_base()
    await world.add_prompts(*PROMPTS)
    (made,) = await world.new_run()
    await world.in_rollout(made)
    return made


def counting(world: Any) -> list[str]:
    """The judgements that the service makes."""
    made: list[str] = []
    whole = judge_app._made

    async def noted(*args: Any) -> Any:
        made.append("one")
        return await whole(*args)

    world.monkeypatch.setattr(judge_app, "_made", noted)
    return made


async def test_a_roll_out_goes_by_the_service_only_where_the_engine_is_another(
    world: Any, iteration_id: UUID
) -> None:
    by_service = counting(world)
    world.serve()
    await world.roll_out(iteration_id)
    await assert_complete(world)
    assert by_service == []


@pytest.mark.parametrize(
    ("judge", "worker"),
    [
        ({"judge_upstream_url": "http://127.0.0.1:1"}, {}),
        ({"judge_upstream_model": "a-bigger-judge"}, {}),
        ({}, {"generator_urls": ["http://127.0.0.1:1"]}),  # the judge is not told of that one
    ],
)
async def test_another_engine_is_asked_by_the_service(
    world: Any, judge: dict[str, Any], worker: dict[str, Any]
) -> None:
    ours = world.settings
    world.settings = ours.model_copy(update=judge)
    world.serve_judge()
    key, urls = ours.api_key.get_secret_value(), ours.model_copy(update=worker).generator_urls
    async with JudgeClient(ours.judge_url, key) as client, GeneratorClient(urls, key) as generator:
        await client.ask_itself(generator)
        assert client._generator is None


async def test_without_a_judge_nothing_is_judged_although_its_engine_is_there(
    world: Any, iteration_id: UUID
) -> None:
    """Only the judge knows what its engine is."""
    world.serve_generator()
    with pytest.raises(UpstreamUnavailable):
        await world.roll_out(iteration_id)
    assert await world.rows("SELECT 1 FROM judgements") == []


async def test_a_judge_that_ends_in_the_middle_holds_nobody_up(world: Any) -> None:
    await world.with_base()
    await world.add_prompts(*PROMPTS)
    (made,) = await world.new_run(rollout={"max_prompts_in_flight": 2})
    await world.in_rollout(made)
    world.serve_generator(faults=Faults(latency_seconds=0.1))
    world.serve_judge()
    sample = GeneratorClient.sample

    async def sampled(self: GeneratorClient, *args: Any, **named: Any) -> Any:
        found = await sample(self, *args, **named)
        if len(world.served) == 2:
            world.served.pop().ask_to_stop()
        return found

    world.monkeypatch.setattr(GeneratorClient, "sample", sampled)
    await world.roll_out(made)
    await assert_complete(world)
