"""What a row says of its one answer: a label, a rating, or nothing.

Owns the columns that grade an answer. Where two of them are filled the second
stays unread, so that the row is left out and not half understood.
"""

from rewardloop.datasets import labels
from rewardloop.datasets.form import Disliked, Grade, Liked, Rated, Reference, Scale
from rewardloop.datasets.row import Row

LABELS = (
    "label",
    "kto_tag",
    "liked",
    "is_liked",
    "desirable",
    "is_desirable",
    "thumbs_up",
    "thumbs",
    "thumb",
    "vote",
    "feedback",
    "accepted",
    "is_good",
    "good",
    "preferred",
    "is_preferred",
)
RATINGS = ("rating", "score", "reward", "stars", "overall_score", "quality", "grade", "ratings")


def of(row: Row) -> Grade:
    """The row's grade of its answer; without any column for it, the answer is a reference.

    Raises:
        RowLeftOut: a label or rating is not understood.
    """
    for column in LABELS:
        if column in row.filled:
            return Liked() if labels.is_liked(row[column], column) else Disliked()
    for column in RATINGS:
        if column in row.filled:
            return Rated(labels.number(row[column], column), Scale(column))
    return Reference()
