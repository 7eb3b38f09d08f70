"""From a conversation to token ids, the same for the engine and for the trainer.

Invariants: only the chat template opens and closes turns. A control token that is spelled
inside a message, an answer or a judge's material is encoded as plain text, on any tokenizer.
Where no message spells one, the ids are those of `apply_chat_template(tokenize=True)`.

How: every control token gets a secret second name. The template is rendered twice, once with
the messages and once with the characters at which a spelling begins or ends replaced by
private ones, so that what is left of the spellings is the template's own. These are given
their secret names, and a copy of the tokenizer that knows only the secret names encodes the
whole text: all its other rules (normalisation, prefix blanks, stripping) act as ever.

Knows tokenizers of the transformers library as an argument only, and neither models nor
engines.
"""

import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any
from weakref import WeakKeyDictionary

_ROLES = {"system", "developer", "user", "assistant", "tool"}
_PRIVATE = range(0xF0000, 0xFFFFE)
_ANCHORS = ("\n", "|", "x", "0")
"""Texts that may stand before another one, so that it begins no text."""
_SAMPLE = ("user", "assistant", "user")
ACTS_ON_MARKS = (
    "the chat template acts on control tokens that a message spells, so that they cannot be told "
    "from its own"
)


class TemplateRefused(ValueError):
    """The chat template does not take this conversation; the message is the template's."""


def prompt_ids(
    tokenizer: Any,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = True,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **template_arguments: Any,
) -> list[int]:
    """What the model is shown of a conversation.

    Tools are text like messages. Other `template_arguments` (`enable_thinking`, ...) go to the
    template as they are.

    Raises:
        TemplateRefused: the template does not take the conversation, or there is no template.
    """

    def rendered(shown: Sequence[Mapping[str, Any]]) -> str:
        *turns, last = shown
        return render(
            tokenizer,
            turns,
            add_generation_prompt=add_generation_prompt,
            tools=last["tools"],
            **template_arguments,
        )

    controls = _controls_of(tokenizer)
    return controls.encode(_own_marks_named(controls, rendered, [*messages, {"tools": tools}]))


def text_ids(tokenizer: Any, text: str) -> list[int]:
    """A text that stands behind others, as plain text: no control token, no prefix blank."""
    return _continued(_controls_of(tokenizer), text)


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """A sampled answer. Like `text_ids`, but for marks that are no turn's (`<think>`).

    An engine leaves special tokens out of a text that it sampled, so a special token that is
    spelled there was plain text. It writes the others out, so there the token was sampled.
    """
    controls = _controls_of(tokenizer)
    return _continued(controls, controls.named(text, controls.writable))


def end_of_turn_ids(tokenizer: Any, stop_ids: Sequence[int] | None = None) -> list[int]:
    """What ends an answer: the template's text behind it, through the first id that stops.

    White space before that id is left out: a model that writes it has it in its answer.
    `stop_ids` are those of the engine; left out, the tokenizer's own end.

    Raises:
        TemplateRefused: the template does not take a user's and an assistant's turn.
    """
    stops = {tokenizer.eos_token_id} if stop_ids is None else set(stop_ids)
    closing = closing_ids(tokenizer, stops)
    for place, token in enumerate(closing):
        if token in stops:
            before = closing[:place]
            blank = not str(tokenizer.decode(before)).strip()
            return [token] if blank else closing[: place + 1]
    return closing


def closing_ids(tokenizer: Any, stop_ids: Collection[int | None] = ()) -> list[int]:
    """What the template writes behind an answer.

    Some templates (GLM-4's) write nothing there, and the model ends an answer with the token
    that opens the next turn. That counts where it is one of `stop_ids`.
    """
    closing = _behind_an_answer(tokenizer, [])
    if set(closing).intersection(control_tokens(tokenizer).values()):
        return closing
    try:
        opening = _behind_an_answer(tokenizer, [{"role": "user", "content": "a"}])
    except TemplateRefused:
        return closing
    return opening if set(opening).intersection(stop_ids) else closing


def _behind_an_answer(tokenizer: Any, following: list[dict[str, str]]) -> list[int]:
    """The end that the renderings of two answers have in common, however they are altered."""
    shown = []
    for answer in ("\ue001", "\ue002"):
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": answer}]
        shown.append(render(tokenizer, turns + following, add_generation_prompt=False)[::-1])
    same = takewhile(lambda both: both[0] == both[1], zip(*shown, strict=False))
    closing = "".join(char for char, _ in same)[::-1]
    controls = _controls_of(tokenizer)
    return _continued(controls, controls.named(closing))


def render(tokenizer: Any, messages: Sequence[Mapping[str, Any]], **arguments: Any) -> str:
    """
    Raises:
        TemplateRefused: a template is somebody's program, so it may fail in any way.
    """
    shown = [dict(message) for message in messages]
    try:
        return str(tokenizer.apply_chat_template(shown, tokenize=False, **arguments))
    except Exception as error:
        raise TemplateRefused(f"the chat template refuses the conversation: {error}") from error


def control_tokens(tokenizer: Any) -> dict[str, int]:
    """The spellings of the control tokens with their ids.

    These are the special tokens, and the other added tokens that the chat template mentions.
    Blanks and markup that some tokenizers add for shortness' sake are text.
    """
    template = str(tokenizer.chat_template or "")
    return {
        token.content: number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.content
        and (token.special or (token.content.strip() and token.content in template))
    }


def forged(tokenizer: Any, text: str, *, is_answer: bool = False) -> int:
    """How many control tokens the text spells; of an answer, less those that it may hold."""
    controls = _controls_of(tokenizer)
    held = controls.writable if is_answer else frozenset()
    return sum(spelling not in held for spelling in controls.spelled.findall(text))


@dataclass(frozen=True, slots=True)
class _Controls:
    ids: dict[str, int]
    names: dict[str, str]
    """Spelling -> secret name."""
    spelled: re.Pattern[str]
    edges: str
    """The characters at which spellings begin or end."""
    writable: frozenset[str]
    """Those that an answer may hold: neither special nor written around a turn."""
    encode: Callable[[str], list[int]]
    """Ids of a text in which the control tokens stand under their secret names."""
    gains_blank: bool
    """The tokenizer puts a blank before a text."""

    def named(self, text: str, which: frozenset[str] | None = None) -> str:
        def name(found: re.Match[str]) -> str:
            spelling = found.group()
            return self.names[spelling] if which is None or spelling in which else spelling

        return self.spelled.sub(name, text)


_known: "WeakKeyDictionary[Any, tuple[Any, _Controls]]" = WeakKeyDictionary()


def _controls_of(tokenizer: Any) -> _Controls:
    """Made once for a tokenizer, and again where its template or its tokens changed."""
    state = (str(tokenizer.chat_template), len(tokenizer))
    known = _known.get(tokenizer)
    if known is None or known[0] != state:
        known = (state, _make_controls(tokenizer))
        _known[tokenizer] = known
    return known[1]


def _make_controls(tokenizer: Any) -> _Controls:
    ids = control_tokens(tokenizer)
    secret = secrets.token_hex(8)
    names = {spelling: f"\ue000{secret}x{n}\ue000" for n, spelling in enumerate(ids)}
    encode = _encoder(tokenizer, ids, names)
    first = tokenizer.convert_ids_to_tokens(encode("a"))[:1]
    return _Controls(
        ids=ids,
        names=names,
        spelled=_any_of(ids),
        edges="".join({edge for spelling in ids for edge in (spelling[0], spelling[-1])}),
        writable=frozenset(_writable(tokenizer, ids)),
        encode=encode,
        gains_blank=bool(first) and first[0][0] in "▁Ġ",
    )


def _any_of(spellings: Mapping[str, Any]) -> re.Pattern[str]:
    longest_first = sorted(spellings, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _writable(tokenizer: Any, ids: dict[str, int]) -> Iterator[str]:
    try:
        sample = [{"role": role, "content": "a"} for role in _SAMPLE]
        around_turns = render(tokenizer, sample, add_generation_prompt=True)
    except TemplateRefused:
        return
    for spelling, number in ids.items():
        special = tokenizer.added_tokens_decoder[number].special
        if not special and spelling not in around_turns:
            yield spelling


def _encoder(
    tokenizer: Any, ids: dict[str, int], names: dict[str, str]
) -> Callable[[str], list[int]]:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return _piecewise(tokenizer, {names[spelling]: number for spelling, number in ids.items()})
    renamed = type(backend).from_str(_renamed(backend.to_str(), names))
    return lambda text: list(renamed.encode(text, add_special_tokens=False).ids)


def _renamed(serialised: str, names: dict[str, str]) -> str:
    """A tokenizer in which only the secret names are control tokens, with the same ids.

    In the vocabulary they are renamed too: some models look whole words up there.
    """
    document = json.loads(serialised)
    for token in document["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = document["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(piece, piece): n for piece, n in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in model["vocab"]]
    if model.get("unk_token"):
        model["unk_token"] = names.get(model["unk_token"], model["unk_token"])
    if "merges" in model:
        model["merges"] = [merge for merge in model["merges"] if not _makes(merge, names)]
    document.update(post_processor=None, truncation=None, padding=None)
    return json.dumps(document)


def _makes(merge: Any, names: dict[str, str]) -> bool:
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in names or right in names or left + right in names


def _piecewise(tokenizer: Any, ids: dict[str, int]) -> Callable[[str], list[int]]:
    """For tokenizers written in Python: the stretches between control tokens, one by one."""
    parts = re.compile("(" + "|".join(map(re.escape, ids)) + ")") if ids else re.compile(r"(?!)")

    def encode(text: str) -> list[int]:
        found: list[int] = []
        for part in filter(None, parts.split(text)):
            if part in ids:
                found.append(ids[part])
            else:
                tokens = tokenizer.tokenize(part, split_special_tokens=True)
                found += tokenizer.convert_tokens_to_ids(tokens)
        return found

    return encode


def _continued(controls: _Controls, text: str) -> list[int]:
    """Ids of a text that begins no text, so that the tokenizer puts no blank before it."""
    if not text or not controls.gains_blank:
        return controls.encode(text)
    for anchor in _ANCHORS:
        head, whole = controls.encode(anchor), controls.encode(anchor + text)
        if whole[: len(head)] == head:
            return whole[len(head) :]
    return controls.encode(text)


def _own_marks_named(
    controls: _Controls,
    shown_as: Callable[[Sequence[Mapping[str, Any]]], str],
    messages: Sequence[Mapping[str, Any]],
) -> str:
    """The rendered conversation, the template's own control tokens under their secret names."""
    rendered = shown_as(messages)
    masks = _masks(controls, rendered, messages)
    back = {ord(mask): char for char, mask in masks.items()}

    def masked(how: Sequence[Callable[[str], str]]) -> str | None:
        """The rendering of masked messages, where the masks do not change it."""
        leaf = iter(how)
        try:
            text = shown_as([_mapped(m, lambda t: next(leaf)(t)) for m in messages])
        except TemplateRefused:
            return None
        return text if text.translate(back) == rendered else None

    levels = _levels(controls, masks)
    leaves = sum(1 for message in messages for _ in _texts(message))
    marked = masked([levels[0]] * leaves)
    if marked is None:
        marked = masked([_strongest(masked, levels, leaves, n) for n in range(leaves)])
    if marked is None:
        raise TemplateRefused(ACTS_ON_MARKS)
    return controls.named(marked).translate(back)


def _masks(
    controls: _Controls, rendered: str, messages: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """A private character that nobody wrote for each character of a spelling."""
    taken = set(rendered).union(*(text for m in messages for text in _texts(m)))
    free = (chr(code) for code in _PRIVATE if chr(code) not in taken)
    return dict(zip(sorted(set("".join(controls.ids))), free, strict=False))


def _levels(controls: _Controls, masks: dict[str, str]) -> list[Callable[[str], str]]:
    """Ways to mask a text, the strongest first.

    Masked edges leave no spelling that begins or ends in a message, however a template joins
    and cuts. Templates that look for a spelling, such as `</think>`, are shown that one.
    """
    edges = {ord(edge): masks[edge] for edge in controls.edges}
    every = {ord(char): mask for char, mask in masks.items()}

    def all_but(*shown: str) -> Callable[[str], str]:
        def mask(text: str) -> str:
            return controls.spelled.sub(
                lambda m: m.group() if m.group() in shown else m.group().translate(every), text
            )

        return mask

    showing = sorted(controls.writable)
    return [lambda t: t.translate(edges), all_but(), *map(all_but, showing), all_but(*showing)]


def _strongest(
    masked: Callable[[Sequence[Callable[[str], str]]], str | None],
    levels: list[Callable[[str], str]],
    leaves: int,
    place: int,
) -> Callable[[str], str]:
    """The strongest way to mask the text at `place` that does not change the rendering.

    Raises:
        TemplateRefused: none does, so the text spells a mark that the template acts on.
    """

    def alone(level: Callable[[str], str]) -> list[Callable[[str], str]]:
        return [level if n == place else str for n in range(leaves)]

    found = next((level for level in levels if masked(alone(level)) is not None), None)
    if found is None:
        raise TemplateRefused(ACTS_ON_MARKS)
    return found


def _texts(value: Any) -> Iterator[str]:
    """What `_mapped` maps, in its order."""
    found: list[str] = []
    _mapped(value, lambda text: found.append(text) or text)  # type: ignore[func-returns-value]
    return iter(found)


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """The message with its texts changed; the roles that everybody knows are none."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {
            key: item if key == "role" and item in _ROLES else _mapped(item, change)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    return value
