"""Deadlines by what a server's own calls take."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.clients.latency import (
    FLOOR_SECONDS,
    NUM_NEEDED,
    NUM_REMEMBERED,
    NUM_TRUSTED,
    Latency,
)

CEILING = 240.0


def after(*seconds: float) -> Latency:
    latency = Latency(CEILING)
    for each in seconds:
        latency.note(each)
    return latency


def test_without_calls_the_ceiling_holds() -> None:
    assert after(*[1.0] * (NUM_NEEDED - 1)).deadline() == CEILING


def test_three_times_what_nineteen_of_twenty_take() -> None:
    assert after(*range(1, 21)).deadline() == 60.0  # the 20th of 20 calls
    assert after(*[5.0] * 99, 50.0).deadline() == 15.0  # one odd call in a hundred


@pytest.mark.parametrize(("seconds", "expected"), [(0.01, FLOOR_SECONDS), (200.0, CEILING)])
def test_there_is_a_floor_and_a_ceiling(seconds: float, expected: float) -> None:
    assert after(*[seconds] * 50).deadline() == expected


def test_short_answers_that_are_there_first_make_the_long_ones_not_late() -> None:
    latency = after(*[2.0] * 8)
    assert latency.deadline() == FLOOR_SECONDS
    assert latency.deadline([12.0] * 23) == 36.0
    assert latency.silence() == FLOOR_SECONDS  # all the same worth a look


def test_a_few_that_hang_when_all_others_are_done_are_late_in_the_end() -> None:
    seconds = [5.0] * NUM_TRUSTED
    hanging = [50.0] * 20  # a sixth of what is known
    assert after(*seconds).deadline(hanging) == 45.0  # three times fifteen
    assert after(*seconds[1:]).deadline(hanging) == 150.0  # too few speak against them
    assert after(*[100.0] * NUM_TRUSTED).deadline(hanging) == CEILING


def test_a_call_that_hangs_among_others_that_do_not_is_late() -> None:
    assert after(*[4.0] * 60).deadline([300.0]) == 12.0


def test_only_the_latest_calls_count() -> None:
    latency = after(*[50.0] * 500, *[5.0] * NUM_REMEMBERED)
    assert latency.deadline() == 15.0


@given(st.lists(st.floats(0, 1e4), max_size=300), st.lists(st.floats(0, 1e4), max_size=300))
def test_a_deadline_is_within_its_bounds_and_waiting_calls_never_shorten_it_below_them(
    finished: list[float], in_flight: list[float]
) -> None:
    deadline = after(*finished).deadline(in_flight)
    assert FLOOR_SECONDS <= deadline <= CEILING


@given(
    st.lists(st.floats(0, 100), max_size=30),
    st.lists(st.one_of(st.floats(0, 400), st.sampled_from([10.0, 12.0, 241.0])), max_size=60),
)
def test_one_look_at_all_calls_finds_those_that_are_past_their_own_deadlines(
    finished: list[float], in_flight: list[float]
) -> None:
    latency, ages = after(*finished), sorted(in_flight)
    others = [[*ages[:at], *ages[at + 1 :]] for at in range(len(ages))]
    expected = [age > latency.deadline(o) for age, o in zip(ages, others, strict=True)]
    assert latency.overdue(ages) == expected
