"""When a server is trusted, and when it is tried again."""

from rewardloop.clients.breaker import MAX_FAILURES, PAUSE_SECONDS, REST_SECONDS, Breaker


def opened(now: float = 100.0) -> Breaker:
    breaker = Breaker()
    for _ in range(MAX_FAILURES):
        breaker.failed(now)
    return breaker


def test_failures_in_a_row_open_it_and_others_do_not() -> None:
    breaker = Breaker()
    for _ in range(10):
        for _ in range(MAX_FAILURES - 1):
            breaker.failed(0.0)
        breaker.succeeded()
    assert not breaker.is_open
    assert opened().is_open


def test_a_single_failure_lets_it_rest() -> None:
    breaker = Breaker()
    breaker.failed(100.0)
    assert [breaker.rest(now) for now in (100.0, 101.0, 900.0)] == [
        REST_SECONDS,
        REST_SECONDS - 1,
        0.0,
    ]
    breaker.succeeded()
    assert breaker.rest(100.0) == 0.0


def test_one_trial_at_a_time_and_none_before_the_pause_is_over() -> None:
    breaker = opened(100.0)
    due = 100.0 + PAUSE_SECONDS
    assert [breaker.may_try(now) for now in (100.0, due, due, due + 9)] == [
        False,
        True,
        False,
        False,
    ]


def test_a_trial_that_succeeds_closes_it() -> None:
    breaker = opened(100.0)
    assert breaker.may_try(200.0)
    breaker.succeeded()
    assert not breaker.is_open


def test_a_trial_that_fails_makes_the_next_one_wait() -> None:
    breaker = opened(100.0)
    assert breaker.may_try(200.0)
    breaker.failed(200.0)
    assert breaker.is_open
    assert [breaker.may_try(now) for now in (200.0, 200.0 + PAUSE_SECONDS)] == [False, True]


def test_a_trial_that_was_broken_off_decides_nothing() -> None:
    breaker = opened(100.0)
    assert breaker.may_try(200.0)
    breaker.undecided()
    assert breaker.may_try(200.0)


def test_a_server_that_is_known_not_to_work_is_not_asked_five_times_more() -> None:
    breaker = Breaker()
    breaker.trip(100.0)
    assert breaker.is_open
