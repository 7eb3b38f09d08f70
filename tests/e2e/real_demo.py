"""What a finished demo left: its summary, its database, its addresses and keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

NUM_PROMPTS = 12


@dataclass
class Demo:
    home: Path
    summary: dict[str, Any]
    addresses: dict[str, str]
    keys: dict[str, str]
    output: str

    def sql(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.addresses["database"]) as connection:
            return connection.execute(query, parameters).fetchall()

    @property
    def run_id(self) -> str:
        return str(self.summary["run_id"])
