"""The preference database: the only room that holds SQL.

`Store` hands out transactions; each repository module holds the queries on one
noun and takes the transaction's `AsyncSession` as its first argument, so that
one request or task is one transaction. Everything that must hold is a
constraint in `models.py`, not a check in Python.
"""

from rewardloop.store.database import Store

__all__ = ["Store"]
