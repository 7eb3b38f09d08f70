"""What is said of a database that is not there."""

import pytest

from rewardloop.embedded.process import free_port
from rewardloop.errors import InvalidInput, UpstreamUnavailable
from rewardloop.store import Store


@pytest.mark.parametrize(
    "address",
    [
        "",
        "hunter2",
        "postgres://u:hunter2@h/d",
        "postgresql://u:hunter2@h/d",
        "postgresql+psycopg://u:hunter2@h:port/d",
        "sqlite:///hunter2",
    ],
)
def test_an_address_of_another_form_is_refused_without_its_value(address: str) -> None:
    with pytest.raises(InvalidInput, match="REWARDLOOP_DATABASE_URL") as caught:
        Store(address)
    assert "postgresql+psycopg://user:password@host:port/name" in caught.value.message
    assert "hunter2" not in caught.value.message


async def test_a_database_that_is_down_cannot_be_migrated() -> None:
    store = Store(f"postgresql+psycopg://u:hunter2@127.0.0.1:{free_port()}/d")
    with pytest.raises(UpstreamUnavailable, match="that Postgres runs") as caught:
        await store.migrate()
    assert "hunter2" not in caught.value.message
