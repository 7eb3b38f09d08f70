"""The reference's log-probabilities of pairs: looked up, else computed and kept."""

from pathlib import Path
from typing import Any

from services.trainer.grouping import Limit
from services.trainer.kept_logps import KeptLogps
from services.trainer.reference import Rows, logps_of


class Model:
    """Gives an answer minus the sum of its tokens, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, pairs: Rows) -> tuple[list[float], list[float]]:
        self.asked.append(len(pairs))
        chosen, rejected = ([-float(sum(p[f"{s}_ids"])) for p in pairs] for s in SIDES)
        return chosen, rejected


SIDES = ("chosen", "rejected")


def pair(chosen: list[int], rejected: list[int], prompt: int = 1) -> dict[str, Any]:
    return {"prompt_ids": [prompt], "chosen_ids": chosen, "rejected_ids": rejected}


def test_columns_stand_in_the_order_of_the_pairs() -> None:
    pairs = [pair([1], [2]), pair([3] * 9, [4]), pair([5, 5], [6])]
    model = Model()
    columns, num_known = logps_of(None, b"v1", pairs, Limit(num_rows=2), model)
    assert columns == {
        "ref_chosen_logps": [-1.0, -27.0, -10.0],
        "ref_rejected_logps": [-2.0, -4.0, -6.0],
    }
    assert (num_known, model.asked) == (0, [2, 1])


def test_another_pairing_of_the_same_answers_computes_nothing(tmp_path: Path) -> None:
    kept = KeptLogps(tmp_path)
    logps_of(kept, b"v1", [pair([1], [2]), pair([3], [4])], Limit(), Model())
    model = Model()
    columns, num_known = logps_of(kept, b"v1", [pair([2], [3]), pair([4], [1])], Limit(), model)
    assert columns["ref_chosen_logps"] == [-2.0, -4.0]
    assert columns["ref_rejected_logps"] == [-3.0, -1.0]
    assert (num_known, model.asked) == (4, [])


def test_only_pairs_with_a_new_answer_are_computed(tmp_path: Path) -> None:
    kept = KeptLogps(tmp_path)
    logps_of(kept, b"v1", [pair([1], [2])], Limit(), Model())
    model = Model()
    columns, num_known = logps_of(kept, b"v1", [pair([1], [2]), pair([1], [7])], Limit(), model)
    assert columns["ref_rejected_logps"] == [-2.0, -7.0]
    assert (num_known, model.asked) == (3, [1])


def test_another_version_or_prompt_is_another_number(tmp_path: Path) -> None:
    kept = KeptLogps(tmp_path)
    logps_of(kept, b"v1", [pair([1], [2])], Limit(), Model())
    assert logps_of(kept, b"v2", [pair([1], [2])], Limit(), Model())[1] == 0
    assert logps_of(kept, b"v1", [pair([1], [2], prompt=9)], Limit(), Model())[1] == 0
