"""The report page: what a whole run shows, and what hostile, young and broken runs do to it."""

import copy
import json
import re
from html.parser import HTMLParser
from math import exp, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewardloop.config import parse_run_config
from rewardloop.conformance import conformance
from rewardloop.report import render

HOSTILE = "</pre><script>alert('m')</script><img src=x onerror=alert(1)>\n\"quoted\" & Score: 5"
SECTIONS = {
    **{"summary": "Versions side by side", "progress": "Progress"},
    **{"wins": "Win rates, head to head", "agreement": "Judge agreement with humans"},
    **{"scores": "Scores", "lengths": "Response lengths", "pairs": "Preference pairs"},
    **{"eft": "EFT data: from judgements to judge tasks", "training": "Training"},
    **{"prompts": "New prompts and what the filters took", "health": "Judge health"},
    **{"conformance": "Against the paper", "timings": "Timings", "examples": "Examples"},
    "config": "Config",
}


def sft_steps(num: int, start: float) -> list[dict[str, Any]]:
    return [
        {"step": s, "loss": start * exp(-s / 30), "mean_token_accuracy": 0.5 + s / 200}
        | {"learning_rate": 2e-5}
        for s in range(1, num + 1)
    ] + [{"step": num, "train_runtime": 331.2}]


def dpo_steps(num: int) -> list[dict[str, Any]]:
    return [
        {"step": s, "loss": 0.693 * exp(-s / 12) + 0.02 * (s % 3), "learning_rate": 1e-5}
        | {"rewards/margins": 0.09 * s - 0.03 * (s % 4), "rewards/accuracies": min(1, 0.4 + s / 20)}
        for s in range(1, num + 1)
    ]


def assessment(label: str, version: str, mode: str, *, right: int, parsed: int) -> dict[str, Any]:
    """Of 120 pairs and 160 judgements."""
    metrics = {
        **{"num_prompts": 18, "num_responses": 54, "num_scored": 52},
        **{"num_agreeing": right, "num_reversed": 100 - right, "num_tied": 14},
        **{"num_missing_pairs": 6, "pairwise_accuracy": right / 114, "five_best": 0.41},
        **{"exact_order": 0.12, "spearman": right / 200 - 0.1, "kendall_tau": right / 250 - 0.1},
        **{"num_judgements": 160, "num_parsed": parsed, "parse_rate": parsed / 160},
    }
    return {"label": label, "version": version, "mode": mode, "purpose": "health"} | {
        "metrics": metrics
    }


def head_to_head(a: str, b: str, wins: int, losses: int) -> dict[str, Any]:
    """Of 24 prompts, one of them undecided."""
    rates = {"win_rate": wins / 23, "loss_rate": losses / 23, "tie_rate": (23 - wins - losses) / 23}
    net = (wins - losses) / 23
    result = {
        **{"num_prompts": 24, "num_wins": wins, "num_losses": losses},
        **{"num_ties": 23 - wins - losses, "num_undecided": 1, "net_win_rate": net, **rates},
        **{"net_low": net - 0.3, "net_high": net + 0.3},
        **{"win_low": max(0, wins / 23 - 0.18), "win_high": wins / 23 + 0.19},
        **{"mean_length_a": 431.5, "mean_length_b": 402.25, "position_bias": 0.66},
    }
    return {"id": f"{a}-{b}", "a": a, "b": b, "state": "succeeded", "error": None} | {
        "result": result
    }


def bootstrap() -> dict[str, Any]:
    eft = {
        **{"num_prompts": 52, "num_prompts_without_order": 3, "num_prompts_unjudged": 6},
        **{"num_prompts_agreeing": 31, "num_prompts_disagreeing": 12, "num_judgements": 1248},
        **{"num_unparsed": {"no_score": 41, "truncated": 12, "refused": 0}},
        **{"num_without_order": 60, "num_unjudged": 110, "num_out_of_order": 737},
        **{"num_agreeing": 288, "num_thinned": 70, "num_over_limit": 38, "num_kept": 180},
        "scores_before": {"0": 12, "1": 31, "2": 44, "3": 37, "4": 134, "5": 30},
        "scores_after": {"0": 12, "1": 31, "2": 44, "3": 37, "4": 64, "5": 30},
    }
    seconds = {"train_baseline": 402.7, "swap_baseline": 9.1, "judge_ranked": 744, "select_eft": 0.4}
    return {
        **{"index": 0, "kind": "bootstrap", "state": "succeeded", "phase": "done", "error": None},
        **{"base_version": "base", "new_version": "run-m1", "baseline_version": "run-sft"},
        "seconds": seconds | {"train": 1274.9, "swap": 8.8, "assess": 301.3, "rollout": None},
        "counts": {"prompts": 0, "responses": 0, "judgements": 0, "judgements_scored": 0, "pairs": 0},
        "report": {"ift": {"num_examples": 70}, "eft": eft},
        "scores": {"scores": {str(i): 0 for i in range(6)}, "unscored": {}},
        "lengths": None,
        "training": sft_steps(42, 2.4),
        "baseline_training": sft_steps(18, 2.9),
        "examples": [],
    }


def improve(index: int, *, unparsed: float, unscored: dict[str, int]) -> dict[str, Any]:
    health = {
        **{"num_judgements": 480, "num_scored": 466, "unparsed_rate": unparsed},
        **{"top_score_share": 0.18, "mean_score": 2.9 + index / 4, "entropy_bits": 2.11},
        **{"tie_rate": 0.12, "judge_spread": 0.71, "length_correlation": 0.34, "collapse": []},
    }
    pairing = {
        **{"policy": {"kind": "best_worst"}, "num_prompts": 40, "num_pairs": 33},
        **{"unpaired": {"tied": 5, "too_few_scored": 2}, "mean_margin": 1.38},
        **{"mean_chosen_length": 424.1, "mean_rejected_length": 388.7, "label_smoothing": 0.0},
    }
    rejected = {"too_similar": 19, "too_short": 11, "keyword": 4, "language": 3}
    counts = {"prompts": 40, "responses": 160, "judgements": 480, "judgements_scored": 466}
    return {
        **{"index": index, "kind": "improve", "state": "succeeded", "phase": "done", "error": None},
        **{"base_version": f"run-m{index}", "new_version": f"run-m{index + 1}"},
        "baseline_version": None,
        "seconds": {"prompts": 92.4, "prepare": 7.1, "rollout": 811.6, "pairing": 0.3, "train": 645.2}
        | {"swap": 8.9, "assess": 288.0},
        "counts": counts | {"pairs": 33},
        "report": {
            **{"health": health, "pairing": pairing},
            "prompts": {"num_written": 77, "num_accepted": 40, "rejected": rejected},
            "training_model": {"num_dropped": 1, "why": "the prompt alone fills max_length"},
        },
        "scores": {
            "scores": {"0": 11, "1": 40, "2": 92, "3": 131, "4": 108 + index, "5": 84},
            "unscored": unscored,
        },
        "lengths": {"mean": 401.2 + 20 * index, "p10": 122.0, "p50": 397.5, "p90": 655.1},
        "training": dpo_steps(17),
        "baseline_training": [],
        "examples": [
            {
                "prompt": [{"role": "user", "content": "Which planets have rings?"}],
                **{"chosen": "The four giant ones: Jupiter, Saturn, Uranus and Neptune."},
                **{"rejected": HOSTILE, "chosen_score": 4.333333333333333, "rejected_score": 1.0},
            }
        ],
    }


def whole_run() -> dict[str, Any]:
    config = parse_run_config(
        {
            **{"name": "paper-cpu", "bootstrap": {}, "evaluation": {"num_prompts": 24}},
            **{"prompts": {"dataset": "ranked", "self_instruct": {}}},
            **{"training": {"learning_rate": 1e-5}, "health": {"also_assess": ["constrained"]}},
        }
    )
    first = bootstrap()
    judges = [("SFT", "run-sft", 52, 8), ("M1", "run-m1", 61, 158), ("M2", "run-m2", 66, 159)]
    health = [
        assessment(label, version, mode, right=right, parsed=160 if mode == "constrained" else parsed)
        for label, version, right, parsed in [*judges, ("M3", "run-m3", 63, 157)]
        for mode in ("free", "constrained")
    ]
    versions = {"M0": "base", "SFT": "run-sft", "M1": "run-m1", "M2": "run-m2", "M3": "run-m3"}
    return {
        "run": {
            **{"id": "5f2c2c1e-6f0a-4f0e-9a53-5e9d1f6f2b11", "name": "paper-cpu"},
            **{"config": config.model_dump(mode="json"), "config_sha256": config.digest()},
            **{"software": {"rewardloop": "0.2.0", "torch": "2.13.0"}, "base_version": "base"},
            "created_at": "2026-11-08T09:41:07.123456+00:00",
        },
        "conformance": conformance(config, first["report"]),
        "versions": [
            {"label": label, "id": version, "kind": "dpo", "created_at": "2026-11-08T10:00:00+00:00"}
            for label, version in versions.items()
        ],
        "assessments": [*health, {**health[0], "mode": "constrained", "purpose": "eft"}],
        "iterations": [
            first,
            improve(1, unparsed=0.03, unscored={"no_score": 9, "truncated": 5}),
            improve(2, unparsed=0.02, unscored={"no_score": 7}),
        ],
        "evaluations": [
            head_to_head("M1", "SFT", 8, 7),
            head_to_head("M2", "M1", 11, 6),
            head_to_head("M2", "SFT", 12, 5),
            head_to_head("M3", "M2", 6, 11),
            {**head_to_head("M3", "SFT", 9, 8), "state": "running", "result": None},
        ],
    }


def only_run() -> dict[str, Any]:
    return {"run": whole_run()["run"]}


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


@pytest.fixture(scope="module")
def html() -> str:
    return render(whole_run())


def test_every_section_appears_once_and_is_linked(html: str) -> None:
    assert re.findall(r'<section id="(\w+)">', html) == re.findall(r'<a href="#(\w+)">', html)
    assert set(re.findall(r'<section id="(\w+)">', html)) == set(SECTIONS)
    for name, title in SECTIONS.items():
        assert f"<h2>{title}</h2>" in html.partition(f'id="{name}"')[2]
    assert "Nothing to show" not in html


def test_every_element_is_closed(html: str) -> None:
    assert html.startswith("<!doctype html>")
    assert Page(html).open == []


def test_the_header_names_the_run(html: str) -> None:
    text = Page(html.partition("<header>")[2].partition("</header>")[0]).text
    run = whole_run()["run"]
    for told in (run["name"], run["id"], run["config_sha256"], "2026-11-08 09:41 UTC"):
        assert told in text
    assert "rewardloop 0.2.0 , torch 2.13.0" in text.replace("0.2.0,", "0.2.0 ,")
    assert "All 3 iterations succeeded." in text


def test_versions_stand_side_by_side(html: str) -> None:
    text = section(html, "summary").text
    # M2 won 11 of 23 against M1; it judges 66 of 114 pairs as humans did.
    assert "47.8 % 29.8 to 66.8, vs M1" in text
    assert "57.9 %" in text
    assert "3.4" in text  # M2's own roll-out is iteration 2: 2.9 + 2 / 4
    assert "432" in text  # characters against M1, 431.5 rounded


def test_win_rates_have_bars_whiskers_and_what_the_paper_found(html: str) -> None:
    page = section(html, "wins")
    # Four results, each three bars; a whisker is three lines.
    assert page.tags.count("rect") == 12
    assert [v for k, v in page.attributes if k == "class"].count("whisker") == 12
    assert "M2 against M1 47.8 % 29.8 to 66.8 26.1 % 26.1 % +21.7 %" in page.text
    assert "no clear difference" in page.text
    assert "55.5 % – 11.7 %" in page.text
    assert "running" in page.text


def test_judges_stand_beside_the_papers(html: str) -> None:
    page = section(html, "agreement")
    assert page.tags.count("svg") == 6  # two modes, three measures
    for told in ("Paper's M3", "81.7 %", "0.349", "70B", "training part, for EFT"):
        assert told in page.text


def test_scores_tell_those_that_are_missing(html: str) -> None:
    page = section(html, "scores")
    assert page.tags.count("svg") == 2
    assert "no score: 14" in page.text
    assert "9 no score, 5 truncated; Iteration 2 (M2 to M3): 7 no score." in page.text


def test_funnels_tell_every_loss(html: str) -> None:
    eft = section(html, "eft").text
    assert "judgements written 1,248" in eft
    assert "− not in the human order 737" in eft
    assert "kept as EFT examples 180" in eft
    assert "refused" not in eft  # none were
    assert "− rejected: too similar 19" in section(html, "prompts").text
    assert "prompts with a pair 33" in section(html, "pairs").text


def test_training_has_its_curves(html: str) -> None:
    page = section(html, "training")
    # SFT and M1: loss and token accuracy; M2 and M3: loss, margin and accuracy.
    assert page.tags.count("polyline") == 2 * 2 + 2 * 3
    assert "M2: reward margin (0.06 at step 1, 1.5 at step 17)" in page.text
    assert "num dropped 1" in page.text


def test_a_passed_limit_is_said_in_words() -> None:
    data = whole_run()
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
    limit: float | None, figure: float, is_past: bool
) -> None:
    data = whole_run()
    data["run"]["config"]["health"]["max_length_correlation"] = limit
    data["iterations"] = data["iterations"][:2]
    data["iterations"][1]["report"]["health"]["length_correlation"] = figure
    assert ("past its limit" in render(data)) is is_past


def test_a_judge_below_its_floor_is_marked() -> None:
    data = whole_run()
    # M1 judges iteration 1 and orders 61 of 114 pairs, M2 iteration 2 and 66 of 114.
    data["run"]["config"]["health"]["min_pairwise_accuracy"] = 0.55
    text = section(render(data), "health").text
    assert "at least 55.0 % 53.5 % ✗ past its limit 57.9 %" in text
    assert text.count("past its limit") == 1


def test_deviations_are_said_in_words(html: str) -> None:
    text = section(html, "conformance").text
    deviating = [row for row in whole_run()["conformance"] if row["deviates"]]
    assert deviating
    assert text.count("≠ deviates") == len(deviating)
    assert f"{len(deviating)} of {len(whole_run()['conformance'])} values deviate." in text
    assert "training.learning_rate 1e-06 1e-05 ≠ deviates" in text
    assert "not in this run" in text  # early stopping


def test_timings_are_summed(html: str) -> None:
    text = section(html, "timings").text
    assert "rollout – 13 min 32 s 13 min 32 s" in text
    assert "in all 45 min 41 s" in text  # 2741.2 s: the roll-out that was not is no 0


def test_the_config_is_there(html: str) -> None:
    assert json.loads(section(html, "config").text.partition("config ")[2]) == (
        whole_run()["run"]["config"]
    )


def everywhere(value: Any, text: str) -> Any:
    """The same data with `text` for every text, and in every free key."""
    if isinstance(value, dict):
        return {k: everywhere(v, text) for k, v in value.items()} | {text: text}
    if isinstance(value, list):
        return [everywhere(item, text) for item in value]
    return text if isinstance(value, str) else value


def test_a_hostile_response_is_inert(html: str) -> None:
    page = Page(html)
    assert HOSTILE in page.texts
    assert not {"script", "img"} & set(page.tags)


@pytest.mark.parametrize("part", sorted(whole_run()))
def test_hostile_text_anywhere_is_inert(part: str) -> None:
    data = whole_run()
    keep = {"kind", "state", "purpose", "created_at"}
    hostile = everywhere(data[part], HOSTILE)
    data[part] = restored(hostile, data[part], keep)
    page = Page(render(data))
    assert page.open == []
    assert not {"script", "img"} & set(page.tags)
    assert not any(key.startswith("on") for key, _ in page.attributes)
    assert any(HOSTILE in text for text in page.texts)


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
    links = [v for k, v in page.attributes if k in ("href", "src", "srcset", "xlink:href", "action")]
    assert all(link and link.startswith("#") for link in links)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?:", html)
    assert "default-src &#39;none&#39;" in html or "default-src 'none'" in html


@pytest.mark.parametrize("empty", ["absent", "null", "[]"])
def test_a_run_without_anything_says_so(empty: str) -> None:
    data = only_run()
    if empty != "absent":
        for part in set(whole_run()) - {"run"}:
            data[part] = None if empty == "null" else []
    page = render(data)
    assert Page(page).open == []
    for name in set(SECTIONS) - {"config"}:
        assert "Nothing to show." in section(page, name).text
    assert "No iteration has begun." in section(page, "pairs").text
    spells_nothing_wrong(page)


def test_what_the_config_leaves_out_is_the_reason() -> None:
    data = only_run()
    data["run"]["config"] |= {"evaluation": None, "bootstrap": None}
    data["run"]["config"]["prompts"]["self_instruct"] = None
    page = render(data)
    assert "asks for no head to head" in section(page, "wins").text
    for name in ("eft", "agreement"):
        assert "The run has no bootstrap" in section(page, name).text
    assert "those of the dataset ranked." in section(page, "prompts").text


def test_a_failed_iteration_tells_its_error_and_what_it_lacks() -> None:
    data = whole_run()
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
def test_a_young_iteration_says_where_it_is(state: str, told: str) -> None:
    data = only_run()
    data["iterations"] = [{"index": 1, "kind": "improve", "state": state, "phase": "rollout"}]
    page = render(data)
    for name in ("prompts", "pairs", "training", "health", "examples", "scores", "timings"):
        assert told in section(page, name).text


def test_a_failed_evaluation_tells_its_error() -> None:
    data = whole_run()
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
    """Paths to every value but the lists at the top, which are never anything else."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    found = []
    for key, value in items:
        found += [(*path, key)] if path else []
        found += leaves(value, (*path, key)) if isinstance(value, dict | list) else []
    return found


WHOLE = whole_run()
PATHS = [p for p in leaves(WHOLE) if p[:2] != ("run", "config") and not isinstance(p[-1], int)]


@given(st.lists(st.sampled_from(PATHS), max_size=12), st.sampled_from([None, nan]))
def test_anything_may_be_missing(paths: list[tuple[Any, ...]], missing: float | None) -> None:
    data = copy.deepcopy(WHOLE)
    for path in paths:
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


def test_the_same_data_gives_the_same_page(html: str) -> None:
    assert render(whole_run()) == html
