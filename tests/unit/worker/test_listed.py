"""Whether a phase may end without what is dead in it, and what a batch of new prompts leaves."""

import pytest

from rewardloop.config import Rollout
from rewardloop.errors import TooManyDead
from rewardloop.store import pauses
from rewardloop.store.candidates import Candidate
from rewardloop.store.models import FailedItem
from services.worker.attempts import Servers, work_through
from services.worker.batch import Batch
from services.worker.listed import left_out


def dead(*errors: str) -> list[FailedItem]:
    return [FailedItem(item=f"response {n}", last_error=error) for n, error in enumerate(errors)]


def test_a_phase_without_dead_items_has_nothing_to_tell() -> None:
    assert left_out("responses", [], 10, Rollout(), "Mend it") is None


def test_few_dead_items_are_left_out_and_told() -> None:
    found = left_out("responses", dead("a", "b", "b"), 10, Rollout(max_dead_share=0.3), "Mend it")
    assert found == {"num_items": 10, "num_dead": 3, "max_dead": 3, "error": "b", "num_of_error": 2}


def test_too_many_dead_items_end_a_phase_with_what_is_needed_to_mend_it() -> None:
    with pytest.raises(TooManyDead) as caught:
        left_out("responses", dead("a", "b", "b"), 10, Rollout(), "Mend it")
    message = caught.value.message
    assert message.startswith("3 of 10 responses are dead")
    assert "max_dead_share 0.01 allows 1" in message
    assert "seen 2 times, at response 1 for one: b. Mend it" in message


def test_what_is_left_out_with_one_thing_counts_once() -> None:
    both = [FailedItem(item=f"prompt 1, answered by {v}", last_error="e") for v in ("a", "b")]
    found = left_out("prompts", both, 8, Rollout(), "Mend it")
    assert found is not None
    assert (found["num_dead"], found["num_of_error"]) == (1, 2)


async def test_a_new_prompt_that_cannot_be_written_is_stored_as_failed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pauses, "FIRST_SECONDS", 0.0)
    asked: list[int] = []

    async def write(number: int) -> Candidate:
        asked.append(number)
        if number == 5:
            raise ValueError("no room")
        return Candidate(number, "a prompt", None, None)

    batch = Batch(write, range(4, 8), 3)
    await work_through(batch, Servers({}), limit=4, seconds=60)
    assert sorted(asked) == [4, 5, 5, 5, 6, 7]
    assert batch.written[5] == Candidate(5, "", "failed", "ValueError: no room")
    assert {n: c.reason for n, c in batch.written.items()} == {
        4: None,
        5: "failed",
        6: None,
        7: None,
    }
