"""How many responses a prompt may have."""

from pathlib import Path

from tests.unit.datasets.rows import prompts, ranked


def test_more_responses_than_the_api_takes_leave_the_prompt_out(tmp_path: Path) -> None:
    """The API would refuse the whole request, and name no line."""
    few = {"prompt": "P", "responses": [{"text": f"r{n}", "rank": n} for n in range(100)]}
    many = {"prompt": "Q", "responses": [{"text": f"r{n}", "rank": n} for n in range(101)]}
    found = ranked(tmp_path, few, many)
    assert [len(prompt.responses) for prompt in found.prompts] == [100]
    assert found.left_out == {"too_many_responses": 1}
    assert prompts(tmp_path, many).prompts[0].reference == "r0"
