"""200 damaged checkpoints, 0 served; `python -m tests.security.checkpoints` prints the same."""

from tests.security import checkpoints as trial


async def test_no_damaged_checkpoint_is_served() -> None:
    found = await trial.run()
    assert found["served_kinds"] == []
    assert found["damaged_checkpoints"] == 200
    assert (found["corrupt_checkpoints_served"], found["served_without_postgres"]) == (0, 0)
