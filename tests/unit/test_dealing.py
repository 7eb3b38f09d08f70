"""How `make test` deals tests out to its processes. Tests tests.conftest."""

from pathlib import Path

from tests import conftest
from tests.unit.cases import for_each

E2E = Path(conftest.__file__).parent / "e2e"


@for_each(
    "nodeid, group",
    [
        ("tests/unit/method/test_rubric.py::test_a[x::y]", "tests/unit/method/test_rubric.py"),
        ("tests/integration/test_api.py::test_a[1]", "tests/integration/test_api.py::test_a[1]"),
        ("tests/e2e/test_resume.py::test_a[sft]", "tests/e2e/test_resume.py"),
        ("tests/e2e/test_swap.py::test_a", "engines"),
        ("tests/e2e/test_demo.py::test_a", "engines"),
        ("tests/e2e/test_of_tomorrow.py::test_a", "engines"),
    ],
)
def test_one_process_runs_all_that_start_engines(nodeid: str, group: str) -> None:
    assert conftest._dealt_with(nodeid) == group


def test_engines_come_last_and_the_long_ones_first() -> None:
    kinds = [conftest._kind(f"tests/{folder}/test_x.py::test_a") for folder in ("unit", "e2e")]
    assert kinds == ["unit", "engines"]
    assert conftest._ORDER[-1] == "engines"
    assert conftest._ORDER.index("integration") < conftest._ORDER.index("unit")


@for_each("name", conftest._TRAINING)
def test_what_runs_beside_others_starts_no_engine(name: str) -> None:
    text = (E2E / f"{name}.py").read_text()
    assert not [word for word in ("Demo", "replica", "rewardloop.embedded") if word in text]
