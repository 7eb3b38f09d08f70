"""Child processes that die with their parent and log into the home."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rewardloop.errors import Conflict, EnvironmentUnfit
from rewardloop.process.orphans import dying_with_parent

STOP_SECONDS = 15.0


class Process:
    """One child. Its output goes to `log`; `stop_signal` asks it to end."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log = log
        self._stop_signal = stop_signal
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                list(command),
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=dying_with_parent(stop_signal),
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def has_ended(self) -> bool:
        return self._popen.poll() is not None

    def require_alive(self) -> None:
        """
        Raises:
            EnvironmentUnfit: the child ended; with the end of its log.
        """
        status = self._popen.poll()
        if status is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise EnvironmentUnfit(
                f"{self.name} ended with status {status}; its log {self.log} ends in:\n{tail}"
            )

    async def wait_until(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Wait until `ready()`.

        Raises:
            EnvironmentUnfit: the child ended, or time is up.
        """
        deadline = asyncio.get_running_loop().time() + timeout_seconds
        while not await asyncio.to_thread(ready):
            self.require_alive()
            if asyncio.get_running_loop().time() > deadline:
                raise EnvironmentUnfit(
                    f"{self.name} was not ready after {timeout_seconds:.0f} s; see {self.log}"
                )
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        """Ask the child to end, and its process group to go if it does not."""
        if self._popen.poll() is not None:
            return
        self._popen.send_signal(self._stop_signal)
        try:
            self._popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(self._popen.pid, signal.SIGKILL)
            self._popen.wait()


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def require_free(port: int) -> None:
    """
    Raises:
        Conflict: something listens on `port` of this machine.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise Conflict(
                f"port {port} is in use; stop what listens there or give another --port"
            ) from error


def accepts(port: int) -> bool:
    """Whether something on this machine accepts connections on `port`."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False
