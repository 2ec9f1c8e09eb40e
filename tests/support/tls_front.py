"""TLS in front of a PostgreSQL that has none: answers the client's request for TLS as a server would, and takes no other."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"


@contextmanager
def tls_front(port: int, context: ssl.SSLContext) -> Iterator[int]:
    """Run the front on a loop of its own thread; gives its port."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="tls-front", daemon=True)
    thread.start()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far: asyncio.StreamWriter | None = None
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, ExceptionGroup):
            if await reader.readexactly(8) == _SSL_REQUEST:
                writer.write(b"S")
                await writer.start_tls(context)
                far_reader, far = await asyncio.open_connection("127.0.0.1", port)
                async with asyncio.TaskGroup() as pumps:
                    pumps.create_task(_pump(reader, far), name="up")
                    pumps.create_task(_pump(far_reader, writer), name="down")
        for end in (writer, far):
            if end is not None:
                end.close()

    async def start() -> asyncio.Server:
        return await asyncio.start_server(serve, "localhost", 0, family=2)

    server = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    raise ConnectionResetError
