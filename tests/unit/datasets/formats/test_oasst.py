"""Open Assistant's trees and flat files, in all their states.

Tests `rewardloop.datasets.formats.oasst`.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.unit.datasets.rows import orders, prompts, ranked, told, why_left_out

TWO = [("best", 0), ("worse", 1)]
SPAM = {"spam": {"value": 1.0, "count": 3}}


def reply(text: Any, rank: Any, **more: Any) -> dict[str, Any]:
    return {"text": text, "role": "assistant", "lang": "en", "rank": rank} | more


def tree(*replies: Any, state: Any = "ready_for_export", **prompt: Any) -> dict[str, Any]:
    """Replies may be given as (text, rank)."""
    made = [reply(*each) if isinstance(each, tuple) else each for each in replies]
    root = {"text": "Q", "role": "prompter", "lang": "en", "replies": made} | prompt
    return {"message_tree_id": "t1", "tree_state": state, "prompt": root}


def message(
    key: str, parent: str | None, text: str, rank: Any = None, **more: Any
) -> dict[str, Any]:
    return {
        "message_id": key,
        "parent_id": parent,
        "text": text,
        "role": "assistant" if parent else "prompter",
        "lang": "en",
        "rank": rank,
        "message_tree_id": "t1",
        "tree_state": "ready_for_export",
        "review_result": True,
        "deleted": False,
        "synthetic": False,
        "labels": {"name": ["spam", "quality"], "value": [0.0, 0.7], "count": [3, 3]},
        "emojis": {"name": ["+1"], "count": [1]},
    } | more


@pytest.mark.parametrize(
    "state", ["aborted_low_grade", "halted_by_moderator", "growing", "ranking", "backlog_ranking"]
)
def test_a_tree_that_is_not_ready_is_left_out(tmp_path: Path, state: str) -> None:
    row = tree(*TWO, state=state)
    assert why_left_out(tmp_path, row) == {"tree_not_ready": 1}
    assert ranked(tmp_path, tree(*TWO, text="R"), row).left_out == {"tree_not_ready": 1}


def test_a_tree_without_a_state_is_ready(tmp_path: Path) -> None:
    assert orders(tmp_path, tree(*TWO, state=None)) == [TWO]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"deleted": True}, "prompt_deleted"),
        ({"deleted": True, "text": None}, "prompt_deleted"),
        ({"text": " \n"}, "prompt_empty"),
        ({"lang": "de"}, "prompt_other_language"),
        ({"text": "x" * 20_001}, "prompt_too_long"),
        ({"review_result": False}, "rejected_by_reviewers"),
        ({"labels": SPAM}, "spam"),
    ],
)
def test_an_unwanted_prompt_leaves_out_its_tree(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    assert why_left_out(tmp_path, tree(*TWO, **change)) == {why: 1}


@pytest.mark.parametrize(
    ("unwanted", "why"),
    [
        (reply("gone", 0, deleted=True), "deleted"),
        (reply(None, None, deleted=True), "deleted"),
        (reply("", 0), "empty"),
        (reply("hallo", 0, lang="de"), "other_language"),
        (reply("unranked", None), "unranked"),
        (reply("unranked", float("nan")), "unranked"),
        (reply("x" * 20_001, 0), "too_long"),
        (reply("refused", 0, review_result=False), "rejected_by_reviewers"),
        (reply("refused", 0, review_result="false"), "rejected_by_reviewers"),
        (reply("SPAM", 0, labels=SPAM), "spam"),
        (reply("and also", 0, role="prompter"), "not_an_answer"),
        (reply("a\0", 0), "unstorable"),
    ],
)
def test_an_unwanted_reply_is_left_out(tmp_path: Path, unwanted: dict[str, Any], why: str) -> None:
    row = tree(unwanted, ("best", 1), ("worse", 2))
    found = ranked(tmp_path, row)
    assert [answer.text for answer in found.prompts[0].responses] == ["best", "worse"]
    assert found.prompts[0].prompt.reference == "best"
    assert found.left_out == {why: 1}


def test_some_spam_labels_are_no_verdict(tmp_path: Path) -> None:
    row = tree(reply("best", 0, labels={"spam": {"value": 0.5, "count": 2}}), ("worse", 1))
    assert orders(tmp_path, row) == [TWO]


def test_what_is_left_after_a_rejected_reply_may_be_a_reference(tmp_path: Path) -> None:
    row = tree(reply("SPAM", 0, review_result=False), ("fine", 1))
    assert told(tmp_path, row) == [([("user", "Q")], "fine")]


def test_any_language(tmp_path: Path) -> None:
    row = tree(reply("ja", 0, lang="de"), ("no", 1), lang="fr")
    assert orders(tmp_path, row, language=None) == [[("ja", 0), ("no", 1)]]


def test_later_turns_are_counted(tmp_path: Path) -> None:
    row = tree(reply("best", 0, replies=[{"text": "and?"}, {"text": 3}]), ("worse", 1))
    assert prompts(tmp_path, row).account.later_turns == 2


def test_a_flat_file_is_put_together_in_any_order(tmp_path: Path) -> None:
    rows = [
        message("a", "q", "worse", 1.0),
        message("q", None, "Q"),
        message("d", "a", "deeper", role="prompter"),
        message("b", "q", "best", 0.0),
        message("c", "q", "SPAM", 2.0, labels={"name": ["spam"], "value": [1.0], "count": [3]}),
    ]
    for order in (rows, rows[::-1]):
        found = ranked(tmp_path, *order)
        assert [(r.text, r.rank) for r in found.prompts[0].responses] == TWO
        assert found.left_out == {"spam": 1}
        assert found.prompts[0].prompt.source == "oasst:t1"


def test_a_flat_tree_that_was_halted(tmp_path: Path) -> None:
    rows = [
        message("q", None, "Q", tree_state="halted_by_moderator"),
        message("a", "q", "best", 0, tree_state="halted_by_moderator"),
    ]
    found = prompts(tmp_path, {"prompt": "good"}, *rows)
    assert len(found.prompts) == 1
    assert found.account.left_out["tree_not_ready"].count == 1


@pytest.mark.parametrize(
    ("row", "detail"),
    [
        ({"message_tree_id": "t1", "prompt": "Q"}, '"prompt" is a text, not an object'),
        (tree(role="assistant"), '"prompt" has the role "assistant", not "prompter"'),
        (tree(lang=None), '"lang" is null, not a text'),
        (tree({"rank": 0}), '"text" is missing'),
        (tree(replies={"rank": 0}), '"replies" is an object, not a list'),
        (
            tree(("good", 0), ("bad", True)),
            'the "rank" of reply 2 is a boolean, not a whole number from 0 to 2147483647',
        ),
    ],
)
def test_malformed_trees_are_told(tmp_path: Path, row: dict[str, Any], detail: str) -> None:
    found = prompts(tmp_path, {"prompt": "good"}, row)
    assert found.account.left_out["malformed"].detail == detail


def test_what_a_machine_wrote_and_humans_ranked_is_read_and_told(tmp_path: Path) -> None:
    found = ranked(tmp_path, tree(reply("robot", 0, synthetic=True), ("worse", 1), synthetic=True))
    assert [answer.text for answer in found.prompts[0].responses] == ["robot", "worse"]
    assert found.left_out == {}
    assert found.account.notes == ("A machine wrote 1 of the answers that humans ranked.",)
