"""A run beside the paper: what the config says, and what the data made of it."""

from typing import Any

import pytest

from rewardloop import presets
from rewardloop.config import parse_run_config
from rewardloop.method.conformance import PAPER, Found, conformance

AS_PUBLISHED = Found(
    bootstrap={"ift": {"num_examples": 3200}, "eft": {"num_kept": 1775}},
    improvements=[
        {"prompt_model": {"name": "chat", "is_own": True}, "pairing": {"num_pairs": num}}
        for num in (3964, 6942)
    ],
    num_held_out=541,
    dataset_sizes={"evaluation": 256, "validation": 1000},
    judges=["gpt-4"],
)


def rows(preset: str, found: Found, **changes: Any) -> dict[str, dict[str, Any]]:
    data = presets.merged(presets.load(preset), {"base_version": "llama-2-70b", **changes})
    return {row["key"]: row for row in conformance(parse_run_config(data), found)}


def ran(found: Found, key: str, **changes: Any) -> tuple[Any, bool]:
    row = rows("paper", found, **changes)[key]
    return row["ran"], row["deviates"]


def test_the_paper_preset_conforms_in_everything_but_what_data_decide() -> None:
    deviating = {key for key, row in rows("paper", Found()).items() if row["deviates"]}
    assert all(key.startswith("report.") for key in deviating)
    assert not [row for row in rows("paper", AS_PUBLISHED).values() if row["deviates"]]


def test_a_deviation_stands_beside_the_papers_value() -> None:
    row = rows("paper-cpu", Found())["training.learning_rate"]
    assert row == {
        "key": "training.learning_rate",
        "what": "DPO learning rate",
        "paper": "1e-06",
        "ran": 1e-5,
        "deviates": True,
    }


@pytest.mark.parametrize("key", ["bootstrap.ift.batch_size", "base_version", "report.m2.num_pairs"])
def test_a_part_that_did_not_run_is_a_deviation(key: str) -> None:
    row = rows("demo", Found())[key]
    assert (row["ran"], row["deviates"]) == (None, True)


def test_several_readings_are_all_told() -> None:
    assert rows("paper", Found())["report.eft.num_kept"]["paper"] == "1630 or 1775"


def test_every_key_of_the_papers_values_exists() -> None:
    """A renamed config key would otherwise look like a part that did not run."""
    found = rows("paper", AS_PUBLISHED)
    assert {key for key, row in found.items() if row["ran"] is None} == set()
    assert len(found) == len(PAPER)


def test_a_dataset_gives_no_more_prompts_than_it_holds() -> None:
    shipped = Found(dataset_sizes={"evaluation": 64, "validation": 32})
    assert ran(shipped, "evaluation.num_prompts") == (64, True)
    assert ran(shipped, "training.early_stopping.num_prompts") == (32, True)


def test_the_batch_is_the_one_that_the_trainer_made() -> None:
    """Ten pairs in forward passes of four are two of these."""
    bootstrap = {"training_baseline": {"batch_size": 16}, "training_model": {"batch_size": 3}}
    found = Found(bootstrap=bootstrap, improvements=[{"training_model": {"batch_size": 8}}])
    assert ran(found, "bootstrap.ift.batch_size") == (16, False)
    assert ran(found, "bootstrap.ift_and_eft.batch_size") == (3, True)
    assert ran(found, "training.batch_size") == (8, True)
    both = Found(improvements=[{"training_model": {"batch_size": num}} for num in (16, 8)])
    assert ran(both, "training.batch_size") == ("8, 16", True)


def test_beta_is_nothing_to_sft_on_the_winners() -> None:
    assert ran(Found(), "training.beta") == (0.1, False)
    winners = {"loss": {"kind": "sft_winners"}}
    assert ran(Found(), "training.beta", training=winners) == (None, True)


def test_what_the_trainer_left_out_does_not_count() -> None:
    found = Found(
        bootstrap={
            "ift": {"num_examples": 3200},
            "eft": {"num_kept": 1630},
            "training_baseline": {"num_dropped": 1},
            "training_model": {"num_dropped": 30},
        },
        improvements=[{"pairing": {"num_pairs": 3964}, "training_model": {"num_dropped": 64}}],
    )
    assert ran(found, "report.ift.num_examples") == (3199, True)
    assert ran(found, "report.eft.num_kept") == (1600, True)
    assert ran(found, "report.m2.num_pairs") == (3900, True)
    assert ran(found, "report.m3.num_pairs") == (None, True)
    assert ran(found, "report.num_iterations") == (1, True)


def test_who_wrote_prompts_and_who_judged_is_told() -> None:
    found = Found(
        improvements=[{"prompt_model": {"name": "base", "is_own": False}}], judges=["m1", "m2"]
    )
    assert ran(found, "report.prompt_model") == ("the base version", True)
    assert ran(found, "report.judges") == ("m1, m2", True)
    assert ran(AS_PUBLISHED, "report.prompt_model")[1] is False
