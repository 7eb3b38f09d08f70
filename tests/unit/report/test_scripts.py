"""No text of a run becomes markup in its report: scripts, handlers, links and forms stay text."""

from typing import Any

import pytest

from tests.security.scripts import CHOOSES, PAYLOADS, Page, in_the_report, texts_in


@pytest.mark.parametrize("payload", PAYLOADS)
def test_a_text_in_any_place_of_a_report_stays_text(payload: str, data: dict[str, Any]) -> None:
    assert sum(key not in CHOOSES for _, key in texts_in(data)) > 50
    assert in_the_report(payload, data) == []


def test_the_checker_sees_what_it_looks_for() -> None:
    found = {payload: Page(payload).active for payload in PAYLOADS}
    harmless = {payload for payload, active in found.items() if not active}
    assert harmless == {PAYLOADS[7], PAYLOADS[8], PAYLOADS[9]}
