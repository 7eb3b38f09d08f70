"""What may be asked of an iteration or an evaluation, and where that leads: a pure table.

Knows besides in which phase an iteration that has stopped goes on, and in which phases it may
leave the engines to others.

What waits, or has stopped, changes at once. What runs is first *asked* to stop: its wish
stands beside its state until the work in flight has ended (pause) or the step that must not
be torn is over (cancel). Asking for the same thing again changes nothing.

This room knows no SQL and no clock; `store.control` carries out what the table says.
"""

from enum import StrEnum
from typing import NamedTuple

from rewardloop.errors import Conflict
from rewardloop.records import IterationKind, IterationState, Phase, StopWish


class Ask(StrEnum):
    """What a person may ask for."""

    PAUSE = "pause"
    """Finish what is in flight, take nothing new, and give the engines back."""
    RESUME = "resume"
    """Go on after a pause."""
    CANCEL = "cancel"
    """Stop now; what is stored stays."""
    RETRY = "retry"
    """Go on after a failure or a cancellation."""


class Standing(NamedTuple):
    """Evaluations use the same words for their states."""

    state: str
    wish: str | None = None


QUEUED = Standing(IterationState.QUEUED)
RUNNING = Standing(IterationState.RUNNING)
PAUSING = Standing(IterationState.RUNNING, StopWish.PAUSE)
CANCELLING = Standing(IterationState.RUNNING, StopWish.CANCEL)
PAUSED = Standing(IterationState.PAUSED)
CANCELLED = Standing(IterationState.CANCELLED)
FAILED = Standing(IterationState.FAILED)
SUCCEEDED = Standing(IterationState.SUCCEEDED)

ENDED = frozenset({IterationState.SUCCEEDED, IterationState.FAILED, IterationState.CANCELLED})
"""What is in one of these states moves no more by itself; nor does what is paused."""

TABLE: dict[tuple[Standing, Ask], Standing] = {
    (QUEUED, Ask.PAUSE): PAUSED,
    (RUNNING, Ask.PAUSE): PAUSING,
    (PAUSING, Ask.PAUSE): PAUSING,
    (PAUSED, Ask.PAUSE): PAUSED,
    (QUEUED, Ask.RESUME): QUEUED,
    (RUNNING, Ask.RESUME): RUNNING,
    (PAUSING, Ask.RESUME): RUNNING,
    (PAUSED, Ask.RESUME): QUEUED,
    (QUEUED, Ask.CANCEL): CANCELLED,
    (RUNNING, Ask.CANCEL): CANCELLING,
    (PAUSING, Ask.CANCEL): CANCELLING,
    (CANCELLING, Ask.CANCEL): CANCELLING,
    (PAUSED, Ask.CANCEL): CANCELLED,
    (CANCELLED, Ask.CANCEL): CANCELLED,
    (QUEUED, Ask.RETRY): QUEUED,
    (RUNNING, Ask.RETRY): RUNNING,
    (CANCELLED, Ask.RETRY): QUEUED,
    (FAILED, Ask.RETRY): QUEUED,
}
"""A pair that is missing is refused, for the reason in `_REFUSALS`."""

_REFUSALS: dict[Standing, str] = {
    PAUSING: "is about to pause; resume it instead",
    CANCELLING: "is being cancelled; retry it once its state is 'cancelled'",
    PAUSED: "is paused; resume it instead",
    CANCELLED: "was cancelled; retry it, and it goes on from what is stored",
    FAILED: "has failed, so nothing of it runs; retry it, and it goes on from what is stored",
    SUCCEEDED: "has succeeded, so there is nothing left to {ask}",
}


def after(now: Standing, ask: Ask, what: str) -> Standing:
    """Where `ask` leads `what`, such as `iteration 2`, that stands at `now`.

    Raises:
        Conflict: it contradicts what has happened; the message says what to ask instead.
    """
    found = TABLE.get((now, ask))
    if found is None:
        raise Conflict(f"{what} {_REFUSALS[now].format(ask=ask)}")
    return found


_ENTRANCES: dict[tuple[str, str], Phase] = {
    (IterationKind.IMPROVE, Phase.PROMPTS): Phase.PROMPT_MODEL,
    (IterationKind.IMPROVE, Phase.ROLLOUT): Phase.PREPARE,
    (IterationKind.IMPROVE, Phase.PAIRING): Phase.PREPARE,
    (IterationKind.IMPROVE, Phase.TRAIN): Phase.PREPARE,
    (IterationKind.IMPROVE, Phase.ASSESS): Phase.SWAP,
    (IterationKind.BOOTSTRAP, Phase.JUDGE_RANKED): Phase.SWAP_BASELINE,
    (IterationKind.BOOTSTRAP, Phase.SELECT_EFT): Phase.SWAP_BASELINE,
    (IterationKind.BOOTSTRAP, Phase.TRAIN): Phase.SWAP_BASELINE,
    (IterationKind.BOOTSTRAP, Phase.ASSESS): Phase.SWAP,
}
"""Where an iteration that stopped in a phase goes on, if not in that phase itself: at the swap
before it, since another run may have left its own version in the replicas. (A training with
early stopping asks the judge, which is the version that is served.) What is done on the way
is found done."""


WITHOUT_ENGINES = (Phase.PAIRING, Phase.TRAIN)
"""Phases in which an iteration that may lag leaves the engines to others; nothing in them asks
an engine."""


def entrance(kind: str, phase: str, max_lag: int = 0) -> Phase:
    """The phase that an iteration which stopped in `phase` enters when it goes on."""
    if max_lag and phase in WITHOUT_ENGINES:
        return Phase.PAIRING
    return _ENTRANCES.get((kind, phase)) or Phase(phase)
