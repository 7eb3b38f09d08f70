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

from collections import deque
from collections.abc import Iterable

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
        if len(self._finished) < NUM_TRUSTED:
            return usual
        return min(usual, HOPELESS * self._bounded(list(self._finished)))

    def silence(self) -> float:
        """Seconds after which a call that is not answered calls for a look at its server."""
        if len(self._finished) < NUM_NEEDED:
            return min(UNKNOWN_SECONDS, self._ceiling)
        return self._bounded(list(self._finished))

    def _bounded(self, seconds: list[float]) -> float:
        usual = sorted(seconds)[min(int(len(seconds) * QUANTILE), len(seconds) - 1)]
        return min(max(MULTIPLE * usual, FLOOR_SECONDS), self._ceiling)
