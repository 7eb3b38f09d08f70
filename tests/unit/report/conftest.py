"""A whole run as the API gives it: a bootstrap, two improving iterations, evaluations."""

import copy
from math import exp
from typing import Any

import pytest

from rewardloop.config import parse_run_config
from rewardloop.method.conformance import Found, conformance
from rewardloop.report import render

HOSTILE = "</pre><script>alert('m')</script><img src=x onerror=alert(1)>\n\"quoted\" & Score: 5"


@pytest.fixture(scope="session")
def hostile() -> str:
    """What a model wrote as the rejected response of every example."""
    return HOSTILE


@pytest.fixture(scope="session")
def sample() -> dict[str, Any]:
    """Not to be changed."""
    return whole_run()


@pytest.fixture
def data(sample: dict[str, Any]) -> dict[str, Any]:
    """One to change."""
    return copy.deepcopy(sample)


@pytest.fixture(scope="module")
def html(sample: dict[str, Any]) -> str:
    return render(sample)


def sft_steps(num: int, start: float) -> list[dict[str, Any]]:
    return [
        {"step": s, "loss": start * exp(-s / 30), "mean_token_accuracy": 0.5 + s / 200}
        | {"learning_rate": 2e-5}
        for s in range(1, num + 1)
    ] + [{"step": num, "train_runtime": 331.2}]


def dpo_steps(num: int) -> list[dict[str, Any]]:
    return [
        {"step": s, "loss": 0.693 * exp(-s / 12) + 0.02 * (s % 3), "learning_rate": 1e-5}
        | {"rewards/margins": 0.09 * s - 0.03 * (s % 4), "rewards/accuracies": min(1, 0.4 + s / 20)}
        for s in range(1, num + 1)
    ]


def assessment(label: str, version: str, mode: str, *, right: int, parsed: int) -> dict[str, Any]:
    """Of 120 pairs and 160 judgements."""
    metrics = {
        **{"num_prompts": 18, "num_responses": 54, "num_scored": 52},
        **{"num_agreeing": right, "num_reversed": 100 - right, "num_tied": 14},
        **{"num_missing_pairs": 6, "pairwise_accuracy": right / 114, "five_best": 0.41},
        **{"exact_order": 0.12, "spearman": right / 200 - 0.1, "kendall_tau": right / 250 - 0.1},
        **{"num_judgements": 160, "num_parsed": parsed, "parse_rate": parsed / 160},
        **{"pairwise_accuracy_ties_half": (right + 7) / 114, "longer_is_better": 0.671},
        **{"num_longer_better": 70, "num_shorter_better": 44, "accuracy_balanced": 0.515},
        **{"accuracy_longer_better": 0.75, "accuracy_shorter_better": 0.28},
        **{"design_effect": 1.3, "num_pairs_needed": 1021, "num_prompts_needed": 162},
        "intervals": {
            "pairwise_accuracy_ties_half": ends(right / 114 - 0.1, right / 114 + 0.2),
            "spearman": ends(-0.125, 0.5),
            "five_best": ends(None, None, 3, "fewer than 10 prompts"),
        },
    }
    return {"label": label, "version": version, "mode": mode, "purpose": "health"} | {
        "metrics": metrics
    }


def ends(
    low: float | None, high: float | None, num: int = 18, reason: str | None = None
) -> dict[str, Any]:
    """A stored interval."""
    return {"low": low, "high": high, "over": "prompts", "num": num, "reason": reason}


def head_to_head(a: str, b: str, wins: int, losses: int) -> dict[str, Any]:
    """Of 24 prompts, one of them undecided."""
    rates = {"win_rate": wins / 23, "loss_rate": losses / 23, "tie_rate": (23 - wins - losses) / 23}
    net = (wins - losses) / 23
    result = {
        **{"num_prompts": 24, "num_wins": wins, "num_losses": losses},
        **{"num_ties": 23 - wins - losses, "num_undecided": 1, "net_win_rate": net, **rates},
        **{"net_low": net - 0.3, "net_high": net + 0.3},
        **{"win_low": max(0, wins / 23 - 0.18), "win_high": wins / 23 + 0.19},
        **{"mean_length_a": 431.5, "mean_length_b": 402.25, "position_bias": 0.66},
    }
    return {"id": f"{a}-{b}", "a": a, "b": b, "state": "succeeded", "error": None} | {
        "result": result
    }


def bootstrap() -> dict[str, Any]:
    eft = {
        **{"num_prompts": 52, "num_prompts_without_order": 3, "num_prompts_unjudged": 6},
        **{"num_prompts_agreeing": 31, "num_prompts_disagreeing": 12, "num_judgements": 1248},
        **{"num_unparsed": {"no_score": 41, "truncated": 12, "refused": 0}},
        **{"num_without_order": 60, "num_unjudged": 110, "num_out_of_order": 737},
        **{"num_agreeing": 288, "num_thinned": 70, "num_over_limit": 38, "num_kept": 180},
        "scores_before": {"0": 12, "1": 31, "2": 44, "3": 37, "4": 134, "5": 30},
        "scores_after": {"0": 12, "1": 31, "2": 44, "3": 37, "4": 64, "5": 30},
    }
    seconds = {
        "train_baseline": 402.7,
        "swap_baseline": 9.1,
        "judge_ranked": 744,
        "select_eft": 0.4,
    }
    return {
        **{"index": 0, "kind": "bootstrap", "state": "succeeded", "phase": "done", "error": None},
        **{"base_version": "base", "new_version": "run-m1", "baseline_version": "run-sft"},
        "seconds": seconds | {"train": 1274.9, "swap": 8.8, "assess": 301.3, "rollout": None},
        "counts": {
            "prompts": 0,
            "responses": 0,
            "judgements": 0,
            "judgements_scored": 0,
            "pairs": 0,
        },
        "report": {"ift": {"num_examples": 70}, "eft": eft},
        "scores": {"scores": {str(i): 0 for i in range(6)}, "unscored": {}},
        "lengths": None,
        "training": sft_steps(42, 2.4),
        "baseline_training": sft_steps(18, 2.9),
        "examples": [],
    }


def improve(index: int, *, unparsed: float, unscored: dict[str, int]) -> dict[str, Any]:
    health = {
        **{"num_judgements": 480, "num_scored": 466, "unparsed_rate": unparsed},
        **{"top_score_share": 0.18, "mean_score": 2.9 + index / 4, "entropy_bits": 2.11},
        **{"tie_rate": 0.12, "judge_spread": 0.71, "length_correlation": 0.34, "collapse": []},
    }
    pairing = {
        **{"policy": {"kind": "best_worst"}, "num_prompts": 40, "num_pairs": 33},
        **{"unpaired": {"tied": 5, "too_few_scored": 2}, "mean_margin": 1.38},
        **{"mean_chosen_length": 424.1, "mean_rejected_length": 388.7, "label_smoothing": 0.0},
    }
    rejected = {"too_similar": 19, "too_short": 11, "keyword": 4, "language": 3}
    counts = {"prompts": 40, "responses": 160, "judgements": 480, "judgements_scored": 466}
    return {
        **{"index": index, "kind": "improve", "state": "succeeded", "phase": "done", "error": None},
        **{"base_version": f"run-m{index}", "new_version": f"run-m{index + 1}"},
        "baseline_version": None,
        "seconds": {
            "prompts": 92.4,
            "prepare": 7.1,
            "rollout": 811.6,
            "pairing": 0.3,
            "train": 645.2,
        }
        | {"swap": 8.9, "assess": 288.0},
        "counts": counts | {"pairs": 33},
        "report": {
            **{"health": health, "pairing": pairing},
            "prompts": {"num_written": 77, "num_accepted": 40, "rejected": rejected},
            "training_model": {"num_dropped": 1, "why": "the prompt alone fills max_length"},
        },
        "scores": {
            "scores": {"0": 11, "1": 40, "2": 92, "3": 131, "4": 108 + index, "5": 84},
            "unscored": unscored,
        },
        "lengths": {"mean": 401.2 + 20 * index, "p10": 122.0, "p50": 397.5, "p90": 655.1},
        "training": dpo_steps(17),
        "baseline_training": [],
        "examples": [
            {
                "prompt": [{"role": "user", "content": "Which planets have rings?"}],
                **{"chosen": "The four giant ones: Jupiter, Saturn, Uranus and Neptune."},
                **{"rejected": HOSTILE, "chosen_score": 4.333333333333333, "rejected_score": 1.0},
            }
        ],
    }


def whole_run() -> dict[str, Any]:
    config = parse_run_config(
        {
            **{"name": "paper-cpu", "bootstrap": {}, "evaluation": {"num_prompts": 24}},
            **{"prompts": {"dataset": "ranked", "self_instruct": {}}},
            **{"training": {"learning_rate": 1e-5}, "health": {"also_assess": ["constrained"]}},
        }
    )
    first = bootstrap()
    judges = [("SFT", "run-sft", 52, 8), ("M1", "run-m1", 61, 158), ("M2", "run-m2", 66, 159)]
    health = [
        assessment(
            label, version, mode, right=right, parsed=160 if mode == "constrained" else parsed
        )
        for label, version, right, parsed in [*judges, ("M3", "run-m3", 63, 157)]
        for mode in ("free", "constrained")
    ]
    versions = {"M0": "base", "SFT": "run-sft", "M1": "run-m1", "M2": "run-m2", "M3": "run-m3"}
    return {
        "run": {
            **{"id": "5f2c2c1e-6f0a-4f0e-9a53-5e9d1f6f2b11", "name": "paper-cpu"},
            **{"config": config.model_dump(mode="json"), "config_sha256": config.digest()},
            **{"software": {"rewardloop": "0.2.0", "torch": "2.13.0"}, "base_version": "base"},
            "created_at": "2026-11-08T09:41:07.123456+00:00",
        },
        "conformance": conformance(config, Found(bootstrap=first["report"])),
        "versions": [
            {
                "label": label,
                "id": version,
                "kind": "dpo",
                "created_at": "2026-11-08T10:00:00+00:00",
            }
            for label, version in versions.items()
        ],
        "assessments": [*health, {**health[0], "mode": "constrained", "purpose": "eft"}],
        "iterations": [
            first,
            improve(1, unparsed=0.03, unscored={"no_score": 9, "truncated": 5}),
            improve(2, unparsed=0.02, unscored={"no_score": 7}),
        ],
        "evaluations": [
            head_to_head("M1", "SFT", 8, 7),
            head_to_head("M2", "M1", 11, 6),
            head_to_head("M2", "SFT", 12, 5),
            head_to_head("M3", "M2", 6, 11),
            {**head_to_head("M3", "SFT", 9, 8), "state": "running", "result": None},
        ],
    }
