"""The climb benchmark: its rules, its control, what it keeps, and its last line."""

from itertools import pairwise
from math import exp
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
from rich.console import Console
from starlette.applications import Starlette
from starlette.routing import Route

from benchmarks.climb import (
    planned,
    reversed_half,
    reversed_prompts,
    set_taste,
    training_prompts,
    unfinished,
)
from benchmarks.climb_results import Arm, Results, summary
from benchmarks.rule_judge import RULES, RuleJudge, brevity, long_words
from rewardloop.method import rubric
from rewardloop.records import JudgementMode, Message

FREE = JudgementMode.FREE


def test_brevity_falls_at_every_length() -> None:
    scores = [brevity("word " * num) for num in range(200)]
    assert scores[0] == 5
    assert scores[40] == pytest.approx(5 * exp(-1))
    assert all(a > b for a, b in pairwise(scores))


def test_the_blind_rule_is_a_mean_over_words() -> None:
    """18 letters in five words are 3.6 a word, 1.8 spreads below the middle of 4.5."""
    text = "It's nice, an apple SUN! 42"  # 4 + 4 + 2 + 5 + 3 in five words
    assert long_words(text) == pytest.approx(5 / (1 + exp(1.8)))
    assert long_words("aaaa aaaaa") == pytest.approx(2.5)
    assert long_words(" ".join([text] * 7)) == pytest.approx(long_words(text))
    assert long_words("42 !") == 0


def test_exactly_one_of_each_couple_of_like_margin_is_reversed() -> None:
    margins = {f"prompt {n}": n / 7 for n in range(12)}
    for seed in range(20):
        found = reversed_half(margins, Random(seed))
        assert [int(prompt.split()[1]) // 2 for prompt in found] == [0, 1, 2, 3, 4, 5]


def test_every_prompt_is_as_often_reversed_as_not() -> None:
    """Over seeds, in an odd number too: 400 coins, 4 standard deviations are 40."""
    margins = {"wide": 3.0, "narrow": 0.5, "middle": 1.0}
    drawn = [prompt for seed in range(400) for prompt in reversed_half(margins, Random(seed))]
    assert all(abs(drawn.count(prompt) - 200) < 40 for prompt in margins)


def test_seeds_share_no_prompt_and_too_few_are_told() -> None:
    found = [prompt.messages[-1]["content"] for s in range(5) for prompt in training_prompts(s, 16)]
    assert len(set(found)) == len(found) == 5 * 2 * 16
    with pytest.raises(ValueError, match="seed 5 has 13 of 32 prompts"):
        training_prompts(5, 16)


def results(path: Path, **scores: dict[str, list[list[float]]]) -> Results:
    return Results(path, 16, 2, scores=scores)


def both(brevity_: list[float], blind: list[float]) -> dict[str, list[list[float]]]:
    """Two held-out prompts, each with one answer."""
    return {"brevity": [[x] for x in brevity_], "blind": [[x] for x in blind]} | {
        "words": [[1.0], [1.0]]
    }


def test_the_control_turns_the_rule_round_for_half_of_each_iterations_prompts(
    tmp_path: Path,
) -> None:
    """Also where some gave the brevity run no pair."""
    kept = Results(tmp_path / "climb.json", 4, 2)
    texts = [prompt.messages[-1]["content"] for prompt in training_prompts(3, 4)]
    rows: list[dict[str, Any]] = [
        {
            "prompt": [{"role": "user", "content": text}],
            **{"chosen_score": 4.0, "rejected_score": 4.0 - n % 4},
        }
        for n, text in enumerate(texts[:6])
    ]
    kept.save_pairs("brevity-3", rows)
    judge = RuleJudge()
    set_taste(judge, kept, Arm.CONTROL, 3)
    turned = [judge.score(text, "one two") != brevity("one two") for text in texts]
    assert (sum(turned[:4]), sum(turned[4:])) == (2, 2)
    assert (sum(turned[:2]), sum(turned[2:4])) == (1, 1)  # couples of like margin
    assert sum(judge.score(text, "one two") for text in texts) == pytest.approx(20)
    set_taste(judge, kept, Arm.BLIND, 3)
    assert not judge.reversed_prompts
    assert judge.score(texts[0], "one two") == RULES["blind"]("one two") < 2.5


def test_each_iteration_has_coins_of_its_own(tmp_path: Path) -> None:
    """With one series of coins for both, a lopsided draw would come twice."""
    kept = Results(tmp_path / "climb.json", 16, 2)
    same = 0
    for seed in range(5):
        texts = [prompt.messages[-1]["content"] for prompt in training_prompts(seed, 16)]
        kept.save_pairs(
            f"brevity-{seed}",
            [
                {"prompt": [{"role": "user", "content": text}], "chosen_score": n % 16 / 4}
                | {"rejected_score": 0.0}
                for n, text in enumerate(texts)
            ],
        )
        turned = set(reversed_prompts(kept, seed))
        same += sum((texts[n] in turned) == (texts[n + 16] in turned) for n in range(0, 16, 2))
    assert 8 < same < 32  # of 40: 20 and 3.2 standard deviations, 3.8 either way


def test_the_run_that_goes_on_is_the_one_without_scores(tmp_path: Path) -> None:
    """Also where a later one of the plan is done: it was planned before."""
    kept = results(tmp_path / "climb.json", **{"brevity-0": {}, "blind-0": {}})
    kept.runs = {"brevity-0": "a", "blind-0": "b", "control-0": "c"}
    assert unfinished(kept, planned(1, 1)) == [(Arm.CONTROL, 0)]


async def test_the_judge_reads_every_prompt_and_response_as_it_is() -> None:
    """So that the prompts that the control turns round are found again."""
    judge = RuleJudge()
    app = Starlette(routes=[Route("/", judge.completions, methods=["POST"])])
    texts = [p.messages[-1]["content"] for seed in range(5) for p in training_prompts(seed, 16)]
    judge.reversed_prompts = frozenset(texts[::2])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://j") as http:
        for n, text in enumerate(texts):
            turns: list[Message] = [
                {"role": "user", "content": text},
                {"role": "assistant", "content": "one two\n\nthree"},
            ]
            answer = await http.post("/", json={"messages": rubric.render(turns, FREE), "n": 2})
            told = [choice["message"]["content"] for choice in answer.json()["choices"]]
            score = brevity("1 2 3") if n % 2 else 5 - brevity("1 2 3")
            assert [rubric.parse(one).score for one in told] == [pytest.approx(score, abs=1e-3)] * 2


def test_what_is_kept_is_read_again_and_other_sizes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "climb.json"
    kept = Results.of(path, 16, 2)
    kept.save_run("brevity-0", "run")
    kept.save_scores("m1-0", both([1.0, 2.0], [0.5, 0.5]))
    assert Results.of(path, 16, 2) == kept
    kept.forget_run("brevity-0")
    assert Results.of(path, 16, 2).runs == {}
    with pytest.raises(ValueError, match="measured with --prompts 16 --held-out 2"):
        Results.of(path, 16, 3)
    with pytest.raises(ValueError, match="measured with another config"):
        Results.of(path, 16, 2, {"training": {"learning_rate": 3e-5}})


def test_the_last_line_by_hand(tmp_path: Path) -> None:
    """Gains of brevity 1, 2 and 3: 2 -+ t(2) / sqrt(3) = 2 -+ 2.484. Of the control 0.5, -0.5
    and 0. Of the blind arm, by its own rule, 0.25."""
    kept = results(
        tmp_path / "climb.json",
        **{f"m1-{n}": both([1.0, 1.0], [2.0, 2.0]) for n in range(3)},
        **{f"brevity-{n}": both([1.0 + n, 3.0 + n], [9.0, 9.0]) for n in range(3)},
        **{
            f"control-{n}": both([1.0, 1.0 + gain], [9.0, 9.0]) for n, gain in enumerate((1, -1, 0))
        },
        **{"blind-0": both([9.0, 9.0], [2.0, 2.5])},
    )
    found = summary(kept, planned(3, 1), Console(quiet=True))
    assert found == {
        **{"gain": 2.0, "gain_low": -0.484, "control": 0.0, "seeds": 3},
        **{"control_low": -1.242, "control_high": 1.242, "gain_blind_to_length": 0.25},
    }


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    flat = both([1.0, 1.0], [1.0, 1.0])
    kept = results(
        tmp_path / "climb.json", **dict.fromkeys(("m1-0", "brevity-0", "control-0"), flat)
    )
    found = summary(kept, planned(1, 0), Console(quiet=True))
    assert (found["gain"], found["gain_low"], found["control_low"]) == (0.0, None, None)
    assert found["gain_blind_to_length"] is None


def test_blindness_to_length_is_measured_within_prompts_on_m1(tmp_path: Path) -> None:
    """Within the prompts rho is 1, -0.5 and undefined; M3's answers do not count."""
    first = {"blind": [[1.0, 2.0, 3.0], [2.0, 3.0, 1.0], [1.0, 1.0]]}
    first |= {"words": [[10.0, 20.0, 30.0], [30.0, 10.0, 20.0], [5.0, 9.0]], "brevity": []}
    third = {"blind": [[1.0, 2.0]], "words": [[2.0, 1.0]], "brevity": []}
    kept = results(tmp_path / "climb.json", **{"m1-0": first, "blind-0": third})
    assert kept.rho_with_words("blind") == pytest.approx(0.25)
    assert results(tmp_path / "climb.json").rho_with_words("blind") is None
