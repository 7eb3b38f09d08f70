"""Shots for the prompt model, and what of its writing is kept."""

import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from rewardloop.config import LANGUAGES, SelfInstruct
from rewardloop.method import self_instruct
from rewardloop.method.self_instruct import (
    PromptFilter,
    Rejected,
    Rejection,
    choose_shots,
    few_shot_prompt,
    other_language,
    written_prompt,
)
from tests.unit.cases import for_each

SEEDS = Path(self_instruct.__file__).parents[1] / "seeds" / "prompts.jsonl"
ROUGE = RougeScorer(["rougeL"], use_stemmer=False)
ANY = SelfInstruct(language=None, keywords=(), min_words=1)
"""Leaves similarity and length only."""

PARAGRAPH = "Describe the way from the old harbour to the lighthouse on the northern cliff."


def seed_prompts() -> list[str]:
    return [str(json.loads(line)["prompt"]) for line in SEEDS.read_text().splitlines()]


def reason(text: str, prompt_filter: PromptFilter) -> Rejection | None:
    rejected = prompt_filter.check(text)
    return None if rejected is None else rejected.reason


# Shots


def test_the_prompt_ends_where_the_next_task_begins() -> None:
    shots = ["Name a colour.", "Add these:\n  1\n\n  2\n"]
    header, blank, *tasks = few_shot_prompt(shots).split("\n")
    assert header.endswith(".")
    assert blank == ""
    assert tasks == ["Task 1: Name a colour.", "Task 2: Add these: 1 2", "Task 3:"]


def test_eight_shots_ask_for_the_ninth_task() -> None:
    text = few_shot_prompt([f"shot {number}" for number in range(8)])
    assert text.endswith("\nTask 8: shot 7\nTask 9:")


@pytest.mark.parametrize("stop", self_instruct.STOP)
def test_no_shot_holds_what_ends_a_task(stop: str) -> None:
    shots = ["One\n\nTask 7: two", "Three\nTask", "\n\n"]
    _, _, tasks = few_shot_prompt(shots).partition("\n\n")
    assert stop not in re.sub(r"\nTask \d:", "", tasks)


HUMAN = [f"human {number}" for number in range(20)]
GENERATED = [f"generated {number}" for number in range(20)]


@pytest.mark.parametrize(
    ("num_generated", "shown_human", "shown_generated"),
    [(0, 8, 0), (1, 7, 1), (2, 6, 2), (20, 6, 2)],
)
def test_human_shots_stand_in_for_generated_ones(
    num_generated: int, shown_human: int, shown_generated: int
) -> None:
    shots = choose_shots(HUMAN, GENERATED[:num_generated], SelfInstruct(), seed=3)
    assert sum(shot in HUMAN for shot in shots) == shown_human
    assert sum(shot in GENERATED for shot in shots) == shown_generated
    assert len(set(shots)) == 8


def test_shots_are_reproducible_and_differ_by_seed() -> None:
    def chosen(seed: int) -> list[str]:
        return choose_shots(HUMAN, GENERATED, SelfInstruct(), seed)

    assert chosen(5) == chosen(5)
    assert len({tuple(chosen(seed)) for seed in range(10)}) == 10


def test_generated_shots_are_not_always_last() -> None:
    places = {
        place
        for seed in range(40)
        for place, shot in enumerate(choose_shots(HUMAN, GENERATED, SelfInstruct(), seed))
        if shot in GENERATED
    }
    assert places == set(range(8))


def test_no_shot_is_shown_twice() -> None:
    human = ["a", "b", "a", "c", "b"]
    shots = choose_shots(human, ["a", "b", "d", "d"], SelfInstruct(num_human_shots=3), seed=0)
    assert sorted(shots) == ["a", "b", "c", "d"]


def test_without_human_prompts_there_are_no_shots() -> None:
    with pytest.raises(ValueError, match="human"):
        choose_shots([], GENERATED, SelfInstruct(), seed=0)


# What the model wrote


@for_each(
    "completion, prompt",
    [
        (" Name three rivers.\n", "Name three rivers."),
        ("", ""),
        (" \n\t ", ""),
        ("Name three rivers.\nTask 10: Name a hill.", "Name three rivers."),
        ("Name three rivers. Task 10: Name a hill.\nTask 11: x", "Name three rivers."),
        ("Task 9: Name three rivers.\nTask 10: Name a hill.", "Name three rivers."),
        ("Task 9:", ""),
        ("Task 9: Task 10: Name a hill.", ""),
        ("Explain my task: sort 3 rivers.", "Explain my task: sort 3 rivers."),
        ("Multitask 3: a band. Who are they?", "Multitask 3: a band. Who are they?"),
        ('"Name three rivers."', "Name three rivers."),
        ("\u201cName three rivers.\u201d", "Name three rivers."),
        ("\u00ab Name three rivers. \u00bb", "Name three rivers."),
        ("'Name three rivers.'\nTask 10: x", "Name three rivers."),
        ('"Yes" or "no"', '"Yes" or "no"'),
        ('Say "yes"', 'Say "yes"'),
        ('"', ""),
        ('""', ""),
        ("Sort these:\n\n\n  b\n \n  a", "Sort these:\n  b\n  a"),
        ("Name\x00 three rivers.\x00", "Name three rivers."),
        ("\x00", ""),
    ],
)
def test_what_the_model_wrote_is_cleaned(completion: str, prompt: str) -> None:
    assert written_prompt(completion) == prompt


@given(st.text(alphabet="Task 1:\"'\n\x00«»ab"))
def test_what_is_cleaned_can_be_stored_and_has_no_blank_line(completion: str) -> None:
    prompt = written_prompt(completion)
    assert "\x00" not in prompt
    assert "\n\n" not in prompt
    assert prompt == prompt.strip()


# The filter


def test_an_accepted_text_makes_its_like_too_similar() -> None:
    prompt_filter = PromptFilter(SelfInstruct())
    assert prompt_filter.admit(PARAGRAPH) is None
    again = prompt_filter.admit(PARAGRAPH.upper() + "!!")
    assert again == Rejected(Rejection.DUPLICATE, f"1.00 to {PARAGRAPH!r}")
    changed = PARAGRAPH.replace("northern", "southern").replace("old", "new")
    # 12 of 14 words.
    assert prompt_filter.admit(changed) == Rejected(Rejection.SIMILAR, f"0.86 to {PARAGRAPH!r}")
    assert prompt_filter.check("Explain why bread goes stale in the fridge.") is None


def test_looking_changes_nothing_and_adding_asks_nothing() -> None:
    prompt_filter = PromptFilter(ANY)
    assert prompt_filter.check(PARAGRAPH) is None
    assert prompt_filter.check(PARAGRAPH) is None
    prompt_filter.add("map")
    prompt_filter.add(PARAGRAPH)
    assert reason(PARAGRAPH, prompt_filter) is Rejection.DUPLICATE


def test_a_rejected_text_is_not_known_afterwards() -> None:
    prompt_filter = PromptFilter(SelfInstruct())
    assert prompt_filter.admit("Draw a picture of a lighthouse at night.") is not None
    assert reason("Sing a picture of a lighthouse at night.", prompt_filter) is Rejection.KEYWORD
    assert prompt_filter.check("Sing a ballad of a lighthouse at night.") is None


def test_evaluation_prompts_are_kept_at_a_distance() -> None:
    half = "Describe the way from the old town to a station near our new flat."
    f1 = ROUGE.score(half, PARAGRAPH)["rougeL"].fmeasure
    assert 0.5 <= f1 < 0.7
    assert reason(half, PromptFilter(SelfInstruct(), known=[PARAGRAPH])) is None
    prompt_filter = PromptFilter(SelfInstruct(), known=[PARAGRAPH], evaluation=[PARAGRAPH])
    rejected = prompt_filter.check(half)
    assert rejected is not None
    assert rejected.reason is Rejection.NEAR_EVALUATION
    assert rejected.detail == f"{f1:.2f} to {PARAGRAPH!r}"


def test_a_long_known_text_is_named_by_its_beginning() -> None:
    text = "First line,\nsecond line. " + "More and more words. " * 20
    rejected = PromptFilter(SelfInstruct(), known=[text]).check(text + "End.")
    assert rejected is not None
    assert rejected.detail.startswith("0.99 to 'First line, second line. More and more words. ")
    assert rejected.detail.endswith("...'")
    assert len(rejected.detail) < 100


@for_each(
    "text, rejected",
    [
        ("", Rejected(Rejection.EMPTY, "0 characters, no letter or digit")),
        (" \n\t\u2003", Rejected(Rejection.EMPTY, "0 characters, no letter or digit")),
        ("?! ... \U0001f642", Rejected(Rejection.EMPTY, "8 characters, no letter or digit")),
        ("Why not?", Rejected(Rejection.TOO_SHORT, "2 words")),
        ("why " * 151, Rejected(Rejection.TOO_LONG, "151 words")),
        ("a-" * 1501, Rejected(Rejection.TOO_LONG, "3002 characters")),
        ("Draw me a MAP of France", Rejected(Rejection.KEYWORD, "draw")),
        ("Is this graph, or that, planar?", Rejected(Rejection.KEYWORD, "graph")),
        ("Schreibe ein kurzes Gedicht über den Herbst.", Rejected(Rejection.LANGUAGE, "de")),
    ],
)
def test_what_is_rejected(text: str, rejected: Rejected) -> None:
    assert PromptFilter(SelfInstruct()).check(text) == rejected


@pytest.mark.parametrize(
    "text",
    [
        "Explain mapping and profiles to a child.",
        "List 3 fruits",
        "why " * 150,
        "a-" * 1498 + " b c",
    ],
)
def test_what_is_just_allowed(text: str) -> None:
    assert PromptFilter(SelfInstruct(language="en")).check(text) is None


def test_keywords_may_be_phrases_or_absent_or_hold_signs() -> None:
    phrases = ANY.model_copy(update={"keywords": ("power point", "c++")})
    found = PromptFilter(phrases).check("Use Power Point to teach it.")
    assert found == Rejected(Rejection.KEYWORD, "power point")
    cplusplus = PromptFilter(phrases).check("Sort it in C++ please.")
    assert cplusplus == Rejected(Rejection.KEYWORD, "c++")
    assert reason("Sort it in C please.", PromptFilter(phrases)) is None
    assert reason("Draw a power map, pointing north.", PromptFilter(phrases)) is None


# Language

GERMAN = "Erkläre mir bitte, wie ein Kühlschrank funktioniert."
FOREIGN = [
    ("de", GERMAN),
    ("de", "Nenne fünf Tipps für eine gesunde Ernährung."),
    ("de", "Warum ist der Himmel am Abend rot?"),
    ("fr", "Donne cinq conseils pour mieux dormir la nuit."),
    ("fr", "Comment apprendre le piano quand on est adulte ?"),
    ("es", "Dame cinco consejos para dormir mejor por la noche."),
    ("es", "¿Cómo puedo aprender a tocar el piano?"),
    ("nl", "Geef vijf tips om beter te slapen."),
    ("ru", "Напиши короткое стихотворение про море осенью."),
    ("ru", "Почему листья осенью меняют цвет и падают?"),
    ("zh", "请解释汽车发动机是如何工作的。"),
    ("zh", "请用两句话总结下面的文章内容。"),
]


@for_each("language, text", FOREIGN)
def test_other_languages_are_told(language: str, text: str) -> None:
    assert other_language(text, "en") == language
    assert other_language(text, language) is None


@for_each(
    "text",
    [
        "List 3 fruits",
        "Explain recursion.",
        "Summarise Hamlet",
        "Plan dinner tonight",
        "Solve 3x + 2 = 11",
        "2+2=?",
        "SELECT name FROM users WHERE age > 30;",
        "WRITE A POEM ABOUT THE SEA",
        "Can you parallelize it?",
    ],
)
def test_a_few_english_words_are_not_taken_for_another_language(text: str) -> None:
    assert other_language(text, "en") is None


def test_no_seed_prompt_is_taken_for_another_language() -> None:
    assert [text for text in seed_prompts() if other_language(text, "en")] == []


def test_nor_is_the_beginning_of_one() -> None:
    beginnings = [" ".join(text.split()[:5]) for text in seed_prompts()]
    assert [text for text in beginnings if other_language(text, "en")] == []


def test_any_language_will_do_if_none_is_asked_for() -> None:
    prompt_filter = PromptFilter(SelfInstruct(language=None))
    assert [prompt_filter.admit(text) for _, text in FOREIGN] == [None] * len(FOREIGN)
    assert {reason(text, prompt_filter) for _, text in FOREIGN} == {Rejection.DUPLICATE}


def test_a_german_run_wants_german() -> None:
    prompt_filter = PromptFilter(SelfInstruct(language="de"))
    assert prompt_filter.check(GERMAN) is None
    assert prompt_filter.check(PARAGRAPH) == Rejected(Rejection.LANGUAGE, "en")


def test_the_languages_that_a_config_may_name_are_those_of_the_identifier() -> None:
    assert set(self_instruct._identifier().labels) == LANGUAGES


# Rubbish

RUBBISH = {
    "nothing": "",
    "blanks": " \n" * 100_000,
    "NULs": "\x00" * 1000,
    "NULs between words": "what\x00 is\x00 this\x00",
    "200 kB of words": "many different words here " * 8000,
    "200 kB without a blank": "ab-" * 70_000,
    "200 kB of Chinese": "写一首诗" * 17_000,
    "200 kB of signs": "?!" * 100_000,
    "one word 50,000 times": "word " * 50_000,
    "one word as often as allowed": "word " * 150,
    "as many tokens as allowed": "a-" * 1500,
    "combining marks": "e\u0301" * 700 + "\u0301" * 500,
    "letters that grow in lower case": "\u0130" * 1400,
    "right to left and joined": "\u202eabc\u200d\ufeff \u0627\u0644\u0633\u0644\u0627\u0645",
    "astral": "\U0001d4d0\U0001f469\u200d\U0001f4bb\U000e0041 \U00020000 " * 40,
    "half a surrogate pair": "what \ud800 is it",
    "unassigned and private": "\ue000\U0010ffff\u0378 a b c",
}


@pytest.mark.parametrize("text", RUBBISH.values(), ids=RUBBISH.keys())
@pytest.mark.parametrize("language", ["en", None])
def test_rubbish_is_decided_at_once(text: str, language: str | None) -> None:
    config = SelfInstruct(language=language)
    prompt_filter = PromptFilter(config, known=[PARAGRAPH], evaluation=["Name three hills."])
    other_language("Load the identifier.", "en")
    started = time.process_time()
    prompt_filter.check(text)
    assert time.process_time() - started < 0.3
    prompt_filter.add(text)
    prompt_filter.admit(text)
    assert time.process_time() - started < 1


def test_known_rubbish_is_no_burden() -> None:
    rubbish = list(RUBBISH.values())
    prompt_filter = PromptFilter(SelfInstruct(), known=rubbish, evaluation=rubbish)
    started = time.process_time()
    for text in seed_prompts()[:20]:
        prompt_filter.check(text)
    assert time.process_time() - started < 1
    assert reason("word " * 140, prompt_filter) is Rejection.NEAR_EVALUATION


@given(st.text(), st.sampled_from([None, "en"]))
def test_any_text_is_admitted_or_rejected_for_a_reason(text: str, language: str | None) -> None:
    prompt_filter = PromptFilter(SelfInstruct(language=language))
    rejected = prompt_filter.admit(text)
    if rejected is None:
        assert reason(text, prompt_filter) is Rejection.DUPLICATE
    else:
        assert rejected.detail


@pytest.mark.parametrize(("length", "shown"), [(80, "x" * 80), (81, "x" * 77 + "...")])
def test_what_a_text_is_like_is_told_in_80_characters(length: int, shown: str) -> None:
    assert self_instruct._likeness(0.875, "x" * length) == f"0.88 to {shown!r}"
