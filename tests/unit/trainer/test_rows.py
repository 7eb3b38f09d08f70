from typing import Any

import pytest

from rewardloop.chat_tokens import control_tokens, prompt_ids
from services.trainer.rows import Ledger, Maker, maker
from tests.unit.cases import for_each
from tests.unit.small_tokenizers import FAMILIES

QUESTION = [{"role": "user", "content": "Count."}]
PROMPT = "<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\n"


def made(family: str = "chatml", max_length: int = 200) -> Maker:
    tokenizer = FAMILIES[family]()
    return maker(tokenizer, max_length, set(control_tokens(tokenizer).values()), Ledger())


def pair(chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    sides = {"chosen": chosen, "rejected": rejected}
    said = {side: [{"role": "assistant", "content": text}] for side, text in sides.items()}
    return {"prompt": QUESTION, **said, **more}


def example(completion: str, **more: Any) -> dict[str, Any]:
    return {"prompt": QUESTION, "completion": completion, **more}


def learnt(maker: Maker, row: dict[str, Any]) -> str:
    return str(maker.tokenizer.decode([token for token in row["labels"] if token != -100]))


def test_a_pair_is_the_engines_prompt_and_two_answers_with_their_end() -> None:
    rows = made()
    (row,) = rows.pairs([pair("One, two.", " No. \n")])
    texts = {key: rows.tokenizer.decode(ids) for key, ids in row.items()}
    assert texts == {
        "prompt_ids": PROMPT,
        "chosen_ids": "One, two.<|im_end|>",
        "rejected_ids": " No. \n<|im_end|>",
    }
    assert rows.ledger.told() == {}


@for_each("family", sorted(set(FAMILIES) - {"words", "unigram"}))
def test_no_template_alters_an_answer(family: str) -> None:
    """Two families have no tokens for these answers."""
    rows = made(family)
    thinking = "<think>\nred?\n</think>\n\n Blue. \n"
    (row,) = rows.pairs([pair(thinking, " a ")])
    assert row["prompt_ids"] == prompt_ids(rows.tokenizer, QUESTION)
    decode = rows.tokenizer.decode
    (end,) = rows.end
    for side, text in (("chosen_ids", thinking), ("rejected_ids", " a ")):
        *body, last = row[side]
        assert last == end
        assert decode(row["prompt_ids"] + body) == decode(row["prompt_ids"]) + text
    assert rows.ledger.told() == {}


def test_an_answer_that_was_cut_has_no_end_on_either_side() -> None:
    rows = made()
    both = [
        pair("One, two, thr", "No.", chosen_is_cut=True),
        pair("No.", "One, two, thr", chosen_is_cut=False, rejected_is_cut=True),
    ]
    found = [[rows.tokenizer.decode(r[f"{side}_ids"]) for side in ("chosen", "rejected")]
             for r in rows.pairs(both)]  # fmt: skip
    assert found == [["One, two, thr", "No.<|im_end|>"], ["No.<|im_end|>", "One, two, thr"]]
    assert rows.ledger.told() == {"num_chosen_without_end": 1, "num_rejected_without_end": 1}


def test_a_winner_that_was_cut_has_no_end() -> None:
    rows = made()
    first, second = rows.examples(
        [example("One, t", kind="winner", is_cut=True), example("One.", kind="winner")]
    )
    assert (learnt(rows, first), learnt(rows, second)) == ("One, t", "One.<|im_end|>")
    assert rows.tokenizer.decode(first["input_ids"]) == f"{PROMPT}One, t"
    assert rows.ledger.told() == {"num_winner_without_end": 1}


def room_for(num_tokens: int) -> int:
    """A max_length that leaves so many tokens behind the prompt."""
    return len(prompt_ids(FAMILIES["chatml"](), QUESTION)) + num_tokens


def test_what_max_length_cuts_is_counted_by_side() -> None:
    rows = made(max_length=room_for(4))
    first, second = rows.pairs([pair("abc", "abcd"), pair("xxxxxx", "yyyyyy")])
    # Four tokens: "abc" and its end just fit; "abcd" has lost its end.
    assert rows.tokenizer.decode(first["chosen_ids"]) == "abc<|im_end|>"
    assert rows.tokenizer.decode(first["rejected_ids"]) == "abcd"
    assert rows.tokenizer.decode(second["chosen_ids"]) == "xxxx"
    assert rows.ledger.told() == {
        "num_chosen_cut_by_max_length": 1,
        "num_rejected_cut_by_max_length": 2,
    }


def test_what_max_length_cuts_is_counted_by_kind() -> None:
    rows = made(max_length=room_for(4))
    kinds = ["ift", "ift", "winner"]
    kept = rows.examples([example("abcdef", kind=kind) for kind in kinds])
    assert [learnt(rows, row) for row in kept] == ["abcd"] * 3
    assert rows.ledger.told() == {
        "num_ift_cut_by_max_length": 2,
        "num_winner_cut_by_max_length": 1,
    }


def test_a_judgement_that_would_lose_its_score_is_left_out() -> None:
    fits, loses_end, loses_score = "S: 5", "SS: 5", "Good. Score: 5"
    rows = made(max_length=room_for(5))
    kept = rows.examples([example(text, kind="eft") for text in (fits, loses_end, loses_score)])
    assert [learnt(rows, row) for row in kept] == ["S: 5<|im_end|>"]
    told = rows.ledger.told()
    assert told["num_dropped"] == 2
    assert "lose its score" in told["why"]


@pytest.mark.parametrize(
    ("one", "num_tokens", "why"),
    [
        (pair("same words, A", "same words, B"), 8, "the same tokens at max_length"),
        (pair("same", "same"), 50, "the two sides are the same tokens"),
        (pair("", "b", chosen_is_cut=True), 50, "a side has no token"),
        (pair("a", "", rejected_is_cut=True), 50, "a side has no token"),
        (pair("a", "b"), 0, "the prompt alone fills max_length"),
    ],
)
def test_a_pair_that_teaches_nothing_is_left_out(
    one: dict[str, Any], num_tokens: int, why: str
) -> None:
    rows = made(max_length=room_for(num_tokens))
    assert rows.pairs([one]) == []
    assert why in rows.ledger.told()["why"]
    assert rows.ledger.nothing_left().startswith("nothing is left to train on: in all 1 rows")


def test_reasons_are_counted_one_by_one() -> None:
    rows = made("mistral", max_length=40)
    twice = [*QUESTION, *QUESTION]
    long = [{"role": "user", "content": "x" * 60}]
    pairs = [pair("a", "b") | {"prompt": prompt} for prompt in (twice, long, QUESTION, twice)]
    assert len(rows.pairs(pairs)) == 1
    told = rows.ledger.told()
    assert (told["num_trained"], told["num_dropped"]) == (1, 3)
    assert told["why"] == (
        "in 2 the chat template refuses the conversation: Conversation roles must alternate user "
        "and assistant; in 1 the prompt alone fills max_length, 40 tokens"
    )
    assert "of 4 rows in 2" in rows.ledger.nothing_left()


def test_texts_that_a_tokenizer_cannot_write_are_counted() -> None:
    rows = made("unigram")
    assert len(rows.pairs([pair("é 漢", "a b"), pair("a", "b")])) == 2
    assert rows.ledger.told() == {"num_chosen_not_restored_by_tokenizer": 1}


def test_control_tokens_that_a_row_spells_are_text_and_counted() -> None:
    rows = made()
    (row,) = rows.pairs([pair("a<|im_end|>\n<|im_start|>user\nb", "c")])
    assert rows.tokenizer.decode(row["chosen_ids"]) == "a<|im_end|>\n<|im_start|>user\nb<|im_end|>"
    assert row["chosen_ids"].count(rows.tokenizer.eos_token_id) == 1
    assert rows.ledger.told() == {"num_rows_that_spell_control_tokens": 1}


def test_what_people_wrote_holds_no_sampled_mark() -> None:
    rows = made("qwen_3")
    think = rows.tokenizer.convert_tokens_to_ids("<think>")
    human, sampled = rows.examples(
        [example("<think>a", kind="ift"), example("<think>a", kind="winner")]
    )
    assert think not in human["input_ids"]
    assert think in sampled["input_ids"]
