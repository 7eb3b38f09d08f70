"""The report page: what a whole run shows, and what hostile, young and broken runs do to it."""

import copy
import json
import re
from html.parser import HTMLParser
from math import nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewardloop.report import render

SECTIONS = {
    **{"summary": "Versions side by side", "progress": "Progress"},
    **{"wins": "Win rates, head to head", "agreement": "Judge agreement with humans"},
    **{"scores": "Scores", "lengths": "Response lengths", "pairs": "Preference pairs"},
    **{"eft": "EFT data: from judgements to judge tasks", "training": "Training"},
    **{"prompts": "New prompts and what the filters took", "health": "Judge health"},
    **{"conformance": "Against the paper", "timings": "Timings", "examples": "Examples"},
    "config": "Config",
}


PARTS = ("conformance", "versions", "assessments", "iterations", "evaluations")


@pytest.fixture
def only_run(data: dict[str, Any]) -> dict[str, Any]:
    return {"run": data["run"]}


class Page(HTMLParser):
    """What a browser would make of it: elements, their attributes, and the text that is seen."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


def section(html: str, name: str) -> Page:
    return Page(html.partition(f'<section id="{name}">')[2].partition("</section>")[0])


def test_every_section_appears_once_and_is_linked(html: str) -> None:
    assert re.findall(r'<section id="(\w+)">', html) == re.findall(r'<a href="#(\w+)">', html)
    assert set(re.findall(r'<section id="(\w+)">', html)) == set(SECTIONS)
    for name, title in SECTIONS.items():
        assert f"<h2>{title}</h2>" in html.partition(f'id="{name}"')[2]
    assert "Nothing to show" not in html


def test_every_element_is_closed(html: str) -> None:
    assert html.startswith("<!doctype html>")
    assert Page(html).open == []


def test_the_header_names_the_run(html: str, sample: dict[str, Any]) -> None:
    text = Page(html.partition("<header>")[2].partition("</header>")[0]).text
    run = sample["run"]
    for told in (run["name"], run["id"], run["config_sha256"], "2026-11-08 09:41 UTC"):
        assert told in text
    assert "rewardloop 0.2.0 , torch 2.13.0" in text.replace("0.2.0,", "0.2.0 ,")
    assert "All its iterations (3) succeeded." in text


def test_versions_stand_side_by_side(html: str) -> None:
    text = section(html, "summary").text
    # M2 won 11 of 23 against M1; it judges 66 of 114 pairs as humans did, and ties 14.
    assert "47.8 % 29.8 to 66.8, vs M1" in text
    assert "64.0 % 47.9 to 77.9 0.230 -0.12 to 0.50" in text
    assert "3.4" in text  # M2's own roll-out is iteration 2: 2.9 + 2 / 4
    assert "432" in text  # characters against M1, 431.5 rounded


def test_every_figure_of_a_head_to_head_has_its_unit(html: str) -> None:
    over = " over prompts"
    for name, lengths, what in (
        ("summary", "Characters, head to head", ""),
        ("wins", "Length of each, char", over),
    ):
        text = section(html, name).text
        for told in (f"Won, % (95 % interval{what})", f"Net, points (95 % interval{what})"):
            assert told in text
        assert lengths in text


def test_the_software_is_said_to_be_the_apis(html: str) -> None:
    """The trainer's and the engine's versions are not among it."""
    assert "<dt>API software</dt>" in html


def test_win_rates_have_bars_whiskers_and_what_the_paper_found(html: str) -> None:
    page = section(html, "wins")
    # Four results, each three bars; a whisker is three lines.
    classes = [value for key, value in page.attributes if key == "class"]
    assert [classes.count(kind) for kind in ("won", "tied", "lost", "whisker")] == [4, 4, 4, 12]
    assert (
        "M2 against M1 47.8 % 29.8 to 66.8 26.1 % 26.1 % +21.7 -8.3 to 51.7 no clear difference"
        in page.text
    )
    assert "55.5 % \N{EN DASH} 11.7 %" in page.text
    assert "running" in page.text


def test_scores_tell_those_that_are_missing(html: str) -> None:
    page = section(html, "scores")
    assert page.tags.count("svg") == 2
    assert "no score: 14" in page.text
    assert "9 no score, 5 truncated; Iteration 2 (M2 to M3): 7 no score." in page.text


def test_funnels_tell_every_loss(html: str) -> None:
    eft = section(html, "eft").text
    assert "judgements written 1,248" in eft
    assert "\N{MINUS SIGN} not in the human order 737" in eft
    assert "kept as EFT examples 180" in eft
    assert "refused" not in eft  # none were
    assert "\N{MINUS SIGN} too similar 19" in section(html, "prompts").text
    assert "prompts with a pair 33" in section(html, "pairs").text


def test_training_has_its_curves(html: str) -> None:
    page = section(html, "training")
    # SFT and M1: loss and token accuracy; M2 and M3: loss, margin and accuracy.
    assert page.tags.count("polyline") == 2 * 2 + 2 * 3
    assert "M2: reward margin 0.06 at step 1, 1.5 at step 17" in page.text
    assert "num dropped 1" in page.text


def test_a_passed_limit_is_said_in_words(data: dict[str, Any]) -> None:
    data["iterations"][1]["report"]["health"] |= {"unparsed_rate": 0.5, "collapse": ["Too bad."]}
    assert "past its limit" not in render(data)
    data["iterations"][1]["report"]["health"]["unparsed_rate"] = 0.51
    page = section(render(data), "health")
    assert "51.0 % ✗ past its limit" in page.text
    assert "Iteration 1: Too bad." in page.text


@pytest.mark.parametrize(
    ("limit", "figure", "is_past"),
    [(0.3, -0.34, True), (0.3, -0.29, False), (0.3, 0.34, True), (None, 1.0, False)],
)
def test_length_may_be_rewarded_either_way(
    limit: float | None, figure: float, is_past: bool, data: dict[str, Any]
) -> None:
    data["run"]["config"]["health"]["max_length_correlation"] = limit
    data["iterations"] = data["iterations"][:2]
    data["iterations"][1]["report"]["health"]["length_correlation"] = figure
    assert ("past its limit" in render(data)) is is_past


def test_deviations_are_said_in_words(html: str, sample: dict[str, Any]) -> None:
    text = section(html, "conformance").text
    deviating = [row for row in sample["conformance"] if row["deviates"]]
    assert deviating
    assert text.count("≠ deviates") == len(deviating)
    compared = [row for row in sample["conformance"] if row["verdict"] in ("same", "deviates")]
    assert 0 < len(compared) < len(sample["conformance"])
    assert f"{len(deviating)} of {len(compared)} values deviate." in text
    assert "training.learning_rate 1e-06 1e-05 ≠ deviates" in text
    assert "training.early_stopping.every_num_steps 200 \N{EN DASH} does not apply" in text


def test_timings_are_summed(html: str) -> None:
    text = section(html, "timings").text
    assert "rollout \N{EN DASH} 13 min 32 s 13 min 32 s" in text
    assert text.index("select eft") < text.index("prompts") < text.index("rollout")
    assert "in all 45 min 41 s" in text  # 2741.2 s: the roll-out that was not is no 0


def test_the_config_is_there(html: str, sample: dict[str, Any]) -> None:
    told = section(html, "config").text.partition("config ")[2]
    assert json.loads(told) == sample["run"]["config"]


def everywhere(value: Any, text: str) -> Any:
    """The same data with `text` for every text, and in every free key."""
    if isinstance(value, dict):
        return {k: everywhere(v, text) for k, v in value.items()} | {text: text}
    if isinstance(value, list):
        return [everywhere(item, text) for item in value]
    return text if isinstance(value, str) else value


def test_a_hostile_response_is_inert(html: str, hostile: str) -> None:
    page = Page(html)
    assert hostile in page.texts
    assert not {"script", "img"} & set(page.tags)


@pytest.mark.parametrize("part", ["run", *PARTS])
def test_hostile_text_anywhere_is_inert(part: str, data: dict[str, Any], hostile: str) -> None:
    keep = {"kind", "state", "purpose", "created_at"}
    data[part] = restored(everywhere(data[part], hostile), data[part], keep)
    page = Page(render(data))
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    assert not any(key.startswith("on") for key, _ in page.attributes)
    assert any(hostile in text for text in page.texts)


def restored(hostile: Any, original: Any, keep: set[str]) -> Any:
    """`hostile` with the original's words of a closed set, which decide what is shown."""
    if isinstance(original, dict):
        return hostile | {
            key: value if key in keep else restored(hostile[key], value, keep)
            for key, value in original.items()
        }
    if isinstance(original, list):
        return [restored(h, o, keep) for h, o in zip(hostile, original, strict=True)]
    return hostile


def test_nothing_is_loaded_from_elsewhere(html: str) -> None:
    page = Page(html)
    links = [
        v for k, v in page.attributes if k in ("href", "src", "srcset", "xlink:href", "action")
    ]
    assert all(link and link.startswith("#") for link in links)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:", html)
    assert "default-src 'none'" in html


@pytest.mark.parametrize("empty", ["absent", "null", "[]"])
def test_a_run_without_anything_says_so(empty: str, only_run: dict[str, Any]) -> None:
    if empty != "absent":
        for part in PARTS:
            only_run[part] = None if empty == "null" else []
    page = render(only_run)
    assert Page(page).open == []
    for name in set(SECTIONS) - {"config"}:
        assert "Nothing to show." in section(page, name).text
    assert "No iteration has begun." in section(page, "pairs").text
    spells_nothing_wrong(page)


def test_what_the_config_leaves_out_is_the_reason(only_run: dict[str, Any]) -> None:
    only_run["run"]["config"] |= {"evaluation": None, "bootstrap": None}
    only_run["run"]["config"]["prompts"]["self_instruct"] = None
    page = render(only_run)
    assert "asks for no head to head" in section(page, "wins").text
    for name in ("eft", "agreement"):
        assert "The run has no bootstrap" in section(page, name).text
    assert "those of the dataset ranked." in section(page, "prompts").text


def test_a_failed_iteration_tells_its_error_and_what_it_lacks(data: dict[str, Any]) -> None:
    young = {"index": 2, "kind": "improve", "state": "failed", "phase": "prompts"}
    data["iterations"][2] = young | {"error": "too few prompts: <b>12</b> of 40"}
    data["versions"].pop()
    page = render(data)
    assert "too few prompts: <b>12</b> of 40" in section(page, "progress").text
    why = "Nothing to show. Iteration 2 (M2 to M3) failed in phase prompts"
    for name in ("prompts", "pairs", "training", "health", "examples"):
        assert why in section(page, name).text
    spells_nothing_wrong(page)


@pytest.mark.parametrize(
    ("state", "told"),
    [("running", "is in phase rollout"), ("queued", "waits for its turn")],
)
def test_a_young_iteration_says_where_it_is(
    state: str, told: str, only_run: dict[str, Any]
) -> None:
    only_run["iterations"] = [{"index": 1, "kind": "improve", "state": state, "phase": "rollout"}]
    page = render(only_run)
    for name in ("prompts", "pairs", "training", "health", "examples", "scores", "timings"):
        assert told in section(page, name).text


def test_a_failed_evaluation_tells_its_error(data: dict[str, Any]) -> None:
    data["evaluations"][1] |= {"state": "failed", "error": "the judge is gone", "result": None}
    page = render(data)
    assert "failed: the judge is gone" in section(page, "wins").text
    assert "failed" in section(page, "summary").text


def spells_nothing_wrong(page: str) -> None:
    text = Page(page).text.partition("The resolved config")[0]
    assert not re.search(r"\b(None|nan|NaN|inf|Undefined|True|False)\b", text)
    for value in re.findall(r'(?:x|y|[xy][12]|width|height|points|c[xy])="([^"]*)"', page):
        assert re.fullmatch(r"[-\d., a-z]*", value)
        assert "nan" not in value


def leaves(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to every value under a key, but not to the lists at the top."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found += [(*path, key)] if path and isinstance(key, str) else []
        found += leaves(value, (*path, key)) if isinstance(value, dict | list) else []
    return found


@given(st.data(), st.sampled_from([None, nan]))
@settings(max_examples=6)
def test_anything_may_be_missing(
    sample: dict[str, Any], choice: st.DataObject, missing: float | None
) -> None:
    paths = [p for p in leaves(sample) if p[:2] != ("run", "config") or len(p) == 2]
    data = copy.deepcopy(sample)
    for path in choice.draw(st.lists(st.sampled_from(paths), max_size=12)):
        take_away(data, path, missing)
    page = render(data)
    assert Page(page).open == []
    spells_nothing_wrong(page)


def take_away(tree: Any, path: tuple[Any, ...], missing: float | None) -> None:
    """Texts, lists and objects become null; numbers become `missing`."""
    for key in path[:-1]:
        tree = tree[key]
        if tree is None:
            return
    tree[path[-1]] = missing if isinstance(tree[path[-1]], float) else None


def test_the_same_data_gives_the_same_page(html: str, sample: dict[str, Any]) -> None:
    assert render(sample) == html
