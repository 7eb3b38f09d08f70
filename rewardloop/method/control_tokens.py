"""Spellings of control tokens in text that others wrote, made harmless. Pure text.

A tokenizer reads `<|im_end|>` in a message as the control token of that name, so a
response could end its turn and write the judge's. The engine that judges may be
anybody's, with no gate of ours before it. So the first character of every such
spelling becomes its HTML entity, which a judge can read and no tokenizer takes for
the token. Knows the spellings of the field, not a tokenizer's own list.

A template that marks turns by plain words (`### Response:`) is not covered: such
words are also text, and the tags of the prompt enclose them.
"""

# ruff: noqa: RUF001, RUF003 (judges and tokenizers write these characters)

import re

_NAMES = "|".join(
    [
        r"s|bos|eos|pad|unk|mask|sep|cls|sop|eop|eot|bot|eod|endoftext|startoftext|end_of_text",
        r"(?:start|end)_of_(?:turn|text|image|audio|sentence|utterance)|image_soft_token",
        r"(?:extra_id_|unused_?|reserved_?|special_|control_)\d{1,6}|0x[0-9a-f]{2}",
        r"image|video|audio|tools?|tool_(?:calls?|responses?|results?|outputs?)|function_call",
        r"(?:seed:)?(?:think|thinking|bos|eos|tool_call)|think_on|think_off|thoughts?|_start|_end",
        r"reason(?:ing)?|reflection|analysis|scratchpad",
        r"fim_(?:prefix|middle|suffix|pad)|(?:repo|file)_?name|file_sep|gh_stars|commit_[a-z]{1,9}",
        r"(?:start|end)_(?:of_role|function_[a-z]{1,12})|arg_(?:key|value)|longcat_[a-z_]{1,20}|eom|eog",
        r"issue_(?:start|comment|closed)|jupyter_[a-z]{1,9}|empty_output|human|hy_[a-z]{1,20}",
    ]
)
_SHAPES = (
    r"[<＜](?=[|｜][^>＞\n]{1,64}[>＞])"  # <|im_end|>, <｜User｜>, <|turn>
    r"|[<＜](?=[^>＞\s]{1,64}[|｜][>＞])"  # <turn|>
    rf"|[<＜](?=/?(?:{_NAMES})\s{{0,4}}/?[>＞])"
    r"|<(?=</?sys>>)"
    r"|\[(?=/?(?:inst|think)\])"
    r"|\[(?=\|/?[^\]\n]{1,64}\|\])"  # [|assistant|]
    r"|[◁](?=/?[a-z_]{1,40}▷)"
    r"|\](?=~!?[a-z]{1,8}[\[\]])|\[(?=[a-z]{1,8}~\[)"  # ]~b], [e~[
)
_CAPITALS = (
    r"\[(?=/?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_[A-Z]{1,20}|CALL_ID|ARGS|MODEL_SETTINGS|IMG"
    r"|IMG_BREAK|IMG_END|AUDIO|BEGIN_AUDIO|PREFIX|MIDDLE|SUFFIX|REFERENCE_DOC_\d{1,3}|[gs]?MASK"
    r"|CLS|SEP|PAD|UNK|BOS|EOS|unused\d{1,6}|control_\d{1,6})\])"
)
# Lookaheads of bounded length keep this linear in what was written.
_CONTROL_TOKEN = re.compile(rf"(?i:{_SHAPES})|{_CAPITALS}")


def defused(text: str) -> str:
    """The text with the first character of every control token's spelling as an entity."""
    return _CONTROL_TOKEN.sub(_entity, text)


def _entity(match: re.Match[str]) -> str:
    return "&lt;" if match[0] == "<" else f"&#{ord(match[0])};"
