"""Curves of a training whose metrics are not all numbers."""

from rewardloop.report.figures import training


def test_steps_that_are_not_finite_are_left_out_and_told() -> None:
    values = [0.7, "nan", 0.5, "inf", "-inf"]
    steps = [{"step": step, "loss": value} for step, value in enumerate(values, start=1)]
    ((loss,),) = training({"index": 1, "training": steps})
    assert loss.detail == "0.7 at step 1, 0.5 at step 3; not a finite number at 3 more"


def test_of_a_training_without_any_number_there_is_no_curve() -> None:
    assert training({"index": 1, "training": [{"step": 1, "loss": "nan"}]}) == []
