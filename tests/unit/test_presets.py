"""Every shipped preset loads, and `paper` is the paper."""

import json
from typing import Any

import pytest
import yaml

from rewardloop import presets
from rewardloop.config import BestWorst, parse_run_config
from rewardloop.config.files import parse_mapping
from rewardloop.errors import InvalidInput, NotFound


@pytest.mark.parametrize("name", ["8b-80gb", "demo", "paper", "paper-cpu"])
def test_each_preset_is_a_valid_config_of_its_name(name: str) -> None:
    assert name in presets.names()
    assert parse_run_config(presets.load(name)).name == name


@pytest.mark.parametrize("name", ["8b-80gb", "demo", "paper", "paper-cpu"])
def test_a_preset_written_out_reads_back_as_itself(name: str) -> None:
    """Every number, text and null of a config means the same in YAML and in JSON."""
    whole = parse_run_config(presets.load(name)).model_dump(mode="json")
    for text in (yaml.safe_dump(whole), json.dumps(whole), json.dumps(whole, indent="\t")):
        assert parse_mapping(text, "run.yaml") == whole
    again = yaml.safe_dump({"name": "again"})
    with pytest.raises(InvalidInput, match="the key 'name' is given twice"):
        parse_mapping(yaml.safe_dump(whole) + again, "run.yaml")


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


@pytest.mark.parametrize(
    ("preset", "over", "kind"),
    [
        ("8b-80gb", {"training": {"weights": {"kind": "full"}}}, "full"),
        ("8b-80gb", {"pairing": {"policy": {"kind": "best_worst"}}}, "best_worst"),
    ],
)
def test_another_kind_on_top_takes_no_keys_of_the_one_below(
    preset: str, over: dict[str, Any], kind: str
) -> None:
    ((_, inner),) = over.items()
    ((name, _),) = inner.items()
    config = parse_run_config(presets.merged(presets.load(preset), over))
    assert getattr(config.training if name == "weights" else config.pairing, name).kind == kind


def test_the_same_kind_on_top_leaves_its_neighbours() -> None:
    under = {"weights": {"kind": "lora", "rank": 8, "alpha": 16}}
    for over in ({"rank": 4}, {"kind": "lora", "rank": 4}):
        assert presets.merged(under, {"weights": over})["weights"] == {
            **{"kind": "lora", "rank": 4, "alpha": 16}
        }


def test_the_default_pair_policy_is_the_papers() -> None:
    assert parse_run_config({}).pairing.policy == BestWorst()
