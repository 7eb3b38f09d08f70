"""Whether one server is trusted with requests.

    closed -> open    after MAX_FAILURES in a row: a trial is due at once
    open   -> closed  when a trial, or any call, succeeds
    open   -> open    when a trial fails: the next one is due PAUSE_SECONDS later

While it is open and no trial is due, requests fail at once instead of each waiting for its own
deadline. Besides, a single failure lets a server rest: where there are others, they are asked
first.

Pure: the caller tells the time, and makes the trial.
"""

MAX_FAILURES = 5
PAUSE_SECONDS = 1.0
REST_SECONDS = 5.0


class Breaker:
    def __init__(self) -> None:
        self._num_failures = 0
        self._next_trial: float | None = None
        self._rests_until = 0.0

    @property
    def is_open(self) -> bool:
        return self._next_trial is not None

    def rest(self, now: float) -> float:
        """Seconds for which the server had better be left alone."""
        return max(0.0, self._rests_until - now)

    def trial_is_due(self, now: float) -> bool:
        return self._next_trial is not None and now >= self._next_trial

    def succeeded(self) -> None:
        self._num_failures, self._next_trial, self._rests_until = 0, None, 0.0

    def failed(self, now: float) -> None:
        self._num_failures += 1
        self._rests_until = now + REST_SECONDS
        if self._num_failures >= MAX_FAILURES and not self.is_open:
            self._next_trial = now

    def trial_failed(self, now: float) -> None:
        """The server is known not to work."""
        self._rests_until = now + REST_SECONDS
        self._next_trial = now + PAUSE_SECONDS
