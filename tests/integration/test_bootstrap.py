"""From a pretrained M0 to M1, on the stub engine; only the training is simulated."""

from typing import Any

import httpx
import pytest

from rewardloop.method.rubrics import rubric_text
from rewardloop.records import Stage
from rewardloop.store import training
from services.generator.stub_engine import Faults
from services.trainer.plan import plan_of
from tests.integration.conftest import ranked_prompt
from tests.integration.ranked_world import (
    BOOTSTRAP,
    NUM_JUDGEMENTS,
    TOPICS,
    stands,
    until_judged,
    with_ranked_prompts,
)


@pytest.fixture
async def ready(world: Any) -> Any:
    return await with_ranked_prompts(world)


async def held_out(world: Any) -> set[str]:
    rows = await world.rows(
        "SELECT messages->-1->>'content' AS text FROM prompts"
        " JOIN ranked_splits s ON s.prompt_id = prompts.id WHERE s.held_out"
    )
    return {row["text"] for row in rows}


async def test_a_bootstrap_goes_from_phase_to_phase(ready: Any) -> None:
    ready.serve()
    bootstrap, first = await ready.new_run(bootstrap=BOOTSTRAP)
    assert stands(await ready.iteration(bootstrap)) == ("queued", "waiting")
    assert stands(await ready.advance(first)) == ("queued", "waiting")  # not its turn

    assert stands(await ready.advance(bootstrap)) == ("running", "train_baseline")
    assert stands(await ready.advance(bootstrap)) == ("running", "train_baseline")
    baseline = await ready.train(bootstrap)
    assert stands(await ready.advance(bootstrap)) == ("running", "judge_ranked")
    assert await ready.serving() == baseline
    assert stands(await ready.advance(bootstrap)) == ("running", "judge_ranked")
    await ready.assess(bootstrap)
    assert stands(await ready.advance(bootstrap)) == ("running", "train")

    version = await ready.train(bootstrap)
    assert stands(await ready.advance(bootstrap)) == ("running", "assess")
    assert await ready.serving() == version
    await ready.assess(bootstrap)
    done = await ready.advance(bootstrap)
    assert stands(done) == ("succeeded", "done")
    assert (done.base_version_id, done.baseline_version_id, done.new_version_id) == (
        "base",
        baseline,
        version,
    )
    spans = await ready.rows("SELECT phase, ended_at FROM phase_spans ORDER BY started_at")
    assert [span["phase"] for span in spans] == [
        *("train_baseline", "swap_baseline", "judge_ranked", "select_eft"),
        *("train", "swap", "assess"),
    ]
    assert all(span["ended_at"] is not None for span in spans)
    # Both come from M0, and iteration 1 goes on from M1.
    name = f"run-{done.run_id.hex[:12]}"
    made = await ready.rows("SELECT id, kind, parent_id FROM model_versions WHERE id <> 'base'")
    assert {tuple(row.values()) for row in made} == {
        (f"{name}-sft", "sft", "base"),
        (f"{name}-m1", "sft", "base"),
    }
    assert (baseline, version) == (f"{name}-sft", f"{name}-m1")
    assert stands(await ready.advance(first)) == ("running", "rollout")
    assert (await ready.iteration(first)).base_version_id == version


async def test_every_judgement_is_asked_for_exactly_once(ready: Any) -> None:
    """EFT judgements of the training part alone; held-out ones by SFT and by M1, in each mode."""
    engine = ready.serve()
    bootstrap, _ = await ready.new_run(bootstrap=BOOTSTRAP, health={"also_assess": ["constrained"]})
    baseline, version = await ready.bootstrap(bootstrap)
    rows = await ready.rows(
        "SELECT a.purpose, a.version_id, a.mode, s.held_out, count(*),"
        " count(DISTINCT j.ranked_response_id) AS responses"
        " FROM ranked_judgements j JOIN assessments a ON a.id = j.assessment_id"
        " JOIN ranked_responses r ON r.id = j.ranked_response_id"
        " JOIN ranked_splits s ON s.prompt_id = r.prompt_id GROUP BY 1, 2, 3, 4"
    )
    assert {tuple(row.values()) for row in rows} == {
        ("eft", baseline, "free", False, 18 * NUM_JUDGEMENTS, 18),
        ("health", baseline, "free", True, 6 * 3, 6),
        ("health", baseline, "constrained", True, 6 * 3, 6),
        ("health", version, "free", True, 6 * 3, 6),
        ("health", version, "constrained", True, 6 * 3, 6),
    }
    # Each by the version that it is said to be by.
    assert await ready.rows(
        "SELECT DISTINCT a.version_id <> j.judge_version AS wrong FROM ranked_judgements j"
        " JOIN assessments a ON a.id = j.assessment_id"
    ) == [{"wrong": False}]
    assert engine.num_requests == 18 + 4 * 6


async def test_nothing_that_is_held_out_is_trained_on(ready: Any) -> None:
    ready.serve()
    bootstrap, _ = await ready.new_run(bootstrap=BOOTSTRAP)
    await ready.bootstrap(bootstrap)
    kept_away = await held_out(ready)
    assert len(kept_away) == 2
    assert (
        await ready.rows(
            "SELECT 1 FROM eft_examples e JOIN ranked_judgements j ON j.id = e.ranked_judgement_id"
            " JOIN ranked_responses r ON r.id = j.ranked_response_id"
            " JOIN ranked_splits s ON s.prompt_id = r.prompt_id WHERE s.held_out"
        )
        == []
    )
    for stage in Stage:
        async with ready.store.transaction() as session:
            plan = await plan_of(session, await training.of(session, bootstrap, stage))
        asked = [example["prompt"][-1]["content"] for example in plan.task["examples"]]
        assert len(asked) >= 6
        assert not [text for text in asked for topic in kept_away if topic in text]


async def test_eft_judges_by_and_teaches_the_rubric_of_the_run(ready: Any) -> None:
    ready.serve()
    bootstrap, _ = await ready.new_run(judging={"rubric": "short"}, bootstrap=BOOTSTRAP)
    await ready.bootstrap(bootstrap)
    versions = await ready.rows("SELECT DISTINCT rubric_version FROM ranked_judgements")
    assert versions == [{"rubric_version": rubric_text("short").version}]
    async with ready.store.transaction() as session:
        plan = await plan_of(session, await training.of(session, bootstrap, Stage.MODEL))
    judge_tasks = [e for e in plan.task["examples"] if "Score " in e["completion"]]
    assert judge_tasks
    opening = rubric_text("short").template.partition("\n")[0]
    assert all(e["prompt"][0]["content"].startswith(opening) for e in judge_tasks)


async def test_no_iteration_takes_a_held_out_prompt(ready: Any) -> None:
    """One dataset serves as ranked data and as prompts; each turn goes round what is left."""
    made = await ready.new_run(
        count=2, bootstrap=BOOTSTRAP, prompts={"dataset": "ranked", "num_per_iteration": 4}
    )
    taken = [
        await ready.rows(
            "SELECT p.messages->0->>'content' AS text FROM iteration_prompts i"
            " JOIN prompts p ON p.id = i.prompt_id WHERE i.iteration_id = :i",
            i=iteration_id,
        )
        for iteration_id in made
    ]
    assert [len(rows) for rows in taken] == [0, 4, 4]
    texts = {row["text"] for rows in taken for row in rows}
    assert len(texts) == 6
    assert not texts & await held_out(ready)


async def test_a_held_out_conversation_is_kept_away_whatever_dataset_it_is_in(ready: Any) -> None:
    await ready.add_prompts(*(f"about {t}" for t in [*TOPICS, "kites"]), dataset="again")
    await ready.new_run(bootstrap=BOOTSTRAP, prompts={"dataset": "again", "num_per_iteration": 100})
    taken = await ready.rows(
        "SELECT p.messages->0->>'content' AS text FROM iteration_prompts i"
        " JOIN prompts p ON p.id = i.prompt_id"
    )
    assert len(taken) == 6
    assert not {row["text"] for row in taken} & await held_out(ready)


async def test_some_ranked_prompts_are_always_left_to_learn_from(world: Any) -> None:
    """90 % of 4 are 4, rounded. Of two that are left, EFT and IFT take one each."""
    await world.with_base()
    await world.add_prompts("one")
    await world.add_ranked(*(ranked_prompt(t, "a", "b") for t in TOPICS[:4]))
    for shared, num_held_out in ((True, 3), (False, 2)):
        await world.new_run(bootstrap={"share_rankings": shared, "eft": {"held_out_fraction": 0.9}})
        parts = await world.rows(
            "SELECT held_out, count(*) AS num FROM ranked_splits s JOIN runs r ON r.id = s.run_id"
            " WHERE r.config->'bootstrap'->'share_rankings' = to_jsonb(:s) GROUP BY 1",
            s=shared,
        )
        found = {row["held_out"]: row["num"] for row in parts}
        assert found == {True: num_held_out, False: 1}


async def test_eft_examples_agree_with_the_human_order(ready: Any) -> None:
    """Without thinning, the kept judgements of a prompt are whole sets: its responses have
    equally many, and the k-th highest ones fall with the human rank, for each k."""
    ready.serve()
    eft = {**BOOTSTRAP["eft"], "max_score_share": 1.0}
    bootstrap, _ = await ready.new_run(bootstrap={**BOOTSTRAP, "eft": eft})
    await until_judged(ready, bootstrap)
    await ready.assess(bootstrap)
    await ready.advance(bootstrap)
    kept = (
        "WITH kept AS (SELECT r.prompt_id, r.id, r.rank, j.score, row_number() OVER"
        " (PARTITION BY r.id ORDER BY j.score DESC) AS k FROM eft_examples e"
        " JOIN ranked_judgements j ON j.id = e.ranked_judgement_id"
        " JOIN ranked_responses r ON r.id = j.ranked_response_id) "
    )
    assert await ready.value(kept + "SELECT count(DISTINCT prompt_id) FROM kept") >= 2
    assert (
        await ready.rows(
            kept + "SELECT 1 FROM kept a JOIN kept b USING (prompt_id, k)"
            " WHERE a.rank < b.rank AND a.score <= b.score"
        )
        == []
    )
    per_response = await ready.rows(
        kept + "SELECT prompt_id, r.id, count(kept.id) FROM ranked_responses r"
        " LEFT JOIN kept USING (prompt_id, id) GROUP BY 1, 2"
    )
    by_prompt: dict[int, set[int]] = {}
    for row in per_response:
        by_prompt.setdefault(row["prompt_id"], set()).add(row["count"])
    assert all(len(counts) == 1 for counts in by_prompt.values())


async def test_the_report_adds_up(ready: Any) -> None:
    ready.serve(Faults(unscored_rate=0.2))
    judging = {"num_judgements": 5, "max_reasks": 0}
    eft = {**BOOTSTRAP["eft"], "judging": judging, "max_score_share": 0.2, "max_examples": 8}
    bootstrap, _ = await ready.new_run(bootstrap={**BOOTSTRAP, "eft": eft})
    await until_judged(ready, bootstrap)
    await ready.assess(bootstrap)
    report = (await ready.advance(bootstrap)).report
    eft = report["eft"]
    assert report["ift"] == {"num_examples": 6}
    assert (
        eft["num_prompts"]
        == 6
        == (
            eft["num_prompts_without_order"]
            + eft["num_prompts_unjudged"]
            + eft["num_prompts_agreeing"]
            + eft["num_prompts_disagreeing"]
        )
    )
    assert (
        eft["num_judgements"]
        == 18 * 5
        == (
            sum(eft["num_unparsed"].values())
            + eft["num_without_order"]
            + eft["num_unjudged"]
            + eft["num_out_of_order"]
            + eft["num_agreeing"]
        )
    )
    assert eft["num_agreeing"] == eft["num_thinned"] + eft["num_over_limit"] + eft["num_kept"]
    assert eft["num_unparsed"]["no_score"] == await ready.value(
        "SELECT count(*) FROM ranked_judgements j JOIN assessments a ON a.id = j.assessment_id"
        " WHERE a.purpose = 'eft' AND j.reason = 'no_score'"
    )
    assert eft["num_kept"] == await ready.value("SELECT count(*) FROM eft_examples") <= 8
    assert min(eft["num_unparsed"]["no_score"], eft["num_thinned"], eft["num_kept"]) > 0


async def test_the_agreement_is_that_of_the_stored_scores(ready: Any) -> None:
    """Pairwise accuracy of the held-out part, computed again in SQL."""
    ready.serve()
    bootstrap, _ = await ready.new_run(bootstrap=BOOTSTRAP)
    await ready.bootstrap(bootstrap)
    rows = await ready.rows(
        "WITH means AS (SELECT j.assessment_id, r.prompt_id, r.rank, avg(j.score) AS mean"
        " FROM ranked_judgements j JOIN ranked_responses r ON r.id = j.ranked_response_id"
        " GROUP BY 1, 2, r.id)"
        " SELECT a.metrics, (SELECT avg((x.mean > y.mean)::int)::float FROM means x"
        "  JOIN means y USING (assessment_id, prompt_id)"
        "  WHERE x.assessment_id = a.id AND x.rank < y.rank) AS accuracy"
        " FROM assessments a ORDER BY a.id"
    )
    assert len(rows) == 3
    for row in rows:
        assert row["metrics"]["pairwise_accuracy"] == pytest.approx(row["accuracy"])
        assert row["metrics"]["parse_rate"] == 1
        # The known lengths make every pair one of a longer or a shorter better response.
        assert row["metrics"]["longer_is_better"] is not None
        assert row["metrics"]["intervals"]["parse_rate"]["over"] == "prompts"
    assert [row["metrics"]["num_judgements"] for row in rows] == [18 * NUM_JUDGEMENTS, 18, 18]


@pytest.mark.parametrize(
    ("faults", "told"),
    [
        (
            Faults(fixed_score=3),
            "of 72 judgements of 6 ranked prompts none could become an EFT example: 0 prompts had",
        ),
        (Faults(unscored_rate=1.0), "6 prompts had a response without a parsed score"),
    ],
    ids=["ties everywhere", "no score anywhere"],
)
async def test_without_an_eft_example_the_bootstrap_fails(
    ready: Any, faults: Faults, told: str
) -> None:
    ready.serve(faults)
    bootstrap, first = await ready.new_run(bootstrap=BOOTSTRAP)
    await until_judged(ready, bootstrap)
    await ready.assess(bootstrap)
    failed = await ready.advance(bootstrap)
    assert stands(failed) == ("failed", "select_eft")
    assert told in failed.error
    assert failed.report["eft"]["num_kept"] == 0
    assert stands(await ready.advance(first)) == ("queued", "waiting")
    assert await ready.value("SELECT count(*) FROM training_jobs") == 1  # the baseline's


async def test_ift_imitates_the_best_ranked_answer(world: Any) -> None:
    """Also of a prompt that was imported before its rankings, and without a reference."""
    await world.with_base()
    await world.add_prompts("one")
    await world.add_prompts(*TOPICS[:3], dataset="ranked")
    await world.add_ranked(*(ranked_prompt(t, f"best {t}", "poor") for t in TOPICS))
    bootstrap, _ = await world.new_run(bootstrap={"share_rankings": True})
    assert stands(await world.advance(bootstrap)) == ("running", "train_baseline")
    async with world.store.transaction() as session:
        plan = await plan_of(session, await training.of(session, bootstrap, Stage.BASELINE))
    learnt = set(TOPICS) - await held_out(world)
    assert {example["completion"] for example in plan.task["examples"]} == {
        f"best {topic}" for topic in learnt
    }


async def test_ift_takes_no_more_examples_than_it_may(ready: Any) -> None:
    ready.serve()
    bootstrap, _ = await ready.new_run(bootstrap={**BOOTSTRAP, "max_ift_examples": 2})
    await ready.bootstrap(bootstrap)
    done = await ready.iteration(bootstrap)
    assert done.report["ift"] == {"num_examples": 2}
    expected = {Stage.BASELINE: 2, Stage.MODEL: 2 + done.report["eft"]["num_kept"]}
    for stage, num_examples in expected.items():
        async with ready.store.transaction() as session:
            plan = await plan_of(session, await training.of(session, bootstrap, stage))
        assert len(plan.task["examples"]) == num_examples


@pytest.fixture
async def api(ready: Any) -> Any:
    async with ready.api() as client:
        yield client


async def test_a_dataset_without_rankings_is_refused(ready: Any, api: httpx.AsyncClient) -> None:
    config = {"bootstrap": {"dataset": "seed"}}  # prompts, but nothing ranked
    run = (await api.post("/v1/runs", json=config)).json()
    answer = await api.post(f"/v1/runs/{run['id']}/iterations", json={})
    assert answer.status_code == 422
    assert "'seed' has 0 prompts with human-ranked responses" in answer.json()["detail"]
    for table in ("iterations", "ranked_splits", "outbox"):
        assert await ready.value(f"SELECT count(*) FROM {table}") == 0


async def test_the_bootstrap_is_not_counted_among_the_iterations(
    ready: Any, api: httpx.AsyncClient
) -> None:
    run = (await api.post("/v1/runs", json={"bootstrap": BOOTSTRAP})).json()
    url = f"/v1/runs/{run['id']}/iterations"
    first = (await api.post(url, json={"count": 2})).json()
    again = (await api.post(url, json={"count": 1})).json()
    indices = [[ref["index"] for ref in answer["iterations"]] for answer in (first, again)]
    assert indices == [[0, 1, 2], [3]]
    # The split is decided once.
    assert await ready.value("SELECT count(*) FROM ranked_splits") == 8
    bootstrap = (await api.get(f"/v1/iterations/{first['iterations'][0]['id']}")).json()
    assert (bootstrap["kind"], bootstrap["counts"]["prompts"]) == ("bootstrap", 0)


async def test_rankings_are_added_once(api: httpx.AsyncClient) -> None:
    new = {
        "messages": [{"role": "user", "content": "about ferns"}],
        "responses": [{"text": "poor", "rank": 1}, {"text": "good", "rank": 0}],
    }
    for added, known in ((1, 0), (0, 1)):
        answer = await api.post("/v1/datasets/ranked/ranked", json={"prompts": [new]})
        found = answer.json()
        assert (answer.status_code, found["added"], found["known"]) == (201, added, known)
        assert (found["extended"], found["unplaced"], found["left_out"]) == (0, {}, {})
    lone = {**new, "responses": new["responses"][:1]}
    answer = await api.post("/v1/datasets/ranked/ranked", json={"prompts": [lone]})
    assert answer.status_code == 422
