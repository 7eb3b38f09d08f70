"""Rendered conversations are split into their turns, and prose is left alone."""

import contextlib

import pytest

from rewardloop.datasets import marks
from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.records import Message
from tests.unit.cases import for_each
from tests.unit.growth import is_linear

ONE = [("user", "Hi")]
WITH_SYSTEM = [("system", "S"), *ONE]
THREE = [("user", "A?"), ("assistant", "a"), ("user", "B?")]


def turns(text: str) -> list[tuple[str, str]] | None:
    found = marks.split(text)
    return None if found is None else [(turn["role"], turn["content"]) for turn in found]


@for_each(
    "text, expected",
    [
        ("\n\nHuman: Hi\n\nAssistant:", ONE),
        ("Human: Hi\n\nAssistant: ", ONE),
        ("\n\nHuman: A?\n\nAssistant: a\n\nHuman: B?\n\nAssistant:", THREE),
        ("S\n\nHuman: Hi\n\nAssistant:", WITH_SYSTEM),
        ("Human: Hi\nAssistant:", ONE),
        ("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", ONE),
        ("<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n", WITH_SYSTEM),
        (
            "<|im_start|>user\nA?<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
            "<|im_start|>user\nB?<|im_end|>\n<|im_start|>assistant\n",
            THREE,
        ),
        ("<s>[INST] Hi [/INST]", ONE),
        ("[INST] <<SYS>>\nS\n<</SYS>>\n\nHi [/INST]", WITH_SYSTEM),
        ("<s>[INST] A? [/INST] a </s><s>[INST] B? [/INST]", THREE),
        (
            "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nS<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
            WITH_SYSTEM,
        ),
        ("<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n", ONE),
        (
            "<start_of_turn>user\nA?<end_of_turn>\n<start_of_turn>model\na<end_of_turn>\n"
            "<start_of_turn>user\nB?<end_of_turn>\n<start_of_turn>model\n",
            THREE,
        ),
        ("A?\n<extra_id_1>Assistant\na\n<extra_id_1>User\nB?", THREE),
        ("<extra_id_0>System\nS\n<extra_id_1>User\nHi\n<extra_id_1>Assistant\n", WITH_SYSTEM),
        ("<|system|>\nS</s>\n<|user|>\nHi</s>\n<|assistant|>\n", WITH_SYSTEM),
        ("<|user|>\nHi<|end|>\n<|assistant|>\n", ONE),
        ("<|user|>\nA?\n<|assistant|>\na\n<|user|>\nB?\n<|assistant|>\n", THREE),
        ("### Instruction:\nHi\n\n### Response:", ONE),
        ("### Instruction:\nHi\n\n### Input:\nx\n\n### Response:\n", [("user", "Hi\n\nx")]),
        (
            "Below is an instruction that describes a task. Do it.\n\n### Instruction:\nHi\n\n"
            "### Response:",
            ONE,
        ),
        ("S\n\n### Instruction:\nHi\n\n### Response:\n", WITH_SYSTEM),
        ("### Human: A?\n### Assistant: a\n### Human: B?\n### Assistant:", THREE),
        ("USER: Hi ASSISTANT:", ONE),
        ("User: Hi\nAssistant:", ONE),
        ("<\uff5cUser\uff5c>Hi<\uff5cAssistant\uff5c>", ONE),
        ("<|prompter|>Hi<|endoftext|><|assistant|>", ONE),
        (
            "<|begin_of_text|><|header_start|>user<|header_end|>\n\nHi<|eot|>"
            "<|header_start|>assistant<|header_end|>\n\n",
            ONE,
        ),
        (
            "<|start_of_role|>user<|end_of_role|>Hi<|end_of_text|>\n"
            "<|start_of_role|>assistant<|end_of_role|>",
            ONE,
        ),
        (
            "<BOS_TOKEN><|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>"
            "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            ONE,
        ),
        ("<bos><|turn>user\nHi<turn|>\n<|turn>model\n", ONE),
        ("S USER: Hi ASSISTANT:", WITH_SYSTEM),
        ("USER: A? ASSISTANT: a</s>USER: B? ASSISTANT:", THREE),
    ],
)
def test_rendered_conversations(text: str, expected: list[tuple[str, str]]) -> None:
    assert turns(text) == expected


@for_each(
    "text",
    [
        "Why is the sky blue?",
        "What does <|im_start|> mean in ChatML?",
        "Is `[INST]` a token, and `<<SYS>>`?",
        "Human: rights are a subject. Which ones matter?",
        "Why does a transcript say Assistant: before each answer?",
        "Explain the header ### Response: to me.",
        "The USER: field and the ASSISTANT: field, what are they?",
        "Write a dialogue.\n\nAnna: Hi\n\nBen: Hello",
    ],
)
def test_prose_is_left_alone(text: str) -> None:
    assert turns(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Some words\nAssistant:",
        "<|im_start|>narrator\nHi<|im_end|>\n<|im_start|>assistant\n",
        "words\n[INST] Hi [/INST]",
        "<|start|>user<|message|>Hi<|end|><|start|>assistant",
        "### Instruction:\nA\n\n### Response:\na\n\n### Instruction:\nB\n\n### Response:",
    ],
)
def test_marks_that_cannot_be_split(text: str) -> None:
    with pytest.raises(RowLeftOut) as caught:
        marks.split(text)
    assert caught.value.reason is Reason.TURN_MARKS


@for_each(
    "text, after_marks, expected",
    [
        (" Often.", True, "Often."),
        (" Often.", False, " Often."),
        ("Hello<|im_end|>", False, "Hello"),
        ("Hello<|im_end|>\n", True, "Hello"),
        ("Hello</s>", False, "Hello"),
        ("Hello<|eot_id|>", False, "Hello"),
        ("Hello<end_of_turn>\n", False, "Hello"),
        ("\n\nAssistant: Hello", False, "Hello"),
        ("<|im_start|>assistant\nHello<|im_end|>", True, "Hello"),
        ("A mark: <|im_start|>", False, "A mark: <|im_start|>"),
        ("two\n\nlines \n", False, "two\n\nlines \n"),
    ],
)
def test_answers_lose_their_marks(text: str, after_marks: bool, expected: str) -> None:
    assert marks.answer(text, after_marks) == expected


@pytest.mark.parametrize(
    ("text", "after_marks"),
    [
        (" Often.\n\nHuman: And tea?", True),
        ("Hello<|im_end|>\n<|im_start|>user\nMore<|im_end|>", False),
        ("\n\nAssistant: a\n\nHuman: b", False),
    ],
)
def test_answers_with_further_turns(text: str, after_marks: bool) -> None:
    with pytest.raises(RowLeftOut) as caught:
        marks.answer(text, after_marks)
    assert caught.value.reason is Reason.TURN_MARKS


@pytest.mark.parametrize(
    ("before", "piece"),
    [
        ("", "\n"),
        ("\n", " "),
        ("", "\n\nHuman: x"),
        ("", "[INST] a"),
        ("", " USER: x"),
        ("", "\n### Instruction: a"),
        ("\n### Instruction: a", "\n### Input: b"),
        ("", "\n<|im_start|>user"),
    ],
    ids=range(8),
)
def test_floods_of_marks_take_linear_time(before: str, piece: str) -> None:
    def read(size: int) -> None:
        text = before + piece * (size // len(piece))
        for reader in (marks.split, lambda each: marks.answer(each, after_marks=True)):
            with contextlib.suppress(RowLeftOut):
                reader(text)

    assert is_linear(read, 10_000)


@pytest.mark.parametrize(
    "prompt",
    [
        "[gMASK]<sop><|user|>\nQ?<|assistant|>",
        "<|User|>:Q?<eoh>\n<|Bot|>:",
        "[|Human|] Q?\n[|AI|]",
        "GPT4 Correct User: Q?<|end_of_turn|>GPT4 Correct Assistant:",
        "<reserved_106>Q?<reserved_107>",
    ],
)
def test_an_open_end_of_an_unknown_template_is_not_wrapped_again(prompt: str) -> None:
    with pytest.raises(RowLeftOut, match="turn marks"):
        marks.split(prompt)


@pytest.mark.parametrize("end", ["<|end_of_turn|>", "<|end|>", "<pad><pad>"])
def test_further_end_tokens_are_no_part_of_an_answer(end: str) -> None:
    assert marks.answer(f"Yes.{end}", False) == "Yes."


@for_each(
    "text, expected",
    [
        ("Assistant: a", [("assistant", "a")]),
        ("\nAssistant: a", [("assistant", "a")]),
        ("Words first\nAssistant: a", None),
        ("Human: a", None),
        ("Human: a\nHuman: b", [("user", "a"), ("user", "b")]),
        ("Human: a\nAssistant: b", [("user", "a"), ("assistant", "b")]),
        ("Words first\nHuman: a\nAssistant: b", None),
        ("Words first\nHuman: a\nAssistant:", [("system", "Words first"), ("user", "a")]),
        ("Assistant: a\nHuman: b", None),
        ("Assistant: a\nAssistant: b", None),
        ("### System: S\n### Human: Q", [("system", "S"), ("user", "Q")]),
    ],
)
def test_names_are_marks_where_they_begin_a_text_or_ask_at_its_end(
    text: str, expected: list[tuple[str, str]] | None
) -> None:
    assert turns(text) == expected


@pytest.mark.parametrize(("num_blanks", "is_seen"), [(100, True), (300, False)])
def test_the_mark_of_an_unknown_template_is_looked_for_at_the_end(
    num_blanks: int, is_seen: bool
) -> None:
    text = "Q?[|AI|]" + " " * num_blanks
    if is_seen:
        with pytest.raises(RowLeftOut):
            marks.split(text)
    else:
        assert marks.split(text) is None


def test_a_rendered_conversation_among_turns_is_refused_and_alone_is_split() -> None:
    rendered: Message = {"role": "user", "content": "Human: Hi\n\nAssistant:"}
    system: Message = {"role": "system", "content": "S"}
    assert marks.unrendered([rendered]) == [{"role": "user", "content": "Hi"}]
    for before in ([system], [system, system]):
        with pytest.raises(RowLeftOut):
            marks.unrendered([*before, rendered])
    assert marks.unrendered([]) == []


def test_a_turn_that_ends_in_a_mark_asks_and_one_that_quotes_a_turn_does_not() -> None:
    quoted: Message = {"role": "user", "content": "<|im_start|>user\nHi"}
    asks: Message = {**quoted, "content": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"}
    assert marks.unrendered([quoted]) == [quoted]
    assert marks.unrendered([asks]) == [{"role": "user", "content": "Hi"}]
