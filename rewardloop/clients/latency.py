"""How long a call to one server may take, learnt from that server's own calls.

The deadline is MULTIPLE times the QUANTILE of the latest calls, between FLOOR_SECONDS and a
ceiling. Calls that are still in flight count with the time that they have taken so far: else
the short answers, which are there first, would make every long one late. So a server that
becomes slow for all is given more time, and a call that hangs among others that do not is late.

A server that hangs altogether moves its own deadline away, and so do a few calls that hang when
all others are done. `silence` is for the first: the same bound by finished calls alone, after
which it is worth asking whether the server is there. For the second, HOPELESS times that bound
is late whatever else is in flight, once enough calls have finished to speak for all.

Pure: knows no clock and no server.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

MULTIPLE = 3.0
QUANTILE = 0.95
FLOOR_SECONDS = 10.0
NUM_REMEMBERED = 200
NUM_NEEDED = 8
"""With fewer finished calls nothing is known, and the ceiling holds."""
HOPELESS = 3.0
NUM_TRUSTED = 100
UNKNOWN_SECONDS = 30.0
"""Where nothing is known, a call of this age is worth a look at its server."""


class Latency:
    def __init__(self, ceiling_seconds: float) -> None:
        self._ceiling = ceiling_seconds
        self._finished: deque[float] = deque(maxlen=NUM_REMEMBERED)

    def note(self, seconds: float) -> None:
        """A call was answered after `seconds`."""
        self._finished.append(seconds)

    def deadline(self, others_in_flight: Iterable[float] = ()) -> float:
        """Seconds after which a call is overdue; `others_in_flight` are the ages of the rest."""
        if len(self._finished) < NUM_NEEDED:
            return self._ceiling
        usual = self._bounded([*self._finished, *others_in_flight])
        return min(usual, self._hopeless())

    def overdue(self, in_flight: Sequence[float]) -> list[bool]:
        """Which calls are past their deadline, by the ages of all in flight, the youngest first:
        `deadline` of each one's others, from one sorted list for all."""
        if not in_flight or in_flight[-1] <= min(FLOOR_SECONDS, self._ceiling):
            return [False] * len(in_flight)
        if len(self._finished) < NUM_NEEDED:
            return [age > self._ceiling for age in in_flight]
        everything = sorted([*self._finished, *in_flight])
        at, hopeless = _place(len(everything) - 1), self._hopeless()
        return [
            # Without a call that stands before the place, the next one stands there.
            age > min(hopeless, self._within(everything[at + (bisect_left(everything, age) <= at)]))
            for age in in_flight
        ]

    def _hopeless(self) -> float:
        """Seconds after which a call is late whatever else is in flight."""
        if len(self._finished) < NUM_TRUSTED:
            return self._ceiling
        return HOPELESS * self._bounded(list(self._finished))

    def silence(self) -> float:
        """Seconds after which a call that is not answered calls for a look at its server."""
        if len(self._finished) < NUM_NEEDED:
            return min(UNKNOWN_SECONDS, self._ceiling)
        return self._bounded(list(self._finished))

    def _bounded(self, seconds: list[float]) -> float:
        return self._within(sorted(seconds)[_place(len(seconds))])

    def _within(self, usual: float) -> float:
        return min(max(MULTIPLE * usual, FLOOR_SECONDS), self._ceiling)


def _place(num: int) -> int:
    """Of the quantile, among so many in order."""
    return min(int(num * QUANTILE), num - 1)
