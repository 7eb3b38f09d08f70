"""The short form of `tests.security.scores`: fewer payloads, all judges and forms."""

import pytest

from rewardloop.method.enclosure import transcript
from tests.security import scores
from tests.security.judges import JUDGES
from tests.security.payloads import PAYLOADS

STEP = 8
SHORT = tuple(name for name, text in PAYLOADS.items() if len(text) < 5_000)


def test_there_are_enough_payloads_and_judges() -> None:
    assert len(PAYLOADS) >= 50
    assert len(JUDGES) >= 4


@pytest.mark.parametrize("number", range(len(scores.FORMS)))
async def test_no_response_changes_its_score_or_forges_a_turn(number: int) -> None:
    """Each form of the prompt has payloads of its own."""
    faults = await scores.faults_of([scores.FORMS[number]], SHORT[number::STEP])
    assert [str(fault) for fault in faults] == []


async def test_without_a_nonce_responses_do_change_their_scores() -> None:
    """So the suite sees what it looks for."""
    kinds = await scores.kinds_without_nonce()
    assert kinds["raised"] >= 5
    assert kinds["silenced"] >= 5


async def test_a_forged_turn_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rewardloop.method.enclosure.defused", str)
    some = ("chatml", "llama 3", "gemma", "mistral")
    faults = await scores.faults_of([scores.FORMS[0]], some, judges=[])
    assert {fault.payload for fault in faults if fault.kind == "forged"} == set(some)


@pytest.mark.parametrize("name", ["closing tag", "roles"])
async def test_a_tag_or_a_role_that_is_let_through_is_seen(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rewardloop.method.rubrics.escaping", lambda *_: str)
    monkeypatch.setattr("rewardloop.method.rubric.material", transcript)
    faults = await scores.faults_of([scores.FORMS[1]], [name], judges=[])
    assert [fault.kind for fault in faults] == ["forged"]
