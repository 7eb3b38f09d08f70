"""`GET /v1/runs/{id}/report` and `/conformance`, from a run's first minute to its end."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest

from rewardloop import presets
from rewardloop.report import render
from rewardloop.store import training
from services.generator.stub_engine import Faults
from tests.integration.conftest import ranked_prompt


@pytest.fixture
async def ready(world: Any) -> Any:
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    await world.add_prompts("How?", "Why?", dataset="evaluation")
    await world.add_prompts("When?", dataset="validation")
    await world.add_ranked(*(ranked_prompt(f"topic {n}", "good", "poor") for n in range(8)))
    return world


@pytest.fixture
async def api(ready: Any) -> AsyncIterator[httpx.AsyncClient]:
    async with ready.api() as client:
        yield client


async def report_of(world: Any, api: httpx.AsyncClient, iteration_id: UUID) -> dict[str, Any]:
    """The report of the iteration's run; the page can be made of it."""
    run_id = (await world.iteration(iteration_id)).run_id
    answer = await api.get(f"/v1/runs/{run_id}/report")
    assert answer.status_code == 200
    report = answer.json()
    assert report["run"]["id"] == str(run_id)
    assert report["run"]["name"] in render(report)
    assert (
        report["conformance"] == (await api.get(f"/v1/runs/{run_id}/conformance")).json()["items"]
    )
    return report


async def test_a_young_run_reports_what_it_is_going_to_do(
    ready: Any, api: httpx.AsyncClient
) -> None:
    made = await ready.new_run(name="young", bootstrap={})
    report = await report_of(ready, api, made[0])
    assert report["run"]["config"]["bootstrap"]["dataset"] == "ranked"
    assert [(v["label"], v["id"], v["kind"]) for v in report["versions"]] == [
        ("M0", "base", "base")
    ]
    assert (report["assessments"], report["evaluations"]) == ([], [])
    assert [(i["index"], i["kind"], i["state"]) for i in report["iterations"]] == [
        (0, "bootstrap", "queued"),
        (1, "improve", "queued"),
    ]
    for iteration in report["iterations"]:
        assert iteration["report"] == {}
        assert iteration["lengths"] is None
        assert iteration["training"] == iteration["examples"] == []
    counts = [i["counts"]["prompts"] for i in report["iterations"]]
    assert counts == [0, 3]


async def test_a_run_without_iterations_and_one_that_is_unknown(
    ready: Any, api: httpx.AsyncClient
) -> None:
    run = (await api.post("/v1/runs", json={"name": "empty"})).json()
    report = (await api.get(f"/v1/runs/{run['id']}/report")).json()
    assert (report["iterations"], report["versions"][0]["label"]) == ([], "M1")
    assert "empty" in render(report)
    for part in ("report", "conformance"):
        answer = await api.get(f"/v1/runs/{UUID(int=1)}/{part}")
        assert answer.status_code == 404


async def test_a_failed_run_reports_why(ready: Any, api: httpx.AsyncClient) -> None:
    ready.serve(Faults(fixed_score=5))
    (first, _) = await ready.new_run(count=2)
    await ready.advance(first)
    await ready.roll_out(first)
    await ready.advance(first)
    failed, behind = (await report_of(ready, api, first))["iterations"]
    assert (failed["state"], failed["phase"]) == ("failed", "pairing")
    assert "not worth training on" in failed["error"]
    assert failed["report"]["health"]["top_score_share"] == 1.0
    assert failed["scores"]["scores"]["5"] == 36
    assert (behind["state"], behind["error"]) == ("queued", None)


async def test_a_finished_run_reports_its_versions_side_by_side(
    ready: Any, api: httpx.AsyncClient
) -> None:
    ready.serve()
    bootstrap, first = await ready.new_run(bootstrap={}, evaluation={})
    baseline, m1 = await ready.bootstrap(bootstrap)
    (queued,) = await ready.rows("SELECT id FROM evaluations")
    await ready.evaluate(queued["id"])
    await ready.advance(first)
    await ready.roll_out(first)
    await ready.advance(first)
    async with ready.store.transaction() as session:
        job = await training.of(session, first, "model")
        for step in (1, 2):
            await training.add_metrics(session, job, step, {"loss": 0.7 / step})
    await ready.rows("UPDATE training_metrics SET attempt = 1 RETURNING 1")
    m2 = await ready.train(first)
    await ready.advance(first)
    await ready.assess(first)
    await ready.advance(first)

    report = await report_of(ready, api, first)
    assert [(v["label"], v["id"], v["kind"]) for v in report["versions"]] == [
        ("M0", "base", "base"),
        ("SFT", baseline, "sft"),
        ("M1", m1, "sft"),
        ("M2", m2, "dpo"),
    ]
    assert [(a["label"], a["purpose"]) for a in report["assessments"]] == [
        ("SFT", "eft"),
        ("SFT", "health"),
        ("M1", "health"),
        ("M2", "health"),
    ]
    assert all(a["metrics"]["num_judgements"] for a in report["assessments"])
    met = {(e["a"], e["b"]): e["state"] for e in report["evaluations"]}
    assert met == {
        ("M1", "SFT"): "succeeded",
        ("M2", "M1"): "queued",
        ("M2", "SFT"): "queued",
    }
    assert report["evaluations"][0]["result"]["num_prompts"] == 2

    zero, one = report["iterations"]
    assert (zero["baseline_version"], zero["new_version"]) == (baseline, m1)
    assert set(zero["report"]) == {"ift", "eft"}
    assert set(one["report"]) == {"health", "pairing"}
    assert one["training"] == [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.35}]
    assert (zero["training"], zero["baseline_training"]) == ([], [])
    assert zero["lengths"] is None
    lengths = await ready.rows("SELECT length(text) AS n FROM responses ORDER BY 1")
    assert one["lengths"]["mean"] == pytest.approx(sum(row["n"] for row in lengths) / 12)
    assert one["lengths"]["p50"] == (lengths[5]["n"] + lengths[6]["n"]) / 2
    assert len(one["examples"]) == one["counts"]["pairs"] == one["report"]["pairing"]["num_pairs"]
    assert one["examples"][0]["chosen_score"] > one["examples"][0]["rejected_score"]
    assert sum(one["scores"]["scores"].values()) == 36
    # What this small run found is far from the paper's counts, and that is said.
    rows = {row["key"]: row for row in report["conformance"]}
    assert rows["report.ift.num_examples"]["ran"] == zero["report"]["ift"]["num_examples"] == 3
    assert rows["report.eft.num_kept"]["deviates"]
    assert rows["prompts.self_instruct.num_human_shots"]["ran"] is None
    assert rows["evaluation.num_prompts"]["ran"] == 2  # all that the dataset holds
    assert rows["report.held_out.num_prompts"]["ran"] == 2
    assert rows["report.m2.num_pairs"]["ran"] == one["counts"]["pairs"]
    assert rows["report.num_iterations"]["ran"] == 1
    assert rows["report.judges"]["ran"] == m1
    assert rows["report.prompt_model"]["ran"] is None  # nobody wrote any


async def test_the_papers_preset_deviates_in_nothing_but_what_it_has_not_found_yet(
    ready: Any, api: httpx.AsyncClient
) -> None:
    made = await ready.new_run(**presets.load("paper"))
    report = await report_of(ready, api, made[0])
    rows = {row["key"]: row["verdict"] for row in report["conformance"]}
    assert {key for key, verdict in rows.items() if verdict == "deviates"} == {
        "base_version",
        "report.num_iterations",
        "report.held_out.num_prompts",
        "training.early_stopping.num_prompts",  # the test's datasets are small
        "evaluation.num_prompts",
    }
    others = {key for key, verdict in rows.items() if verdict in ("not run", "does not apply")}
    assert others
    assert all(key.startswith("report.") for key in others)
    assert len(report["conformance"]) > 30


async def test_every_preset_can_be_run(ready: Any) -> None:
    for name in presets.names():
        assert await ready.new_run(**presets.load(name))
