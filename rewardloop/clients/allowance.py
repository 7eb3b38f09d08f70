"""How many calls one server gets at once, by what its engine reports.

An engine computes so many sequences at once; what it is sent beyond that waits in it. A queue
that is never empty keeps it full, and a longer one only makes everybody wait: the judgement of
an answer behind the samples of a hundred others, and whoever else asks. So:

- before anything was seen to wait, one more call for each that was answered, as in TCP's slow
  start: what a server has not accepted yet is lost where it is more than its system's queue, and
  comes again after half a minute;
- nothing waits: GROWTH more with each report, if there were calls for it;
- more waits than LONG_QUEUE of what runs: as many as keep half of that waiting;
- in between: as many as now.

An engine that reports nothing gets more with each answer, up to MAX_CALLS. Pure: knows no clock
and no server.
"""

from dataclasses import dataclass

FIRST_CALLS = 256
"""In flight at once before any was answered."""
MAX_CALLS = 2048
FEWEST_CALLS = 8
LONG_QUEUE = 0.25
GROWTH = 1 / 8
MOST_AT_ONCE = 0.5
"""Of the calls in flight are kept, whatever one report says."""


@dataclass(frozen=True, slots=True)
class Load:
    """What engines report of themselves, in sequences."""

    num_running: float
    num_waiting: float

    def __add__(self, other: "Load") -> "Load":
        return Load(self.num_running + other.num_running, self.num_waiting + other.num_waiting)


class Allowance:
    def __init__(self) -> None:
        self.num_calls = FIRST_CALLS
        self._is_opening = True
        """Until something was seen to wait."""

    def answered(self) -> bool:
        """A call was; returns whether another number is allowed now."""
        return self._is_opening and self._allow(self.num_calls + 1)

    def reported(self, load: Load, num_in_flight: int) -> bool:
        """The engine said how it stands while so many calls of ours were in flight; returns
        whether another number is allowed now."""
        if load.num_waiting:
            self._is_opening = False
        if load.num_waiting > LONG_QUEUE * load.num_running:
            wanted = (1 + LONG_QUEUE / 2) * load.num_running
            kept = max(MOST_AT_ONCE, wanted / (load.num_running + load.num_waiting))
            return self._allow(min(self.num_calls, int(num_in_flight * kept)))
        if not load.num_waiting and num_in_flight >= self.num_calls:
            return self._allow(self.num_calls + max(1, int(self.num_calls * GROWTH)))
        return False

    def _allow(self, num_calls: int) -> bool:
        before, self.num_calls = self.num_calls, max(FEWEST_CALLS, min(MAX_CALLS, num_calls))
        return self.num_calls != before
