"""How many responses a prompt may have."""

import json
from pathlib import Path

import pytest

from rewardloop.datasets import read_ranked
from rewardloop.errors import BrokenFile


def test_more_responses_than_the_api_takes_are_a_broken_line(tmp_path: Path) -> None:
    """The API would refuse the whole request, and name no line."""
    few = {"prompt": "P", "responses": [{"text": f"r{n}", "rank": n} for n in range(100)]}
    many = {"prompt": "Q", "responses": [{"text": f"r{n}", "rank": n} for n in range(101)]}
    path = tmp_path / "ranked.jsonl"
    path.write_text(f"{json.dumps(few)}\n{json.dumps(many)}\n")
    with pytest.raises(BrokenFile, match="line 2: 101 responses to one prompt; leave at most 100"):
        read_ranked(path)
    assert len(read_ranked(path, skip_broken=True).prompts) == 1
