"""What of a judge's text is left when thinking and quotations are blanked.

Tests `rewardloop.method.own_words`.
"""

import pytest

from rewardloop.method.own_words import lines_of, own_words
from tests.unit.cases import for_each


def left(written: str) -> list[str]:
    """The lines that hold something, without blanks around them."""
    own = own_words(written)
    assert len(own.text) == len(own.unquoted) == len(written)
    return [line.strip() for line in own.text.split("\n") if line.strip()]


@for_each(
    "written, own",
    [
        ("Clear.\nScore: 4", ["Clear.", "Score: 4"]),
        ("<think>a\nb</think>\nScore: 4", ["Score: 4"]),
        ("a\nb</think>\nScore: 4", ["Score: 4"]),
        ("<think>a</think>b<think>c</think>d", [f"b{' ' * 16}d"]),
        ("<think>a<think>b</think>\nScore: 4", ["Score: 4"]),
        ("<answer>Score: 4</answer><|im_end|>", ["Score: 4"]),
        ("analysisa\nb assistantfinal\nScore: 4", ["Score: 4"]),
        ("> Score: 3\nScore: 4", ["Score: 4"]),
        ("```\nScore: 3\n```\nScore: 4", ["Score: 4"]),
        ("````\nScore: 3\n```\nScore: 2\n````\nScore: 4", ["Score: 4"]),
        ("```\n```\nScore: 4", ["Score: 4"]),
        ("~~~\nScore: 3", []),
        ("<response>\nScore: 3\n</response>\nScore: 4", ["<response>", "Score: 4"]),
        ("<response>\nScore: 3", ["<response>"]),
        ("It says:\n\nScore: 3\nand more\n\nScore: 4", ["It says:", "Score: 4"]),
        ("It says:\n> a\nScore: 4", ["It says:", "Score: 4"]),
        ("A line:\n    Score: 3\n    Score: 2\nScore: 4", ["A line:", "Score: 4"]),
        ("My score:\n    Score: 3", ["My score:", "Score: 3"]),
        ("It says:\n- Score: 3\nScore: 4", ["It says:", "Score: 4"]),
        ('It says:\n"Score: 3"\nScore: 4', ["It says:", "Score: 4"]),
    ],
)
def test_what_is_the_judges_own(written: str, own: list[str]) -> None:
    assert left(written) == own


def test_of_unfinished_thinking_the_last_line_is_left() -> None:
    own = own_words("<think>ab\ncd\nScore: 4\n")
    assert own.is_unfinished
    assert own.text == " " * 9 + "\n  \nScore: 4\n"
    one_line = own_words("ab <think>cd")
    assert (one_line.is_unfinished, one_line.text) == (True, "ab" + " " * 8 + "cd")
    assert not own_words("<think>ab</think>").is_unfinished


@pytest.mark.parametrize(("num_between", "is_quoted"), [(0, True), (39, True), (40, False)])
def test_a_quotation_closes_within_40_lines(num_between: int, is_quoted: bool) -> None:
    written = 'It holds "a\n' + "Score: 3\n" * num_between + 'b"\nScore: 4'
    assert (left(written) == ["Score: 4"]) is is_quoted


@pytest.mark.parametrize("marks", ['""', "“”", "„“", "«»", "「」"])
def test_an_open_quotation_mark_is_looked_for_in_later_lines_only(marks: str) -> None:
    opens, closes = marks
    assert left(f"{opens}a\nScore: 3{closes}\nScore: 4") == ["Score: 4"]
    assert left(f"{opens}a{closes}\nScore: 3\n{opens}b{closes}") == [
        f"{opens}a{closes}",
        "Score: 3",
        f"{opens}b{closes}",
    ]


def test_full_width_characters_are_read_as_theirs() -> None:
    assert left("\uff33core\uff1a\u3000\uff14") == ["Score: 4"]


def test_lines_with_their_beginnings() -> None:
    assert list(lines_of("ab\n\nc")) == [(0, "ab"), (3, ""), (4, "c")]
