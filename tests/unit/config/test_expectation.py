"""What a config may say of judging by expectation.

Tests `rewardloop.config.judging`, `rewardloop.config.run`.
"""

from typing import Any

import pytest

from rewardloop.config import parse_run_config
from rewardloop.errors import InvalidInput
from rewardloop.records import JudgementMode


def test_judging_by_expectation_asks_once() -> None:
    assert parse_run_config({"judging": {"mode": "expected"}}).judging.num_judgements == 1
    whole = parse_run_config({"judging": {"mode": "expected"}}).model_dump(mode="json")
    assert parse_run_config(whole).judging.num_judgements == 1
    assert parse_run_config({}).judging.num_judgements == 3
    assert parse_run_config({}).judging.in_mode(JudgementMode.EXPECTED).num_judgements == 1
    assert parse_run_config({}).judging.in_mode(JudgementMode.CONSTRAINED).num_judgements == 3


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ({"judging": {"mode": "expected", "num_judgements": 3}}, "num_judgements to 1 or leave"),
        (
            {"judging": {"mode": "expected"}, "pairing": {"policy": {"kind": "consistency"}}},
            "set judging.mode to free or constrained",
        ),
        (
            {"bootstrap": {"eft": {"judging": {"mode": "expected"}}}},
            "writes no judgement that a model could learn",
        ),
    ],
)
def test_what_expectation_cannot_do_is_refused(data: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        parse_run_config(data)


def test_a_bootstrap_may_judge_by_expectation_what_it_does_not_teach() -> None:
    data = {"bootstrap": {}, "judging": {"mode": "expected", "rubric": "short"}}
    found = parse_run_config({**data, "health": {"also_assess": ["expected"]}})
    assert found.bootstrap is not None
    assert found.bootstrap.eft.judging.mode is JudgementMode.FREE
    assert found.bootstrap.eft.judging.rubric == "short"
