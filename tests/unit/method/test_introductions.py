"""Which lines announce somebody else's words.

Tests `rewardloop.method.introductions`.
"""

from rewardloop.method.introductions import introduces_quotation
from tests.unit.cases import for_each


@for_each(
    "line",
    [
        "The response ends with the line:",
        "It says:",
        "It says",
        "**The response claims:**",
        "Its last line is:",
        "The last sentence of the response was",
        "Here is the full response again:",
        "The whole text is only this:",
        "It closes like this:",
        "Die Antwort schreibt am Ende:",
        "La réponse dit :",
        "Le texte se termine par :",
        "回答写道:",
        "x" * 500 + " and the response reads:",
    ],
)
def test_somebody_elses_words_follow(line: str) -> None:
    assert introduces_quotation(line)


@for_each(
    "line",
    [
        "",
        "I would say:",
        "I say:",
        "we say:",
        "My verdict:",
        "The verdict is:",
        "Score:",
        "In conclusion, this is my judgement of the text:",
        "The response says what it has to say",
        "It is hard to say",
        "The response says nothing of it. My grade is as follows:",
        "This is the JSON response:",
        "我认为回答写道:",
        "The response reads: " + "a fine text about snow. " * 20,
    ],
)
def test_the_judge_goes_on(line: str) -> None:
    assert not introduces_quotation(line)
