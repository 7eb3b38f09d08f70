from typing import Any

import pytest

from rewardloop.chat_checks import Trouble, check_template
from rewardloop.chat_tokens import end_of_turn_ids
from tests.unit.cases import for_each
from tests.unit.small_tokenizers import CHATML, FAMILIES, base_without_template

ALTERNATING = {Trouble.REFUSES_SYSTEM, Trouble.WANTS_ALTERNATION, Trouble.WRITES_BEFORE_ANSWERS}
TRIMMING = {Trouble.ALTERS_ANSWERS, Trouble.ALTERS_QUESTIONS}


def kinds(tokenizer: Any, *stop_ids: int) -> set[Trouble]:
    return {problem.kind for problem in check_template(tokenizer, stop_ids or None)}


@for_each(
    "family, expected",
    {
        "chatml": set(),
        "llama_2": ALTERNATING | TRIMMING,
        "unigram": ALTERNATING | TRIMMING,
        "llama_3": TRIMMING,
        "gemma": {
            Trouble.END_IS_NO_STOP,
            Trouble.FOLDS_SYSTEM,
            Trouble.WANTS_ALTERNATION,
            *TRIMMING,
        },
        "qwen_3": {Trouble.WRITES_BEFORE_ANSWERS},
        "mistral": ALTERNATING,
        "qwen_base": {Trouble.END_IS_NO_STOP},
        "not_special": set(),
        "phi_3": set(),
        "words": set(),
        "slow": set(),
    }.items(),
)
def test_each_familys_troubles(family: str, expected: set[Trouble]) -> None:
    assert kinds(FAMILIES[family]()) == expected


def test_a_base_without_a_template_is_told_how_to_get_one() -> None:
    (problem,) = check_template(base_without_template())
    assert problem.kind is Trouble.NO_TEMPLATE
    assert problem.is_fatal
    assert "--chat-template" in problem.text


@pytest.mark.parametrize(
    ("family", "end"), [("gemma", "<end_of_turn>"), ("qwen_base", "<|im_end|>")]
)
def test_the_end_of_a_turn_mends_the_engines_stops(family: str, end: str) -> None:
    tokenizer = FAMILIES[family]()
    (problem,) = (p for p in check_template(tokenizer) if p.kind is Trouble.END_IS_NO_STOP)
    stop = tokenizer.convert_tokens_to_ids(end)
    assert (problem.add_stop_id, problem.is_fatal) == (stop, False)
    assert end in problem.text
    assert tokenizer.eos_token in problem.text
    assert Trouble.END_IS_NO_STOP not in kinds(tokenizer, tokenizer.eos_token_id, stop)


def with_template(template: str) -> Any:
    tokenizer = FAMILIES["llama_3"]()
    tokenizer.chat_template = template
    return tokenizer


def test_a_template_without_an_end_is_fatal() -> None:
    plain = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    (problem, *_) = check_template(with_template(plain))
    assert (problem.kind, problem.is_fatal) == (Trouble.NO_END, True)
    assert "<|eot_id|>" in problem.text


def test_a_template_that_takes_nothing_is_fatal() -> None:
    (problem,) = check_template(with_template("{{ raise_exception('tools only') }}"))
    assert (problem.kind, problem.is_fatal) == (Trouble.REFUSES_USER, True)
    assert "tools only" in problem.text


def test_two_beginnings() -> None:
    family = FAMILIES["llama_3"]().chat_template
    assert kinds(with_template("{{ bos_token }}" + family)) == {Trouble.TWO_BEGINNINGS, *TRIMMING}


def test_a_generation_prompt_that_no_answer_follows() -> None:
    asks = CHATML.replace("<|im_end|>", "<|eot_id|>").replace(
        "<|im_start|>assistant\n{%", "<|im_start|>assistant\n<think>\n{%"
    )
    assert kinds(with_template(asks)) >= {Trouble.PROMPT_IS_NO_PREFIX}


def test_a_system_turn_that_is_left_out() -> None:
    drops = "{% for message in messages if message['role'] != 'system' %}" + CHATML.partition("%}")[
        2
    ].replace("<|im_end|>", "<|eot_id|>")
    assert kinds(with_template(drops)) == {Trouble.DROPS_SYSTEM}


GLM = (
    "{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def glm() -> Any:
    """Nothing stands behind an answer: the model ends it by opening the next turn."""
    tokenizer = base_without_template()
    marks = ["<|user|>", "<|assistant|>", "<|observation|>"]
    tokenizer.add_special_tokens({"additional_special_tokens": marks})
    tokenizer.chat_template = GLM
    return tokenizer


def test_the_next_turn_may_end_an_answer_where_the_engine_stops_at_it() -> None:
    tokenizer = glm()
    opens = tokenizer.convert_tokens_to_ids("<|user|>")
    stops = [tokenizer.eos_token_id, opens]
    assert kinds(tokenizer, *stops) == set()
    assert end_of_turn_ids(tokenizer, stops) == [opens]
    assert kinds(tokenizer) == {Trouble.NO_END}  # which token is meant would be a guess


@pytest.mark.parametrize(
    "template",
    [
        CHATML.partition("{% if add_generation_prompt")[0],
        CHATML.replace("{{ message['content'] }}", "<|final|>{{ message['content'] }}"),
    ],
)
def test_special_tokens_that_the_model_must_write_before_an_answer_are_fatal(
    template: str,
) -> None:
    """An engine leaves them out of the text, so nobody could train on what was sampled."""
    tokenizer = FAMILIES["chatml"]()
    tokenizer.chat_template = template
    tokenizer.add_special_tokens(
        {"additional_special_tokens": ["<|final|>"]}, replace_extra_special_tokens=False
    )
    (problem,) = [p for p in check_template(tokenizer) if "BEFORE" in p.kind.name]
    assert problem.kind is Trouble.MARKS_BEFORE_ANSWERS
    assert problem.is_fatal
    assert "Let the generation prompt go up to the answer" in problem.text


def test_a_template_that_finds_no_text_in_a_text_is_fatal() -> None:
    """As those of models that take pictures: it reads the parts of a content."""
    parts = (
        "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
        "{% endif %}{% endfor %}"
    )
    (problem,) = check_template(with_template(CHATML.replace("{{ message['content'] }}", parts)))
    assert (problem.kind, problem.is_fatal) == (Trouble.HIDES_TURNS, True)
    assert "questions and answers" in problem.text


@pytest.mark.parametrize("written", ["| upper", "| tojson", ".swapcase()"])
def test_the_end_is_found_behind_answers_that_a_template_alters(written: str) -> None:
    tokenizer = FAMILIES["chatml"]()
    tokenizer.chat_template = CHATML.replace("['content'] }}", f"['content'] {written} }}}}")
    assert end_of_turn_ids(tokenizer)[-1:] == [tokenizer.eos_token_id]
    assert len(end_of_turn_ids(tokenizer)) <= 2
    assert Trouble.ALTERS_ANSWERS in kinds(tokenizer)


def test_a_template_that_writes_the_date_is_told() -> None:
    tokenizer = FAMILIES["chatml"]()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}\n" + CHATML
    (problem,) = check_template(tokenizer)
    assert (problem.kind, problem.is_fatal) == (Trouble.WRITES_THE_DATE, False)
