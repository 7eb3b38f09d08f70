"""`read_ranked`: which prompts and responses are kept, and that all else is counted or told."""

import json
import re
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


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"deleted": True}, "prompt_deleted"),
        ({"deleted": True, "text": None}, "prompt_deleted"),
        ({"text": ""}, "prompt_empty"),
        ({"text": " \n"}, "prompt_empty"),
        ({"lang": "de"}, "prompt_other_language"),
        ({"text": LONG}, "prompt_too_long"),
        ({"text": "x" * 200_000}, "prompt_too_long"),
    ],
)
def test_an_unwanted_prompt_leaves_out_its_tree(
    tmp_path: Path, change: dict[str, Any], why: str
) -> None:
    # The unwanted tree's reply is unwanted too, and not counted for itself.
    unwanted = tree([*TWO, reply("gone", 2, deleted=True)], **change)
    found = read_ranked(jsonl(tmp_path, unwanted, tree(TWO)))
    assert kept(found) == [TWO]
    assert found.left_out == {why: 1}


@pytest.mark.parametrize(
    ("unwanted", "why"),
    [
        (reply("gone", 0, deleted=True), "deleted"),
        (reply(None, None, deleted=True), "deleted"),
        (reply("", 0), "empty"),
        (reply(" \n", 0), "empty"),
        (reply("hallo", 0, lang="de"), "other_language"),
        (reply("unranked", None), "unranked"),
        ({"text": "unranked", "lang": "en"}, "unranked"),
        (reply(LONG, 0), "too_long"),
        (reply("x" * 200_000, 0), "too_long"),
        (reply(LONG + "\0\ud83d", 0), "too_long"),
    ],
)
def test_an_unwanted_reply_is_left_out(tmp_path: Path, unwanted: dict[str, Any], why: str) -> None:
    found = read_ranked(jsonl(tmp_path, tree([unwanted, ("best", 1), ("worse", 2)])))
    assert kept(found) == [[("best", 1), ("worse", 2)]]
    assert found.prompts[0].prompt.reference == "best"
    assert found.left_out == {why: 1}


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
    found = read_ranked(jsonl(tmp_path, tied, tree(TWO)))
    assert kept(found)[0] == [("zebra", 0), ("aardvark", 0), ("worst", 1), ("also worst", 1)]
    assert found.prompts[0].prompt.reference == "zebra"
    assert found.left_out == {"equal_ranks": 1}


def test_one_rank_for_all_is_no_order(tmp_path: Path) -> None:
    found = read_ranked(jsonl(tmp_path, tree([("a", 3), ("b", 3), ("c", 3)]), tree(TWO)))
    assert kept(found) == [TWO]
    assert found.left_out == {"no_order": 1}


def test_no_order_is_looked_for_in_what_is_left(tmp_path: Path) -> None:
    torn = tree([("a", 0), ("b", 0), reply("gone", 1, deleted=True)])
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
    path = jsonl(tmp_path, tree(replies), tree(TWO))
    found = read_ranked(path)
    assert kept(found) == [TWO]
    assert found.left_out == counts
    # It stays a prompt, and with one reply an example for IFT.
    assert len(read_prompts(path).prompts) == 2


def test_a_tree_without_the_key_replies_has_none(tmp_path: Path) -> None:
    bare = tree(None)
    del bare["prompt"]["replies"]
    assert read_ranked(jsonl(tmp_path, bare, tree(TWO))).left_out == {"fewer_than_two": 1}


def test_of_a_repeated_text_the_better_rank_is_kept(tmp_path: Path) -> None:
    found = read_ranked(jsonl(tmp_path, tree([("a", 2), ("b", 1), ("a", 0), ("a", 3), ("c", 4)])))
    assert kept(found) == [[("a", 0), ("b", 1), ("c", 4)]]
    assert found.left_out == {"repeated_text": 2}


def test_a_repeated_text_is_no_tie(tmp_path: Path) -> None:
    found = read_ranked(jsonl(tmp_path, tree([("a", 0), ("a", 0), ("b", 1)])))
    assert kept(found) == [[("a", 0), ("b", 1)]]
    assert found.left_out == {"repeated_text": 1}


def test_deeper_replies_are_not_looked_at(tmp_path: Path) -> None:
    deeper = [{"rank": "first", "text": 3}]
    found = read_ranked(jsonl(tmp_path, tree([reply("best", 0, replies=deeper), ("worse", 1)])))
    assert kept(found) == [TWO]
    assert found.left_out == {}


def test_a_prompt_that_stands_there_twice_is_handed_on_twice(tmp_path: Path) -> None:
    assert kept(read_ranked(jsonl(tmp_path, tree(TWO), tree(TWO)))) == [TWO, TWO]


def test_counts_add_up_over_the_file_in_the_order_of_the_reasons(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        tree([*TWO, reply("", 2), reply("", 3)]),
        tree(TWO, deleted=True),
        tree([*TWO, reply("", 2)]),
    )
    assert list(read_ranked(path).left_out.items()) == [("prompt_deleted", 1), ("empty", 3)]


def test_our_own_format_is_sifted_by_the_same_rules(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        seed(("b", 1), ("a", 1), ("best", 0), ("b", 2), (" ", 3), ("no rank", None), (LONG, 4)),
        seed(*TWO, prompt=" "),
        seed(*TWO, prompt=LONG),
        seed(("only", 0)),
        seed(("a", 0), ("b", 0)),
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
        ("0", "a text"),
        (0.0, "0.0"),
        (-1, "-1"),
        (2**31, "2147483648"),
        ([0], "an array"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"deleted": True}])
def test_a_malformed_rank_breaks_its_line(
    tmp_path: Path, rank: Any, shown: str, more: dict[str, Any]
) -> None:
    path = jsonl(tmp_path, tree(TWO), tree([*TWO, reply("bad", rank, **more)]))
    with pytest.raises(BrokenFile) as caught:
        read_ranked(path)
    assert caught.value.context == {"lines": [2]}
    assert caught.value.message == (
        f"{path} has 1 broken line; nothing was imported.\n"
        f'  line 2: the "rank" of reply 3 is {shown}, not a whole number from 0 to 2147483647\n'
        "Mend them, or pass --skip-broken to leave them out."
    )


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        (tree([("a\0b", 0), ("c", 1)]), "a text holds a NUL character, which cannot be stored"),
        (tree([("a", 0), ("b\0", 1)]), "a text holds a NUL character, which cannot be stored"),
        (tree([("a", 0), ("\ud83d", 1)]), "a text holds half a surrogate pair (\\ud83d)"),
        (tree(TWO, text="a\0b"), "a text holds a NUL character, which cannot be stored"),
        (tree(TWO, text="\udc00"), "a text holds half a surrogate pair (\\udc00)"),
        (tree([("a", 0), (3, 1)]), '"text" is a number, not a text'),
        (tree(["a"]), '"replies" element 1 is a text, not an object'),
        (tree("a"), '"replies" is a text, not a list'),
        (tree(TWO, role="assistant"), '"prompt" has the role "assistant", not "prompter"'),
        (tree(TWO, lang=None), '"lang" is null, not a text'),
        ({"message_tree_id": "t1"}, '"prompt" is missing'),
        (seed(*TWO), '"prompt" is a text, not an object'),
    ],
)
def test_a_malformed_tree_is_a_broken_line(
    tmp_path: Path, raw: dict[str, Any], problem: str
) -> None:
    found = read_ranked(jsonl(tmp_path, tree(TWO), raw), skip_broken=True)
    assert [(item.line, item.problem) for item in found.skipped] == [(2, problem)]
    assert kept(found) == [TWO]
    assert found.left_out == {}


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ({"prompt": "A"}, '"responses" is missing'),
        (seed(*TWO, responses=None), '"responses" is null, not a list'),
        (seed(*TWO, prompt=None), '"prompt" is null, not a text'),
        (seed(("a", 0), ("b\0", 1)), "a text holds a NUL character, which cannot be stored"),
        (seed(*TWO, id="\0"), "a text holds a NUL character, which cannot be stored"),
    ],
)
def test_a_malformed_record_of_ours_is_a_broken_line(
    tmp_path: Path, raw: dict[str, Any], problem: str
) -> None:
    found = read_ranked(jsonl(tmp_path, seed(*TWO), raw), skip_broken=True)
    assert [(item.line, item.problem) for item in found.skipped] == [(2, problem)]


def test_a_nul_in_a_reply_that_a_prompt_file_has_no_use_for_does_not_break_it(
    tmp_path: Path,
) -> None:
    path = jsonl(tmp_path, tree([("best", 0), ("b\0", 1)]))
    assert read_prompts(path).prompts[0].reference == "best"
    with pytest.raises(BrokenFile):
        read_ranked(path)


def test_a_line_that_is_no_json_is_told_and_can_be_skipped(tmp_path: Path) -> None:
    path = jsonl(tmp_path, tree(TWO))
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(BrokenFile, match="line 1: not valid JSON at column 1"):
        read_ranked(path)
    found = read_ranked(path, skip_broken=True)
    assert [item.line for item in found.skipped] == [1]
    assert kept(found) == [TWO]


@pytest.mark.parametrize("skip_broken", [False, True])
def test_a_file_without_a_good_line_is_refused_in_any_case(
    tmp_path: Path, skip_broken: bool
) -> None:
    path = jsonl(tmp_path, tree([("bad", -1)]))
    with pytest.raises(BrokenFile, match=r"1 broken line and no good one; nothing") as caught:
        read_ranked(path, skip_broken=skip_broken)
    assert "--format" not in caught.value.message


def test_if_nothing_is_left_the_error_says_why(tmp_path: Path) -> None:
    path = jsonl(
        tmp_path,
        tree(TWO, lang="de"),
        tree(TWO, lang="es"),
        tree([("a", 0), ("b", 0)]),
        tree([("a", 0), ("b", None)]),
        [1],
    )
    with pytest.raises(InvalidInput) as caught:
        read_ranked(path, skip_broken=True)
    assert not isinstance(caught.value, BrokenFile)
    assert caught.value.message == (
        f"{path}: no prompt with ranked responses is left. Left out were: "
        "2 prompt_other_language, 1 unranked, 1 fewer_than_two, 1 no_order, 1 broken line. "
        "A prompt needs two responses of different ranks, and both in the wanted language "
        "where the file tells one."
    )


def test_broken_lines_are_told_before_what_was_left_out(tmp_path: Path) -> None:
    with pytest.raises(BrokenFile, match="line 2: an array, not a JSON object"):
        read_ranked(jsonl(tmp_path, tree(TWO, lang="de"), [1]))


def test_an_empty_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"is empty\. Give a file"):
        read_ranked(jsonl(tmp_path))


@pytest.mark.parametrize(
    ("raw", "which"),
    [
        ({"prompt": "A", "response": "B"}, "is of neither ranked format, by its keys (prompt, re"),
        ({}, "is of neither ranked format, by its keys (none)"),
        (tree(TWO) | {"responses": []}, "may be of either ranked format, by its keys (message_t"),
    ],
)
def test_a_file_of_another_format(tmp_path: Path, raw: dict[str, Any], which: str) -> None:
    with pytest.raises(InvalidInput, match=f"line 1 {re.escape(which)}"):
        read_ranked(jsonl(tmp_path, raw, tree(TWO)))


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
