"""What one real demo of two iterations must have left in the database."""

import stat

import pytest

from tests.e2e.real_demo import NUM_PROMPTS, Demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]


def test_each_prompt_has_exactly_four_responses(demo: Demo) -> None:
    counts = demo.sql(
        "SELECT iteration, prompt_id, count(*) FROM response_scores WHERE run_id = %s"
        " GROUP BY 1, 2",
        demo.run_id,
    )
    assert len(counts) == 2 * NUM_PROMPTS
    assert {count for *_, count in counts} == {4}


def test_each_response_has_exactly_three_settled_judgements(demo: Demo) -> None:
    counts = demo.sql("SELECT num_judgements, num_scored FROM response_scores")
    assert {num_judgements for num_judgements, _ in counts} == {3}
    unsettled = demo.sql("SELECT count(*) FROM judgements WHERE (score IS NULL) = (reason IS NULL)")
    assert unsettled == [(0,)]


def test_each_pair_prefers_the_higher_mean_of_one_prompt(demo: Demo) -> None:
    pairs = demo.sql(
        "SELECT d.chosen_score, d.rejected_score, c.prompt_id, r.prompt_id, d.prompt_id,"
        " c.score_mean, r.score_mean FROM preference_dataset d"
        " JOIN response_scores c ON c.response_id = d.chosen_response_id"
        " JOIN response_scores r ON r.response_id = d.rejected_response_id"
    )
    assert pairs
    for chosen, rejected, chosen_prompt, rejected_prompt, prompt, best, worst in pairs:
        assert chosen > rejected
        assert chosen_prompt == rejected_prompt == prompt
        assert (chosen, rejected) == pytest.approx((best, worst))


def test_each_prompt_without_a_pair_is_tied(demo: Demo) -> None:
    spreads = demo.sql(
        "SELECT max(score_mean) - min(score_mean) FROM response_scores s WHERE NOT EXISTS ("
        " SELECT 1 FROM preference_dataset d"
        " WHERE (d.run_id, d.iteration, d.prompt_id) = (s.run_id, s.iteration, s.prompt_id))"
        " GROUP BY run_id, iteration, prompt_id"
    )
    assert all(not spread for (spread,) in spreads)


def test_each_iteration_samples_from_the_version_before(demo: Demo) -> None:
    first, second = demo.summary["iterations"]
    assert second["base_version"] == first["new_version"] != first["base_version"]
    versions = demo.sql(
        "SELECT iteration, array_agg(DISTINCT weight_version) FROM response_scores"
        " WHERE run_id = %s GROUP BY 1 ORDER BY 1",
        demo.run_id,
    )
    assert versions == [(1, [first["base_version"]]), (2, [second["base_version"]])]
    assert demo.sql("SELECT version_id FROM serving") == [(second["new_version"],)]


def test_the_trainer_started_from_the_reference(demo: Demo) -> None:
    """Policy and reference are one model before the first step: loss ln 2, margin 0."""
    rows = demo.sql(
        "SELECT (metrics->>'loss')::float, (metrics->>'rewards/margins')::float"
        " FROM training_metrics WHERE step = 1"
    )
    assert len(rows) == 2
    for loss, margin in rows:
        assert loss == pytest.approx(0.6931, abs=0.03)
        assert margin == pytest.approx(0, abs=0.06)


def test_the_summary_says_what_the_database_says(demo: Demo) -> None:
    for row in demo.summary["iterations"]:
        counted = demo.sql(
            "SELECT prompts, responses, judgements, pairs FROM iteration_progress"
            " WHERE run_id = %s AND iteration = %s",
            demo.run_id,
            row["index"],
        )
        assert counted == [tuple(row[k] for k in ("prompts", "responses", "judgements", "pairs"))]
        assert set(row["seconds"]) == {"rollout", "train", "swap"}
        assert row["tokens_per_second"] > 0


def test_the_home_is_private(demo: Demo) -> None:
    assert stat.S_IMODE((demo.home / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE(demo.home.stat().st_mode) == 0o700


def test_the_output_ends_in_a_summary(demo: Demo) -> None:
    for words in ("scores of iteration 1", "prompt", "chosen", "rejected", "rollout seconds"):
        assert words in demo.output
