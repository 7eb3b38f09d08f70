"""The REST service on the real database, without a server in between."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import Engine, event, insert

from rewardloop.store.models import Judgement, Response
from tests.integration.api_calls import assert_problem, client_of_five_prompts, new_run, post_raw

GOLDEN = Path(__file__).parent / "golden" / "openapi_paths.json"


@pytest.fixture
async def api(world: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of_five_prompts(world) as client:
        yield client


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/v1/runs", '{"seed": 1, "training": {"beta": 0.1, "beta": 0.5}}'),
        ("/v1/runs", '{"training": {"beta": 0.1}, "training": {}}'),
        (
            "/v1/datasets/seed/prompts",
            '{"prompts": [{"messages": [{"role": "user", "role": "system", "content": "a"}]}]}',
        ),
        ("/v1/evaluations", '{"version_a": "base", "version_b": "base", "version_b": "m1"}'),
    ],
)
async def test_a_body_that_gives_a_key_twice_is_refused(
    api: httpx.AsyncClient, world: Any, url: str, body: str
) -> None:
    answer = await api.post(url, content=body, headers={"content-type": "application/json"})
    assert "is given twice" in assert_problem(answer, 422, "invalid-input")
    assert await world.value("SELECT count(*) FROM runs") == 0


@pytest.mark.parametrize("count", [True, "3", 3.0])
async def test_a_count_is_a_whole_number(api: httpx.AsyncClient, count: Any) -> None:
    run = await new_run(api)
    answer = await api.post(f"/v1/runs/{run}/iterations", json={"count": count})
    assert "body.count: " in assert_problem(answer, 422, "invalid-input")


async def test_a_run_is_stored_with_its_resolved_config(api: httpx.AsyncClient, world: Any) -> None:
    answer = await api.post("/v1/runs", json={"name": "mine", "sampling": {"num_samples": 8}})
    assert answer.status_code == 201
    run = answer.json()
    assert (run["name"], run["base_version"]) == ("mine", "base")
    assert run["config"]["base_version"] == "base"
    assert run["config"]["sampling"]["num_samples"] == 8
    assert run["config"]["judging"]["num_judgements"] == 3  # the paper's, left out in the request
    (stored,) = await world.rows("SELECT * FROM runs")
    assert (stored["config"], stored["config_sha256"]) == (run["config"], run["config_sha256"])
    assert stored["software"].keys() == {"fastapi", "celery", "sqlalchemy"}
    assert (await api.get(f"/v1/runs/{run['id']}")).json() == run
    assert (await api.get("/v1/runs")).json() == {"items": [run]}


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"smapling": {}}, "smapling"),
        ({"sampling": {"num_sample": 4}}, "sampling.num_sample"),
        ({"sampling": {"num_samples": 1}}, "sampling.num_samples"),
        ({"training": {"weights": {"kind": "half"}}}, "training.weights"),
        ({"training": {"batch_size": 6, "micro_batch_size": 4}}, "micro_batch_size"),
        ({"name": "a\x00b"}, "name: a text holds a NUL"),
        ({"base_version": "\ud800"}, "base_version"),
        ({"prompts": {"dataset": "a\x00b"}}, "prompts.dataset"),
        (
            {"prompts": {"self_instruct": {"keywords": ["\ud800"]}}},
            "prompts.self_instruct.keywords",
        ),
    ],
)
async def test_a_wrong_key_of_a_config_is_named(
    api: httpx.AsyncClient, config: dict[str, Any], named: str
) -> None:
    answer = await post_raw(api, "/v1/runs", config)
    assert named in assert_problem(answer, 422, "invalid-input")


@pytest.mark.parametrize("headers", [{"authorization": "Bearer wrong"}, {"authorization": ""}])
@pytest.mark.parametrize(
    "path", ["/v1/runs", "/v1/iterations", "/v1/models", "/v1/datasets", "/metrics"]
)
async def test_a_wrong_key_opens_nothing(
    api: httpx.AsyncClient, path: str, headers: dict[str, str]
) -> None:
    assert_problem(await api.get(path, headers=headers), 401, "unauthorized")


async def test_the_admin_key_does_not_open_the_api(api: httpx.AsyncClient, world: Any) -> None:
    key = world.settings.admin_key.get_secret_value()
    answer = await api.get("/v1/runs", headers={"authorization": f"Bearer {key}"})
    assert_problem(answer, 401, "unauthorized")


async def test_iterations_are_queued_and_told_to_the_controller(
    api: httpx.AsyncClient, world: Any
) -> None:
    run_id = await new_run(api, prompts={"num_per_iteration": 3})
    answer = await api.post(f"/v1/runs/{run_id}/iterations", json={"count": 2})
    assert answer.status_code == 201
    created = answer.json()
    assert created["run_id"] == run_id
    assert [ref["index"] for ref in created["iterations"]] == [1, 2]
    assert world.messages("control") == 2
    taken = await world.rows(
        'SELECT "index", array_agg(prompt_id ORDER BY prompt_id) AS ids FROM iterations i'
        " JOIN iteration_prompts p ON p.iteration_id = i.id GROUP BY 1 ORDER BY 1"
    )
    # The second one goes on where the first one ended, round the dataset's end.
    assert [row["ids"] for row in taken] == [[1, 2, 3], [1, 4, 5]]


async def test_a_run_and_its_iterations_may_be_asked_for_at_once(
    api: httpx.AsyncClient, world: Any
) -> None:
    answer = await api.post("/v1/runs", json={}, params={"iterations": 2})
    assert answer.status_code == 201
    found = (await api.get("/v1/iterations", params={"run_id": answer.json()["id"]})).json()
    assert [item["index"] for item in found["items"]] == [2, 1]
    assert world.messages("control") == 2


async def test_a_run_whose_iterations_are_refused_is_not_made(api: httpx.AsyncClient) -> None:
    """Else the newest run would be an empty one."""
    config = {"prompts": {"dataset": "empty"}}
    answer = await api.post("/v1/runs", json=config, params={"iterations": 1})
    assert "empty" in assert_problem(answer, 404, "not-found")
    assert (await api.get("/v1/runs")).json() == {"items": []}


async def test_an_iteration_says_where_it_stands(api: httpx.AsyncClient, world: Any) -> None:
    run_id = await new_run(api, name="mine")
    created = (await api.post(f"/v1/runs/{run_id}/iterations", json={})).json()
    iteration_id = created["iterations"][0]["id"]
    iteration = (await api.get(f"/v1/iterations/{iteration_id}")).json()
    assert (iteration["state"], iteration["phase"]) == ("queued", "waiting")
    assert (iteration["run_id"], iteration["run_name"], iteration["index"]) == (run_id, "mine", 1)
    assert iteration["counts"] == {
        "prompts": 5,
        "prompts_done": 0,
        "prompts_rejected": 0,
        "prompts_dead": 0,
        "responses_expected": 20,
        "responses": 0,
        "judgements_expected": 60,
        "judgements": 0,
        "judgements_scored": 0,
        "pairs": 0,
        "train_steps": 0,
        "train_steps_total": 0,
    }
    assert (await api.get("/v1/iterations")).json()["items"] == [iteration]
    assert (await api.get("/v1/iterations", params={"run_id": run_id})).json()["items"]


async def test_counts_and_tokens_follow_what_is_stored(api: httpx.AsyncClient, world: Any) -> None:
    run_id = await new_run(api)
    created = (await api.post(f"/v1/runs/{run_id}/iterations", json={})).json()
    iteration_id = created["iterations"][0]["id"]
    await store_scores(world, iteration_id, {1: [(3.0, None), (None, "no_score")]})
    iteration = (await api.get(f"/v1/iterations/{iteration_id}")).json()
    counts = iteration["counts"]
    assert (counts["responses"], counts["judgements"], counts["judgements_scored"]) == (2, 2, 1)
    # Two responses of 5 tokens to one prompt of 7; a judgement of 2 (and 11 read) on each.
    assert iteration["tokens"] == {"completion": 2 * 5 + 2 * 2, "prompt": 7 + 2 * 11}
    scores = (await api.get(f"/v1/iterations/{iteration_id}/scores")).json()
    assert scores["unscored"] == {"no_score": 1}
    assert scores["scores"] == {"0": 0, "1": 0, "2": 0, "3": 1, "4": 0, "5": 0}


async def store_scores(
    world: Any, iteration_id: str, scores: dict[int, list[tuple[float | None, str | None]]]
) -> None:
    """Responses to each prompt, with one judgement each."""
    async with world.store.transaction() as session:
        for prompt_id, of_prompt in scores.items():
            for index, (score, reason) in enumerate(of_prompt):
                response_id = await session.scalar(
                    insert(Response)
                    .values(
                        iteration_id=iteration_id,
                        prompt_id=prompt_id,
                        sample_index=index,
                        text=f"answer {index} to prompt {prompt_id}",
                        sampling={},
                        prompt_tokens=7,
                        completion_tokens=5,
                        finish_reason="stop",
                        weight_version="base",
                    )
                    .returning(Response.id)
                )
                await session.execute(
                    insert(Judgement).values(
                        response_id=response_id,
                        judge_index=0,
                        raw_text="…",
                        score=score,
                        reason=reason,
                        mode="free",
                        rubric_version="r",
                        judge_version="base",
                        prompt_tokens=11,
                        completion_tokens=2,
                    )
                )


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every SQL statement that is sent, by whatever engine."""
    sent: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield sent
    event.remove(Engine, "before_cursor_execute", note)


async def test_an_iteration_that_ended_is_counted_once(
    api: httpx.AsyncClient, world: Any, statements: list[str]
) -> None:
    run_id = await new_run(api)
    await api.post(f"/v1/runs/{run_id}/iterations", json={"count": 3})
    await world.rows(
        "UPDATE iterations SET state = 'succeeded', finished_at = now() - interval '1 hour'"
        ' WHERE "index" < 3 RETURNING 1'
    )

    async def counting() -> tuple[Any, int]:
        """The list, and how many statements read judgements for it."""
        statements.clear()
        items = (await api.get("/v1/iterations")).json()["items"]
        return items, sum("judgements" in statement for statement in statements)

    first, num_first = await counting()
    second, num_second = await counting()
    assert [item["index"] for item in second] == [3, 2, 1]
    assert second == first
    assert (num_first, num_second) == (9, 3)  # three for each that is counted


async def test_an_iteration_that_ended_just_now_may_still_change(
    api: httpx.AsyncClient, world: Any
) -> None:
    """A task that was at work when it failed stores what it has."""
    run_id = await new_run(api)
    created = (await api.post(f"/v1/runs/{run_id}/iterations", json={})).json()
    iteration_id = created["iterations"][0]["id"]
    await world.rows(
        "UPDATE iterations SET state = 'failed', error = 'x', finished_at = now() RETURNING 1"
    )
    for num in (0, 1):
        iteration = (await api.get(f"/v1/iterations/{iteration_id}")).json()
        assert iteration["counts"]["judgements"] == num
        await store_scores(world, iteration_id, {num + 1: [(3.0, None)]})


async def test_pairs_are_paged_in_order(api: httpx.AsyncClient, world: Any) -> None:
    run_id = await new_run(api)
    created = (await api.post(f"/v1/runs/{run_id}/iterations", json={})).json()
    iteration_id = created["iterations"][0]["id"]
    ranked = [(1.0, None), (None, "truncated"), (4.0, None)]
    await store_scores(world, iteration_id, dict.fromkeys((1, 2, 3), ranked))
    await world.rows(
        "UPDATE iterations SET state = 'running', phase = 'pairing', base_version_id = 'base',"
        " trains_version_id = 'base'"
        " RETURNING 1"
    )
    await world.advance(iteration_id)

    url = f"/v1/runs/{run_id}/pairs"
    whole = (await api.get(url)).json()
    assert [pair["prompt_id"] for pair in whole["items"]] == [1, 2, 3]
    assert whole["next_after"] is None
    first = whole["items"][0]
    assert first["prompt"] == [{"role": "user", "content": "one"}]
    assert (first["chosen"], first["rejected"]) == ("answer 2 to prompt 1", "answer 0 to prompt 1")
    assert (first["chosen_score"], first["rejected_score"], first["margin"]) == (4.0, 1.0, 3.0)
    assert first["iteration"] == 1

    page = (await api.get(url, params={"limit": 2})).json()
    assert page["items"] == whole["items"][:2]
    rest = (await api.get(url, params={"limit": 2, "after": page["next_after"]})).json()
    assert (rest["items"], rest["next_after"]) == (whole["items"][2:], None)
    assert (await api.get(url, params={"iteration": 2})).json()["items"] == []
    assert len((await api.get(url, params={"iteration": 1})).json()["items"]) == 3


async def test_an_idempotency_key_returns_the_same_iterations(
    api: httpx.AsyncClient, world: Any
) -> None:
    run_id = await new_run(api)
    url, key = f"/v1/runs/{run_id}/iterations", {"idempotency-key": "once"}
    first = await api.post(url, json={"count": 2}, headers=key)
    again = await api.post(url, json={"count": 2}, headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert await world.value("SELECT count(*) FROM iterations") == 2
    assert_problem(await api.post(url, json={"count": 3}, headers=key), 409, "conflict")
    other = await new_run(api)
    clash = await api.post(f"/v1/runs/{other}/iterations", json={"count": 2}, headers=key)
    assert_problem(clash, 409, "conflict")
    fresh = await api.post(url, json={}, headers={"idempotency-key": "twice"})
    assert [ref["index"] for ref in fresh.json()["iterations"]] == [3]


async def test_what_is_not_there_is_a_problem(api: httpx.AsyncClient) -> None:
    nobody = "00000000-0000-0000-0000-000000000000"
    for path in (f"/v1/runs/{nobody}", f"/v1/runs/{nobody}/pairs", f"/v1/iterations/{nobody}"):
        assert nobody in assert_problem(await api.get(path), 404, "not-found")
    for part in ("scores", "metrics"):
        assert_problem(await api.get(f"/v1/iterations/{nobody}/{part}"), 404, "not-found")
    assert_problem(await api.post(f"/v1/runs/{nobody}/iterations", json={}), 404, "not-found")
    assert_problem(await api.get("/v1/nothing"), 404, "not-found")
    assert_problem(await api.get("/v1/runs/not-a-uuid"), 422, "invalid-input")
    assert_problem(await api.post("/v1/runs", json={"base_version": "x"}), 404, "not-found")
    run_id = await new_run(api, prompts={"dataset": "empty"})
    told = assert_problem(
        await api.post(f"/v1/runs/{run_id}/iterations", json={}), 404, "not-found"
    )
    assert "empty" in told


async def test_a_version_that_no_name_can_be_is_refused(api: httpx.AsyncClient) -> None:
    body = {"version_a": "base", "version_b": "a\x00b"}
    told = assert_problem(await api.post("/v1/evaluations", json=body), 422, "invalid-input")
    assert "version_b" in told
    answer = await api.get("/v1/models/a%00b/answers", params={"dataset": "seed"})
    assert_problem(answer, 422, "invalid-input")


async def test_models_tell_lineage_and_which_is_served(api: httpx.AsyncClient, world: Any) -> None:
    await world.publish("better", parent="base")
    items = (await api.get("/v1/models")).json()["items"]
    told = [(item["id"], item["parent"], item["kind"], item["serving"]) for item in items]
    assert told == [("base", None, "base", True), ("better", "base", "dpo", False)]


async def test_metrics_tell_what_is_stored(api: httpx.AsyncClient, world: Any) -> None:
    run_id = await new_run(api)
    created = (await api.post(f"/v1/runs/{run_id}/iterations", json={})).json()
    await store_scores(world, created["iterations"][0]["id"], {1: [(3.0, None), (1.0, None)]})
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    lines = answer.text.splitlines()
    assert "rewardloop_stored_samples 2.0" in lines
    assert "rewardloop_stored_judgements 2.0" in lines
    assert "rewardloop_stored_tokens 14.0" in lines  # 2 * 5 + 2 * 2
    assert "rewardloop_stored_pairs 0.0" in lines


async def test_health_and_dashboard_need_no_key(api: httpx.AsyncClient) -> None:
    nobody = {"authorization": ""}
    assert (await api.get("/health", headers=nobody)).json() == {"status": "ok"}
    page = await api.get("/", headers=nobody)
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert "<html" in page.text.lower()


async def test_the_paths_are_those_of_the_golden_file(api: httpx.AsyncClient) -> None:
    """To accept a change: write what this test says it found to the golden file."""
    document = (await api.get("/openapi.json")).json()
    found = {
        path: {
            method: {
                "parameters": [parameter["name"] for parameter in operation.get("parameters", [])],
                "responses": sorted(operation["responses"]),
            }
            for method, operation in operations.items()
        }
        for path, operations in sorted(document["paths"].items())
    }
    assert found == json.loads(GOLDEN.read_text()), json.dumps(found, indent=1)
