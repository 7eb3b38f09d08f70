"""Ids that end answers, of a version that is swapped in."""

import json
from typing import Any

import pytest

from rewardloop import checkpoints
from rewardloop.errors import SwapFailed
from services.generator import swap
from services.generator.admission import Admission


def publish_with_stops(root: Any, version: str, *stop_ids: int) -> None:
    """The weights of m1, which end their answers at `stop_ids`."""

    def write(folder: Any) -> None:
        for name in ("model.safetensors", "canaries.json"):
            (folder / name).write_bytes((root / "m1" / name).read_bytes())
        (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": stop_ids}))

    checkpoints.publish(root, version, write, {})


async def test_more_stop_ids_than_the_engine_knows_are_added_to_each_request(replica: Any) -> None:
    """vLLM reads them at its start only. Back on the old version, they are gone."""
    publish_with_stops(replica.root, "m2", 9, 7)
    assert (await replica.activate("m2")).status_code == 200
    await replica.chat()
    await replica.chat(stop_token_ids=[5], n=2)
    assert (await replica.activate("m1")).status_code == 200
    await replica.chat()
    asked = [request.get("stop_token_ids") for request in replica.server.requests]
    assert asked == [[7, 9], [5, 7, 9], None]


async def test_fewer_stop_ids_than_the_engines_are_not_loaded(replica: Any) -> None:
    """Measured against the version that the server was started with, not the last one."""
    publish_with_stops(replica.root, "m2", 7)
    publish_with_stops(replica.root, "m3", 7, 8)
    swapper = swap.Swapper(replica.app, Admission(), replica.root, "m3")
    with pytest.raises(SwapFailed, match=r"m2 differs from m3 in its stop ids \(\[8\] would"):
        await swapper.activate(replica.app, "m2")
    assert replica.engine.events == []
