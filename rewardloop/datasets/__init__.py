"""Prompt files in, preference data out.

Owns the file formats: which there are, how a row's is recognised, and what a row
says of its answers. Rows become one intermediate form (`form`), from which
references and rankings are derived; what is not read is told in the `Account`.
Knows nothing of the store: it hands over `PromptRecord`s and `RankedPrompt`s, and
takes plain rows.
"""

from rewardloop.datasets.account import Account, LeftOut
from rewardloop.datasets.formats.table import Format
from rewardloop.datasets.ranked import RankedResult, read_ranked
from rewardloop.datasets.reader import ReadResult, read_prompts
from rewardloop.datasets.reasons import Reason

__all__ = [
    "Account",
    "Format",
    "LeftOut",
    "RankedResult",
    "ReadResult",
    "Reason",
    "read_prompts",
    "read_ranked",
]
