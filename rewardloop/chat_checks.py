"""What a chat template does with conversations, tried before a model is published or trained.

Owns the list of what can be wrong, in words for the person who gave the model. A problem is
fatal where training or sampling with the model could not mean what it says; the others are
told, since training rows are token ids that no template can alter (`chat_tokens`).

Knows tokenizers as an argument only, and neither models nor engines.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rewardloop.chat_tokens import (
    TemplateRefused,
    closing_ids,
    control_tokens,
    prompt_ids,
    render,
)

HOW_TO_GIVE_ONE = (
    "give it one: `python -m services.trainer.import_base --chat-template FILE`, or "
    "`--chat-template chatml` for the common one"
)


class Trouble(StrEnum):
    NO_TEMPLATE = "no_template"
    REFUSES_USER = "refuses_user"
    """Not even a single question is taken."""
    HIDES_TURNS = "hides_turns"
    """Two questions, or two answers, look the same."""
    NO_END = "no_end"
    """Nothing behind an answer could stop the engine."""
    END_IS_NO_STOP = "end_is_no_stop"
    """A turn ends with a token at which the engine goes on."""
    PROMPT_IS_NO_PREFIX = "prompt_is_no_prefix"
    """The generation prompt is not the beginning of the conversation with its answer."""
    ALTERS_ANSWERS = "alters_answers"
    WRITES_BEFORE_ANSWERS = "writes_before_answers"
    MARKS_BEFORE_ANSWERS = "marks_before_answers"
    """An answer begins with special tokens, which an engine leaves out of the sampled text."""
    ALTERS_QUESTIONS = "alters_questions"
    REFUSES_SYSTEM = "refuses_system"
    DROPS_SYSTEM = "drops_system"
    FOLDS_SYSTEM = "folds_system"
    """System and user share a turn."""
    WANTS_ALTERNATION = "wants_alternation"
    TWO_BEGINNINGS = "two_beginnings"
    WRITES_THE_DATE = "writes_the_date"


@dataclass(frozen=True, slots=True)
class Problem:
    kind: Trouble
    text: str
    is_fatal: bool = False
    add_stop_id: int | None = None
    """The token that mends it where the engine stops at it too."""


QUESTION = {"role": "user", "content": "Name a colour."}
ANSWER = {"role": "assistant", "content": "Blue."}
SYSTEM = {"role": "system", "content": "Be brief."}
ODD_ANSWERS = {
    "white space around them": " \n Blue. \n",
    "thinking": "<think>\nNot red.\n</think>\n\nBlue.",
}


def check_template(tokenizer: Any, stop_ids: Collection[int] | None = None) -> list[Problem]:
    """What is wrong with the tokenizer's chat template; empty where nothing is.

    `stop_ids` are the ids at which the engine stops: those of the generation config and the
    tokenizer's own end. Left out, the latter alone.
    """
    if not tokenizer.chat_template:
        text = f"the model has no chat template, so it takes no conversations: {HOW_TO_GIVE_ONE}"
        return [Problem(Trouble.NO_TEMPLATE, text, is_fatal=True)]
    try:
        prompt = render(tokenizer, [QUESTION], add_generation_prompt=True)
        whole = render(tokenizer, [QUESTION, ANSWER], add_generation_prompt=False)
    except TemplateRefused as error:
        return [Problem(Trouble.REFUSES_USER, str(error), is_fatal=True)]
    if hidden := _hidden(tokenizer, prompt, whole):
        return hidden
    stops = {tokenizer.eos_token_id} if stop_ids is None else set(stop_ids)
    return [
        *_ends(tokenizer, stops - {None}),
        *_prefix(tokenizer, prompt, whole),
        *_answers(tokenizer),
        *_questions(tokenizer),
        *_system(tokenizer),
        *_alternation(tokenizer),
        *_beginnings(tokenizer),
        *_date(tokenizer),
    ]


def _hidden(tokenizer: Any, prompt: str, whole: str) -> list[Problem]:
    """Templates of models that take pictures may look for parts in a message's content, and
    find none in a text."""
    other = {**QUESTION, "content": "How are you?"}, {**ANSWER, "content": "Well."}
    alike = {
        "questions": prompt == render(tokenizer, other[:1], add_generation_prompt=True),
        "answers": whole == render(tokenizer, [QUESTION, other[1]], add_generation_prompt=False),
    }
    if not any(alike.values()):
        return []
    what = " and ".join(name for name, holds in alike.items() if holds)
    text = (
        f"the chat template leaves {what} out: it shows any two of them alike. It may be written "
        "for content parts, and conversations here are of texts; give the model another template"
    )
    return [Problem(Trouble.HIDES_TURNS, text, is_fatal=True)]


def _ends(tokenizer: Any, stops: set[int]) -> Iterator[Problem]:
    closing = closing_ids(tokenizer, stops)
    if stops.intersection(closing):
        return
    controls = set(control_tokens(tokenizer).values())
    end = next((token for token in closing if token in controls), None)
    stopping = ", ".join(repr(tokenizer.decode([token])) for token in sorted(stops)) or "nothing"
    if end is None:
        yield Problem(
            Trouble.NO_END,
            f"the chat template ends an answer with {tokenizer.decode(closing)!r}, in which no "
            f"control token stands, and the engine stops at {stopping}: every answer would run to "
            "its limit. Let the template end turns with the tokenizer's eos_token",
            is_fatal=True,
        )
        return
    yield Problem(
        Trouble.END_IS_NO_STOP,
        f"the chat template ends turns with {tokenizer.decode([end])!r}, and the engine stops at "
        f"{stopping} only",
        add_stop_id=end,
    )


def _prefix(tokenizer: Any, prompt: str, whole: str) -> Iterator[Problem]:
    if not whole.startswith(prompt):
        yield Problem(
            Trouble.PROMPT_IS_NO_PREFIX,
            "the chat template shows a question that waits for its answer otherwise than one that "
            "has it: earlier turns of a conversation look different from what was sampled",
        )
        return
    before, found, _ = whole.removeprefix(prompt).partition(ANSWER["content"])
    if not (found and before):
        return
    if any(mark in before for mark in _special(tokenizer)):
        yield Problem(
            Trouble.MARKS_BEFORE_ANSWERS,
            f"the chat template's generation prompt ends before {before!r}, so that the model must "
            "write that itself; an engine leaves special tokens out of the text that it sampled, "
            "and training would teach answers without them. Let the generation prompt go up to "
            "the answer",
            is_fatal=True,
        )
    else:
        yield Problem(
            Trouble.WRITES_BEFORE_ANSWERS,
            f"the chat template writes {before!r} between the generation prompt and an answer; "
            "training leaves it out, as sampling does",
        )


def _special(tokenizer: Any) -> list[str]:
    """Those that an engine leaves out of a text: marked as special, named or not."""
    added = tokenizer.added_tokens_decoder.values()
    return [token.content for token in added if token.special and token.content]


def _answers(tokenizer: Any) -> Iterator[Problem]:
    altered = [
        what
        for what, text in ODD_ANSWERS.items()
        if not _stands(tokenizer, [QUESTION, {**ANSWER, "content": text}], text)
    ]
    if altered:
        yield Problem(
            Trouble.ALTERS_ANSWERS,
            f"the chat template alters answers ({' and '.join(altered)}); training takes the "
            "answers as they were sampled, but earlier answers of a conversation are altered",
        )


def _questions(tokenizer: Any) -> Iterator[Problem]:
    text = " \n Name a colour. \n"
    if not _stands(tokenizer, [{**QUESTION, "content": text}], text):
        yield Problem(
            Trouble.ALTERS_QUESTIONS, "the chat template alters questions (white space around them)"
        )


def _stands(tokenizer: Any, conversation: list[dict[str, str]], text: str) -> bool:
    try:
        return text in render(tokenizer, conversation, add_generation_prompt=False)
    except TemplateRefused:
        return False


def _system(tokenizer: Any) -> Iterator[Problem]:
    try:
        shown = render(tokenizer, [SYSTEM, QUESTION], add_generation_prompt=True)
    except TemplateRefused as error:
        text = "the chat template refuses system turns, so prompts with one are left out"
        yield Problem(Trouble.REFUSES_SYSTEM, f"{text} ({error.__cause__})")
        return
    _, found, between = shown.partition(SYSTEM["content"])
    if not found:
        yield Problem(Trouble.DROPS_SYSTEM, "the chat template leaves the system turn out")
        return
    between = between.partition(QUESTION["content"])[0]
    if not any(spelling in between for spelling in control_tokens(tokenizer)):
        text = "the chat template writes the system turn into the user's"
        yield Problem(Trouble.FOLDS_SYSTEM, text)


def _alternation(tokenizer: Any) -> Iterator[Problem]:
    for conversation in ([QUESTION, QUESTION], [ANSWER, QUESTION]):
        try:
            render(tokenizer, conversation, add_generation_prompt=True)
        except TemplateRefused as error:
            text = "the chat template wants turns to alternate; other prompts are left out"
            yield Problem(Trouble.WANTS_ALTERNATION, f"{text} ({error.__cause__})")
            return


def _beginnings(tokenizer: Any) -> Iterator[Problem]:
    first = tokenizer.bos_token_id
    if first is not None and prompt_ids(tokenizer, [QUESTION])[:2] == [first, first]:
        text = f"the chat template writes {tokenizer.bos_token!r} twice at the beginning"
        yield Problem(Trouble.TWO_BEGINNINGS, text)


def _date(tokenizer: Any) -> Iterator[Problem]:
    if "strftime_now" in str(tokenizer.chat_template):
        yield Problem(
            Trouble.WRITES_THE_DATE,
            "the chat template writes the date into prompts, so a prompt that is trained on on "
            "another day differs from the one that was sampled; write a fixed date into it",
        )
