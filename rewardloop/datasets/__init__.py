"""Prompt files in, preference data out.

Owns the file formats: which there are, how one is recognised, and what makes a
line of it broken. A file is read whole or not at all, unless the caller says to
leave broken lines out. Knows nothing of the store: it hands over
`PromptRecord`s and `RankedPrompt`s, and takes plain rows.
"""

from rewardloop.datasets.ranked import RankedResult, read_ranked
from rewardloop.datasets.reader import Format, ReadResult, read_prompts
from rewardloop.datasets.sifting import LeftOut

__all__ = ["Format", "LeftOut", "RankedResult", "ReadResult", "read_prompts", "read_ranked"]
