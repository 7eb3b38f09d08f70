"""Swaps on real vLLM while requests stream; 50 of them: `python -m tests.security.swaps`."""

import pytest

from tests.security import swaps

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


async def test_no_answer_is_lost_mixed_or_mislabelled() -> None:
    found = await swaps.run(6)
    assert found["failures"] == []
    assert (found["swaps"], found["mixed_versions"], found["mislabelled"]) == (6, 0, 0)
    assert found["long_answers_ended"] == 2
    assert set(found["answers_by_version"]) == set(swaps.STEPS)
    assert all(number >= 2 for number in found["answers_by_version"].values())
