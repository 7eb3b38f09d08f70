"""A run beside the paper: what the config says, and what the data made of it."""

from typing import Any

import pytest

from rewardloop import presets
from rewardloop.config import parse_run_config
from rewardloop.method.conformance import PAPER, Found, conformance

ADAMW = {
    "max_grad_norm": 1.0,
    "optim": "adamw_torch_fused",
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "weight_decay": 0.0,
    "warmup_steps": 0,
}
AS_PUBLISHED = Found(
    bootstrap={"ift": {"num_examples": 3200}, "eft": {"num_kept": 1775}},
    improvements=[
        {
            "prompt_model": {"name": "chat", "is_own": True},
            "pairing": {"num_pairs": num},
            "training_model": {"batch_size": 16, "optimiser": ADAMW},
        }
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
    found = rows("paper", Found())
    assert not [row for row in found.values() if row["deviates"]]
    assert {key for key, row in found.items() if row["verdict"] == "not run"} == {
        key for key in found if key.startswith("report.")
    }
    assert {row["verdict"] for row in rows("paper", AS_PUBLISHED).values()} == {"same", "not given"}


def test_a_deviation_stands_beside_the_papers_value() -> None:
    row = rows("paper-cpu", Found())["training.learning_rate"]
    assert row == {
        "key": "training.learning_rate",
        "what": "DPO learning rate",
        "paper": "1e-06",
        "ran": 1e-5,
        "verdict": "deviates",
        "deviates": True,
    }


def test_a_part_that_is_left_out_deviates_once_and_its_values_do_not_apply() -> None:
    """`demo` has no bootstrap, no new prompts, no early stopping and no head to heads."""
    found = rows("demo", Found())
    parts = ("bootstrap", "prompts.self_instruct", "training.early_stopping", "evaluation")
    for part in parts:
        row = found[part]
        assert (row["paper"], row["ran"], row["verdict"]) == ("yes", "no", "deviates")
    inapplicable = {key for key, row in found.items() if row["verdict"] == "does not apply"}
    beside = {"base_version", "report.prompt_model", "report.judges"}
    beside |= {"report.ift.num_examples", "report.eft.num_kept", "report.held_out.num_prompts"}
    assert inapplicable == beside | {
        key for key in found if key.startswith(tuple(f"{part}." for part in parts))
    }
    for key in inapplicable:
        assert (found[key]["ran"], found[key]["deviates"]) == (None, False)


def test_a_part_that_ran_is_the_papers() -> None:
    found = rows("paper", Found())
    for part in ("bootstrap", "prompts.self_instruct", "training.early_stopping", "evaluation"):
        assert (found[part]["ran"], found[part]["verdict"]) == ("yes", "same")


def test_what_has_not_run_does_not_deviate() -> None:
    row = rows("paper", Found())["report.m2.num_pairs"]
    assert (row["ran"], row["verdict"], row["deviates"]) == (None, "not run", False)


def test_the_judge_samples_as_the_paper_does_and_a_difference_is_told() -> None:
    assert ran(Found(), "judging.temperature") == (0.7, False)
    assert ran(Found(), "judging.top_p") == (0.9, False)
    cpu = rows("paper-cpu", Found())
    assert (cpu["judging.top_p"]["ran"], cpu["judging.top_p"]["verdict"]) == (1.0, "deviates")
    cold = {"judging": {"temperature": 0}}
    assert ran(Found(), "judging.temperature", **cold) == (0.0, True)


def test_a_lag_deviates() -> None:
    assert ran(Found(), "lag") == (0, False)
    lagging = {"lag": 1, "training": {"early_stopping": None}}
    assert ran(Found(), "lag", **lagging) == (1, True)


def test_the_sharing_of_rankings_is_told() -> None:
    assert ran(Found(), "bootstrap.share_rankings") == ("kept apart", False)
    row = rows("paper-cpu", Found())["bootstrap.share_rankings"]
    assert (row["paper"], row["ran"], row["deviates"]) == ("kept apart", "shared", True)


@pytest.mark.parametrize("stage", ["training", "bootstrap.ift", "bootstrap.ift_and_eft"])
def test_the_gradient_norm_is_told_beside_a_paper_that_gives_none(stage: str) -> None:
    row = rows("paper", Found())[f"{stage}.max_gradient_norm"]
    assert (row["paper"], row["ran"], row["verdict"]) == ("not given", 1.0, "not given")
    off = rows("paper", Found(), training={"max_gradient_norm": None})
    assert off["training.max_gradient_norm"]["verdict"] == "not given"


def test_the_optimiser_is_what_the_trainer_said() -> None:
    told = (
        "adamw_torch_fused, betas 0.9 and 0.999, epsilon 1e-08, weight decay 0.0, 0 warm-up steps"
    )
    assert ran(AS_PUBLISHED, "report.optimiser") == (told, False)
    decayed = {"optimiser": {**ADAMW, "weight_decay": 0.1}}
    both = Found(
        bootstrap={"training_model": decayed},
        improvements=[{"training_model": {"optimiser": ADAMW}}],
    )
    assert ran(both, "report.optimiser") == (f"{told}; {told.replace('0.0', '0.1')}", False)


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
    row = rows("paper", Found(), training=winners)["training.beta"]
    assert (row["ran"], row["verdict"]) == (None, "does not apply")


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
    assert ran(found, "report.m3.num_pairs") == (None, False)
    assert ran(found, "report.num_iterations") == (1, True)


def test_who_wrote_prompts_and_who_judged_is_told() -> None:
    found = Found(
        improvements=[{"prompt_model": {"name": "base", "is_own": False}}], judges=["m1", "m2"]
    )
    assert ran(found, "report.prompt_model") == ("the base version", True)
    assert ran(found, "report.judges") == ("m1, m2", True)
    assert ran(AS_PUBLISHED, "report.prompt_model")[1] is False


def test_judging_by_expectation_deviates_once_and_samples_nothing() -> None:
    judging = {"mode": "expected", "num_judgements": 1, "temperature": 1.0}
    found = rows("paper", AS_PUBLISHED, judging=judging)
    row = found["judging.mode"]
    assert (row["paper"], row["ran"], row["deviates"]) == ("free", "expected", True)
    sampled = ("num_judgements", "temperature", "top_p", "max_reasks")
    assert {found[f"judging.{key}"]["verdict"] for key in sampled} == {"does not apply"}
    assert [key for key, row in found.items() if row["deviates"]] == ["judging.mode"]
    by_three = rows("paper", AS_PUBLISHED, judging={"num_judgements": 1})
    assert by_three["judging.num_judgements"]["deviates"]
