"""`read_ranked` on random files: each record and each reply is kept, counted, or told as broken.

Tests `rewardloop.datasets.reading`, `rewardloop.datasets.ranked`.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rewardloop.datasets import RankedResult, Reason, read_ranked
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
GOOD_TREE: dict[str, Any] = {
    "message_tree_id": "good",
    "prompt": {"text": "Hi?", "lang": "en", "role": "prompter", "replies": TWO},
}
GOOD_OURS = {"prompt": "Hi?", "responses": TWO}

OF_ROWS = {
    Reason.BROKEN_LINE,
    Reason.MALFORMED,
    Reason.UNKNOWN_SHAPE,
    Reason.UNSTORABLE,
    Reason.LABEL_NOT_UNDERSTOOD,
    Reason.PROMPT_DELETED,
    Reason.PROMPT_EMPTY,
    Reason.PROMPT_OTHER_LANGUAGE,
    Reason.PROMPT_TOO_LONG,
}


def jsonl(folder: Path, rows: Sequence[object]) -> Path:
    path = folder / "random.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def check(found: RankedResult) -> None:
    for ranked in found.prompts:
        ranks = [response.rank for response in ranked.responses]
        texts = [response.text for response in ranked.responses]
        assert ranks == sorted(ranks)
        assert len(set(ranks)) >= 2
        assert len({text.strip() for text in texts}) == len(texts)
        assert ranked.prompt.reference == texts[0]
        assert all(text.strip() and len(text) <= 20_000 and "\0" not in text for text in texts)


@given(
    st.sampled_from([[GOOD_TREE], [GOOD_TREE], [GOOD_OURS], []]),
    st.lists(TREE | SPOILT_TREE | OURS | JSON, max_size=5),
    st.booleans(),
)
def test_a_file_is_read_or_refused_in_our_own_words(
    tmp_path_factory: pytest.TempPathFactory, head: list[object], rows: list[object], strict: bool
) -> None:
    path = jsonl(tmp_path_factory.getbasetemp(), head + rows)
    try:
        found = read_ranked(path, strict=strict)
    except InvalidInput:
        event("refused")
        return
    event("read")
    assert not strict or not found.skipped
    assert found.account.num_rows == len(head) + len(rows)
    num_read = sum(found.account.formats.values())
    num_gone = len(found.skipped) + sum(
        told.count
        for reason, told in found.account.left_out.items()
        if reason.startswith("prompt_")
    )
    assert num_read + num_gone == found.account.num_rows
    check(found)


@given(st.lists(TREE, min_size=1, max_size=5))
def test_each_row_is_read_or_counted(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    """Every row has a prompt of its own, so that none is merged with another."""
    for number, row in enumerate(rows):
        words = row["prompt"]["text"]
        row["prompt"] |= {
            "text": words if not words.strip() or "\0" in words else f"{words}{number}"
        }
    good = {**GOOD_TREE, "prompt": {**GOOD_TREE["prompt"], "text": "good"}}
    found = read_ranked(jsonl(tmp_path_factory.getbasetemp(), [good, *rows]))
    check(found)
    left = found.left_out
    num_left_out = sum(left.get(reason, 0) for reason in OF_ROWS)
    # One reply's texts may be unstorable too; they are counted under the same name.
    num_prompts = len(found.prompts) + left.get("fewer_than_two", 0) + left.get("no_order", 0)
    assert num_prompts <= 1 + len(rows) <= num_prompts + num_left_out
