"""The files in the shape of published formats, each against what is expected of it.

Tests `rewardloop.datasets.formats.table`, `rewardloop.datasets.formats.shape`,
`rewardloop.datasets.formats.asked`, `rewardloop.datasets.formats.chat`,
`rewardloop.datasets.formats.columns`, `rewardloop.datasets.formats.exports`,
`rewardloop.datasets.formats.graded`, `rewardloop.datasets.formats.oasst`,
`rewardloop.datasets.formats.pairs`, `rewardloop.datasets.formats.preference`,
`rewardloop.datasets.formats.questions`, `rewardloop.datasets.formats.two_answers`.
"""

import json
from pathlib import Path

import pytest

from benchmarks import formats
from benchmarks.formats import ANY, Outcome


@pytest.mark.parametrize("folder", formats.folders(), ids=lambda folder: folder.name)
def test_the_format_is_read_as_its_authors_meant_it(folder: Path) -> None:
    assert formats.tried(folder).problems == ()


def test_there_are_at_least_thirty_formats_and_each_says_what_it_is() -> None:
    folders = formats.folders()
    assert len(folders) >= 30
    for folder in folders:
        assert len(json.loads((folder / "expected.json").read_text())["about"]) > 20


def copied(folder: Path, rows: str, expected: dict[str, object]) -> Path:
    (folder / "rows.jsonl").write_text(rows)
    (folder / "expected.json").write_text(json.dumps(expected))
    return folder


RIGHT = {
    "prompts": [{"prompt": "A", "reference": "b"}],
    "left_out": [],
    "ranked": [{"prompt": "A", "order": [["b"], ["c"]]}],
    "ranked_left_out": [],
}
ROW = '{"prompt": "A", "chosen": "b", "rejected": "c"}\n'


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({}, None),
        ({"prompts": [{"prompt": "A", "reference": "c"}]}, "prompts: the reference is 'b'"),
        ({"prompts": []}, "prompts: nobody asked for"),
        ({"prompts": [*RIGHT["prompts"], {"prompt": "B", "reference": None}]}, "'B' is missing"),
        ({"prompts_refused": "."}, "prompts should be refused; read were 1"),
        ({"ranked": [{"prompt": "A", "order": [["c"], ["b"]]}]}, "ranked: the order is"),
        ({"ranked_refused": "."}, "ranked should be refused; read were 1"),
        ({"left_out": ["media"]}, "prompts: nothing is left out for media"),
        ({"ranked_left_out": ["media"]}, "ranked: nothing is left out for media"),
    ],
)
def test_what_is_not_as_expected_is_told(
    tmp_path: Path, change: dict[str, object], problem: str | None
) -> None:
    outcome = formats.tried(copied(tmp_path, ROW, RIGHT | change))
    if problem is None:
        assert outcome == Outcome(tmp_path.name, 1, 1, refused=False, problems=())
    else:
        assert [told for told in outcome.problems if problem in told]


def test_any_reason_will_do_where_none_is_named() -> None:
    assert list(formats._missing_reasons("prompts", [ANY], {"media": 1})) == []
    assert len(list(formats._missing_reasons("prompts", [ANY], {}))) == 1


def test_the_summary_counts_what_is_not_as_expected_as_silent() -> None:
    outcomes = [
        Outcome("a", 1, 0, refused=False, problems=()),
        Outcome("b", 0, 0, refused=True, problems=()),
        Outcome("c", 1, 0, refused=False, problems=("x",)),
        Outcome("d", 0, 0, refused=True, problems=("x", "y")),
    ]
    assert formats.summary(outcomes) == {
        "formats": 4,
        "read": 1,
        "refused_clearly": 1,
        "silent": 2,
    }
