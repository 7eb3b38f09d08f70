"""One test over a table of cases that all say the same.

`pytest.mark.parametrize` makes a test of every case. Where a table holds dozens of spellings
of one thing, that costs more time than what is tested.
"""

from collections.abc import Callable, Iterable
from typing import Any

import pytest


def for_each(names: str, cases: Iterable[Any]) -> Callable[[Callable[..., None]], Any]:
    """Run the test with every case, those behind a failing one too, and name all that fail.

    Read like `parametrize`, for tests without fixtures.
    """
    table = list(cases)
    assert table, "a table without a case would test nothing"

    def over_the_table(test: Callable[..., None]) -> Callable[[], None]:
        def every_case() -> None:
            failures = [found for case in table if (found := _failure(test, names, case))]
            if failures:
                told = f"{len(failures)} of {len(table)} cases failed"
                raise BaseExceptionGroup(told, failures)

        for name in ("__name__", "__qualname__", "__doc__", "__module__"):
            setattr(every_case, name, getattr(test, name))
        every_case.place_as = test  # type: ignore[attr-defined] (where pytest says it stands)
        return every_case

    return over_the_table


def _failure(test: Callable[..., None], names: str, case: Any) -> BaseException | None:
    parts = names.split(", ")
    given = dict(zip(parts, case if len(parts) > 1 else [case], strict=True))
    try:
        test(**given)
    except (Exception, pytest.fail.Exception) as failure:
        failure.add_note(f"with {given!r}")
        return failure
    return None
