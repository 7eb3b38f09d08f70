"""Judgements written as a roll-out writes them, against psycopg's COPY of the same rows.

    python -m benchmarks.store [--judgements 80000] [--rounds 3]

Both sides write into the real table with its keys and checks, empty at the start of each turn,
in the same Postgres. COPY is one transaction. Ours are ticks of at most 512 responses with 3
judgements each: a transaction each, with the look whether the iteration still runs, and rows
that are there already left as they are. The sides take turns; the median of the rounds' ratios
is `store_ratio`.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
from sqlalchemy import text

from benchmarks.fanout_home import Bench, bench
from rewardloop.records import JudgementMode, Sample, Verdict, WrittenJudgement
from rewardloop.store import answers, rollouts
from rewardloop.store.answers import Judged, Sampled
from services.worker.writing import MAX_ENTRIES

REASON = "The response addresses what the user asked for, with some detail and few errors. " * 4
COLUMNS = (
    "response_id, judge_index, raw_text, score, reason, mode, rubric_version, judge_version,"
    " nonce, prompt_tokens, completion_tokens"
)


def judgement(number: int) -> WrittenJudgement:
    score = number % 6
    return WrittenJudgement(
        raw_text=f"{REASON}\nScore ab12: {score}",
        verdict=Verdict(float(score), None),
        rubric_version="additive-1",
        judge_version="base",
        mode=JudgementMode.FREE,
        nonce="ab12",
        prompt_tokens=400,
        completion_tokens=70,
    )


async def responses(made: Bench, iteration_id: UUID, num_prompts: int) -> list[int]:
    """Ids of four stored responses to each prompt."""
    sample = Sample("A short answer.", 20, 4, "stop", "base")
    samples = [(index, sample) for index in range(4)]
    async with made.store.transaction() as session:
        leased = await rollouts.lease(session, iteration_id, "bench", num_prompts, 3600)
        sampled = [Sampled(prompt, samples) for prompt in leased]
        found = await answers.add_responses(session, iteration_id, sampled, {}, 3)
    return [each.response_id for stored in found.values() for each in stored.values()]


async def ours(made: Bench, iteration_id: UUID, judged: Sequence[Judged]) -> float:
    started = time.monotonic()
    for start in range(0, len(judged), MAX_ENTRIES):
        async with made.store.transaction() as session:
            batch = judged[start : start + MAX_ENTRIES]
            await answers.add_judgements(session, iteration_id, batch)
    return time.monotonic() - started


def copied(address: str, judged: Sequence[Judged]) -> float:
    started = time.monotonic()
    with (
        psycopg.connect(address) as connection,
        connection.cursor() as cursor,
        cursor.copy(f"COPY judgements ({COLUMNS}) FROM STDIN") as copy,
    ):
        for each in judged:
            for index, one in each.judgements:
                scored = (one.verdict.score, one.verdict.reason, one.mode.value)
                read_by = (one.rubric_version, one.judge_version, one.nonce)
                tokens = (one.prompt_tokens, one.completion_tokens)
                copy.write_row((each.response_id, index, one.raw_text, *scored, *read_by, *tokens))
    return time.monotonic() - started


async def emptied(made: Bench, expected: int | None) -> None:
    async with made.store.transaction() as session:
        num = await session.scalar(text("SELECT count(*) FROM judgements"))
        assert expected is None or num == expected, num
        await session.execute(text("TRUNCATE judgements RESTART IDENTITY"))
    async with made.store.engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        await connection.execute(text("CHECKPOINT"))


async def compare(folder: Path, num_judgements: int, rounds: int) -> dict[str, Any]:
    num_prompts = -(-num_judgements // 12)
    async with bench(folder, num_prompts, 0) as made:
        iteration_id = UUID(await made.iteration(num_prompts))
        ids = await responses(made, iteration_id, num_prompts)
        judged = [Judged(i, [(index, judgement(i + index)) for index in range(3)]) for i in ids]
        address = made.environment["REWARDLOOP_DATABASE_URL"].replace("+psycopg", "")
        found = []
        await emptied(made, 0)
        for number in range(rounds):
            bare = await asyncio.to_thread(copied, address, judged)
            await emptied(made, 3 * len(ids))
            mine = await ours(made, iteration_id, judged)
            await emptied(made, 3 * len(ids))
            found.append((mine, bare))
            print(
                f"round {number + 1}: {3 * len(ids)} judgements, ours {mine:.2f} s, COPY "
                f"{bare:.2f} s, ratio {mine / bare:.2f}",
                flush=True,
            )
    return {
        "store_ratio": round(statistics.median(mine / bare for mine, bare in found), 3),
        "store_seconds": [(round(mine, 2), round(bare, 2)) for mine, bare in found],
        "judgements": 3 * len(ids),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--judgements", type=int, default=80_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rewardloop-bench-") as folder:
        work = compare(Path(folder), options.judgements, options.rounds)
        print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main()
