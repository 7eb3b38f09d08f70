"""Judging by expectation on the stub engine: roll-out, head to head, health, and who cannot."""

from collections import Counter
from statistics import fmean
from typing import Any
from uuid import UUID

import pytest

from rewardloop.config import Evaluation as EvaluationConfig
from rewardloop.errors import UpstreamMismatch
from rewardloop.records import Purpose
from rewardloop.store import evaluations, ranked
from services.generator.stub_engine import Faults
from tests.integration.conftest import ranked_prompt

POINTS = ("0", "1", "2", "3", "4", "5")
EXPECTED: dict[str, Any] = {"judging": {"mode": "expected"}}


@pytest.fixture
async def ready(world: Any) -> Any:
    await world.with_base()
    await world.add_prompts(*(f"question {number}" for number in range(6)))
    return world


def expectation(distribution: dict[str, float]) -> float:
    mass = sum(distribution.values())
    return sum(int(points) * p for points, p in distribution.items()) / mass


async def test_a_score_is_stored_with_its_distribution(ready: Any) -> None:
    engine = ready.serve()
    (made,) = await ready.new_run(**EXPECTED)
    await ready.in_rollout(made)
    await ready.roll_out(made)
    rows = await ready.rows("SELECT * FROM judgements ORDER BY id")
    assert len(rows) == 6 * 4
    assert engine.num_requests == 6 + 6 * 4
    assert {row["completion_tokens"] for row in rows} == {1}
    assert {(row["mode"], row["nonce"], row["judge_index"]) for row in rows} == {
        ("expected", None, 0)
    }
    for row in rows:
        assert set(row["distribution"]) == set(POINTS)
        assert sum(row["distribution"].values()) == pytest.approx(0.95)
        assert row["score"] == pytest.approx(expectation(row["distribution"]))
        assert row["raw_text"].startswith("Score: ")
    assert len({row["score"] for row in rows}) == 24  # no ties


async def test_an_iteration_pairs_by_expectation(ready: Any) -> None:
    ready.serve()
    (made,) = await ready.new_run(**EXPECTED)
    await ready.advance(made)
    await ready.roll_out(made)
    done = await ready.advance(made)
    assert (done.state, done.phase) == ("running", "train"), done.error
    assert done.report["pairing"]["num_pairs"] == 6
    health = done.report["health"]
    assert (health["tie_rate"], health["unparsed_rate"], health["judge_spread"]) == (0, 0, None)
    pairs = await ready.rows("SELECT chosen_score - rejected_score AS margin FROM preference_pairs")
    assert all(row["margin"] > 0 for row in pairs)


@pytest.mark.parametrize(
    ("faults", "key"),
    [
        (Faults(unscored_rate=1.0), "max_unparsed_rate"),
        (Faults(fixed_score=5), "max_top_score_share"),
        (Faults(fixed_score=2), "max_tie_rate"),
    ],
)
async def test_a_collapsed_judge_is_seen(ready: Any, faults: Faults, key: str) -> None:
    ready.serve(faults)
    (made,) = await ready.new_run(**EXPECTED)
    await ready.advance(made)
    await ready.roll_out(made)
    failed = await ready.advance(made)
    assert (failed.state, failed.phase) == ("failed", "pairing")
    assert key in failed.error


async def test_improbable_scores_are_stored_as_none(ready: Any) -> None:
    engine = ready.serve(Faults(unscored_rate=0.5))
    (made,) = await ready.new_run(**EXPECTED)
    await ready.in_rollout(made)
    await ready.roll_out(made)
    rows = await ready.rows("SELECT score, reason, distribution FROM judgements")
    found = Counter(row["reason"] for row in rows)
    assert set(found) == {None, "improbable"}
    assert engine.num_requests == 6 + 24  # none is asked for again
    for row in rows:
        mass = sum(row["distribution"].values())
        assert (mass == pytest.approx(0.01)) == (row["reason"] == "improbable")


async def test_an_engine_without_log_probabilities_ends_the_iteration_by_name(ready: Any) -> None:
    ready.serve(Faults(tells_no_logprobs=True))
    (made,) = await ready.new_run(**EXPECTED)
    await ready.advance(made)
    with pytest.raises(UpstreamMismatch):
        await ready.roll_out(made)
    failed = await ready.iteration(made)
    assert failed.state == "failed"
    assert "cannot judge by expectation" in failed.error
    assert "free or constrained" in failed.error
    assert await ready.rows("SELECT * FROM judgements") == []


async def evaluated(world: Any, **config: Any) -> dict[str, Any]:
    async with world.store.transaction() as session:
        made = await evaluations.create(session, "new", "base", EvaluationConfig(**config))
    await world.evaluate(made.id)
    async with world.store.transaction() as session:
        done = await evaluations.get(session, made.id)
    assert (done.state, done.error) == ("succeeded", None)
    assert done.result is not None
    return dict(done.result)


async def test_a_head_to_head_is_decided_by_both_orders_probabilities(ready: Any) -> None:
    await ready.publish("new", parent="base")
    await ready.add_prompts(*(f"task {n}" for n in range(12)), dataset="evaluation")
    ready.serve()
    result = await evaluated(ready, mode="expected")
    rows = await ready.rows(
        "SELECT prompt_id, a_first, probability, preference, distribution FROM comparisons"
    )
    assert len(rows) == 24
    of_a: dict[int, list[float]] = {}
    for row in rows:
        shares = row["distribution"]
        first = shares["first"] / (shares["first"] + shares["second"])
        assert row["probability"] == pytest.approx(first)
        assert row["preference"] == ("first" if first > 0.5 else "second")
        of_a.setdefault(row["prompt_id"], []).append(first if row["a_first"] else 1 - first)
    means = [fmean(both) for both in of_a.values()]
    assert result["num_wins"] == sum(mean > 0.5 for mean in means)
    assert result["num_wins"] + result["num_losses"] == 12
    assert result["mean_probability"] == pytest.approx(fmean(means))


async def assessed(world: Any, iteration_id: UUID) -> dict[str, Any]:
    async with world.store.transaction() as session:
        found = await ranked.assessments_of(session, iteration_id)
    return {item.mode: item.metrics for item in found if item.purpose == Purpose.HEALTH}


async def test_a_version_is_assessed_by_expectation_beside_its_own_mode(ready: Any) -> None:
    """Three constrained judgements of each held-out response, and one by expectation."""
    topics = ("tides", "bread", "chess", "rivers", "clocks", "bees", "glass", "kites")
    for topic in topics:
        texts = (f"good {topic}", f"fair {topic}", f"poor {topic}")
        await ready.add_ranked(ranked_prompt(f"about {topic}", *texts, reference=f"best {topic}"))
    ready.serve()
    bootstrap, _ = await ready.new_run(
        judging={"mode": "constrained"},
        health={"also_assess": ["expected"]},
        bootstrap={"share_rankings": True, "eft": {"judging": {"mode": "constrained"}}},
    )
    await ready.advance(bootstrap)
    await ready.train(bootstrap)
    await ready.advance(bootstrap)
    await ready.assess(bootstrap)
    metrics = await assessed(ready, bootstrap)
    assert set(metrics) == {"constrained", "expected"}
    by_three, by_one = metrics["constrained"], metrics["expected"]
    assert by_three["num_judgements"] == 3 * by_one["num_judgements"] > 0
    assert by_one["parse_rate"] == 1
    assert by_one["num_tied"] == 0
    stored = await ready.rows(
        "SELECT j.distribution FROM ranked_judgements j JOIN assessments a"
        " ON a.id = j.assessment_id WHERE a.mode = 'expected'"
    )
    assert all(set(row["distribution"]) == set(POINTS) for row in stored)
