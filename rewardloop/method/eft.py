"""Which of the SFT baseline's judgements become judge tasks (EFT). Pure.

Yuan et al., sections 2.1 and 3.1.1: a judgement is kept where its score orders
the responses as humans did, and the most frequent score is thinned out.
Invariants: what is kept depends on the judgements, the config and the seed,
never on the order they come in; every judgement has one fate in the report;
thinning never takes the last example of a score.

Knows ids, ranks and scores; texts and the rubric are the caller's.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from random import Random

from rewardloop.config import Eft
from rewardloop.method.score_form import MAX_SCORE
from rewardloop.records import UnscoredReason


@dataclass(frozen=True, slots=True)
class Judged:
    """One judgement of one ranked response."""

    judgement_id: int
    """Unique over all prompts."""
    score: float | None
    reason: UnscoredReason | None
    """Why there is no score."""
    num_asked: int = 1
    """How often the judge wrote until there was a score, or no more was asked."""

    def __post_init__(self) -> None:
        assert (self.score is None) != (self.reason is None)


@dataclass(frozen=True, slots=True)
class JudgedResponse:
    """A human-ranked response with what was written of it."""

    rank: int
    """0 is the best; equal ranks are a human tie."""
    judgements: tuple[Judged, ...]
    length: int = 0
    """Characters; of no matter to the selection."""


@dataclass(frozen=True, slots=True)
class EftReport:
    """What became of the prompts, and of every judgement.

    num_prompts = num_prompts_without_order + num_prompts_unjudged
    + num_prompts_agreeing + num_prompts_disagreeing.

    num_judgements = num_unparsed (summed) + num_without_order + num_unjudged
    + num_out_of_order + num_agreeing.

    num_agreeing = num_thinned + num_over_limit + num_kept.
    """

    num_prompts: int
    num_prompts_without_order: int
    """Humans gave fewer than two different ranks."""
    num_prompts_unjudged: int
    """Some response has no parsed judgement."""
    num_prompts_agreeing: int
    """At least one set of judgements orders the responses as humans did."""
    num_prompts_disagreeing: int
    """No set does."""
    num_judgements: int
    num_unparsed: dict[str, int]
    """Judgements without a score, by reason, in whatever prompt; every reason is a key."""
    num_without_order: int
    """Parsed judgements of prompts without order."""
    num_unjudged: int
    """Parsed judgements of prompts where some other response has none."""
    num_out_of_order: int
    """Parsed judgements in no agreeing set, of prompts that could have had one."""
    num_agreeing: int
    """Judgements in agreeing sets."""
    num_thinned: int
    """Agreeing ones dropped because too many have their score."""
    num_over_limit: int
    """Agreeing ones dropped because there are more than `max_examples`."""
    num_kept: int
    scores_before: dict[str, int]
    """Agreeing judgements by whole points, "0" to "5", before thinning."""
    scores_after: dict[str, int]
    """The same after thinning, before the limit on examples."""


@dataclass(frozen=True, slots=True)
class EftSelection:
    kept: tuple[int, ...]
    """Judgement ids, ascending; none where no prompt's judgements agree with humans."""
    report: EftReport


_Scored = tuple[float, int]
"""(score, judgement id) of a parsed judgement."""
_Prompt = Sequence[JudgedResponse]


def select(prompts: Mapping[int, _Prompt], config: Eft, seed: int) -> EftSelection:
    """Choose the judgements to train the judge on, given each prompt's judged responses."""
    everything = list(prompts.values())
    ordered = [p for p in everything if len({r.rank for r in p}) > 1]
    complete = [p for p in ordered if all(_parsed(r) for r in p)]
    sets = [agreeing_sets(p) for p in complete]
    agreeing = {i: score for found in sets for one in found for score, i in one}
    random = Random(seed)
    thinned = _thin(agreeing, config.max_score_share, random)
    kept = random.sample(sorted(thinned), min(len(thinned), config.max_examples))
    num_agreeing_prompts = sum(bool(found) for found in sets)
    report = EftReport(
        num_prompts=len(everything),
        num_prompts_without_order=len(everything) - len(ordered),
        num_prompts_unjudged=len(ordered) - len(complete),
        num_prompts_agreeing=num_agreeing_prompts,
        num_prompts_disagreeing=len(complete) - num_agreeing_prompts,
        num_judgements=sum(len(r.judgements) for p in everything for r in p),
        num_unparsed=_unparsed(everything),
        num_without_order=_num_parsed(everything) - _num_parsed(ordered),
        num_unjudged=_num_parsed(ordered) - _num_parsed(complete),
        num_out_of_order=_num_parsed(complete) - len(agreeing),
        num_agreeing=len(agreeing),
        num_thinned=len(agreeing) - len(thinned),
        num_over_limit=len(thinned) - len(kept),
        num_kept=len(kept),
        scores_before=_histogram(agreeing),
        scores_after=_histogram(thinned),
    )
    return EftSelection(tuple(sorted(kept)), report)


def agreeing_sets(responses: _Prompt) -> list[list[_Scored]]:
    """As many disjoint agreeing sets of one prompt's judgements as there are.

    A set takes one parsed judgement of every response. It agrees where scores
    strictly fall wherever human ranks differ; responses of equal rank ask
    nothing of each other. One judgement of a response is as good a draw as
    another, so judgements may be combined freely.

    A set is searched from the best rank down; each response takes its
    highest-scored unused judgement below the lowest score that the rank before
    took. This finds a set if there is one: by induction over ranks, what it
    takes is at least as high, response by response, as what any agreeing set
    takes, so it leaves the next rank at least as much room.

    It also finds as many as there are. In any family of disjoint agreeing
    sets, give the first set every response's highest judgement in the family,
    the second the next highest, and so on: still a family, since if i scores
    of one response lie above i of another, the i-th highest does too. Our set
    is at least as high as that first one everywhere, so it can stand in for
    it, and the others need none of its judgements that they could not replace
    by an equal one. The same holds for what is left.
    """
    ranks = sorted({r.rank for r in responses})
    groups = [[_best_first(r) for r in responses if r.rank == rank] for rank in ranks]
    sets: list[list[_Scored]] = []
    while found := _take_set(groups):
        sets.append(found)
    return sets


def _take_set(groups: list[list[list[_Scored]]]) -> list[_Scored] | None:
    """The highest agreeing set, removed from `groups`; None where there is none.

    `groups` holds, best rank first, each response's unused judgements, highest
    first. A search that fails may have removed some: it is the last one.
    """
    taken: list[_Scored] = []
    bound = inf
    for group in groups:
        lowest = inf
        for unused in group:
            choice = next((item for item in unused if item[0] < bound), None)
            if choice is None:
                return None
            unused.remove(choice)
            taken.append(choice)
            lowest = min(lowest, choice[0])
        bound = lowest
    return taken


def _best_first(response: JudgedResponse) -> list[_Scored]:
    """Among equal scores the lower id comes first, so that the choice repeats."""
    return sorted(_parsed(response), key=lambda item: (-item[0], item[1]))


def _parsed(response: JudgedResponse) -> list[_Scored]:
    return [(j.score, j.judgement_id) for j in response.judgements if j.score is not None]


def _thin(scores: Mapping[int, float], max_share: float, random: Random) -> Mapping[int, float]:
    """Drop random examples of the most frequent score until it is at most `max_share`.

    It stops where that score is no more frequent than the next, so a score is
    never made rarer than another, and a lone score is left as it is.
    """
    top_two = Counter(map(round, scores.values())).most_common(2)
    if len(top_two) < 2:
        return scores
    (top, num_top), (_, num_next) = top_two
    num_left, num_others = num_top, len(scores) - num_top
    while num_left > num_next and num_left / (num_left + num_others) > max_share:
        num_left -= 1
    candidates = sorted(i for i, score in scores.items() if round(score) == top)
    dropped = set(random.sample(candidates, num_top - num_left))
    return {i: score for i, score in scores.items() if i not in dropped}


def _unparsed(prompts: Iterable[_Prompt]) -> dict[str, int]:
    counts = Counter(j.reason for p in prompts for r in p for j in r.judgements)
    return {reason.value: counts[reason] for reason in UnscoredReason}


def _num_parsed(prompts: Iterable[_Prompt]) -> int:
    return sum(len(_parsed(r)) for p in prompts for r in p)


def _histogram(scores: Mapping[int, float]) -> dict[str, int]:
    counts = Counter(map(round, scores.values()))
    return {str(points): counts[points] for points in range(MAX_SCORE + 1)}
