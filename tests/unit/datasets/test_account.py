"""The account tells what was read, what was passed over, and what was left out and where."""

import json
from pathlib import Path

from tests.unit.datasets.rows import jsonl, prompts, ranked, user


def test_columns_are_told_by_what_became_of_them(tmp_path: Path) -> None:
    rows = [
        {"id": 1, "prompt": "Q", "response": "A", "category": "c", "mood": "blue"},
        {"id": 2, "prompt": "R", "response": "B", "category": "", "mood": None, "pages": 3},
    ]
    account = prompts(tmp_path, *rows).account
    assert account.columns_used == {"id": 2, "prompt": 2, "response": 2}
    assert account.columns_passed_over == {"category": 1}
    assert account.columns_unknown == {"mood": 1, "pages": 1}
    assert account.formats == {"seed": 2}
    assert (account.num_rows, account.num_prompts, account.num_references) == (2, 2, 2)


def test_mixed_rows_are_read_one_by_one(tmp_path: Path) -> None:
    rows = [
        {"prompt": "x", "completion": "A"},
        {"messages": [user("y"), {"role": "assistant", "content": "B"}]},
        {"instruction": "z", "output": "C"},
        {"prompt": "w", "chosen": "D", "rejected": "E"},
    ]
    found = prompts(tmp_path, *rows)
    assert [prompt.reference for prompt in found.prompts] == ["A", "B", "C", "D"]
    assert found.account.formats == {"trl": 3, "alpaca": 1}
    assert found.account.num_ranked == 1


def test_what_is_left_out_has_its_count_its_first_line_and_its_detail(tmp_path: Path) -> None:
    rows = [
        {"prompt": "x"},
        {"prompt": "y", "completion": "A", "label": "perhaps"},
        "{",
        {"prompt": "z", "completion": "B", "label": "who knows"},
    ]
    found = prompts(tmp_path, *rows)
    left = found.account.left_out
    assert {reason: (told.count, told.first_line) for reason, told in left.items()} == {
        "broken_line": (1, 3),
        "label_not_understood": (2, 2),
    }
    assert left["label_not_understood"].detail == (
        "\"label\" is 'perhaps', which is not known to mean good or bad"
    )
    assert found.account.num_rows == 4


def test_duplicates_add_nothing(tmp_path: Path) -> None:
    rows = [
        {"prompt": "x", "completion": "A"},
        {"prompt": "x", "completion": "A"},
        {"prompt": "x", "completion": "B"},
        {"prompt": "x"},
    ]
    account = prompts(tmp_path, *rows).account
    assert (account.num_prompts, account.duplicates) == (1, 2)
    assert account.left_out["other_references"].count == 1


def test_a_long_id_is_cut_and_counted(tmp_path: Path) -> None:
    rows = [{"id": "i" * 600, "prompt": "x"}, {"id": "2", "prompt": "y"}]
    found = prompts(tmp_path, *rows)
    assert [len(prompt.source) for prompt in found.prompts] == [500, 5]
    assert found.account.cut_sources == 1
    assert found.account.left_out == {}


def test_lines_without_an_id_are_numbered(tmp_path: Path) -> None:
    rows = [{"prompt": "x"}, "", {"prompt": "y", "id": "i"}, {"prompt": "z"}]
    found = prompts(tmp_path, *rows)
    assert [prompt.source for prompt in found.prompts] == ["trl:#1", "trl:i", "trl:#4"]


def test_three_examples_with_their_candidates(tmp_path: Path) -> None:
    rows = [{"prompt": f"Q{n}", "chosen": "good", "rejected": "bad"} for n in range(5)]
    account = ranked(tmp_path, *rows).account
    plain = json.loads(json.dumps(account.as_json()))
    assert [example["source"] for example in plain["examples"]] == ["trl:#1", "trl:#2", "trl:#3"]
    assert plain["examples"][0] == {
        "messages": [{"role": "user", "content": "Q0"}],
        "candidates": [
            {"text": "good", "grade": {"kind": "ranked", "rank": 0}},
            {"text": "bad", "grade": {"kind": "ranked", "rank": 1}},
        ],
        "source": "trl:#1",
    }
    assert plain["num_ranked"] == 5


def test_marks_of_review_and_deletion_hold_for_every_format(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "completion": "A", "deleted": True},
        {"instruction": "b", "output": "B", "status": "Discarded"},
        {"question": "c", "answer": "C", "review_result": "false"},
        {"prompt": "d", "completion": "D", "is_spam": 1},
        {"prompt": "e", "completion": "E", "status": "under the table"},
        {"prompt": "f", "completion": "F", "deleted": 0, "status": "submitted", "is_spam": False},
    ]
    found = prompts(tmp_path, *rows)
    assert [prompt.reference for prompt in found.prompts] == ["F"]
    assert {why: told.count for why, told in found.account.left_out.items()} == {
        "label_not_understood": 1,
        "rejected_by_reviewers": 3,
        "prompt_deleted": 1,
    }


def test_one_reading_gives_both_results(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"prompt": "Q", "chosen": "good", "rejected": "bad"}, {"prompt": "R"})
    as_prompts, as_ranked = prompts(path.parent, *_lines(path)), ranked(path.parent, *_lines(path))
    assert as_prompts.account.num_ranked == as_ranked.account.num_ranked == 1
    assert as_prompts.account.num_references == as_ranked.account.num_references == 1
    assert as_ranked.prompts[0].prompt == as_prompts.prompts[0]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_of_a_plain_file_nothing_else_is_counted(tmp_path: Path) -> None:
    account = prompts(tmp_path, {"prompt": "Q", "response": "A"}).account
    assert (account.duplicates, account.later_turns, account.cut_sources) == (0, 0, 0)
    assert (account.num_rows, account.num_ranked) == (1, 0)
    assert (account.notes, account.left_out) == ((), {})
