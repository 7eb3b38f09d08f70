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
    rests = [breaker.rest(now) for now in (100.0, 101.0, 900.0)]
    assert rests == [REST_SECONDS, REST_SECONDS - 1, 0.0]
    breaker.succeeded()
    assert breaker.rest(100.0) == 0.0


def test_a_closed_one_needs_no_trial_and_an_opened_one_is_tried_at_once() -> None:
    assert not Breaker().trial_is_due(100.0)
    assert opened(100.0).trial_is_due(100.0)


def test_failures_of_calls_that_were_under_way_put_no_trial_off() -> None:
    breaker = opened(100.0)
    breaker.failed(150.0)
    assert breaker.trial_is_due(100.0)


def test_a_trial_that_fails_makes_the_next_one_wait() -> None:
    breaker = opened(100.0)
    breaker.trial_failed(200.0)
    due = [breaker.trial_is_due(now) for now in (200.0, 200.0 + PAUSE_SECONDS)]
    assert due == [False, True]


def test_success_closes_it() -> None:
    breaker = opened(100.0)
    breaker.succeeded()
    assert not breaker.is_open


def test_a_server_that_is_known_not_to_work_is_not_asked_five_times_more() -> None:
    breaker = Breaker()
    breaker.trial_failed(100.0)
    assert breaker.is_open
