"""Splits texts that hold a rendered conversation into its turns.

Owns the turn marks of known templates and transcripts, and which of them are
unmistakable. A mark counts at the start of a line only (Llama's and Vicuna's
follow each other on one line), so that prose about a mark stays prose. Knows
no format.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewardloop.datasets.reasons import Reason, RowLeftOut
from rewardloop.records import Message, Role

_ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "prompter": "user",
    "chatbot": "assistant",
    "instruction": "user",
    "assistant": "assistant",
    "model": "assistant",
    "response": "assistant",
    "system": "system",
    "developer": "system",
}


@dataclass(frozen=True, slots=True)
class Style:
    """The marks of one kind of template or transcript."""

    mark: re.Pattern[str]
    """Finds a turn's beginning; its first group that matched names the role."""
    ends: tuple[str, ...] = ()
    """What may end a turn, and is no part of it."""
    first_role: Role = "system"
    """Whose text stands before the first mark."""


_STYLES: tuple[Style, ...] = (
    Style(re.compile(r"(?:^|\n)[ \t]*<\|im_start\|>[ \t]*(\w+)[ \t]*\n?"), ("<|im_end|>",)),
    Style(
        re.compile(r"<\|start_header_id\|>\s*(\w+)\s*<\|end_header_id\|>\s*"),
        ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>", "<|begin_of_text|>"),
    ),
    Style(
        re.compile(r"(?:^|\n|<bos>)[ \t]*<start_of_turn>[ \t]*(\w+)[ \t]*\n?"),
        ("<end_of_turn>", "<eos>", "<bos>"),
    ),
    Style(
        re.compile(
            r"(?:^|\n|</s>|<\|end\|>|<\|endoftext\|>)[ \t]*"
            r"<\|(system|user|prompter|assistant)\|>[ \t]*\n?"
        ),
        ("</s>", "<|end|>", "<|endoftext|>", "<s>"),
    ),
    Style(
        re.compile(r"<\|header_start\|>\s*(\w+)\s*<\|header_end\|>\s*"),
        ("<|eot|>", "<|begin_of_text|>"),
    ),
    Style(re.compile(r"<\|start_of_role\|>\s*(\w+)\s*<\|end_of_role\|>\s*"), ("<|end_of_text|>",)),
    Style(
        re.compile(r"<\|START_OF_TURN_TOKEN\|><\|(\w+)_TOKEN\|>"),
        ("<|END_OF_TURN_TOKEN|>", "<BOS_TOKEN>"),
    ),
    Style(
        re.compile(r"<\uff5c(User|Assistant)\uff5c>"),
        ("<\uff5cend\u2581of\u2581sentence\uff5c>", "<\uff5cbegin\u2581of\u2581sentence\uff5c>"),
    ),
    Style(
        re.compile(r"(?:^|\n|<turn\|>|<bos>)[ \t]*<\|turn>[ \t]*(\w+)[ \t]*\n?"),
        ("<turn|>", "<bos>"),
    ),
    Style(re.compile(r"(?:^|\n)[ \t]*<extra_id_[01]>[ \t]*(\w+)[ \t]*\n"), first_role="user"),
    Style(re.compile(r"(?:^|\n)[ \t]*(Human|User|Assistant):[ \t]?")),
    # Guanaco's turns follow each other on one line.
    Style(re.compile(r"\n?[ \t]*###[ \t]*(Human|Assistant|User|System):[ \t]*\n?")),
)
_END_TOKENS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<end_of_turn>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "<|end|>",
    "</s>",
    "<eos>",
    "<pad>",
    "<|pad|>",
)
_LLAMA2 = re.compile(r"\[INST\](.*?)(?:\[/INST\]|$)(.*?)(?=(?:<s>\s*)?\[INST\]|$)", re.DOTALL)
_LLAMA2_SYSTEM = re.compile(r"\s*<<SYS>>\n?(.*?)\n?<</SYS>>\s*", re.DOTALL)
_VICUNA = re.compile(r"(?:^|\s|</s>)(USER|ASSISTANT):[ \t]?")
_ALPACA = re.compile(r"(?:^|\n)###[ \t]*(Instruction|Input|Response):[ \t]*\n?")
_ALPACA_HEAD = re.compile(r"^\s*Below is an instruction that describes a task")
_SOME_MARK = re.compile(
    r"(?:^|\n)[ \t]*(?:<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>|<extra_id_\d+>|\[INST\]"
    r"|<\|(?:system|user|assistant|start|end_of_turn|START_OF_TURN_TOKEN)\|>|<\uff5c(?:User|Assistant)\uff5c>)"
)
_SIGNS = (
    "<|", "<start_of_turn>", "<extra_id_", "[INST]", "Human:", "Assistant:", "ASSISTANT:", "###",
    "<\uff5c", "[|", "<reserved_",
)  # fmt: skip
"""A text without any of these holds no marks: looked for first, since most have none."""
_BEGINNING = re.compile(
    r"\s*(?:<s>|<bos>|<\|begin_of_text\|>)?\s*(?:<\|im_start\|>|<\|start_header_id\|>|\[INST\]"
    r"|<start_of_turn>|<\|(?:system|user)\|>|USER:|###|Below is an instruction|A chat between)"
)
_OPEN_END = re.compile(r"(?:^|\n)[ \t]*(?:###[ \t]*)?Assistant:\s*$")

_UNKNOWN_OPEN_END = re.compile(
    r"(?:<\|[^|>\n]*(?:assistant|bot|model)[^|>\n]*\|>|\[\|(?:ai|assistant|bot)\|\]|<reserved_\d+>"
    r"|<\|end_of_turn\|>[\w ]*Assistant)\s*:?\s*$",
    re.IGNORECASE,
)
"""A template that is not known here, and that ends in the mark behind which the answer goes."""
_END = 200
"""How much of a text's end is searched for it."""


def split(text: str) -> list[Message] | None:
    """The turns of a rendered conversation; None where the text is none.

    An assistant's mark at the end, with nothing behind it, asks for the answer and is no turn.

    Raises:
        RowLeftOut: the text holds turn marks and cannot be split by them.
    """
    if not any(sign in text for sign in _SIGNS):
        return None
    for found in (_styled(text), _llama2(text), _alpaca(text), _vicuna(text)):
        if found is not None:
            return found
    if _SOME_MARK.search(text) or _OPEN_END.search(text) or _UNKNOWN_OPEN_END.search(text[-_END:]):
        raise RowLeftOut(Reason.TURN_MARKS, "a text holds turn marks that cannot be split")
    return None


def answer(text: str, after_marks: bool) -> str:
    """An answer without the end-of-turn tokens, and without the mark and blank before it.

    `after_marks` says that its prompt was a rendered conversation: the leading blank then
    belongs to the mark.

    Raises:
        RowLeftOut: further turns follow in the text.
    """
    cut = _without_glued_end(text) if not after_marks else _without_ends(text, _END_TOKENS)
    if turns := _from_assistants_mark(cut):
        if [turn["role"] for turn in turns] != ["assistant"]:
            raise RowLeftOut(Reason.TURN_MARKS, "an answer holds the marks of further turns")
        return turns[0]["content"]
    if after_marks:
        further = re.search(r"\n\n(?:Human|Assistant):", cut) or _SOME_MARK.search(cut)
        if further:
            raise RowLeftOut(Reason.TURN_MARKS, "an answer holds the marks of further turns")
        return cut.strip()
    if _SOME_MARK.search(cut):
        raise RowLeftOut(Reason.TURN_MARKS, "an answer holds turn marks")
    return cut


def turns_answer(text: str) -> str:
    """An answer that is a turn of its own: only an end token that hangs on its last word goes.

    What else it holds of marks is prose, about a template perhaps.
    """
    return _without_glued_end(text)


def unrendered(messages: Sequence[Message]) -> list[Message]:
    """Turns as they are, but for a lone user's turn that is a whole rendered conversation.

    Raises:
        RowLeftOut: such a turn stands among others.
    """
    last = messages[-1] if messages else None
    if last is None or last["role"] != "user" or not _asks(last["content"]):
        return list(messages)
    if len(messages) > 1:
        raise RowLeftOut(Reason.TURN_MARKS, "a turn of a conversation is itself a conversation")
    return split(last["content"]) or list(messages)


def _asks(text: str) -> bool:
    """Whether a text ends in "Assistant:", or begins with a turn mark and ends with one."""
    if _OPEN_END.search(text):
        return True
    if not _BEGINNING.match(text):
        return False
    try:
        found = split(text)
    except RowLeftOut:
        return False
    if found is None or found[-1]["role"] != "user":
        return False
    return not text.rstrip().endswith(found[-1]["content"])


def _without_glued_end(text: str) -> str:
    """Prose may end in a token that it speaks of; a template's hangs on the last word."""
    cut = _without_ends(text, _END_TOKENS)
    return text if cut != text and cut[-1:] in ("", " ", "`", "'", '"', "(") else cut


def _from_assistants_mark(text: str) -> list[Message]:
    """The turns of a text that begins with the assistant's mark; none where it does not."""
    if not any(sign in text for sign in _SIGNS):
        return []
    for style in _STYLES:
        marks = list(style.mark.finditer(text))
        if not marks or text[: marks[0].start()].strip():
            continue
        if _role(marks[0]) == "assistant":
            return _turns(text, style, marks, [_role(mark) for mark in marks])
    return []


def _role(match: re.Match[str]) -> Role | None:
    return _ROLES.get(match.group(1).lower())


def _without_ends(text: str, ends: Sequence[str]) -> str:
    """Without end tokens at the end; white space goes only with a token."""
    while True:
        bare = text.rstrip()
        token = next((end for end in ends if bare.endswith(end)), None)
        if token is None:
            return text
        text = bare.removesuffix(token)


def _styled(text: str) -> list[Message] | None:
    for style in _STYLES:
        marks = list(style.mark.finditer(text))
        roles = [_role(mark) for mark in marks]
        if marks and _is_rendered(text, style, marks, roles):
            return _turns(text, style, marks, roles)
    return None


def _is_rendered(
    text: str, style: Style, marks: Sequence[re.Match[str]], roles: Sequence[Role | None]
) -> bool:
    """Tokens are unmistakable; "Human:" must begin the text, or "Assistant:" end it."""
    if style.ends or style.first_role == "user":
        return True
    starts = not text[: marks[0].start()].strip() and roles[0] in ("user", "system")
    asks = roles[-1] == "assistant" and not text[marks[-1].end() :].strip()
    return (
        (starts and "assistant" in roles)
        or (starts and len(marks) > 1)
        or (asks and "user" in roles)
        or (len(marks) == 1 and roles[0] == "assistant" and not text[: marks[0].start()].strip())
    )


def _turns(
    text: str, style: Style, marks: Sequence[re.Match[str]], roles: Sequence[Role | None]
) -> list[Message]:
    if None in roles:
        raise RowLeftOut(Reason.TURN_MARKS, "a text holds the mark of an unknown role")
    before = text[: marks[0].start()]
    for token in (*style.ends, "<s>", "<bos>", "<|begin_of_text|>"):
        before = before.replace(token, "")
    found: list[tuple[Role, str]] = [(style.first_role, before)] if before.strip() else []
    for mark, role, end in zip(
        marks, roles, [m.start() for m in marks[1:]] + [len(text)], strict=True
    ):
        assert role is not None
        found.append((role, _without_ends(text[mark.end() : end], style.ends or _END_TOKENS)))
    return _messages(found)


def _messages(found: Sequence[tuple[Role, str]]) -> list[Message]:
    turns: list[Message] = [{"role": role, "content": words.strip()} for role, words in found]
    if turns and turns[-1]["role"] == "assistant" and not turns[-1]["content"]:
        turns.pop()
    return turns


def _llama2(text: str) -> list[Message] | None:
    body = text.strip().removeprefix("<s>").lstrip()
    if not body.startswith("[INST]"):
        return None
    found: list[tuple[Role, str]] = []
    for match in _LLAMA2.finditer(body):
        asked, answered = match.group(1), _without_ends(match.group(2), ("</s>", "<s>"))
        if system := _LLAMA2_SYSTEM.match(asked):
            found.append(("system", system.group(1)))
            asked = asked[system.end() :]
        found.append(("user", asked))
        if answered.strip():
            found.append(("assistant", answered))
    return _messages(found)


def _alpaca(text: str) -> list[Message] | None:
    marks = list(_ALPACA.finditer(text))
    names = [mark.group(1) for mark in marks]
    if not {"Instruction", "Response"} <= set(names):
        return None
    if names not in (["Instruction", "Response"], ["Instruction", "Input", "Response"]):
        raise RowLeftOut(Reason.TURN_MARKS, "a text holds several instructions or answers")
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    parts = [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]
    head = text[: marks[0].start()].strip()
    found: list[tuple[Role, str]] = []
    if head and not _ALPACA_HEAD.match(head):
        found.append(("system", head))
    asked = "\n\n".join(part for part in parts[:-1] if part)
    return _messages(
        [*found, ("user", asked), ("assistant", _without_ends(parts[-1], _END_TOKENS))]
    )


def _vicuna(text: str) -> list[Message] | None:
    """Only where the text begins with USER: or Vicuna's opening, and ASSISTANT: follows."""
    marks = list(_VICUNA.finditer(text))
    roles = [_ROLES[{"USER": "user", "ASSISTANT": "assistant"}[m.group(1)]] for m in marks]
    if roles[:2] != ["user", "assistant"]:
        return None
    head = text[: marks[0].start()].strip()
    asks = not text[marks[-1].end() :].strip()
    if head and not head.startswith("A chat between a curious") and not asks:
        return None
    found: list[tuple[Role, str]] = [("system", head)] if head else []
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, role, end in zip(marks, roles, ends, strict=True):
        found.append((role, _without_ends(text[mark.end() : end], ("</s>",))))
    return _messages(found)
