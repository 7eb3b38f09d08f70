"""Which rubric a judge is given: one that ships, or a template of the user's own."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag, field_validator

from rewardloop.config.frozen import Frozen

PLACEHOLDER = re.compile(r"(?<!\{)\{(?P<name>[a-z_]+)\}(?!\})|\{\{(?P<literal>[a-z_]+)\}\}")
"""`{request}` stands for the request; `{{request}}` is the word in braces. Other braces, such
as those of a JSON object, are text."""
REQUIRED = frozenset({"request", "response"})
KNOWN = REQUIRED | {"max_words", "nonce"}
MAX_CHARACTERS = 20_000
SHIPPED = ("additive", "short")


class RubricTemplate(Frozen):
    """The text of a rubric of the user's own. It is stored with the run, which so does not
    depend on the file that it came from.

    With `{nonce}` in the line that asks for the score (`Score {nonce}: <total>`), only a score
    that names the call's nonce counts. Without it, a response that the judge quotes without any
    mark of quotation may be read as its score."""

    template: str = Field(min_length=1, max_length=MAX_CHARACTERS)

    @field_validator("template")
    @classmethod
    def _placeholders(cls, template: str) -> str:
        used = {match["name"] for match in PLACEHOLDER.finditer(template) if match["name"]}
        if missing := sorted(REQUIRED - used):
            raise ValueError(
                f"the rubric's template has no {{{missing[0]}}}; write {{request}} and "
                "{response} where the judge is to read them"
            )
        if unknown := sorted(used - KNOWN):
            raise ValueError(
                f"the rubric's template has {{{unknown[0]}}}, for which there is no text; use "
                f"{{request}}, {{response}}, {{nonce}} and {{max_words}}, or write "
                f"{{{{{unknown[0]}}}}} for the word in braces"
            )
        return template


def _checked(given: Any) -> Any:
    if isinstance(given, str) and given not in SHIPPED:
        raise ValueError(
            f"there is no rubric {given!r}; use {' or '.join(SHIPPED)}, or a text of your own: "
            "{file: PATH} in a file for `rewardloop start`, {template: TEXT} anywhere"
        )
    if isinstance(given, dict) and "file" in given:
        raise ValueError(
            "a rubric's file is read by `rewardloop start`, from the folder of the config file; "
            "over REST send its text as {template: ...}"
        )
    return given


def _kind(given: Any) -> str:
    return "shipped" if isinstance(given, str) else "own"


Rubric = Annotated[
    Annotated[Literal["additive", "short"], Tag("shipped")] | Annotated[RubricTemplate, Tag("own")],
    Discriminator(_kind),
    BeforeValidator(_checked),
]
