"""The page says what an iteration went on without."""

from typing import Any

from rewardloop.report import render
from rewardloop.report.reading import left_out


def test_a_run_without_dead_prompts_says_nothing(data: dict[str, Any]) -> None:
    assert left_out(data) == []
    assert "left out" not in render(data).partition('id="wins"')[0].partition('id="progress"')[2]


def test_dead_prompts_and_ranked_responses_are_told_with_their_error(data: dict[str, Any]) -> None:
    found = {"num_dead": 2, "max_dead": 2, "error": "<b>status 500</b>", "num_of_error": 1}
    iteration = data["iterations"][1]
    iteration["report"]["dead_prompts"] = {**found, "num_prompts": 200}
    iteration["report"]["dead_ranked_responses"] = {"health free": {**found, "num_items": 96}}
    iteration["counts"]["prompts_dead"] = 2
    first, second = left_out(data)
    assert first == (
        "Iteration 1 (M1 to M2): 2 of 200 prompts failed for good and are left out. The most "
        "frequent error: <b>status 500</b>"
    )
    assert "2 of 96 ranked responses (health free) failed for good" in second
    page = render(data)
    assert "2 dead, left out" in page
    assert "&lt;b&gt;status 500&lt;/b&gt;" in page


def test_a_broken_report_breaks_no_page(data: dict[str, Any]) -> None:
    data["iterations"][1]["report"]["dead_prompts"] = "many"
    data["iterations"][1]["report"]["dead_ranked_responses"] = {"health free": None}
    assert len(left_out(data)) == 1
    render(data)
