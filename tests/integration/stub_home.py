"""A home in which a stack starts on the stub engine at once."""

from pathlib import Path

from rewardloop import checkpoints
from rewardloop.embedded import postgres
from rewardloop.embedded.home import Home
from rewardloop.store import Store, versions
from tests.integration.conftest import write_checkpoint


async def stub_home(folder: Path) -> Home:
    """Its served version is a small checkpoint for the stub engine."""
    made = Home(folder)
    made.create()
    manifest = checkpoints.publish(
        made.checkpoints, "base", lambda f: write_checkpoint(f, "base"), {"kind": "base"}
    )
    server, port = await postgres.start(made)
    address = postgres.dsn(port, made.credentials().database_password)
    store = Store(address.replace("postgresql:", "postgresql+psycopg:"))
    await store.migrate()
    async with store.transaction() as session:
        await versions.add(session, "base", kind="base", parent=None, manifest=manifest)
        await versions.set_serving(session, "base")
    await store.close()
    server.stop()
    return made
