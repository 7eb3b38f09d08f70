"""Head to head on the stub engine: from `POST /v1/evaluations` to a result."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop.embedded.process import free_port
from rewardloop.errors import InvalidInput, NotFound
from rewardloop.method.comparison import COMPARISON_VERSION
from rewardloop.store import evaluations, iterations
from services.generator.stub_engine import Faults
from services.generator.stub_verdict import asked_by_prompt
from services.judge import app as judge_app
from tests.integration.conftest import Served, ranked_prompt
from tests.integration.evaluated import (
    asked_for,
    num_stored,
    stored,
    with_two_versions,
)


@pytest.fixture
async def ready(world: Any) -> Any:
    return await with_two_versions(world)


@pytest.fixture
async def api(ready: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with ready.api() as client:
        yield client


async def test_an_evaluation_goes_from_the_request_to_its_result(
    ready: Any, api: httpx.AsyncClient
) -> None:
    engine = ready.serve()
    made = await api.post("/v1/evaluations", json={"version_a": "new", "version_b": "base"})
    assert made.status_code == 201
    url = f"/v1/evaluations/{made.json()['id']}"
    assert (await api.get(url)).json() == made.json()
    assert (made.json()["state"], made.json()["result"]) == ("queued", None)
    assert made.json()["config"]["num_prompts"] == 256  # the paper's, left out in the request
    assert ready.messages("control") == 1

    await ready.evaluate(UUID(made.json()["id"]))
    done = (await api.get(url)).json()
    assert (done["state"], done["error"]) == ("succeeded", None)
    assert (await api.get("/v1/evaluations")).json() == {"items": [done]}
    # Each version's own answer to each prompt, and each prompt judged in both orders.
    answers = await ready.rows("SELECT * FROM evaluation_answers")
    assert len(answers) == 2 * 8
    assert all(row["text"].startswith(f"[{row['version_id']}] ") for row in answers)
    orders = await ready.rows(
        "SELECT prompt_id, array_agg(a_first ORDER BY a_first) AS a_first FROM comparisons"
        " GROUP BY 1"
    )
    assert [row["a_first"] for row in orders] == [[False, True]] * 8
    assert engine.num_requests == 2 * 8 + 2 * 8
    # The newer version judged, though the older one answered last.
    judged_by = await ready.rows("SELECT DISTINCT judge_version, rubric_version FROM comparisons")
    assert judged_by == [{"judge_version": "new", "rubric_version": COMPARISON_VERSION}]

    (counted,) = await ready.rows(
        "WITH orders AS (SELECT"
        "  max(preference) FILTER (WHERE a_first) AS x,"
        "  max(preference) FILTER (WHERE NOT a_first) AS y FROM comparisons GROUP BY prompt_id)"
        " SELECT count(*) AS num_prompts,"
        " count(*) FILTER (WHERE x = 'first' AND y = 'second') AS num_wins,"
        " count(*) FILTER (WHERE x = 'second' AND y = 'first') AS num_losses,"
        " count(*) FILTER (WHERE x IS NULL OR y IS NULL) AS num_undecided FROM orders"
    )
    assert {key: done["result"][key] for key in counted} == counted
    shown = (await api.get("/v1/models/new/answers", params={"dataset": "evaluation"})).json()
    texts = {row["prompt_id"]: row["text"] for row in answers if row["version_id"] == "new"}
    assert [item["answer"] for item in shown["items"]] == [texts[i] for i in sorted(texts)]


async def test_the_side_that_is_preferred_in_both_orders_wins(ready: Any) -> None:
    """The judge prefers the longer response, so the lengths tell how each prompt must end."""
    engine = ready.serve()
    write = engine.write

    def prefer_the_longer(prompt: str, index: int, **how: Any) -> str:
        if "<first_response>" not in prompt:
            return write(prompt, index, **how)
        first = prompt.partition("<first_response>\n")[2].partition("\n</first_response>")[0]
        second = prompt.partition("<second_response>\n")[2].partition("\n</second_response>")[0]
        which = "tie" if len(first) == len(second) else "first"
        asked = asked_by_prompt(prompt)
        assert asked is not None
        return f"Better{asked.nonce}: {'second' if len(second) > len(first) else which}"

    ready.monkeypatch.setattr(engine, "write", prefer_the_longer)
    evaluation_id = await asked_for(ready)
    await ready.evaluate(evaluation_id)
    result = (await stored(ready, evaluation_id)).result
    (counted,) = await ready.rows(
        "SELECT count(*) FILTER (WHERE length(a.text) > length(b.text)) AS num_wins,"
        " count(*) FILTER (WHERE length(a.text) < length(b.text)) AS num_losses,"
        " count(*) FILTER (WHERE length(a.text) = length(b.text)) AS num_ties,"
        " avg(length(a.text))::float AS mean_length_a, avg(length(b.text))::float AS mean_length_b"
        " FROM evaluation_answers a JOIN evaluation_answers b USING (prompt_id)"
        " WHERE a.version_id = 'new' AND b.version_id = 'base'"
    )
    assert counted["num_wins"] != counted["num_losses"]
    assert {key: result[key] for key in counted} == counted


async def test_evaluations_with_one_sampling_share_answers(ready: Any) -> None:
    engine = ready.serve()
    await ready.publish("newest", parent="new")
    for a, b, num_answers, config in (
        ("new", "base", 16, {}),
        ("newest", "new", 8, {}),
        ("newest", "base", 0, {"judge_max_tokens": 64}),  # not a matter of the answers
        ("newest", "base", 16, {"temperature": 0.0}),
        ("newest", "base", 0, {"temperature": 0.0, "num_prompts": 4}),
    ):
        before = engine.num_requests
        await ready.evaluate(await asked_for(ready, a, b, **config))
        num_comparisons = 2 * min(8, config.get("num_prompts", 8))
        assert engine.num_requests - before == num_answers + num_comparisons


async def test_running_it_again_changes_nothing(ready: Any) -> None:
    engine = ready.serve(Faults(latency_seconds=0.01))
    evaluation_id = await asked_for(ready)
    await asyncio.gather(*(ready.evaluate(evaluation_id) for _ in range(3)))
    assert await num_stored(ready) == (16, 16)
    done = await stored(ready, evaluation_id)
    assert done.state == "succeeded"
    await ready.evaluate(evaluation_id)
    again = await stored(ready, evaluation_id)
    assert (again.result, again.finished_at) == (done.result, done.finished_at)
    assert engine.num_requests == 32


async def test_an_evaluation_and_an_iteration_wait_for_each_other(ready: Any) -> None:
    engine = ready.serve()
    (running,) = await ready.new_run()
    await ready.in_rollout(running)
    evaluation_id = await asked_for(ready)
    (behind,) = await ready.new_run()
    await ready.lose_messages()
    await ready.evaluate(evaluation_id)
    assert (await stored(ready, evaluation_id)).state == "queued"
    assert engine.num_requests == 0

    async with ready.store.transaction() as session:
        current = await iterations.get(session, running, lock=True)
        await iterations.fail(session, current, NotFound("for this test"))
    assert (await ready.advance(behind)).state == "queued"  # the evaluation comes first
    assert ready.messages("control") == 2  # both are told to look whether they may start
    async with ready.store.transaction() as session:
        assert await evaluations.try_start(session, evaluation_id)
    assert (await ready.advance(behind)).state == "queued"
    await ready.lose_messages()
    await ready.evaluate(evaluation_id)
    assert (await stored(ready, evaluation_id)).state == "succeeded"
    assert ready.messages("control") == 1
    assert (await ready.advance(behind)).phase == "rollout"
    assert await ready.serving() == "base"  # its own base again


async def test_one_evaluation_runs_at_a_time(ready: Any) -> None:
    first, second = await asked_for(ready), await asked_for(ready)
    async with ready.store.transaction() as session:
        assert await evaluations.try_start(session, second)
        assert not await evaluations.try_start(session, first)


async def test_a_prompt_that_is_refused_is_left_out_with_its_reason(ready: Any) -> None:
    await ready.add_prompts("word " * 400, dataset="evaluation")
    ready.serve(max_model_len=350)
    evaluation_id = await asked_for(ready)
    await ready.evaluate(evaluation_id)
    refused = await ready.rows("SELECT * FROM evaluation_answers WHERE text IS NULL")
    assert {row["version_id"] for row in refused} == {"base", "new"}
    assert all("maximum context length is 350" in row["reason"] for row in refused)
    assert (await stored(ready, evaluation_id)).result["num_prompts"] == 8


async def test_an_evaluation_without_an_answered_prompt_fails(ready: Any) -> None:
    await ready.add_prompts("word " * 400, dataset="long")
    ready.serve(max_model_len=350)
    evaluation_id = await asked_for(ready, dataset="long")
    with pytest.raises(InvalidInput, match="no prompt of the dataset 'long' was answered by both"):
        await ready.evaluate(evaluation_id)
    failed = await stored(ready, evaluation_id)
    assert failed.state == "failed"
    assert "too long" in failed.error


async def test_comparisons_that_cannot_be_read_are_undecided(ready: Any) -> None:
    ready.serve(Faults(unscored_rate=1.0))
    evaluation_id = await asked_for(ready)
    await ready.evaluate(evaluation_id)
    result = (await stored(ready, evaluation_id)).result
    assert (result["num_undecided"], result["win_rate"]) == (8, None)
    reasons = await ready.rows("SELECT DISTINCT preference, reason FROM comparisons")
    assert reasons == [{"preference": None, "reason": "no_score"}]
    constrained = await asked_for(ready, mode="constrained")
    await ready.evaluate(constrained)
    assert (await stored(ready, constrained)).result["num_undecided"] == 0


async def test_a_named_version_judges(ready: Any) -> None:
    ready.serve()
    await ready.evaluate(await asked_for(ready, judge_version="base"))
    assert await ready.value("SELECT DISTINCT judge_version FROM comparisons") == "base"


async def test_a_foreign_judge_compares_and_no_version_is_brought_back_for_it(ready: Any) -> None:
    ready.serve()
    url = f"http://127.0.0.1:{free_port()}"
    ready.served.append(Served(judge_app.make_app(ready.settings), url))
    ready.settings = ready.settings.model_copy(
        update={"evaluation_judge_url": url, "judge_url": "http://127.0.0.1:1"}
    )
    evaluation_id = await asked_for(ready, judge_version="new")
    await ready.evaluate(evaluation_id)
    assert (await stored(ready, evaluation_id)).state == "succeeded"
    assert await ready.serving() == "base"  # which answered last


@pytest.mark.parametrize(
    ("change", "status", "told"),
    [
        ({"version_b": "new"}, 422, "'new' cannot be compared with itself"),
        ({"version_a": "nobody"}, 404, "nobody"),
        ({"config": {"judge_version": "nobody"}}, 404, "nobody"),
        ({"config": {"dataset": "empty"}}, 404, "'empty' is empty"),
        ({"config": {"num_promts": 3}}, 422, "num_promts"),
        ({"run_id": "00000000-0000-0000-0000-000000000000"}, 404, "there is no run 0000"),
    ],
    ids=["itself", "unknown version", "unknown judge", "empty dataset", "key", "unknown run"],
)
async def test_an_evaluation_that_cannot_be_is_refused(
    ready: Any, api: httpx.AsyncClient, change: dict[str, Any], status: int, told: str
) -> None:
    body = {"version_a": "new", "version_b": "base", **change}
    answer = await api.post("/v1/evaluations", json=body)
    assert answer.status_code == status
    assert told in answer.json()["detail"]
    assert await ready.rows("SELECT * FROM evaluations") == []
    assert await ready.rows("SELECT * FROM outbox") == []


async def test_answers_of_nobody_are_a_problem(api: httpx.AsyncClient) -> None:
    for version, dataset in (("nobody", "evaluation"), ("base", "evaluation")):
        answer = await api.get(f"/v1/models/{version}/answers", params={"dataset": dataset})
        assert answer.status_code == 404
        assert version in answer.json()["detail"]


async def of_run(world: Any) -> list[tuple[str, str]]:
    """Who met whom, in order."""
    rows = await world.rows(
        "SELECT version_a_id, version_b_id FROM evaluations ORDER BY created_at, version_b_id DESC"
    )
    return [(row["version_a_id"], row["version_b_id"]) for row in rows]


async def test_a_run_evaluates_each_new_version(ready: Any) -> None:
    """M1 meets SFT alone (M0 is pretrained), M2 meets M1 and SFT."""
    ready.serve()
    topics = ("tides", "bread", "chess", "rivers")
    await ready.add_ranked(*(ranked_prompt(t, "good", "poor") for t in topics))
    bootstrap, first = await ready.new_run(bootstrap={}, evaluation={"num_prompts": 3})
    baseline, m1 = await ready.bootstrap(bootstrap)
    assert await of_run(ready) == [(m1, baseline)]
    assert (await ready.advance(first)).state == "queued"  # the evaluation comes first
    (only,) = await ready.rows("SELECT id, run_id FROM evaluations")
    assert only["run_id"] == (await ready.iteration(first)).run_id
    await ready.evaluate(only["id"])
    m2 = await ready.improve(first)
    met = await of_run(ready)
    assert met[0] == (m1, baseline)
    assert set(met[1:]) == {(m2, m1), (m2, baseline)}
    for row in await ready.rows("SELECT id FROM evaluations WHERE state = 'queued'"):
        await ready.evaluate(row["id"])
    results = await ready.rows("SELECT result->'num_prompts' AS num FROM evaluations")
    assert [row["num"] for row in results] == [3, 3, 3]
    assert await ready.value("SELECT count(*) FROM evaluation_answers") == 3 * 3


async def test_without_a_bootstrap_the_new_version_meets_its_base(ready: Any) -> None:
    ready.serve()
    (only,) = await ready.new_run(evaluation={})
    version = await ready.improve(only)
    assert await of_run(ready) == [(version, "base")]


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"evaluation": {"dataset": "empty"}}, "'empty' is empty"),
        ({"training": {"early_stopping": {}}}, "'validation' is empty"),
        ({"evaluation": {"judge_version": "nobody"}}, "nobody"),
    ],
)
async def test_what_is_needed_late_is_asked_for_early(
    ready: Any, api: httpx.AsyncClient, config: dict[str, Any], told: str
) -> None:
    run = (await api.post("/v1/runs", json=config)).json()
    answer = await api.post(f"/v1/runs/{run['id']}/iterations", json={})
    assert answer.status_code == 404
    assert told in answer.json()["detail"]
