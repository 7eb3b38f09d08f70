"""How sure the page is of a judge: intervals, length, and what humans do themselves."""

from typing import Any

from rewardloop.report import render
from tests.unit.report.test_report import section


def test_an_interval_that_is_not_given_says_why(data: dict[str, Any]) -> None:
    ends = dict.fromkeys(("net_low", "net_high", "win_low", "win_high"))
    data["evaluations"][1]["result"] |= {**ends, "interval_reason": "fewer than 10 prompts"}
    html = render(data)
    assert "47.8 % fewer than 10 prompts 26.1 %" in section(html, "wins").text
    assert "47.8 % fewer than 10 prompts, vs M1" in section(html, "summary").text


def test_judges_stand_beside_the_papers(html: str) -> None:
    page = section(html, "agreement")
    assert page.tags.count("svg") == 6  # two modes, three measures
    for told in ("Paper's M3", "81.7 %", "0.349", "70B", "training part, for EFT"):
        assert told in page.text


def test_judges_stand_beside_what_length_alone_says(html: str) -> None:
    text = section(html, "agreement").text
    # M2, free: (66 + 7) / 114 with ties as half; 66 + 34 + 14 pairs.
    told = "64.0 % 47.9 to 77.9 67.1 % 51.5 % 75.0 % 70 pairs 28.0 % 44 pairs 114 1,021 162"
    assert told in text
    assert "41.0 % fewer than 10 prompts 12.0 %" in text


def test_a_run_of_an_older_version_has_no_such_figures(data: dict[str, Any]) -> None:
    """It stored neither intervals nor baselines."""
    for assessment in data["assessments"]:
        for key in ("intervals", "pairwise_accuracy_ties_half", "longer_is_better"):
            assessment["metrics"].pop(key, None)
    text = section(render(data), "agreement").text
    assert "57.9 % 41.0 % 12.0 % 0.230" in text
    assert "\N{EN DASH} \N{EN DASH} 51.5 %" in text


def test_a_judge_may_like_length_as_humans_do(data: dict[str, Any]) -> None:
    """The limit is held against the difference that was stored."""
    data["run"]["config"]["health"]["max_length_correlation"] = 0.3
    data["iterations"] = data["iterations"][:2]
    data["iterations"][1]["report"]["health"] |= {
        **{"length_correlation": 0.5, "human_length_correlation": 0.3, "length_excess": 0.2}
    }
    text = section(render(data), "health").text
    assert "the same of the humans' ranks \N{EN DASH} 0.300" in text
    assert "difference of the two at most 0.300 0.200" in text
    assert "past its limit" not in text


def test_a_judge_below_its_floor_is_marked(data: dict[str, Any]) -> None:
    # M1 judges iteration 1 and orders 61 of 114 pairs, M2 iteration 2 and 66 of 114.
    data["run"]["config"]["health"]["min_pairwise_accuracy"] = 0.55
    text = section(render(data), "health").text
    assert "at least 55.0 % 53.5 % ✗ past its limit 57.9 %" in text
    assert text.count("past its limit") == 1
