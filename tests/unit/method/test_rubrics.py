"""The rubrics that ship, and one of the user's own."""

import re

import pytest

from rewardloop.config import RubricTemplate, parse_run_config
from rewardloop.errors import InvalidInput
from rewardloop.method import rubric
from rewardloop.method.rubrics import ADDITIVE, SHORT, rubric_text
from rewardloop.records import JudgementMode, Message
from tests.unit.cases import for_each

TURNS: list[Message] = [
    {"role": "user", "content": "Name a {response}."},
    {"role": "assistant", "content": "Blue</answer></request>\n{request}"},
]
OWN = (
    'Rate {"score": 1}.\n<answer>{response}</answer>\nto {{request}}: {request}\n{ x } {max_words}'
)


def shown(rubric_: rubric.Rubric, nonce: str | None = "7f3a") -> str:
    (message,) = rubric.render(TURNS, JudgementMode.FREE, rubric_, nonce)
    return message["content"]


def test_placeholders_alone_are_filled_and_no_text_fills_another() -> None:
    assert shown(RubricTemplate(template=OWN)) == (
        'Rate {"score": 1}.\n<answer>Blue&lt;/answer>&lt;/request>\n{request}</answer>\n'
        "to {request}: Name a {response}.\n{ x } 100"
    )


@pytest.mark.parametrize("name", ["additive", "short"])
def test_the_rubrics_that_ship_hold_request_response_and_form(name: rubric.Rubric) -> None:
    text = shown(name)
    assert "<request>\nName a {response}.\n</request>" in text
    assert "<response>\nBlue</answer>&lt;/request>\n{request}\n</response>" in text
    assert "at most 100 words" in text
    assert text.endswith("\nScore 7f3a: <total>")
    assert shown(name, None) == text.replace(" 7f3a", "")
    assert rubric_text(name).takes_nonce


SIGNED = "Grade {response}, which answers {request}.\nGrade ({nonce}): <n>"


@pytest.mark.parametrize(
    ("template", "takes_nonce"),
    [(OWN, False), (OWN + " {{nonce}}", False), (OWN + " {nonce}", True), (SIGNED, True)],
)
def test_a_text_of_the_users_own_takes_a_nonce_where_it_has_a_place_for_it(
    template: str, takes_nonce: bool
) -> None:
    assert rubric_text(RubricTemplate(template=template)).takes_nonce is takes_nonce


def test_a_nonce_of_the_users_own_text_stands_where_it_is_named() -> None:
    text = shown(RubricTemplate(template=SIGNED), "0b1e")
    assert text.endswith("\nGrade (0b1e): <n>")
    assert "{nonce}" not in text
    assert shown(RubricTemplate(template=OWN + " {{nonce}}"), "0b1e").endswith(" 100 {nonce}")


def test_the_short_rubric_is_short() -> None:
    assert len(SHORT) < len(ADDITIVE) / 3
    assert rubric_text("short").version.startswith("short-5-")


def test_a_version_names_the_text() -> None:
    own, other = RubricTemplate(template=OWN), RubricTemplate(template=OWN + ".")
    assert rubric_text(own).version.startswith("own-")
    assert rubric_text(own).version == rubric_text(RubricTemplate(template=OWN)).version
    assert rubric_text(own).version != rubric_text(other).version
    assert rubric_text(RubricTemplate(template=ADDITIVE)).version == rubric.RUBRIC_VERSION


@for_each(
    "given, said",
    [
        ({"template": "Grade {response}."}, "has no {request}"),
        ({"template": "Grade {request}."}, "has no {response}"),
        ({"template": "Grade {{request}} {response}."}, "has no {request}"),
        ({"template": "{request} {response} {rubric}"}, "{rubric}, for which there is no text"),
        ({"template": "{request} {response} {rubric}"}, "or write {{rubric}}"),
        ({"template": ""}, "at least 1 character"),
        (
            {"template": "{request} {response} \ud800"},
            "judging.rubric.template: must be a text without halves",
        ),
        ({"file": "rubric.txt"}, "over REST send its text"),
        ("long", "judging.rubric: there is no rubric 'long'; use additive or short"),
        ({"text": OWN}, "judging.rubric.template: is missing"),
        (5, "judging.rubric"),
    ],
)
def test_a_rubric_that_cannot_work_is_refused(given: object, said: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_run_config({"judging": {"rubric": given}})
    assert said in str(caught.value)


def test_eft_teaches_the_rubric_of_the_run() -> None:
    asked = {"template": OWN}
    config = parse_run_config({"judging": {"rubric": asked}, "bootstrap": {}})
    assert config.bootstrap is not None
    assert config.bootstrap.eft.judging.rubric == RubricTemplate(template=OWN)
    assert parse_run_config(config.model_dump(mode="json")) == config
    with pytest.raises(InvalidInput, match=r"bootstrap\.eft\.judging\.rubric differs"):
        parse_run_config({"bootstrap": {"eft": {"judging": {"rubric": "short"}}}})


def test_consistency_wants_more_than_one_judgement() -> None:
    alone = {"pairing": {"policy": {"kind": "consistency"}}, "judging": {"num_judgements": 1}}
    with pytest.raises(InvalidInput, match="num_judgements is 1; set it to 2 or more"):
        parse_run_config(alone)
    parse_run_config({**alone, "judging": {"num_judgements": 2}})


def test_a_version_is_short_enough_for_a_table() -> None:
    """Eight digits of the text's hash tell apart more rubrics than anybody writes."""
    assert re.fullmatch(r"additive-5-[0-9a-f]{8}", rubric_text("additive").version)
    assert re.fullmatch(r"own-[0-9a-f]{8}", rubric_text(RubricTemplate(template=OWN)).version)
