"""One request inside the engine, which a swap of weights may end.

To the server it looks as if the client had gone, which is how vLLM itself stops the work on a
request (cancelling the handler would leave that work running). To the client it is an error
that it may repeat, and never a text that was cut off.
"""

import asyncio
import json

from starlette.types import Message, Receive, Send

from rewardloop.errors import UpstreamUnavailable


class Ending:
    """Stands between the server and the client's connection."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self.began = False
        """Whether the client has been sent a status."""
        self._whole = False
        self.limit = asyncio.timeout(None)
        """Ends a server that does not notice that its client has gone."""

    def ask(self) -> None:
        self._asked.set()

    def force(self) -> None:
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())

    @property
    def was_cut(self) -> bool:
        return self._asked.is_set() and not self._whole

    def error(self) -> UpstreamUnavailable:
        return UpstreamUnavailable(
            "the answer took so long that it was ended, so that new weights could be loaded; "
            "try again"
        )

    def receiving(self, receive: Receive) -> Receive:
        async def until_asked() -> Message:
            message = asyncio.ensure_future(receive())
            asked = asyncio.ensure_future(self._asked.wait())
            try:
                await asyncio.wait({message, asked}, return_when=asyncio.FIRST_COMPLETED)
                return {"type": "http.disconnect"} if asked.done() else message.result()
            finally:
                message.cancel()
                asked.cancel()

        return until_asked

    def sending(self, send: Send) -> Send:
        async def unless_asked(message: Message) -> None:
            if self._asked.is_set():
                return  # what a server says to a client that has gone
            self.began = True
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self._whole = True
            await send(message)

        return unless_asked

    async def tell(self, send: Send) -> None:
        """End a stream that began with its error, as vLLM tells one in the middle of a stream."""
        event = f"data: {json.dumps(self.error().openai())}\n\n"
        await send({"type": "http.response.body", "body": event.encode(), "more_body": False})
