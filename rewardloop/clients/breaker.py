"""Whether one server is trusted with requests.

    closed -> open      after MAX_FAILURES in a row, or when the server is known not to work
    open   -> on trial  after PAUSE_SECONDS: one request, or one probe, goes through
    trial  -> closed    when it succeeds; open again when it fails

While it is open, requests fail at once instead of each waiting for its own deadline. Besides, a
single failure lets a server rest: where there are others, they are asked first.

Pure: the caller tells the time.
"""

MAX_FAILURES = 5
PAUSE_SECONDS = 1.0
REST_SECONDS = 5.0


class Breaker:
    def __init__(self) -> None:
        self._num_failures = 0
        self._open_until: float | None = None
        self._rests_until = 0.0
        self._is_tried = False

    @property
    def is_open(self) -> bool:
        return self._open_until is not None

    def rest(self, now: float) -> float:
        """Seconds for which the server had better be left alone."""
        return max(0.0, self._rests_until - now, (self._open_until or 0.0) - now)

    def may_try(self, now: float) -> bool:
        """Whether an open breaker lets one trial through now; the caller tells how it went."""
        if self._open_until is None or self._is_tried or now < self._open_until:
            return False
        self._is_tried = True
        return True

    def undecided(self) -> None:
        """The trial was broken off."""
        self._is_tried = False

    def succeeded(self) -> None:
        self._num_failures, self._open_until, self._is_tried = 0, None, False
        self._rests_until = 0.0

    def failed(self, now: float) -> None:
        self._num_failures += 1
        self._rests_until = now + REST_SECONDS
        if self.is_open or self._num_failures >= MAX_FAILURES:
            self.trip(now)

    def trip(self, now: float) -> None:
        """Open: this server is known not to work."""
        self._open_until, self._is_tried = now + PAUSE_SECONDS, False
        self._rests_until = now + REST_SECONDS
