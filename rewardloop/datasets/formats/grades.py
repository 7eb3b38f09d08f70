"""What a row says of its one answer: a label, a rating, a rank, or nothing.

Owns the columns that grade an answer. Where two of them are filled the second
stays unread, so that the row is left out and not half understood.
"""

import re

from rewardloop.datasets import labels
from rewardloop.datasets.fields import names
from rewardloop.datasets.form import Disliked, Grade, Liked, Rated, Reference, Scale
from rewardloop.datasets.row import Row

_LABELS = names(
    """
    label kto_tag liked is_liked desirable is_desirable thumbs_up thumbs thumb vote upvoted feedback
    user_feedback human_feedback human_label preference_label accepted is_accepted is_good good
    preferred is_preferred is_chosen helpful is_helpful correct is_correct acceptable
    """
)
_WARNINGS = {
    **dict.fromkeys(names("is_safe safe harmless is_harmless"), False),
    **dict.fromkeys(
        names("is_bad bad is_wrong wrong incorrect disliked is_disliked thumbs_down downvoted"),
        True,
    ),
    **dict.fromkeys(names("unsafe is_unsafe harmful is_harmful toxic is_toxic"), True),
}
"""Columns that can only speak against an answer, with the value that does."""
_RATINGS = names(
    """
    score stars overall_score avg_score average_score mean_score total_score final_score human_score
    response_score answer_score completion_score rm_score quality_score quality grade ratings
    """
)
_RATING = re.compile(
    r"^((human|user|expert|annotator|crowd|judge|llm|gpt4?|rm|instruct|avg|average|mean|median|overall|total"
    r"|final|response|answer|completion|output|generation|quality|helpfulness|star)_)*"
    r"(rating|reward)$"
)
"""Of the answer, and higher is better; `toxicity_rating` or `prompt_rating` stay unread."""


def of(row: Row) -> Grade:
    """The row's grade of its answer; without any column for it, the answer is a reference.

    The rank of a row with one answer is its rank among all rows of the prompt, so it becomes a
    rating, which is compared with theirs.

    Raises:
        RowLeftOut: a label or rating is not understood.
    """
    warned = [_speaks_against(row, column) for column in _filled(row, set(_WARNINGS))]
    if any(warned):
        return Disliked()
    for column in _filled(row, _LABELS):
        return Liked() if labels.is_liked(row[column], column) else Disliked()
    for column in sorted(row.filled):
        if column in _RATINGS or _RATING.search(column):
            return Rated(labels.number(row[column], column), Scale(column))
    if "rank" in row.filled:
        return Rated(1 / (1 + labels.rank(row["rank"], "the row")), Scale("rank"))
    return Reference()


def empty(row: Row) -> frozenset[str]:
    """The columns for a grade that the row has and does not fill."""
    return frozenset(column for column in row.keys() - row.filled if _is_grade(column))


def _is_grade(column: str) -> bool:
    known = column in _LABELS or column in _WARNINGS or column in _RATINGS or column == "rank"
    return known or bool(_RATING.search(column))


def _filled(row: Row, columns: frozenset[str] | set[str]) -> list[str]:
    return sorted(columns & row.filled)


def _speaks_against(row: Row, column: str) -> bool:
    return labels.is_liked(row[column], column) == _WARNINGS[column]
