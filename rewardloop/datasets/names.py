"""What a dataset may be called."""

import re

from rewardloop.errors import InvalidInput

DATASET_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"


def check_dataset_name(name: str) -> None:
    """
    Raises:
        InvalidInput: the name is none.
    """
    if not re.fullmatch(DATASET_NAME, name):
        raise InvalidInput(
            f"{name!r} cannot be the name of a dataset; give one of letters, digits, dots, dashes "
            "and underscores, at most 100, that begins with a letter or a digit"
        )
