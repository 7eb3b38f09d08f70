"""What is stored of a judge, by hand."""

import json

import pytest

from rewardloop.method.assessment import assessed
from rewardloop.method.eft import Judged, JudgedResponse
from rewardloop.records import UnscoredReason


def response(rank: int, length: int, *scores: float | None) -> JudgedResponse:
    judgements = tuple(
        Judged(n, score, UnscoredReason.NO_SCORE if score is None else None)
        for n, score in enumerate(scores)
    )
    return JudgedResponse(rank, judgements, length)


def test_one_prompt_by_hand() -> None:
    """Means 3 and 2: the better and shorter one has the higher; 4 of 5 judgements parsed."""
    found = assessed({7: [response(0, 10, 4.0, 2.0, None), response(1, 30, 1.0, 3.0)]})
    assert (found["num_agreeing"], found["pairwise_accuracy"]) == (1, 1.0)
    assert (found["longer_is_better"], found["accuracy_shorter_better"]) == (0.0, 1.0)
    assert (found["num_judgements"], found["num_parsed"]) == (5, 4)
    assert found["num_parsed_in_the_end"] == 4
    assert found["parse_rate"] == pytest.approx(4 / 5)
    assert found["intervals"]["parse_rate"]["reason"] == "fewer than 10 prompts"
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_the_parse_rate_is_that_of_first_asks() -> None:
    """Of five judgements two have a score at once, two when asked again, one has none."""
    reason = UnscoredReason.UNSIGNED
    better = (Judged(1, 4.0, None), Judged(2, 2.0, None, num_asked=2), Judged(3, 3.0, None, 3))
    worse = (Judged(4, 1.0, None), Judged(5, None, reason, num_asked=2))
    found = assessed({7: [JudgedResponse(0, better, 10), JudgedResponse(1, worse, 30)]})
    assert (found["num_judgements"], found["num_parsed"]) == (5, 2)
    assert found["num_parsed_in_the_end"] == 4
    assert found["parse_rate"] == pytest.approx(2 / 5)
    # The worse one has a score of only half its judgements, so no mean and no agreement.
    assert found["pairwise_accuracy"] is None


def test_no_prompt_has_no_rate() -> None:
    found = assessed({})
    assert found["num_parsed_in_the_end"] == 0
    assert (found["num_judgements"], found["num_parsed"], found["parse_rate"]) == (0, 0, None)


def test_the_parse_rates_interval_is_over_prompts_not_judgements() -> None:
    """Twelve prompts, six of them never parsed: as wide as for 11 answers, not for 72, with
    t(11) = 2.200985: (1 + q^2/11 -+ 2 q sqrt(1/44 + q^2/484)) / 2 (1 + q^2/11), as in Wilson."""
    never, always = (None,) * 3, (1.0, 2.0, 3.0)
    found = assessed(
        {
            n: [response(rank, 5, *(never if n % 2 else always)) for rank in range(2)]
            for n in range(12)
        }
    )
    interval = found["intervals"]["parse_rate"]
    assert (interval["over"], interval["num"]) == ("prompts", 12)
    square = 2.200985**2 / 11
    half = (square / 4 + square**2 / 4) ** 0.5 / (1 + square)
    assert (interval["low"], interval["high"]) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
