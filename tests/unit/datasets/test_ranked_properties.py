"""`read_ranked` on random files: each record and each reply is kept, counted, or told as broken."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rewardloop.datasets import LeftOut, RankedResult, read_ranked
from rewardloop.errors import InvalidInput

FIT = ["a", "b", "c", "d"]
TEXT = st.sampled_from([*FIT * 5, " ", "\0", "\ud800", "x" * 20_001])
LANGUAGE = st.sampled_from([*["en"] * 9, "de"])
REPLY = st.fixed_dictionaries(
    {
        "text": TEXT,
        "lang": LANGUAGE,
        "rank": st.sampled_from([*[0, 0, 1, 1, 2, 3, None] * 5, True, -1, 0.5]),
    },
    optional={"deleted": st.sampled_from([False, False, None, True])},
)
TREE = st.fixed_dictionaries(
    {
        "message_tree_id": st.sampled_from(["t", None]),
        "prompt": st.fixed_dictionaries(
            {
                "text": TEXT,
                "lang": LANGUAGE,
                "role": st.just("prompter"),
                "deleted": st.sampled_from([False, False, False, True]),
                "replies": st.lists(REPLY, max_size=2) | st.lists(REPLY, min_size=3, max_size=6),
            }
        ),
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 3) | st.floats() | st.sampled_from(["", "a", "en"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "rank", "replies"]), inner, max_size=3)
    ),
    max_leaves=5,
)
SPOILT_TREE = st.builds(
    lambda tree, key, value: tree | {"prompt": tree["prompt"] | {key: value}},
    TREE,
    st.sampled_from(["text", "role", "lang", "deleted", "replies"]),
    JSON | st.lists(JSON, max_size=3),
)
OURS = st.fixed_dictionaries(
    {"prompt": TEXT | JSON, "responses": JSON | st.lists(REPLY | JSON, max_size=4)}
)

TWO = [{"text": "a", "lang": "en", "rank": 0}, {"text": "b", "lang": "en", "rank": 1}]
GOOD_TREE = {
    "message_tree_id": "good",
    "prompt": {"text": "Hi?", "lang": "en", "role": "prompter", "replies": TWO},
}
GOOD_OURS = {"prompt": "Hi?", "responses": TWO}

OF_RECORDS = {
    LeftOut.PROMPT_DELETED,
    LeftOut.PROMPT_EMPTY,
    LeftOut.PROMPT_OTHER_LANGUAGE,
    LeftOut.PROMPT_TOO_LONG,
    LeftOut.FEWER_THAN_TWO,
    LeftOut.NO_ORDER,
}
OF_REPLIES = {
    LeftOut.DELETED,
    LeftOut.EMPTY,
    LeftOut.OTHER_LANGUAGE,
    LeftOut.TOO_LONG,
    LeftOut.UNRANKED,
    LeftOut.REPEATED_TEXT,
}


def jsonl(folder: Path, rows: Sequence[object]) -> Path:
    path = folder / "random.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def num_left_out(found: RankedResult, reasons: set[LeftOut]) -> int:
    return sum(found.left_out.get(why, 0) for why in reasons)


def check(found: RankedResult, num_rows: int) -> None:
    for ranked in found.prompts:
        ranks = [response.rank for response in ranked.responses]
        texts = [response.text for response in ranked.responses]
        assert ranks == sorted(ranks)
        assert len(set(ranks)) >= 2
        assert len(set(texts)) == len(texts)
        assert ranked.prompt.reference == texts[0]
        assert all(text.strip() and len(text) <= 20_000 and "\0" not in text for text in texts)
    num_gone = num_left_out(found, OF_RECORDS)
    assert len(found.prompts) + len(found.skipped) + num_gone == num_rows


@given(
    st.sampled_from([[GOOD_TREE], [GOOD_TREE], [GOOD_OURS], []]),
    st.lists(TREE | SPOILT_TREE | OURS | JSON, max_size=5),
    st.booleans(),
)
def test_a_file_is_read_or_refused_in_our_own_words(
    tmp_path_factory: pytest.TempPathFactory, head: list[object], rows: list[object], skip: bool
) -> None:
    path = jsonl(tmp_path_factory.getbasetemp(), head + rows)
    try:
        found = read_ranked(path, skip_broken=skip)
    except InvalidInput:
        found = None
    event("refused" if found is None else "read")
    if found is None:
        assert not (head and skip), "the good record in front is left"
        return
    assert skip or not found.skipped
    check(found, len(head) + len(rows))


def is_fit(message: dict[str, Any]) -> bool:
    """A prompt has no rank."""
    return (
        message.get("deleted") is not True
        and message["lang"] == "en"
        and message["text"] in FIT
        and message.get("rank", 0) is not None
    )


@given(st.lists(TREE, min_size=1, max_size=5))
def test_each_reply_is_kept_or_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    found = read_ranked(jsonl(tmp_path_factory.getbasetemp(), [GOOD_TREE, *rows]), skip_broken=True)
    check(found, 1 + len(rows))
    broken = {item.line for item in found.skipped}
    prompts = [row["prompt"] for line, row in enumerate(rows, start=2) if line not in broken]
    wanted = [prompt["replies"] for prompt in prompts if is_fit(prompt)]
    fit = [{reply["text"] for reply in replies if is_fit(reply)} for replies in wanted]
    event(f"trees with two fit replies: {sum(len(texts) > 1 for texts in fit)}")
    assert found.left_out.get("fewer_than_two", 0) == sum(len(texts) < 2 for texts in fit)
    num_replies = sum(map(len, wanted))
    assert num_left_out(found, OF_REPLIES) + sum(map(len, fit)) == num_replies
