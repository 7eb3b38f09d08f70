"""Every shipped preset loads, and `paper` is the paper."""

import pytest

from rewardloop import presets
from rewardloop.config import BestWorst, parse_run_config
from rewardloop.errors import NotFound


@pytest.mark.parametrize("name", ["8b-80gb", "demo", "paper", "paper-cpu"])
def test_each_preset_is_a_valid_config_of_its_name(name: str) -> None:
    assert name in presets.names()
    assert parse_run_config(presets.load(name)).name == name


def test_there_is_no_preset_without_a_test() -> None:
    assert presets.names() == ["8b-80gb", "demo", "paper", "paper-cpu"]


def test_an_unknown_preset_is_told_with_those_that_there_are() -> None:
    with pytest.raises(NotFound, match=r"'papre'.*8b-80gb, demo, paper, paper-cpu"):
        presets.load("papre")


def test_keys_on_top_win_and_leave_their_neighbours() -> None:
    under = {"a": {"b": 1, "c": 2}, "d": [1]}
    assert presets.merged(under, {"a": {"b": 3}, "d": [2]}) == {"a": {"b": 3, "c": 2}, "d": [2]}
    assert under == {"a": {"b": 1, "c": 2}, "d": [1]}
    assert presets.merged({"a": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}


def test_the_default_pair_policy_is_the_papers() -> None:
    assert parse_run_config({}).pairing.policy == BestWorst()
