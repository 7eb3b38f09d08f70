"""A rolling swap behind a stock router that knows nothing of us: `vllm-router` from PyPI."""

from pathlib import Path

import pytest

from benchmarks.rolling import OTHER, bench

pytestmark = pytest.mark.timeout(300)


async def test_no_request_fails_and_none_is_mixed_while_replicas_take_turns(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as made:
        seen = await made.ask_while(made.swap, 6)
        after = await made.ask_while(made.swap, 6)
    assert seen.failed == after.failed == []
    assert (seen.mixed, after.mixed) == (0, 0)
    assert min(seen.by_version.values()) > 0
    assert seen.by_version.keys() == after.by_version.keys() == {"base", OTHER}
    assert max(seen.seconds) < 2.0  # a reload takes so long: nobody waited for one
