"""Prompt files in, preference data out.

Owns the file formats: which there are, how one is recognised, and what makes a
line of it broken. A file is read whole or not at all, unless the caller says to
leave broken lines out. Knows nothing of the store: it hands over
`PromptRecord`s and takes plain rows.
"""

from rewardloop.datasets.reader import Format, ReadResult, read_prompts

__all__ = ["Format", "ReadResult", "read_prompts"]
