"""How many ranked prompts are left to IFT, by hand."""

from rewardloop.config import Bootstrap
from rewardloop.store.ift_share import num_left_to_ift
from tests.unit.cases import for_each


@for_each(
    "num_ranked, num_unranked, wanted, expected",
    [
        (6, 0, 3200, 3),  # at most half
        (7, 0, 3200, 3),
        (7, 0, 2, 2),  # no more than are wanted
        (6, 2, 3, 1),  # what is lacking beside two references
        (6, 2, 2, 0),
        (6, 5, 2, 0),
        (2, 0, 3200, 1),
        (1, 0, 3200, 1),  # IFT has nothing else
        (1, 1, 3200, 0),
    ],
)
def test_ift_takes_what_it_lacks(
    num_ranked: int, num_unranked: int, wanted: int, expected: int
) -> None:
    config = Bootstrap(max_ift_examples=wanted)
    assert num_left_to_ift(num_ranked, num_unranked, config) == expected
