"""Large request bodies on their way to a provider: in slices, at the provider's pace, and given up when it takes none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from proxy.core.config.settings import ProviderSettings
from proxy.core.policy.model import Timeouts
from proxy.flow.ports import AttemptFailed, Call, CallKind
from proxy.terms.http import RequestHead
from proxy.terms.outcomes import Outcome
from proxy.upstream.providers import WRITE_BYTES, Providers

BODY = bytes(range(256)) * 40_000
"""Ten megabytes: more than the sockets between us take."""
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class NoKeys:
    """No provider has a key."""

    def current(self, provider: str) -> str | None:
        return None

    async def refresh(self, provider: str) -> bool:
        return False


async def sent_to(serve: Serve, first_byte_s: float) -> int:
    """Send the body to a provider that behaves so; return the status."""

    async def handled(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    async with await asyncio.start_server(handled, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        upstream = Providers({"p": ProviderSettings("p", f"http://127.0.0.1:{port}/v1")}, NoKeys(), time.monotonic)
        head = RequestHead("POST", b"/v1/x", "/v1/x", [], {})
        limits = Timeouts(connect_s=1.0, first_byte_s=first_byte_s, idle_s=1.0)
        call = Call(CallKind("p", head, b"/x", b"", "m"), BODY, limits, time.monotonic() + 10, 1024)
        try:
            return (await upstream.send(call)).head.status
        finally:
            await upstream.close()


async def test_body_arrives_whole_however_slowly_it_is_taken() -> None:
    """The first-byte limit counts from the request's last byte, and while the provider takes some it is not silent."""
    got = bytearray()

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while len(got) < len(BODY):
            got.extend(await reader.read(WRITE_BYTES))
            await asyncio.sleep(0.012)
        writer.write(ANSWER)
        await writer.drain()

    began_s = time.monotonic()
    status = await sent_to(slowly, first_byte_s=0.4)

    assert 200 == status
    assert BODY == got
    assert time.monotonic() - began_s > 0.4


async def test_provider_that_takes_none_of_it_is_given_up() -> None:
    """After as long as one that says nothing."""

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3)

    with pytest.raises(AttemptFailed) as failed:
        await sent_to(deaf, first_byte_s=0.2)

    assert Outcome.TTFB_TIMEOUT is failed.value.outcome


async def test_answer_that_comes_before_the_end_of_the_body_counts() -> None:
    """Too large for them, say: the rest is not sent and the connection not used again."""

    async def early(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER.replace(b"200 OK", b"413 Too Large"))
        await writer.drain()
        await asyncio.sleep(0.2)

    assert 413 == await sent_to(early, first_byte_s=1.0)
