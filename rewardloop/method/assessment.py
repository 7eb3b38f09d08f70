"""What is stored of a version as a judge of human-ranked responses. Pure.

The agreement of its scores with the humans, and how many of its judgements have a score:
of those that it was asked for once (`parse_rate`), and in the end.
Knows neither the store nor how the judgements came about.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from rewardloop.method.agreement import JudgedRanking, agreement
from rewardloop.method.eft import JudgedResponse
from rewardloop.method.intervals import of_ratio
from rewardloop.records import mean_score


def assessed(by_prompt: Mapping[int, Sequence[JudgedResponse]]) -> dict[str, Any]:
    """The metrics of an assessment, given each prompt's judged responses."""
    found = agreement(map(_ranking, by_prompt.values()))
    judged = [[j for r in each for j in r.judgements] for each in by_prompt.values()]
    parsed = [sum(j.score is not None and j.num_asked == 1 for j in each) for each in judged]
    asked = [len(each) for each in judged]
    parse_rate = of_ratio((parsed, asked))
    return {
        **asdict(replace(found, intervals={**found.intervals, "parse_rate": parse_rate})),
        "num_judgements": sum(asked),
        "num_parsed": sum(parsed),
        "num_parsed_in_the_end": sum(j.score is not None for each in judged for j in each),
        "parse_rate": sum(parsed) / sum(asked) if sum(asked) else None,
    }


def _ranking(responses: Sequence[JudgedResponse]) -> JudgedRanking:
    return JudgedRanking(
        ranks=tuple(r.rank for r in responses),
        scores=tuple(mean_score(j.score for j in r.judgements) for r in responses),
        lengths=tuple(r.length for r in responses),
    )
