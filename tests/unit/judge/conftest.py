"""Every call to the judge has the same nonce here, so that scripted engines can name it."""

import pytest


@pytest.fixture(autouse=True)
def fixed_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.judge.judge_call.nonce_of", lambda key: "7f3a")
