"""Rewardloop: language models that improve on their own feedback.

This package is the shared library: what is true in every process. It imports
no torch, vllm, trl or fastapi, so that the API, the workers and the command
line start quickly and install small.
"""

__version__ = "0.1.0"
