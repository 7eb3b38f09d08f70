"""Round axes, and how figures are spelled."""

from math import nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.report import charts, wording
from tests.unit.cases import for_each


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),
        (1, 17, [0, 5, 10, 15, 20]),
        (-0.2, 0.7, [-0.5, 0, 0.5, 1]),
        (3, 3, [2.6, 2.8, 3, 3.2, 3.4]),
        (0, 0, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


@given(st.floats(-1e38, 1e38), st.floats(-1e38, 1e38))
def test_ticks_enclose_what_is_drawn(a: float, b: float) -> None:
    low, high = sorted((a, b))
    found = charts.ticks(low, high)
    room = 1e-9 * max(abs(low), abs(high))
    assert found[0] <= low + room
    assert found[-1] >= high - room
    assert 2 <= len(found) <= 7


def test_a_curve_of_one_point_is_a_dot() -> None:
    svg = str(charts.curve("Loss", [(1, 0.69)]))
    assert svg.count("<circle") == 1
    assert "nan" not in svg


@for_each(
    "spelled, expected",
    [
        (wording.number(1234), "1,234"),
        (wording.number(1092.4), "1,092"),
        (wording.number(0.12345), "0.123"),
        (wording.number(None), wording.ABSENT),
        (wording.number(nan), wording.ABSENT),
        (wording.percent(0.555), "55.5\N{NO-BREAK SPACE}%"),
        (wording.points(-0.1), "-10.0"),
        (wording.duration(59.94), "59.9 s"),
        (wording.duration(60), "1 min 00 s"),
        (wording.duration(3_725), "1 h 02 min"),
        (wording.moment("2026-11-08T09:41:07+00:00"), "2026-11-08 09:41 UTC"),
        (wording.moment("yesterday"), "yesterday"),
        (wording.moment(None), wording.ABSENT),
        (wording.plain(True), "yes"),
    ],
)
def test_figures_are_spelled(spelled: str, expected: str) -> None:
    assert spelled == expected
