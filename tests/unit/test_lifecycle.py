"""What may be asked of an iteration in which state, and where it goes on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop import lifecycle
from rewardloop.errors import Conflict
from rewardloop.lifecycle import Ask, Standing, after, entrance
from rewardloop.records import IterationKind, IterationState, Phase
from tests.unit.cases import for_each

STANDINGS = {
    "queued": lifecycle.QUEUED,
    "running": lifecycle.RUNNING,
    "pausing": lifecycle.PAUSING,
    "cancelling": lifecycle.CANCELLING,
    "paused": lifecycle.PAUSED,
    "cancelled": lifecycle.CANCELLED,
    "failed": lifecycle.FAILED,
    "succeeded": lifecycle.SUCCEEDED,
}
NAMES = {standing: name for name, standing in STANDINGS.items()}

EXPECTED = """
              pause      resume    cancel      retry
queued        paused     queued    cancelled   queued
running       pausing    running   cancelling  running
pausing       pausing    running   cancelling  -
cancelling    -          -         cancelling  -
paused        paused     queued    cancelled   -
cancelled     -          -         cancelled   queued
failed        -          -         -           queued
succeeded     -          -         -           -
"""


def cells() -> list[tuple[str, str, str]]:
    head, *rows = [line.split() for line in EXPECTED.strip().splitlines()]
    return [(row[0], ask, then) for row in rows for ask, then in zip(head, row[1:], strict=True)]


def test_the_table_is_complete() -> None:
    assert len(cells()) == len(STANDINGS) * len(Ask) == 32


@for_each("now, ask, then", cells())
def test_what_is_asked_leads_where_the_table_says(now: str, ask: str, then: str) -> None:
    if then == "-":
        with pytest.raises(Conflict, match=r"^iteration 7 "):
            after(STANDINGS[now], Ask(ask), "iteration 7")
    else:
        assert NAMES[after(STANDINGS[now], Ask(ask), "iteration 7")] == then


@pytest.mark.parametrize(
    ("now", "ask", "mend"),
    [
        ("pausing", "retry", "resume it"),
        ("cancelling", "resume", "retry it once its state is 'cancelled'"),
        ("paused", "retry", "resume it"),
        ("cancelled", "resume", "retry it"),
        ("failed", "pause", "retry it"),
        ("failed", "cancel", "retry it"),
        ("succeeded", "cancel", "nothing left to cancel"),
    ],
)
def test_a_refusal_says_what_to_ask_instead(now: str, ask: str, mend: str) -> None:
    with pytest.raises(Conflict, match=mend):
        after(STANDINGS[now], Ask(ask), "iteration 7")


MOVES = {
    "start": {"queued": "running"},
    "wait for a version": {"running": "queued"},
    "settle": {"pausing": "paused", "cancelling": "cancelled"},
    "fail": dict.fromkeys(("running", "pausing", "cancelling"), "failed"),
    "succeed": dict.fromkeys(("running", "pausing", "cancelling"), "succeeded"),
}
"""What happens without anybody asking."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*Ask, *MOVES]), max_size=12))
def test_whatever_happens_two_requests_at_most_make_it_go_on_or_end_it(moves: list[str]) -> None:
    """Unless it has succeeded. And asking again never leads elsewhere."""
    now = lifecycle.QUEUED
    for move in moves:
        if move in MOVES:
            now = STANDINGS[MOVES[move].get(NAMES[now], NAMES[now])]
            continue
        now = tried(now, Ask(move))
        assert tried(now, Ask(move)) == now
        assert now.wish is None or now.state == IterationState.RUNNING
    for ask in (Ask.RESUME, Ask.RETRY):
        now = tried(now, ask)
    assert NAMES[now] in ("queued", "running", "cancelling", "succeeded")


def tried(now: Standing, ask: Ask) -> Standing:
    try:
        return after(now, ask, "it")
    except Conflict:
        return now


@pytest.mark.parametrize("kind", IterationKind)
@pytest.mark.parametrize("phase", Phase)
def test_what_needs_a_version_served_goes_on_where_it_is_swapped_in(
    kind: IterationKind, phase: Phase
) -> None:
    swaps = (Phase.PROMPT_MODEL, Phase.PREPARE, Phase.SWAP, Phase.SWAP_BASELINE)
    asks_engines = (Phase.PROMPTS, Phase.ROLLOUT, Phase.JUDGE_RANKED, Phase.ASSESS, Phase.TRAIN)
    of_bootstrap = (Phase.JUDGE_RANKED,)
    of_improve = (Phase.PROMPTS, Phase.ROLLOUT)
    foreign = of_improve if kind is IterationKind.BOOTSTRAP else of_bootstrap
    found = entrance(kind, phase)
    if phase in asks_engines and phase not in foreign:
        assert found in swaps
    elif phase in swaps or phase is Phase.TRAIN_BASELINE:
        assert found is phase


@pytest.mark.parametrize("phase", Phase)
def test_one_that_may_lag_needs_no_swap_to_pair_and_train(phase: Phase) -> None:
    kind = IterationKind.IMPROVE
    needs_none = phase in (Phase.PAIRING, Phase.TRAIN)
    assert entrance(kind, phase, 1) is (Phase.PAIRING if needs_none else entrance(kind, phase))
