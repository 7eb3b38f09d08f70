"""The one way from the command line to a terminal.

Invariant: texts of others (prompts, responses, names, errors, log lines) are shown and obeyed by
nobody: whatever would steer a terminal or hide what stands there is spelled out, such as `\\x1b`.
Line feeds and tabs stay. Every command prints through a `Console` of this module, or through
`shown_json`.
"""

import json
import sys
import traceback
from collections.abc import Iterable
from typing import Any

from rich import console as rich_console
from rich.segment import Segment
from rich.text import Text, TextType

from rewardloop.texts import spelled_out


class Console(rich_console.Console):
    """A rich console without markup, through which no text reaches the terminal unescaped."""

    def __init__(self, *, stderr: bool = False, **kwargs: Any) -> None:
        super().__init__(stderr=stderr, markup=False, highlight=False, emoji=False, **kwargs)

    def render_str(self, text: str, **kwargs: Any) -> Text:
        """Before rich measures it and drops some control characters without a word."""
        return super().render_str(spelled_out(text), **kwargs)

    def render(self, *args: Any, **kwargs: Any) -> Iterable[Segment]:
        """What comes as a ready `Text` is caught here; rich's own escapes are made later."""
        for segment in super().render(*args, **kwargs):
            if segment.control:
                yield segment
            else:
                yield Segment(spelled_out(segment.text), segment.style)


def shown_json(value: Any, **kwargs: Any) -> str:
    """JSON that holds the same data and that a terminal only shows."""
    return spelled_out(json.dumps(value, **kwargs), json_escapes=True)


def plain(text: TextType) -> str:
    return spelled_out(str(text))


def print_traceback() -> None:
    """The exception that is being handled, to stderr."""
    sys.stderr.write(spelled_out(traceback.format_exc()))
