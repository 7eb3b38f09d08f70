"""What Postgres itself refuses."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError

from rewardloop.store.models import (
    Assessment,
    Base,
    CandidatePrompt,
    Comparison,
    EftExample,
    Evaluation,
    EvaluationAnswer,
    IftExample,
    Iteration,
    IterationPrompt,
    Judgement,
    ModelVersion,
    PreferencePairRow,
    RankedJudgement,
    RankedResponse,
    RankedSplit,
    Response,
    Serving,
    TrainingJob,
)
from tests.integration.refusals import has_versions, pair, refused, response, stored


@pytest.fixture
async def iteration_id(world: Any) -> UUID:
    """An iteration of two prompts with two responses each: ids 1 and 2, and 3 and 4."""
    await world.with_base()
    await world.add_prompts("one", "two")
    (made,) = await world.new_run()
    await has_versions(world, made, answers="base", trains="base")
    async with world.store.transaction() as session:
        for prompt_id in (1, 2):
            for index in (0, 1):
                await session.execute(insert(Response).values(response(made, prompt_id, index)))
    return made


def judgement(**change: Any) -> dict[str, Any]:
    return {
        "response_id": 1,
        "judge_index": 0,
        "raw_text": "Score: 3",
        "score": 3.0,
        "reason": None,
        "mode": "free",
        "rubric_version": "r",
        "judge_version": "base",
        "prompt_tokens": 1,
        "completion_tokens": 2,
    } | change


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"rejected_response_id": 3}, "rejected_answers_this_prompt"),
        ({"chosen_response_id": 3}, "chosen_answers_this_prompt"),
        ({"prompt_id": 2}, "answers_this_prompt"),
        ({"iteration_id": UUID(int=1)}, "answers_this_prompt"),
        ({"chosen_score": 1.0}, "chosen_scored_higher"),
        ({"chosen_score": 0.5}, "chosen_scored_higher"),
        ({"rejected_response_id": 1, "chosen_score": 1.0}, "chosen_scored_higher"),
        ({"weight_version": "another"}, "chosen_answers_this_prompt"),
        ({"lag": 1}, "answers_within_the_lag"),
        ({"lag": -1}, "answers_within_the_lag"),
    ],
)
async def test_a_pair_holds_two_answers_to_one_prompt_the_better_first(
    world: Any, iteration_id: UUID, change: dict[str, Any], constraint: str
) -> None:
    await refused(world, PreferencePairRow, pair(iteration_id, **change), constraint)
    await stored(world, PreferencePairRow, pair(iteration_id))
    await refused(world, PreferencePairRow, pair(iteration_id), "unique")


async def test_a_rejected_side_may_stem_from_another_iteration_of_the_prompt(
    world: Any, iteration_id: UUID
) -> None:
    """The anchored policy's; the chosen side may not."""
    (other,) = await world.new_run()
    await has_versions(world, other, answers="base", trains="base")
    for prompt_id in (1, 2):
        await stored(world, Response, response(other, prompt_id, 0))  # ids 5 and 6
    elsewhere = pair(other, chosen_response_id=5)
    await refused(world, PreferencePairRow, pair(other), "chosen_answers_this_prompt")
    await refused(
        world,
        PreferencePairRow,
        {**elsewhere, "rejected_response_id": 3},
        "rejected_answers_this_prompt",
    )
    await stored(world, PreferencePairRow, elsewhere)


async def test_a_sample_index_is_used_once(world: Any, iteration_id: UUID) -> None:
    await refused(world, Response, response(iteration_id, 1, 0), "unique")
    await refused(world, Response, response(iteration_id, 1, -1), "sample_index_counts_from_zero")
    await stored(world, Response, response(iteration_id, 1, 2))


@pytest.mark.parametrize("version", ["never-published", None])
async def test_a_response_names_the_weights_that_made_it(
    world: Any, iteration_id: UUID, version: str | None
) -> None:
    row = response(iteration_id, 1, 2, weight_version=version)
    await refused(world, Response, row, "weight_version")


async def test_a_response_belongs_to_a_prompt_of_its_iteration(
    world: Any, iteration_id: UUID
) -> None:
    await world.add_prompts("three")
    await refused(world, Response, response(iteration_id, 3, 0), "foreign key")


@pytest.mark.parametrize(
    ("change", "constraint"),
    [
        ({"reason": "no_score"}, "score_or_reason"),
        ({"score": None}, "score_or_reason"),
        ({"score": -1.0}, "score_on_the_scale"),
        ({"score": 5.5}, "score_on_the_scale"),
        ({"judge_index": -1}, "judge_index_counts_from_zero"),
        ({"response_id": 99}, "foreign key"),
    ],
)
async def test_a_judgement_is_a_score_or_a_reason(
    world: Any, iteration_id: UUID, change: dict[str, Any], constraint: str
) -> None:
    await refused(world, Judgement, judgement(**change), constraint)
    await stored(world, Judgement, judgement())
    await refused(world, Judgement, judgement(), "unique")


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
async def test_a_score_is_a_number(world: Any, iteration_id: UUID, score: float) -> None:
    await refused(world, Judgement, judgement(score=score), "score_on_the_scale")


async def test_one_iteration_runs_at_a_time(world: Any, iteration_id: UUID) -> None:
    (other,) = await world.new_run()
    await world.in_rollout(iteration_id)
    with pytest.raises(IntegrityError, match="one_on_the_engines"):
        await world.rows(
            "UPDATE iterations SET state = 'running' WHERE id = :i RETURNING 1", i=other
        )


@pytest.mark.parametrize(
    ("table", "change", "constraint"),
    [
        (Iteration, {"state": "lost"}, "state_is_known"),
        (Iteration, {"state": "failed"}, "failed_says_why"),
        (Iteration, {"error": "but it is queued"}, "failed_says_why"),
        (Iteration, {"state": "running", "wish": "resume"}, "wish_is_known"),
        (Iteration, {"wish": "cancel"}, "only_what_runs_is_asked"),
        (Iteration, {"state": "paused", "wish": "pause"}, "only_what_runs_is_asked"),
        (Iteration, {"phase": "dreaming"}, "phase_is_known"),
        (Iteration, {"max_lag": 2}, "max_lag_is_known"),
        (Iteration, {"index": 0}, "only_the_bootstrap_has_index_zero"),
        (Iteration, {"kind": "bootstrap"}, "only_the_bootstrap_has_index_zero"),
        (Iteration, {"kind": "rest", "index": 2}, "only_the_bootstrap_has_index_zero"),
        (Iteration, {"index": 1}, "unique"),
        (IterationPrompt, {"state": "rejected"}, "rejected_says_why"),
    ],
)
async def test_states_are_known_and_say_why(
    world: Any, iteration_id: UUID, table: type[Base], change: dict[str, Any], constraint: str
) -> None:
    rows = {
        Iteration: {
            "id": uuid4(),
            "run_id": (await world.iteration(iteration_id)).run_id,
            "index": 2,
        },
        IterationPrompt: {"iteration_id": iteration_id, "prompt_id": 3},
    }
    await world.add_prompts("three")
    await refused(world, table, rows[table] | change, constraint)


async def test_one_version_is_served_and_it_exists(world: Any, iteration_id: UUID) -> None:
    await refused(world, Serving, {"id": 2, "version_id": "base"}, "only_one_row")
    await refused(
        world, ModelVersion, {"id": "x", "kind": "stolen", "manifest": {}}, "kind_is_known"
    )
    with pytest.raises(IntegrityError, match="foreign key"):
        await world.rows("UPDATE serving SET version_id = 'unknown' RETURNING 1")


EVALUATION = UUID(int=7)


@pytest.fixture
async def ranked(world: Any, iteration_id: UUID) -> dict[type[Base], dict[str, Any]]:
    """A row of each table of the whole method that fits what is stored already: a version
    "new", ranked response 1, assessment 1, its judgement 1 and an evaluation."""
    run_id = (await world.iteration(iteration_id)).run_id
    await world.publish("new", parent="base")
    ranked_response = {"prompt_id": 1, "position": 0, "rank": 0, "text": "good"}
    assessment = {
        "iteration_id": iteration_id,
        "version_id": "base",
        "purpose": "eft",
        "mode": "free",
    }
    judged = {
        "assessment_id": 1,
        "ranked_response_id": 1,
        "judge_index": 0,
        "raw_text": "Score: 3",
        "score": 3.0,
        "reason": None,
        "rubric_version": "r",
        "judge_version": "base",
    }
    evaluation = {"version_a_id": "new", "version_b_id": "base", "config": {}}
    await stored(world, RankedResponse, ranked_response)
    await stored(world, Assessment, assessment)
    await stored(world, RankedJudgement, judged)
    await stored(world, Evaluation, {**evaluation, "id": EVALUATION})
    return {
        RankedResponse: {**ranked_response, "position": 1},
        RankedSplit: {"run_id": run_id, "prompt_id": 1, "held_out": True},
        Assessment: {**assessment, "purpose": "health"},
        RankedJudgement: {**judged, "judge_index": 1},
        EftExample: {"iteration_id": iteration_id, "ranked_judgement_id": 1},
        IftExample: {"iteration_id": iteration_id, "prompt_id": 1, "answer": "an answer"},
        CandidatePrompt: {
            "iteration_id": iteration_id,
            "attempt": 0,
            "text": "a new prompt",
            "prompt_id": 2,
            "reason": None,
        },
        Evaluation: {**evaluation, "id": uuid4()},
        EvaluationAnswer: {
            "version_id": "new",
            "prompt_id": 1,
            "sampling": {"top_p": 0.9, "temperature": 0.7},
            "text": "an answer",
            "reason": None,
        },
        Comparison: {
            "evaluation_id": EVALUATION,
            "prompt_id": 1,
            "a_first": True,
            "raw_text": "Better: tie",
            "preference": "tie",
            "reason": None,
            "judge_version": "new",
        },
        TrainingJob: {"iteration_id": iteration_id, "stage": "baseline"},
    }


NAN = float("nan")
REFUSED: dict[type[Base], list[tuple[dict[str, Any], str]]] = {
    RankedResponse: [
        ({"rank": -1}, "rank_counts_from_zero"),
        ({"position": 0}, "unique"),
        ({"prompt_id": 99}, "foreign key"),
    ],
    RankedSplit: [
        ({"run_id": UUID(int=1)}, "foreign key"),
        ({"prompt_id": 99}, "foreign key"),
    ],
    Assessment: [
        ({"purpose": "curiosity"}, "purpose_is_known"),
        ({"mode": "dreaming"}, "mode_is_known"),
        ({"version_id": "never-published"}, "foreign key"),
        ({"purpose": "eft"}, "unique"),
    ],
    RankedJudgement: [
        ({"reason": "no_score"}, "score_or_reason"),
        ({"score": None}, "score_or_reason"),
        ({"score": -1.0}, "score_on_the_scale"),
        ({"score": 5.5}, "score_on_the_scale"),
        ({"score": NAN}, "score_on_the_scale"),
        ({"judge_index": 0}, "unique"),
        ({"assessment_id": 99}, "foreign key"),
        ({"ranked_response_id": 99}, "foreign key"),
    ],
    EftExample: [({"ranked_judgement_id": 99}, "foreign key")],
    IftExample: [({"prompt_id": 99}, "foreign key")],
    CandidatePrompt: [
        ({"reason": "duplicate"}, "kept_or_reason"),
        ({"prompt_id": None}, "kept_or_reason"),
        ({"prompt_id": 99}, "foreign key"),
    ],
    Evaluation: [
        ({"version_b_id": "new"}, "two_versions"),
        ({"state": "lost"}, "state_is_known"),
        ({"state": "paused"}, "state_is_known"),
        ({"state": "running", "wish": "pause"}, "only_what_runs_is_asked"),
        ({"wish": "cancel"}, "only_what_runs_is_asked"),
        ({"state": "failed"}, "failed_says_why"),
        ({"error": "but it is queued"}, "failed_says_why"),
        ({"state": "succeeded"}, "success_has_result"),
        ({"result": {"num_wins": 1}}, "success_has_result"),
        ({"version_a_id": "never-published"}, "foreign key"),
    ],
    EvaluationAnswer: [
        ({"reason": "too long"}, "text_or_reason"),
        ({"text": None}, "text_or_reason"),
        ({"version_id": "never-published"}, "foreign key"),
    ],
    Comparison: [
        ({"preference": "neither"}, "preference_is_known"),
        ({"preference": None}, "preference_or_reason"),
        ({"reason": "no_score"}, "preference_or_reason"),
        ({"evaluation_id": UUID(int=8)}, "foreign key"),
    ],
    TrainingJob: [
        ({"stage": "dessert"}, "stage_is_known"),
        ({"state": "failed"}, "failed_says_why"),
    ],
}
AGAIN: dict[type[Base], dict[str, Any]] = {
    EvaluationAnswer: {"sampling": {"temperature": 0.7, "top_p": 0.9}, "text": "another"},
    Comparison: {"preference": "first"},
    CandidatePrompt: {"text": "another", "prompt_id": None, "reason": "too_short"},
    RankedSplit: {"held_out": False},
    IftExample: {"answer": "another"},
    Evaluation: {"config": {"num_prompts": 3}},
}
"""What else may differ in a row that is nevertheless the same."""


@pytest.mark.parametrize("table", REFUSED, ids=lambda table: table.__tablename__)
async def test_the_tables_of_the_whole_method_refuse_what_is_wrong(
    world: Any, ranked: dict[type[Base], dict[str, Any]], table: type[Base]
) -> None:
    row = ranked[table]
    for change, constraint in REFUSED[table]:
        await refused(world, table, row | change, constraint)
    await stored(world, table, row)
    await refused(world, table, row | AGAIN.get(table, {}), "unique")


async def test_scores_are_averaged_over_what_was_parsed(world: Any, iteration_id: UUID) -> None:
    await stored(world, Judgement, judgement(score=2.0))
    await stored(world, Judgement, judgement(judge_index=1, score=5.0))
    await stored(world, Judgement, judgement(judge_index=2, score=None, reason="no_score"))
    first, second, *_ = await world.rows("SELECT * FROM response_scores ORDER BY response_id")
    assert (first["num_judgements"], first["num_scored"]) == (3, 2)
    assert first["score_mean"] == 3.5
    assert first["score_stdev"] == pytest.approx(2.1213203)  # sqrt(2 * 1.5^2 / (2 - 1))
    assert (second["num_judgements"], second["score_mean"]) == (0, None)
