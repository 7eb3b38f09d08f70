"""What records refuse, and the words that are stored and sent."""

from dataclasses import FrozenInstanceError

import pytest

from rewardloop import records
from rewardloop.records import (
    PreferencePair,
    ScoredResponse,
    UnscoredReason,
    Verdict,
    mean_of_parsed,
    mean_score,
)
from tests.unit.cases import for_each


def test_a_verdict_is_a_score_or_a_reason_never_both_or_neither() -> None:
    assert Verdict(0.0, None).score == 0
    assert Verdict(None, UnscoredReason.NO_SCORE).score is None
    with pytest.raises(AssertionError):
        Verdict(None, None)
    with pytest.raises(AssertionError):
        Verdict(3.0, UnscoredReason.CONFLICTING)


def test_a_record_cannot_be_changed() -> None:
    verdict = Verdict(3.0, None)
    with pytest.raises(FrozenInstanceError):
        verdict.score = 5.0  # type: ignore[misc]


def test_the_margin_is_chosen_minus_rejected() -> None:
    pair = PreferencePair(ScoredResponse(1, "a", 4.5), ScoredResponse(2, "b", 1.25))
    assert pair.margin == 3.25


@pytest.mark.parametrize(
    ("scores", "others"),
    [
        ((0.3, 0.2, 0.1), (0.1, 0.2, 0.3)),
        ((0.1, 0.2), (0.15, None, 0.15)),  # computed as 0.15000000000000002 and 0.15
        ((None, 2.0, 3.0), (2.5,)),
    ],
)
def test_equal_means_are_equal_numbers(
    scores: tuple[float | None, ...], others: tuple[float | None, ...]
) -> None:
    assert mean_score(scores) == mean_score(others)


def test_without_a_score_there_is_no_mean() -> None:
    assert mean_score([None, None]) is None
    assert mean_score([]) is None
    assert mean_of_parsed([None, None]) is None
    assert mean_of_parsed([]) is None


@pytest.mark.parametrize(
    ("scores", "mean"),
    [
        ((4.0,), 4.0),
        ((0.0, 0.0, None), 0.0),
        ((4.0, None, 3.0), 3.5),
        ((4.0, None), None),  # half is not more than half
        ((None, 4.0, None), None),
        ((4.0, 3.0, 2.0, None, None), 3.0),
        ((4.0, 3.0, None, None), None),
    ],
)
def test_a_mean_needs_a_score_of_more_than_half_of_the_judgements(
    scores: tuple[float | None, ...], mean: float | None
) -> None:
    assert mean_score(scores) == mean
    assert mean_score(iter(scores)) == mean  # what can be read only once
    assert mean_of_parsed(scores) == mean_score([s for s in scores if s is not None])


def test_margins_are_rounded_as_means_are() -> None:
    pair = PreferencePair(ScoredResponse(1, "a", 8 / 3), ScoredResponse(2, "b", 5 / 3))
    assert pair.margin == 1.0


@for_each(
    "words, expected",
    [
        (records.IterationState, "queued running paused cancelled succeeded failed"),
        (
            records.Phase,
            "waiting train_baseline swap_baseline judge_ranked select_eft prompt_model prompts "
            "prepare rollout pairing train swap assess done",
        ),
        (records.IterationKind, "bootstrap improve"),
        (records.Stage, "baseline model"),
        (records.Purpose, "eft health"),
        (records.Preference, "first second tie"),
        (records.PromptState, "pending leased done rejected dead"),
        (records.JobState, "queued running paused cancelled succeeded failed"),
        (records.EvaluationState, "queued running cancelled succeeded failed"),
        (records.StopWish, "pause cancel"),
        (records.JudgementMode, "free constrained expected"),
        (
            records.UnscoredReason,
            "no_score unsigned out_of_range conflicting truncated refused improbable",
        ),
    ],
)
def test_stored_words_are_frozen(words: type[records.Phase], expected: str) -> None:
    """They stand in Postgres and in clients' code; a new spelling needs a migration."""
    assert [str(word) for word in words] == expected.split()
