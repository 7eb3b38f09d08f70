"""The stub engine passes for vLLM: the same checks as tests/e2e/test_conformance.py."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.conformance import CHECKS, Engine


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_the_stub(world: Any, check: Callable[[Engine], None]) -> None:
    await world.with_base()
    await world.publish("other", parent="base")
    world.serve_generator()
    keys = (world.settings.api_key, world.settings.admin_key)
    told = (key.get_secret_value() for key in keys)
    check(Engine(world.settings.generator_urls[0], *told, other_version="other"))
