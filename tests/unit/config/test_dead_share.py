"""How many prompts may be dead when an iteration goes on."""

from rewardloop.config import Rollout
from tests.unit.cases import for_each


@for_each(
    "share, num_prompts, allowed",
    [
        (0.01, 1000, 10),
        (0.01, 1099, 10),
        (0.01, 60, 1),  # one of few
        (0.01, 1, 0),  # but never all
        (0.01, 0, 0),
        (0.0, 1000, 0),
        (1.0, 10, 9),
        (0.07, 100, 7),  # 0.07 * 100 is 7.000000000000001
        (0.29, 100, 29),  # and 0.29 * 100 is 28.999999999999996
    ],
)
def test_a_share_allows_so_many(share: float, num_prompts: int, allowed: int) -> None:
    assert Rollout(max_dead_share=share).max_dead(num_prompts) == allowed
