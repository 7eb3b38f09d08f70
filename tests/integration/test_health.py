"""A judge that collapses stops its run before training; what pairing finds is told."""

from typing import Any
from uuid import UUID

import pytest

from rewardloop.store import runs, training
from rewardloop.store.models import Iteration
from services.generator.stub_engine import Faults
from services.trainer.plan import plan_of
from tests.integration.conftest import ranked_prompt

POLICIES = ("best_worst", "length_control", "several", "consistency", "anchored")


@pytest.fixture
async def ready(world: Any) -> Any:
    await world.with_base()
    await world.add_prompts("one", "two", "three")
    return world


def stands(iteration: Iteration) -> tuple[str, str]:
    return iteration.state, iteration.phase


async def child_task(world: Any, iteration_id: UUID) -> dict[str, Any]:
    """What the trainer's child would be told."""
    async with world.store.transaction() as session:
        plan = await plan_of(session, await training.of(session, iteration_id, "model"))
    return plan.task


@pytest.mark.parametrize(
    ("faults", "keys"),
    [
        (Faults(unscored_rate=1.0), ["max_unparsed_rate"]),
        (Faults(fixed_score=5), ["max_top_score_share", "max_tie_rate"]),
        (Faults(fixed_score=2), ["max_tie_rate"]),
    ],
)
async def test_a_collapsed_judge_stops_the_run_before_training(
    ready: Any, faults: Faults, keys: list[str]
) -> None:
    ready.serve(faults)
    first, second = await ready.new_run(count=2)
    await ready.advance(first)
    await ready.roll_out(first)
    failed = await ready.advance(first)
    assert stands(failed) == ("failed", "pairing")
    assert failed.error.startswith("the judge's scores are not worth training on: ")
    reasons = failed.report["health"]["collapse"]
    assert [key for key in keys if key in failed.error] == keys
    assert len(reasons) == len(keys)
    assert stands(await ready.advance(second)) == ("queued", "waiting")
    for table in ("training_jobs", "preference_pairs"):
        assert await ready.rows(f"SELECT * FROM {table}") == []


async def test_the_figures_are_those_of_the_stored_judgements(ready: Any) -> None:
    ready.serve(Faults(unscored_rate=0.3))
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.roll_out(only)
    healthy = await ready.advance(only)
    assert stands(healthy) == ("running", "train")
    (counted,) = await ready.rows(
        "SELECT count(*) AS num_judgements, count(score) AS num_scored,"
        " avg(score)::float AS mean_score, avg((score = 5)::int)::float AS top_score_share,"
        " (1 - count(score)::float / count(*)) AS unparsed_rate FROM judgements"
    )
    found = healthy.report["health"]
    assert {key: found[key] for key in counted} == pytest.approx(counted)
    assert 0 < found["num_scored"] < found["num_judgements"] == 36
    assert found["collapse"] == []


async def test_a_threshold_that_is_none_asks_nothing(ready: Any) -> None:
    (only,) = await ready.new_run(health={"max_unparsed_rate": None, "max_tie_rate": None})
    await ready.judged(only, {1: [[3.0], [3.0]], 2: [[4.0], [None]], 3: [[None], [None]]})
    failed = await ready.advance(only)
    assert "no prompt gave a preference pair (1 tied, 2 too_few_scored)" in failed.error
    assert failed.report["health"]["unparsed_rate"] == 0.5
    assert failed.report["pairing"]["num_pairs"] == 0


async def test_a_judge_that_disagrees_with_humans_stops_the_run(ready: Any) -> None:
    """M1's agreement is measured on the held-out rankings and looked up by its successor."""
    ready.serve()
    topics = [f"topic {n}" for n in range(12)]
    await ready.add_ranked(*(ranked_prompt(t, "good", "fair", "poor") for t in topics))
    bootstrap, first = await ready.new_run(
        bootstrap={}, health={"min_pairwise_accuracy": 0.99, "min_spearman": -1}
    )
    _, version = await ready.bootstrap(bootstrap)
    measured = await ready.value(
        "SELECT metrics->'pairwise_accuracy' FROM assessments WHERE version_id = :v", v=version
    )
    await ready.advance(first)
    await ready.roll_out(first)
    failed = await ready.advance(first)
    assert stands(failed) == ("failed", "pairing")
    assert f"is {measured:.4g}, below health.min_pairwise_accuracy = 0.99" in failed.error
    assert "min_spearman" not in failed.error


async def test_a_run_without_rankings_is_not_held_to_them(ready: Any) -> None:
    ready.serve()
    (only,) = await ready.new_run(health={"min_pairwise_accuracy": 1.0, "min_spearman": 1.0})
    await ready.advance(only)
    await ready.roll_out(only)
    assert stands(await ready.advance(only)) == ("running", "train")


async def test_the_report_tells_what_pairing_did(ready: Any) -> None:
    (only,) = await ready.new_run()
    # Prompt 1 gives 4 - 1, prompt 2 gives 5 - 3, prompt 3 is tied.
    await ready.judged(only, {1: [[1.0], [4.0], [2.0]], 2: [[5.0], [3.0]], 3: [[2.0], [2.0]]})
    # Of prompt 1 the best and an unpaired one, of prompt 2 the best are half an answer.
    await ready.rows(
        "UPDATE responses SET finish_reason = 'length'"
        " WHERE (prompt_id, sample_index) IN ((1, 1), (1, 2), (2, 0)) RETURNING 1"
    )
    iteration = await ready.advance(only)
    assert stands(iteration) == ("running", "train")
    texts = {
        (row["prompt_id"], row["sample_index"]): len(row["text"])
        for row in await ready.rows("SELECT prompt_id, sample_index, text FROM responses")
    }
    assert iteration.report["pairing"] == {
        "policy": {"kind": "best_worst"},
        "num_prompts": 3,
        "num_pairs": 2,
        "unpaired": {"tied": 1},
        "mean_margin": 2.5,
        "mean_chosen_length": (texts[1, 1] + texts[2, 0]) / 2,
        "mean_rejected_length": (texts[1, 0] + texts[2, 1]) / 2,
        "num_without_text": 0,
        "num_cut_dropped": 0,
        "num_repeated": 0,
        "num_chosen_cut": 2,
        "num_rejected_cut": 0,
        "label_smoothing": 0.0,
    }
    assert (await child_task(ready, only))["label_smoothing"] == 0.0


async def test_one_text_is_one_answer_and_what_is_left_out_is_counted(ready: Any) -> None:
    (only,) = await ready.new_run(pairing={"cut_answers": "drop"}, health={"max_tie_rate": None})
    # Prompt 1: samples 0 and 1 are one text with 3 points, 2 is blank, 3 has 2, 4 is cut.
    # Prompt 2: both samples are one text.
    await ready.judged(only, {1: [[5.0], [1.0], [0.0], [2.0], [0.0]], 2: [[5.0], [1.0]]})
    await ready.rows(
        "UPDATE responses SET text = CASE WHEN sample_index = 0 THEN 'Four.'"
        " WHEN sample_index = 1 THEN E' Four.\\r\\n' ELSE '...' END"
        " WHERE sample_index IN (0, 1) OR (prompt_id, sample_index) = (1, 2) RETURNING 1"
    )
    await ready.rows(
        "UPDATE responses SET finish_reason = 'length' WHERE sample_index = 4 RETURNING 1"
    )
    report = (await ready.advance(only)).report["pairing"]
    assert (report["num_pairs"], report["mean_margin"]) == (1, 1.0)
    assert report["unpaired"] == {"same_text": 1}
    counts = ("num_without_text", "num_cut_dropped", "num_repeated")
    assert [report[name] for name in counts] == [1, 1, 2]
    (pair,) = await ready.rows("SELECT chosen, rejected, margin FROM preference_dataset")
    assert (pair["chosen"], pair["margin"]) == ("Four.", 1.0)
    assert pair["rejected"].startswith("answer 3")


@pytest.mark.parametrize(
    ("policy", "pairs"),
    [
        ({"kind": "best_worst"}, [(1, 0)]),
        # Within 0.25 of the range of 4: the shortest of 4 and 5, the longest of 1 and 2.
        ({"kind": "length_control", "rho": 0.25}, [(1, 3)]),
        ({"kind": "several", "max_pairs_per_prompt": 2}, [(2, 0), (1, 0)]),
    ],
)
async def test_policies_store_what_they_choose(
    ready: Any, policy: dict[str, Any], pairs: list[tuple[int, int]]
) -> None:
    """One prompt; its responses 0 to 4 grow longer."""
    scores = [[1.0], [4.0], [5.0], [2.0], [3.0]]
    if policy["kind"] == "best_worst":
        scores[1] = [5.0]  # among equals the lower id
    (only,) = await ready.new_run(pairing={"policy": policy}, health={"max_tie_rate": None})
    await ready.judged(only, {1: scores})
    assert stands(await ready.advance(only)) == ("running", "train")
    stored = await ready.rows(
        "SELECT c.sample_index AS chosen, r.sample_index AS rejected FROM preference_pairs p"
        " JOIN responses c ON c.id = p.chosen_response_id"
        " JOIN responses r ON r.id = p.rejected_response_id ORDER BY p.id"
    )
    assert [(row["chosen"], row["rejected"]) for row in stored] == pairs
    assert len((await child_task(ready, only))["pairs"]) == len(pairs)


async def test_another_policy_is_tried_without_writing_anything(ready: Any) -> None:
    ready.serve()
    (only,) = await ready.new_run()
    await ready.advance(only)
    await ready.roll_out(only)
    stored = (await ready.advance(only)).report
    before = await ready.rows("SELECT * FROM preference_pairs ORDER BY id")
    url = f"/v1/iterations/{only}/pairing"
    async with ready.api() as api:
        tried = {
            kind: (await api.post(url, json={"policy": {"kind": kind}})).json() for kind in POLICIES
        }
        narrow = (await api.post(url, json={"min_margin": 5})).json()
        wrong = await api.post(url, json={"policy": {"kind": "coin"}})
        nobody = await api.post(f"/v1/iterations/{UUID(int=1)}/pairing", json={})
    assert tried["best_worst"] == stored["pairing"]
    assert {kind: report["policy"]["kind"] for kind, report in tried.items()} == {
        kind: kind for kind in POLICIES
    }
    assert tried["several"]["num_pairs"] > tried["best_worst"]["num_pairs"] > 0
    # In the first iteration the first model's answers are the iteration's own.
    assert tried["anchored"]["num_pairs"] == tried["best_worst"]["num_pairs"]
    assert 0 < tried["consistency"]["label_smoothing"] <= 0.5
    assert (narrow["num_pairs"], narrow["unpaired"]) == (0, {"below_margin": 3})
    assert (wrong.status_code, nobody.status_code) == (422, 404)
    assert await ready.rows("SELECT * FROM preference_pairs ORDER BY id") == before
    assert (await ready.iteration(only)).report == stored


async def test_consistency_softens_the_labels(ready: Any) -> None:
    """Three judges agree on prompt 1 (tau 1, 1, 1); on prompt 2 one of them contradicts the
    other two (tau 1, -1, -1): C = ((1 - 1/3) / 2 + 1) / 2 = 2/3."""
    (only,) = await ready.new_run(pairing={"policy": {"kind": "consistency"}})
    agreed = [[5.0, 4.0, 5.0], [1.0, 0.0, 2.0]]
    doubtful = [[4.0, 3.0, 1.0], [2.0, 1.0, 3.0]]
    await ready.judged(only, {1: agreed, 2: doubtful, 3: [[3.0, 3.0, 3.0], [3.0, 3.0, 3.0]]})
    iteration = await ready.advance(only)
    assert iteration.report["pairing"]["num_pairs"] == 2
    assert iteration.report["pairing"]["consistency"] == pytest.approx(2 / 3)
    assert iteration.report["pairing"]["label_smoothing"] == pytest.approx(1 / 3)
    assert (await child_task(ready, only))["label_smoothing"] == pytest.approx(1 / 3)
    # A report tells people what was found; it does not decide what is trained.
    await ready.rows("UPDATE iterations SET report = '{}' RETURNING 1")
    assert (await child_task(ready, only))["label_smoothing"] == pytest.approx(1 / 3)


async def test_anchored_rejects_the_first_models_answers(ready: Any) -> None:
    """Both iterations take the same three prompts; the anchors are iteration 1's answers."""
    ready.serve()
    first, second = await ready.new_run(count=2, pairing={"policy": {"kind": "anchored"}})
    await ready.improve(first)
    await ready.advance(second)
    await ready.roll_out(second)
    assert stands(await ready.advance(second)) == ("running", "train")
    pairs = await ready.rows(
        "SELECT p.prompt_id, p.chosen_score, p.rejected_score,"
        " c.iteration_id = p.iteration_id AS own, r.iteration_id AS rejected_from,"
        " (SELECT max(s.score_mean) FROM response_scores s"
        "   WHERE s.prompt_id = p.prompt_id AND s.iteration = 2) AS best,"
        " (SELECT min(s.score_mean) FROM response_scores s"
        "   WHERE s.prompt_id = p.prompt_id AND s.iteration = 1) AS worst"
        " FROM preference_pairs p JOIN responses c ON c.id = p.chosen_response_id"
        " JOIN responses r ON r.id = p.rejected_response_id WHERE p.iteration_id = :i",
        i=second,
    )
    assert pairs
    assert {(row["own"], row["rejected_from"]) for row in pairs} == {(True, first)}
    for row in pairs:
        assert row["chosen_score"] == pytest.approx(row["best"])
        assert row["rejected_score"] == pytest.approx(row["worst"])
    shown = await ready.rows("SELECT * FROM preference_dataset WHERE iteration = 2")
    assert len(shown) == len(pairs)
    task = await child_task(ready, second)
    assert all(p["rejected"][0]["content"].startswith("[base] ") for p in task["pairs"])
    assert not [p for p in task["pairs"] if p["chosen"][0]["content"].startswith("[base] ")]


async def test_anchored_iterations_all_take_the_firsts_prompts(ready: Any) -> None:
    """Others have no answer of the first model, and the second iteration would fail after a
    whole roll-out."""
    ready.serve()
    first, second = await ready.new_run(
        count=2,
        prompts={"num_per_iteration": 2},
        pairing={"policy": {"kind": "anchored"}},
    )
    async with ready.store.transaction() as session:
        (third,) = await runs.add_iterations(session, (await ready.iteration(first)).run_id, 1)
    taken = await ready.rows(
        "SELECT iteration_id, array_agg(prompt_id ORDER BY prompt_id) AS ids"
        " FROM iteration_prompts GROUP BY 1"
    )
    assert {row["iteration_id"] for row in taken} == {first, second, third.id}
    assert [row["ids"] for row in taken] == [[1, 2]] * 3
    await ready.improve(first)
    await ready.advance(second)
    await ready.roll_out(second)
    assert "no_anchor" not in (await ready.advance(second)).report["pairing"]["unpaired"]


async def test_length_is_held_against_the_humans_own_taste_for_it(ready: Any) -> None:
    """Humans found the longer better in every ranked prompt, trained on or held out."""
    ready.serve()
    topics = [f"topic {n}" for n in range(12)]
    await ready.add_ranked(*(ranked_prompt(t, "the longest", "longer", "it") for t in topics))
    bootstrap, first = await ready.new_run(
        bootstrap={"share_rankings": True}, health={"max_length_correlation": 0.0}
    )
    await ready.bootstrap(bootstrap)
    await ready.advance(first)
    await ready.roll_out(first)
    failed = await ready.advance(first)
    health = failed.report["health"]
    assert (health["human_length_correlation"], health["num_human_prompts"]) == (1.0, 12)
    assert health["length_excess"] == pytest.approx(abs(health["length_correlation"] - 1))
    assert stands(failed) == ("failed", "pairing")
    assert f"is {health['length_excess']:.4g}, above health.max_length_correlation" in failed.error
