"""What the benchmark of judging by expectation counts as agreement.

Tests `benchmarks.expected`.
"""

from math import isnan

from benchmarks.expected import agreement, marked, seeds


def test_agreement_is_over_pairs_that_the_many_order() -> None:
    # The pairs (1, 3) and (1, 2) are ordered alike, (3, 2) is a tie here.
    assert agreement([[1, 2, 2]], [[1, 3, 2]]) == (2.5 / 3, 3)
    assert agreement([[2, 1]], [[1, 3]]) == (0, 1)
    # A tie of the many, and an answer without a score, ask nothing.
    share, num = agreement([[2, 1, None]], [[3, 3, 1]])
    assert isnan(share)
    assert num == 0


def test_pairs_are_of_one_prompt() -> None:
    assert agreement([[1], [2]], [[2], [1]])[1] == 0


def test_so_many_answers_are_taken_as_are_asked_for() -> None:
    found = seeds(6)
    assert [len(texts) for _, texts in found] == [4, 2]
    assert len({text for _, texts in found for text in texts}) == 6


def test_a_request_begins_with_the_rounds_word() -> None:
    ((prompt, _),) = seeds(1)
    (message,) = marked(prompt, "Task 1A")
    assert message["content"] == f"Task 1A: {prompt[0]['content']}"
