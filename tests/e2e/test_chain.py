"""M0 -> SFT baseline -> M1 -> M2 for real, killed half-way and called again."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest

from rewardloop.embedded import postgres
from rewardloop.embedded.home import Home

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1500)]
ROOT = Path(__file__).parents[2]
SMALL = """
bootstrap:
  ift: {num_epochs: 1, max_length: 192}
  eft: {judging: {num_judgements: 6}, max_examples: 12}
  ift_and_eft: {num_epochs: 1, max_length: 448}
prompts: {num_per_iteration: 4, self_instruct: {max_attempts_per_prompt: 40}}
judging: {mode: constrained, max_tokens: 48}
sampling: {max_tokens: 48}
health: {max_tie_rate: null, max_top_score_share: null, also_assess: []}
evaluation: {num_prompts: 2, max_tokens: 32}
"""
NUM_RANKED = 8


def best_and_worst(ranked: str) -> str:
    """A ranked prompt with two answers only: six judgements of each order them as the humans
    did in nearly every prompt, whatever numbers an untrained judge happens to write."""
    tree = json.loads(ranked)
    by_rank = sorted(tree["responses"], key=lambda response: response["rank"])
    return json.dumps(tree | {"responses": [by_rank[0], by_rank[-1]]})


@dataclass(frozen=True)
class Chain:
    """What a whole chain left behind."""

    home: Path
    killed: str
    """Output of the call that was killed."""
    finished: str
    """Output of the call that went on."""
    database: str

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database) as connection:
            return connection.execute(query).fetchall()


@contextmanager
def started(home: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.paper_cpu", "--home", str(home), *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    with process:
        yield process
        process.kill()


def until(process: subprocess.Popen[str], word: str) -> str:
    """What the process prints up to a line that holds `word`, or to its end."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if word in line:
            break
    return "".join(lines)


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "small.yaml").write_text(SMALL)
    seeds = (ROOT / "rewardloop" / "seeds" / "ranked.jsonl").read_text().splitlines()
    ranked = [best_and_worst(seed) for seed in seeds[:NUM_RANKED]]
    (folder / "ranked.jsonl").write_text("\n".join(ranked))
    options = ["--trees", f"{folder}/ranked.jsonl", "--config", f"{folder}/small.yaml"]
    options += ["--iterations", "1"]
    with started(folder / "home", *options) as process:
        killed = until(process, "judge_ranked")
    with started(folder / "home", *options) as process:
        finished = until(process, "no such word")
        assert process.wait() == 0, killed + finished
    home = Home(folder / "home")
    with home.locked():
        server, port = asyncio.run(postgres.start(home))
        try:
            dsn = postgres.dsn(port, home.credentials().database_password)
            yield Chain(home.folder, killed, finished, dsn)
        finally:
            server.stop()
            shutil.rmtree(home.folder / "checkpoints", ignore_errors=True)


def test_a_killed_chain_goes_on_where_it_was(chain: Chain) -> None:
    assert "judge_ranked" in chain.killed
    assert "going on with run" in chain.finished
    assert chain.sql("SELECT count(*) FROM runs") == [(1,)]
    states = chain.sql('SELECT "index", kind, state FROM iterations ORDER BY 1')
    assert states == [(0, "bootstrap", "succeeded"), (1, "improve", "succeeded")]
    baselines = chain.sql("SELECT num_attempts FROM training_jobs WHERE stage = 'baseline'")
    assert baselines == [(1,)]  # what was trained before the kill was not trained again


def test_every_version_of_the_method_is_there(chain: Chain) -> None:
    versions = chain.sql("SELECT kind, count(*) FROM model_versions GROUP BY 1 ORDER BY 1")
    assert versions == [("base", 1), ("dpo", 1), ("sft", 2)]
    from_m1 = chain.sql(
        "SELECT DISTINCT weight_version = (SELECT new_version_id FROM iterations"
        " WHERE kind = 'bootstrap') FROM responses"
    )
    assert from_m1 == [(True,)]


def test_the_held_out_rankings_are_measured_by_and_never_learnt(chain: Chain) -> None:
    held_out = chain.sql("SELECT count(*) FROM ranked_splits WHERE held_out")
    assert held_out == [(2,)]
    leaks = chain.sql(
        "SELECT count(*) FROM eft_examples e"
        " JOIN ranked_judgements j ON j.id = e.ranked_judgement_id"
        " JOIN ranked_responses r ON r.id = j.ranked_response_id"
        " JOIN ranked_splits s ON s.prompt_id = r.prompt_id WHERE s.held_out"
    )
    assert leaks == [(0,)]
    judged = chain.sql(
        "SELECT a.purpose, bool_and(s.held_out), bool_or(s.held_out), count(DISTINCT a.version_id)"
        " FROM assessments a JOIN ranked_judgements j ON j.assessment_id = a.id"
        " JOIN ranked_responses r ON r.id = j.ranked_response_id"
        " JOIN ranked_splits s ON s.prompt_id = r.prompt_id GROUP BY 1 ORDER BY 1"
    )
    assert judged == [("eft", False, False, 1), ("health", True, True, 3)]


def test_every_written_prompt_is_kept_or_has_its_reason(chain: Chain) -> None:
    kept, written, odd = chain.sql(
        "SELECT count(prompt_id), count(*),"
        " count(*) FILTER (WHERE (prompt_id IS NULL) = (reason IS NULL)) FROM candidate_prompts"
    )[0]
    assert 2 <= kept <= 4
    assert odd == 0
    assert written >= kept
    asked = chain.sql("SELECT count(*) FROM iteration_prompts")
    assert asked == [(kept,)]


def test_the_new_model_met_the_one_before_and_the_baseline(chain: Chain) -> None:
    evaluations = chain.sql("SELECT state, (result->>'num_prompts')::int FROM evaluations")
    assert evaluations == [("succeeded", 2)] * 3  # M1 against SFT, M2 against M1 and SFT
    orders = chain.sql("SELECT count(*) FROM comparisons")
    assert orders == [(3 * 2 * 2,)]


def test_the_last_line_and_the_report_tell_the_judges(chain: Chain) -> None:
    told = json.loads(chain.finished.strip().splitlines()[-1])
    assert set(told) == {"m1_free_parse_rate", "judge"}
    page = (chain.home / "report.html").read_text()
    for label in ("SFT", "M1", "M2"):
        assert label in page
