"""ROUGE-L as the rouge-score package has it, and an index that loses nothing."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rapidfuzz.distance import LCSseq
from rouge_score.rouge_scorer import RougeScorer

from rewardloop.method import similarity
from rewardloop.method.similarity import SimilarityIndex, tokens

SEEDS = Path(similarity.__file__).parents[1] / "seeds" / "prompts.jsonl"
ROUGE = RougeScorer(["rougeL"], use_stemmer=False)


def seed_prompts() -> list[str]:
    return [str(json.loads(line)["prompt"]) for line in SEEDS.read_text().splitlines()]


def rouge_l(a: str, b: str) -> float:
    """F1 = 2 LCS / (m + n) of two texts of m and n tokens; 0 where neither has a token."""
    first, second = tokens(a), tokens(b)
    whole = len(first) + len(second)
    return 2 * LCSseq.similarity(first, second) / whole if whole else 0.0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't STOP_me, 2x!", ["don", "t", "stop", "me", "2x"]),
        ("Naïve café, Straße", ["na", "ve", "caf", "stra", "e"]),
        ("", []),
        ("?!", []),
        ("写一首诗。", ["写", "一", "首", "诗"]),
        ("Напиши на Python!", ["напиши", "на", "python"]),
        ("Write Привет in Latin", ["write", "in", "latin"]),
    ],
)
def test_tokens(text: str, found: list[str]) -> None:
    assert tokens(text) == found


def test_rouge_l_by_hand() -> None:
    # LCS is "name three big rivers": 4 of 4 and of 6 tokens.
    assert rouge_l("Name three big rivers", "Name me three big old rivers") == pytest.approx(0.8)
    assert rouge_l("a b", "b a") == pytest.approx(0.5)
    assert rouge_l("same words", "Same words?") == 1
    assert rouge_l("?", "?") == 0


def reference(a: str, b: str) -> float:
    return float(ROUGE.score(a, b)["rougeL"].fmeasure)


def test_rouge_l_is_that_of_the_rouge_score_package() -> None:
    prompts = seed_prompts()
    pairs = [(a, b) for i, a in enumerate(prompts[:40]) for b in prompts[i : i + 8]]
    for a, b in pairs:
        assert rouge_l(a, b) == pytest.approx(reference(a, b), abs=1e-9)
    assert sum(rouge_l(a, b) > 0.1 for a, b in pairs) > 50


ODD = st.lists(
    st.sampled_from(["aB", "b1", "caf\u00e9", "\u0130x", "\u212a", "_", "-", " ", "\n", "\u00b2"])
)


@given(ODD.map("".join), ODD.map("".join))
def test_rouge_l_is_that_of_the_package_for_odd_texts(a: str, b: str) -> None:
    mostly_ascii = "xyz" * 20
    a, b = mostly_ascii + a, mostly_ascii + b
    assert rouge_l(a, b) == pytest.approx(reference(a, b), abs=1e-9)


# The index loses nothing


def by_brute_force(text: str, known: Iterable[str], threshold: float) -> float | None:
    """The highest F1 that reaches the threshold."""
    return max((f1 for other in known if (f1 := rouge_l(text, other)) >= threshold), default=None)


WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=12).map(" ".join)
FEW_WORDS = st.lists(st.sampled_from("ab"), max_size=25).map(" ".join)
THRESHOLDS = st.sampled_from([1e-6, 0.1, 0.3, 0.5, 0.55, 2 / 3, 0.7, 0.9, 1.0])


@given(st.lists(WORDS, max_size=8), st.lists(WORDS | FEW_WORDS, max_size=25), THRESHOLDS)
def test_the_index_finds_what_brute_force_finds(
    first: list[str], texts: list[str], threshold: float
) -> None:
    index = SimilarityIndex(threshold, 100, first)
    known = list(first)
    for text in texts:
        found = index.nearest(text)
        assert (None if found is None else found[0]) == by_brute_force(text, known, threshold)
        index.add(text)
        known.append(text)


@st.composite
def edited(draw: st.DrawFn) -> list[str]:
    """A long text and copies of it with runs cut, words changed or the halves swapped."""
    text = draw(st.lists(st.sampled_from([f"w{i}" for i in range(30)]), min_size=5, max_size=60))
    copies = []
    for _ in range(6):
        start = draw(st.integers(0, len(text)))
        end = draw(st.integers(start, len(text)))
        filling = draw(st.lists(st.sampled_from(["w1", "w2", "new"]), max_size=20))
        copies.append(" ".join([*text[:start], *filling, *text[end:]]))
    return [" ".join(text), *copies]


@given(edited(), THRESHOLDS)
def test_the_index_finds_edited_copies(texts: list[str], threshold: float) -> None:
    index = SimilarityIndex(threshold, 200, texts[:2])
    for number, text in enumerate(texts[2:], start=2):
        found = index.nearest(text)
        expected = by_brute_force(text, texts[:number], threshold)
        assert (None if found is None else found[0]) == expected
        index.add(text)


def test_similarity_of_exactly_the_threshold_is_too_much() -> None:
    # 7 of 10 words the same: F1 = 14 / 20 = 0.7; of 13 and 17 words 10.5 would be needed.
    index = SimilarityIndex(0.7, 100, ["a b c d e f g h i j"])
    assert index.nearest("a b c d e f g x y z") == (0.7, "a b c d e f g h i j")
    assert index.nearest("a b c d e f w x y z") is None


def test_rounding_hides_no_text_at_the_threshold() -> None:
    # 7 of 12 and of 13 words: 14 / 25 = 0.56, but 0.56 * 25 / 2 is computed as 7.000000000000001.
    index = SimilarityIndex(0.56, 100, ["a b c d e f g h i j k l m"])
    assert index.nearest("a b c d e f g p q r s t") == (0.56, "a b c d e f g h i j k l m")


def test_words_that_no_text_has_do_not_push_out_those_in_common() -> None:
    index = SimilarityIndex(0.7, 100, ["p q r a b c d e f g"])
    assert index.nearest("a b c d e f g x y z") == (0.7, "p q r a b c d e f g")


def test_the_most_similar_text_is_named_of_equals_the_first() -> None:
    index = SimilarityIndex(0.5, 100, ["a b c x y", "a b c d x", "a b c d y", "p q"])
    assert index.nearest("a b c d e") == (0.8, "a b c d x")


def test_texts_too_long_to_be_similar_to_any_are_not_indexed() -> None:
    # At 0.5 a text of 10 tokens can be similar to one of 30, with 10 in common: 20 / 40.
    index = SimilarityIndex(0.5, 10, [])
    index.add(" ".join(f"w{i}" for i in range(31)))
    assert index._sequences == []
    index.add(" ".join(f"w{i}" for i in range(30)))
    assert index.nearest(" ".join(f"w{i}" for i in range(10))) is not None


def test_a_similar_text_is_named_by_its_first_200_characters() -> None:
    index = SimilarityIndex(0.5, 100, ["word " * 60])
    found = index.nearest("word " * 60)
    assert found == (1.0, "word " * 40)


def test_lengths_between_which_a_text_can_be_similar() -> None:
    """7 tokens, all of them in a text of 13: F1 = 14 / 20 = 0.7."""
    index = SimilarityIndex(0.7, 100, [])
    assert (index._shortest(13), index._longest(7)) == (7, pytest.approx(13))
    assert (index._shortest(14), index._common(20), index._common(21)) == (8, 7, 8)


def test_texts_with_too_many_other_tokens_are_not_compared() -> None:
    """Of 20 tokens 6 may stand in one text alone, or F1 is under 0.7."""
    index = SimilarityIndex(0.7, 100, ["a b c d e f g h i j", "p q r s t u v w x y"])
    looked_up = index._number(tokens("w v u a b c d e f g"))
    assert set(index._posted(looked_up)) == {0, 1}
    assert index._candidates(looked_up) == [0]


def test_a_text_is_indexed_and_looked_up_by_its_rarest_tokens_alone() -> None:
    """10 tokens: a similar text has 6 or more, so 16 in all and 6 in common, and one of the 5
    rarest is among them. Of two texts with 10 each 7 are in common, so 4 are looked up."""
    index = SimilarityIndex(0.7, 100, ["a b c d e f g h i j"])
    assert {length: len(found) for length, found in index._postings.items()} == {10: 5}
    assert list(index._posted(index._number(tokens("a b c d e f w x y z")))) == []
    assert list(index._posted(index._number(tokens("a b c d e f g x y z")))) == [0]
