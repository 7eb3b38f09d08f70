"""vLLM does what the stub engine pretends to do: the same checks as in tests/integration."""

from collections.abc import Callable

import pytest

from tests.conformance import CHECKS, Engine
from tests.e2e.real_demo import Demo

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1000)]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_vllm(demo: Demo, check: Callable[[Engine], None]) -> None:
    keys = (demo.keys["api_key"], demo.keys["admin_key"])
    base = demo.summary["iterations"][0]["base_version"]
    check(Engine(demo.addresses["generator"], *keys, other_version=base))
