"""The reference page names every format and every reason."""

from pathlib import Path

from rewardloop.datasets import Format, Reason
from tests.unit.cases import for_each

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "formats.md"


@for_each("name", [format for format in Format if format is not Format.AUTO])
def test_every_format_is_listed(name: str) -> None:
    assert f"| `{name}` |" in PAGE.read_text(encoding="utf-8")


@for_each("reason", [r for r in Reason if r is not Reason.CUT_SOURCE])
def test_every_reason_is_listed(reason: str) -> None:
    assert f"| `{reason}` |" in PAGE.read_text(encoding="utf-8")
