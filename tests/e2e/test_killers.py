"""Requests made to end an engine, sent to real vLLM: `python -m tests.security.killers`."""

import pytest

from tests.security import killers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


async def test_no_request_ends_the_engine() -> None:
    found = await killers.run()
    assert found["failures"] == []
    assert found["killer_requests"] >= 60
