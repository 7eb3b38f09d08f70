"""Every number of a config has an upper bound, which a stored config may pass."""

from collections.abc import Iterator
from typing import Any

import pytest

from rewardloop.config import RunConfig, parse_run_config, stored_run_config
from rewardloop.errors import InvalidInput
from tests.unit.cases import for_each


@for_each(
    "data, told",
    [
        ({"training": {"learning_rate": 1e300}}, "training.learning_rate: must be at most 1; got"),
        ({"training": {"learning_rate": 1.5}}, "training.learning_rate: must be at most 1; got"),
        ({"prompts": {"num_per_iteration": 10**18}}, "prompts.num_per_iteration: must be at most"),
        ({"sampling": {"num_samples": 65}}, "sampling.num_samples: must be at most 64"),
        ({"sampling": {"max_tokens": 2**31}}, "sampling.max_tokens: must be at most 1048576"),
        ({"training": {"batch_size": 10**9}}, "training.batch_size: must be at most 65536"),
        ({"training": {"num_epochs": 1e9}}, "training.num_epochs: must be at most 1000"),
        ({"rollout": {"max_prompts_in_flight": 5000}}, "must be at most 4096"),
        ({"bootstrap": {"ift": {"num_epochs": 1e9}}}, "bootstrap.ift.num_epochs: must be at most"),
        (
            {"training": {"weights": {"kind": "lora", "rank": 5000}}},
            "training.weights.rank: must be at most 4096",
        ),
        ({"prompts": {"num_per_iteration": 10**400}}, "prompts.num_per_iteration: must be at most"),
    ],
)
def test_a_number_beyond_its_bound_is_refused_with_key_and_bound(
    data: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_run_config(data)
    assert told in refused.value.message
    assert len(refused.value.message) < 1000


def test_the_bounds_themselves_are_taken() -> None:
    config = parse_run_config(
        {
            "training": {"learning_rate": 1, "learning_rate_floor": 0.5},
            "rollout": {"num_tasks": 1024},
        }
    )
    assert config.training.learning_rate == 1


def test_a_stored_config_beyond_the_bounds_is_read() -> None:
    stored = parse_run_config({"evaluation": {}}).model_dump(mode="json")
    stored["prompts"]["num_per_iteration"] = 10**18
    stored["training"]["learning_rate"] = 1e300
    stored["evaluation"]["max_tokens"] = 10**9
    read = stored_run_config(stored)
    assert read.prompts.num_per_iteration == 10**18
    assert read.training.learning_rate == 1e300
    assert read.evaluation is not None
    assert read.evaluation.max_tokens == 10**9


def unbounded(schema: Any, where: str = "") -> Iterator[str]:
    if isinstance(schema, dict):
        is_number = schema.get("type") in ("integer", "number")
        if is_number and not {"maximum", "exclusiveMaximum"} & schema.keys():
            yield where
        for name, inner in schema.items():
            yield from unbounded(inner, f"{where}.{name}")
    elif isinstance(schema, list):
        for number, inner in enumerate(schema):
            yield from unbounded(inner, f"{where}.{number}")


def test_no_number_of_a_run_is_without_an_upper_bound() -> None:
    schema = RunConfig.model_json_schema()
    assert list(unbounded({"a": {"type": "integer"}})) == [".a"]
    assert list(unbounded(schema)) == []
