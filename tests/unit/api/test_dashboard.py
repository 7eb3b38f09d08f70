"""The dashboard's page against the records that it reads. Its script runs in browsers alone."""

import dataclasses
import re
from pathlib import Path

import pytest

from rewardloop.config import Health, RunConfig
from rewardloop.method.eft import EftReport
from rewardloop.method.head_to_head import HeadToHead
from rewardloop.method.judge_health import ScoreHealth
from rewardloop.method.pairing import Unpaired
from rewardloop.method.self_instruct import Rejection
from rewardloop.records import Phase, UnscoredReason

PAGE = Path(__file__).parents[3] / "services/api/static/index.html"


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text(encoding="utf-8")


def words_of(page: str, constant: str) -> list[str]:
    """The strings of a list that the script names."""
    found = re.search(rf"^const {constant} = \[(.*?)\];", page, re.MULTILINE | re.DOTALL)
    assert found, constant
    return re.findall(r'"([^"]*)"', found[1])


def body_of(page: str, function: str) -> str:
    found = re.search(rf"^function {function}\(.*?^}}$", page, re.MULTILINE | re.DOTALL)
    assert found, function
    return found[0]


def fields_of(record: type) -> set[str]:
    return {field.name for field in dataclasses.fields(record)}


def test_the_table_says_how_many_iterations_it_asks_for(page: str) -> None:
    asked = re.search(r"/v1/iterations\?limit=(\d+)", page)
    assert asked
    assert f"newest first, at most {asked[1]};" in page


def test_a_refused_key_is_mended_without_an_environment(page: str) -> None:
    """The embedded stack's user has set no variable."""
    assert "credentials.json" in page
    assert page.count("the address that rewardloop up printed") == 2


def test_every_phase_has_its_place(page: str) -> None:
    bootstrap, improve = words_of(page, "BOOTSTRAP"), words_of(page, "IMPROVE")

    assert set(bootstrap) | set(improve) == set(Phase)
    for phases in (bootstrap, improve):
        assert phases == [phase for phase in Phase if phase in phases]


def test_what_the_config_turns_on_is_read_from_it(page: str) -> None:
    body = body_of(page, "writesPrompts")

    assert {"prompts", "replay"} <= RunConfig.model_fields.keys()
    assert "prompts.self_instruct" in body
    assert "self_instruct" in RunConfig().prompts.model_dump()


@pytest.mark.parametrize(
    ("function", "name", "record"),
    [
        ("eftCards", "found", EftReport),
        ("eftScores", "found", EftReport),
        ("judgeBar", "eft", EftReport),
        ("matchRow", "result", HeadToHead),
    ],
)
def test_every_key_that_is_read_is_one_of_the_record(
    page: str, function: str, name: str, record: type
) -> None:
    read = set(re.findall(rf"\b{name}\.(\w+)", body_of(page, function)))

    assert read
    assert read <= fields_of(record)


def test_every_judgement_of_the_eft_report_is_accounted_for(page: str) -> None:
    """Its sums, which the report's docstring gives, must be seen to come out."""
    shown = body_of(page, "eftCards")
    unseen = {name for name in fields_of(EftReport) if f"found.{name}" not in shown}

    assert unseen == {"num_agreeing", "scores_before", "scores_after"}


def test_health_is_shown_whole_with_its_limits(page: str) -> None:
    table = re.search(r"^const HEALTH = \[\n(.*?)^\];", page, re.MULTILINE | re.DOTALL)
    assert table
    keys = re.findall(r'^  \["(\w+)"', table[1], re.MULTILINE)
    limits = re.findall(r'"(max_\w+)"\]', table[1])

    assert {*keys, "num_judgements", "num_scored"} == fields_of(ScoreHealth)
    assert limits == [name for name in Health.model_fields if name.startswith("max_")]


def test_reasons_that_have_words_exist(page: str) -> None:
    table = re.search(r"^const REASON_WORDS = \{\n(.*?)^\};", page, re.MULTILINE | re.DOTALL)
    assert table
    worded = set(re.findall(r"(\w+): \"", table[1]))

    assert worded
    assert worded <= {*Unpaired, *Rejection, *UnscoredReason}


def test_no_text_can_become_markup_and_nothing_is_loaded(page: str) -> None:
    script = page[page.index("<script>") :]

    for risk in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert risk not in script
    addresses = set(re.findall(r"https?://[^\s'\"]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not re.search(r"<script[^>]+src|<link[^>]+href=\"(?!data:)|@import", page)


def test_the_heavy_report_is_not_part_of_a_poll(page: str) -> None:
    """`poll` starts it and does not wait; it goes out when the run moved or `REPORT_MS` passed."""
    poll = re.search(r"^async function poll\(.*?^}$", page, re.MULTILINE | re.DOTALL)
    assert poll

    assert "fetchReport();" in poll[0]
    assert "await fetchReport" not in poll[0]
    assert re.search(r"^const REPORT_MS = 15000;", page, re.MULTILINE)
