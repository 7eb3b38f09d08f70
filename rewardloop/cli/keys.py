"""`keys`: make, list and revoke the API keys of the stack that runs in a home."""

from collections.abc import Sequence
from typing import Any

from rich.table import Column, Table

from rewardloop.cli.listing import minute
from rewardloop.cli.remote import client
from rewardloop.cli.terminal import Console
from rewardloop.embedded.home import Home
from rewardloop.errors import NotFound
from rewardloop.records import Scope
from rewardloop.texts import spelled_out

console = Console()


async def create(home: Home, name: str, scopes: Sequence[Scope]) -> None:
    """Print the new key, alone on stdout so that a script can take it."""
    async with client(home) as api:
        made = await api.post("/v1/keys", {"name": name, "scopes": list(scopes)})
    Console(stderr=True).print(
        f"key {made['name']} with {', '.join(made['scopes'])}; it is shown this once, and only its "
        "digest is stored",
        soft_wrap=True,
    )
    print(spelled_out(made["key"]))


async def list_all(home: Home) -> None:
    """Every key that was ever made, without the keys themselves."""
    table = Table(
        Column("name", no_wrap=True),
        "scopes",
        "created (UTC)",
        "last used (UTC)",
        "revoked (UTC)",
        box=None,
    )
    async with client(home) as api:
        for key in (await api.get("/v1/keys"))["items"]:
            moments = (key["created_at"], key["last_used_at"], key["revoked_at"])
            table.add_row(
                key["name"],
                ", ".join(key["scopes"]),
                *("-" if moment is None else minute(moment) for moment in moments),
            )
    console.print(table if table.rows else "no key was made; `rewardloop keys create` makes one")


async def revoke(home: Home, name: str) -> None:
    """
    Raises:
        NotFound: no key that works has this name.
    """
    async with client(home) as api:
        found = _live(await api.get("/v1/keys"), name)
        await api.delete(f"/v1/keys/{found['id']}")
    console.print(f"key {name} is revoked", soft_wrap=True)


def _live(listed: dict[str, Any], name: str) -> dict[str, Any]:
    for key in listed["items"]:
        if key["name"] == name and key["revoked_at"] is None:
            return dict(key)
    raise NotFound(f"no key that works is named {name!r}; `rewardloop keys list` lists them")
