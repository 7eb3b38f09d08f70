"""`read_ranked`: which prompts and responses are kept, and that all else is counted or told.

Tests `rewardloop.datasets.ranked`, `rewardloop.datasets.grouping`.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rewardloop.datasets import RankedResult, read_prompts, read_ranked
from rewardloop.errors import BrokenFile, InvalidInput
from rewardloop.records import RankedText

TREES = Path(__file__).parents[3].parent / "shared" / "data" / "oasst_en_70_trees.jsonl"

TWO = [("best", 0), ("worse", 1)]
LONG = "x" * 20_001


def reply(text: Any, rank: Any, **more: Any) -> dict[str, Any]:
    return {"text": text, "rank": rank, "role": "assistant", "lang": "en", "deleted": False} | more


def tree(replies: Any, **prompt: Any) -> dict[str, Any]:
    """Replies may be given as (text, rank)."""
    if isinstance(replies, list):
        replies = [reply(*each) if isinstance(each, tuple) else each for each in replies]
    root = {"text": "Hi?", "role": "prompter", "lang": "en", "deleted": False, "replies": replies}
    return {"message_tree_id": "t1", "tree_state": "ready_for_export", "prompt": root | prompt}


def seed(*responses: tuple[str, Any], **more: Any) -> dict[str, Any]:
    rows = [{"rank": rank, "text": text} for text, rank in responses]
    return {"id": "r1", "category": "c", "prompt": "Write.", "responses": rows} | more


def jsonl(folder: Path, *rows: object) -> Path:
    path = folder / "ranked.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def kept(found: RankedResult) -> list[list[tuple[str, int]]]:
    return [[(r.text, r.rank) for r in prompt.responses] for prompt in found.prompts]


def test_a_tree_becomes_a_prompt_with_its_replies_by_rank(tmp_path: Path) -> None:
    found = read_ranked(jsonl(tmp_path, tree([("worst", 2), ("best", 0), ("middle", 1)])))
    (ranked,) = found.prompts
    assert ranked.prompt.messages == ({"role": "user", "content": "Hi?"},)
    assert (ranked.prompt.reference, ranked.prompt.source) == ("best", "oasst:t1")
    assert ranked.responses == (
        RankedText("best", 0),
        RankedText("middle", 1),
        RankedText("worst", 2),
    )
    assert (found.skipped, found.left_out) == ((), {})


def test_our_own_format(tmp_path: Path) -> None:
    found = read_ranked(jsonl(tmp_path, seed(("worse", 7), ("best", 3))))
    (ranked,) = found.prompts
    assert ranked.prompt.messages == ({"role": "user", "content": "Write."},)
    assert (ranked.prompt.reference, ranked.prompt.source) == ("best", "ranked:r1")
    assert kept(found) == [[("best", 3), ("worse", 7)]]
    assert found.left_out == {}


def test_our_own_format_needs_neither_id_nor_category(tmp_path: Path) -> None:
    bare = {"prompt": "A", "responses": [{"rank": 0, "text": "a"}, {"rank": 1, "text": "b"}]}
    found = read_ranked(jsonl(tmp_path, seed(*TWO), bare), language="de")
    assert [ranked.prompt.source for ranked in found.prompts] == ["ranked:r1", "ranked:#2"]


def test_messages_of_just_the_limit_are_kept(tmp_path: Path) -> None:
    words = "x" * 20_000
    found = read_ranked(jsonl(tmp_path, tree([(words, 0), ("worse", 1)], text=words)))
    assert kept(found) == [[(words, 0), ("worse", 1)]]
    assert found.left_out == {}


def test_characters_are_counted_and_not_bytes(tmp_path: Path) -> None:
    words = "\U0001f600" * 20_000
    assert len(read_ranked(jsonl(tmp_path, tree([(words, 0), ("worse", 1)]))).prompts) == 1


def test_any_language(tmp_path: Path) -> None:
    path = jsonl(tmp_path, tree([reply("ja", 0, lang="de"), ("no", 1)], lang="fr"))
    assert kept(read_ranked(path, language=None)) == [[("ja", 0), ("no", 1)]]
    with pytest.raises(InvalidInput, match="1 prompt_other_language"):
        read_ranked(path)


def test_equal_ranks_are_kept_and_counted_once_a_tree(tmp_path: Path) -> None:
    tied = tree([("worst", 1), ("zebra", 0), ("aardvark", 0), ("also worst", 1)])
    found = read_ranked(jsonl(tmp_path, tied, tree(TWO, text="Ho?")))
    assert kept(found)[0] == [("zebra", 0), ("aardvark", 0), ("worst", 1), ("also worst", 1)]
    assert found.prompts[0].prompt.reference == "zebra"
    assert found.left_out == {"equal_ranks": 1}


def test_one_rank_for_all_is_no_order(tmp_path: Path) -> None:
    tied = tree([("a", 3), ("b", 3), ("c", 3)], text="Ho?")
    found = read_ranked(jsonl(tmp_path, tied, tree(TWO)))
    assert kept(found) == [TWO]
    assert found.left_out == {"no_order": 1}


def test_no_order_is_looked_for_in_what_is_left(tmp_path: Path) -> None:
    torn = tree([("a", 0), ("b", 0), reply("gone", 1, deleted=True)], text="Ho?")
    found = read_ranked(jsonl(tmp_path, torn, tree(TWO)))
    assert found.left_out == {"deleted": 1, "no_order": 1}


@pytest.mark.parametrize(
    ("replies", "counts"),
    [
        (None, {"fewer_than_two": 1}),
        ([], {"fewer_than_two": 1}),
        ([("only", 0)], {"fewer_than_two": 1}),
        ([("best", 0), ("unranked", None)], {"unranked": 1, "fewer_than_two": 1}),
        ([("same", 0), ("same", 1)], {"repeated_text": 1, "fewer_than_two": 1}),
    ],
)
def test_fewer_than_two_replies(tmp_path: Path, replies: Any, counts: dict[str, int]) -> None:
    path = jsonl(tmp_path, tree(replies, text="Ho?"), tree(TWO))
    found = read_ranked(path)
    assert kept(found) == [TWO]
    assert found.left_out == counts
    # It stays a prompt, and with one reply an example for IFT.
    assert len(read_prompts(path).prompts) == 2


def test_of_a_repeated_text_the_better_rank_is_kept(tmp_path: Path) -> None:
    found = read_ranked(jsonl(tmp_path, tree([("a", 2), ("b", 1), ("a", 0), ("a", 3), ("c", 4)])))
    assert kept(found) == [[("a", 0), ("b", 1), ("c", 4)]]
    assert found.left_out == {"repeated_text": 2}


def test_deeper_replies_are_not_looked_at(tmp_path: Path) -> None:
    deeper = [{"rank": "first", "text": 3}]
    found = read_ranked(jsonl(tmp_path, tree([reply("best", 0, replies=deeper), ("worse", 1)])))
    assert kept(found) == [TWO]
    assert found.left_out == {}


def test_a_prompt_that_stands_there_twice_is_one(tmp_path: Path) -> None:
    found = read_ranked(jsonl(tmp_path, tree(TWO), tree(TWO)))
    assert kept(found) == [TWO]
    assert found.account.duplicates == 1


def test_two_rankings_of_one_prompt_are_merged(tmp_path: Path) -> None:
    path = jsonl(tmp_path, seed(("b", 0), ("c", 1)), seed(("a", 5), ("b", 9)))
    assert kept(read_ranked(path)) == [[("a", 0), ("b", 1), ("c", 2)]]


def test_counts_add_up_over_the_file_in_the_order_of_the_reasons(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        tree([*TWO, reply("", 2), reply("", 3)]),
        tree(TWO, deleted=True),
        tree([*TWO, reply("", 2)], text="Ho?"),
    )
    assert list(read_ranked(path).left_out.items()) == [("prompt_deleted", 1), ("empty", 3)]


def test_our_own_format_is_held_to_the_same_rules(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        seed(("b", 1), ("a", 1), ("best", 0), ("b", 2), (" ", 3), ("no rank", None), (LONG, 4)),
        seed(*TWO, prompt=" "),
        seed(*TWO, prompt=LONG),
        seed(("only", 0), prompt="Sing."),
        seed(("a", 0), ("b", 0), prompt="Read."),
    )
    found = read_ranked(path)
    assert kept(found) == [[("best", 0), ("b", 1), ("a", 1)]]
    assert found.left_out == {
        "prompt_empty": 1,
        "prompt_too_long": 1,
        "empty": 1,
        "too_long": 1,
        "unranked": 1,
        "repeated_text": 1,
        "fewer_than_two": 1,
        "no_order": 1,
        "equal_ranks": 1,
    }


@pytest.mark.parametrize(
    ("rank", "shown"),
    [
        (True, "a boolean"),
        (False, "a boolean"),
        ("first", "first"),
        (0.5, "0.5"),
        (-1, "-1"),
        (2**31, "2147483648"),
        ([0], "an array"),
    ],
)
def test_under_strict_a_malformed_rank_refuses_the_file(
    tmp_path: Path, rank: Any, shown: str
) -> None:
    path = jsonl(tmp_path, tree(TWO), tree([*TWO, reply("bad", rank)], text="Ho?"))
    assert kept(read_ranked(path)) == [TWO]
    with pytest.raises(BrokenFile) as caught:
        read_ranked(path, strict=True)
    assert caught.value.context == {"lines": [2]}
    assert (
        f'  line 2: the "rank" of reply 3 is {shown}, not a whole number from 0 to 2147483647\n'
    ) in caught.value.message


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"prompt": "A", "responses": 3}, '"responses" is a number, not a list'),
        (seed(*TWO, prompt=None), '"prompt" is null, not a text'),
        (seed(*TWO, id="\0"), "the id: a text holds a NUL character, which cannot be stored"),
        (
            seed(*TWO, prompt="a\ud83d"),
            "turn 1: a text holds half a surrogate pair (\\ud83d)",
        ),
    ],
)
def test_a_malformed_record_of_ours_is_left_out(
    tmp_path: Path, raw: dict[str, Any], problem: str
) -> None:
    found = read_ranked(jsonl(tmp_path, seed(*TWO), raw))
    assert [(item.line, item.problem) for item in found.skipped] == [(2, problem)]
    assert kept(found) == [TWO]


@pytest.mark.parametrize("text", ["b\0", "\ud83d"])
def test_one_unstorable_reply_leaves_the_others(tmp_path: Path, text: str) -> None:
    found = read_ranked(jsonl(tmp_path, tree([("best", 0), (text, 1), ("worse", 2)])))
    assert kept(found) == [[("best", 0), ("worse", 2)]]
    assert found.left_out == {"unstorable": 1}


def test_a_line_that_is_no_json_is_left_out(tmp_path: Path) -> None:
    path = jsonl(tmp_path, tree(TWO))
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(BrokenFile, match="line 1: not valid JSON at column 1"):
        read_ranked(path, strict=True)
    found = read_ranked(path)
    assert [item.line for item in found.skipped] == [1]
    assert kept(found) == [TWO]


@pytest.mark.parametrize("strict", [False, True])
def test_a_file_without_a_good_line_is_refused_in_any_case(tmp_path: Path, strict: bool) -> None:
    path = jsonl(tmp_path, tree([("bad", -1)]))
    with pytest.raises(BrokenFile, match=r"1 broken line and no good one; nothing"):
        read_ranked(path, strict=strict)


def test_if_nothing_is_left_the_error_says_why(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        tree(TWO, lang="de"),
        tree(TWO, lang="es"),
        tree([("a", 0), ("b", 0)], text="Ho?"),
        tree([("a", 0), ("b", None)], text="Hu?"),
        [1],
    )
    with pytest.raises(InvalidInput) as caught:
        read_ranked(path)
    assert not isinstance(caught.value, BrokenFile)
    assert caught.value.message.startswith(
        f"{path}: no prompt with ranked responses is left. Left out were: 1 broken_line, "
        "2 prompt_other_language, 1 unranked, 1 fewer_than_two, 1 no_order."
    )


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"is empty\. Give a file"):
        read_ranked(jsonl(tmp_path))


@pytest.mark.skipif(not TREES.is_file(), reason="the shared data is not here")
def test_the_real_trees() -> None:
    found = read_ranked(TREES)
    trees = [json.loads(line) for line in TREES.read_text(encoding="utf-8").splitlines()]
    roots = [tree["prompt"] for tree in trees]
    by_rank = [
        [r["text"] for r in sorted(root["replies"], key=lambda r: int(r["rank"]))] for root in roots
    ]
    assert len(found.prompts) == 70
    assert (found.skipped, found.left_out) == ((), {})
    assert [[r.text for r in ranked.responses] for ranked in found.prompts] == by_rank
    assert [ranked.prompt.reference for ranked in found.prompts] == [t[0] for t in by_rank]
    num_responses = Counter(len(ranked.responses) for ranked in found.prompts)
    assert num_responses == {2: 7, 3: 45, 4: 14, 5: 1, 6: 1, 8: 1, 9: 1}
    assert sum(n * count for n, count in num_responses.items()) == 233


def test_the_best_of_bad_answers_is_ranked_and_not_to_be_imitated(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        {"prompt": "a", "response": "poor", "helpfulness": 1},
        {"prompt": "a", "response": "awful", "helpfulness": 0},
        {"prompt": "b", "response": "fine", "helpfulness": 4},
        {"prompt": "b", "response": "weak", "helpfulness": 2},
    )
    read = read_ranked(path)
    found = {p.prompt.messages[-1]["content"]: p.responses for p in read.prompts}
    assert found["a"] == (RankedText("poor", 0, imitate=False), RankedText("awful", 1, False))
    assert found["b"] == (RankedText("fine", 0), RankedText("weak", 1, imitate=False))
    assert "1 of the rankings give no example to imitate" in read.account.notes[0]
