"""An answer to a caller who has just left is written to nobody, and is no fault of ours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import pytest
import uvloop

from proxy.server.responding import Responding


class Broken:
    """A transport that is open and cannot be written to."""

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        raise RuntimeError("write_eof was called")


def whole(responder: Responding) -> None:
    responder.send_whole(200, b"OK", b"", b"{}")


def piece(responder: Responding) -> None:
    responder.write(b"data: x\n\n")


def end(responder: Responding) -> None:
    responder.finish()


async def begun_answer() -> tuple[Responding, asyncio.Server, asyncio.Event]:
    """Return an answer that has begun on a connection of this machine, and what says that the connection is lost."""
    loop = asyncio.get_running_loop()
    made: asyncio.Future[asyncio.Transport] = loop.create_future()
    lost = asyncio.Event()

    class Taker(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.set_result(cast("asyncio.Transport", transport))

        def connection_lost(self, exc: Exception | None) -> None:
            lost.set()

    server = await loop.create_server(Taker, "127.0.0.1", 0)
    await loop.create_connection(asyncio.Protocol, "127.0.0.1", server.sockets[0].getsockname()[1])
    responder = Responding()
    responder._transport = await made
    responder.begin_answer(False, False, False)
    responder.start(200, b"OK", b"", None)
    return responder, server, lost


@pytest.mark.parametrize("say", [whole, piece, end])
def test_write_to_a_lost_connection_is_no_error(say: Callable[[Responding], None]) -> None:
    """A provider's bytes may come between the loss of a caller and the end of the exchange, a turn of the loop later."""

    async def answer() -> None:
        responder, server, lost = await begun_answer()
        responder._transport.abort()
        async with asyncio.timeout(5):
            await lost.wait()
        say(responder)
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(answer())


@pytest.mark.parametrize("say", [whole, piece, end])
def test_write_that_fails_on_an_open_connection_is_told(say: Callable[[Responding], None]) -> None:
    """Only a caller who has left excuses it."""
    responder = Responding()
    responder._transport = cast("asyncio.Transport", Broken())
    responder._answer_is_chunked = True

    with pytest.raises(RuntimeError):
        say(responder)
