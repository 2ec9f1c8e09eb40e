"""A provider that says exactly the bytes it is told and keeps every request as it came; in threads of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.wire import Message, Wire


@dataclass(slots=True)
class RawProvider:
    """A provider of raw bytes: records every request as it came, answers with the pieces it was given."""

    port: int
    seen: list[Message] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    """What goes out after each request, one write each; the default is a small JSON document."""
    gap_s: float = 0.0
    closes: bool = False
    """Close the connection after the answer."""

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def answer(self, *pieces: bytes, gap_s: float = 0.0, closes: bool = False) -> None:
        """Say this from now on and forget what was seen."""
        self.pieces, self.gap_s, self.closes = list(pieces), gap_s, closes
        self.seen.clear()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(sock)
        with sock, contextlib.suppress(OSError):
            while True:
                message = wire.message(is_answer=False)
                if not message.headers:
                    return
                self.seen.append(message)
                if message.ended != "whole":
                    return
                for piece in self.pieces:
                    sock.sendall(piece)
                    if self.gap_s:
                        time.sleep(self.gap_s)  # noqa: TID251 - a thread of its own
                if self.closes:
                    return


@contextmanager
def raw_provider() -> Iterator[RawProvider]:
    """Run a raw provider in threads."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    provider = RawProvider(listener.getsockname()[1])
    small = b'{"id":"x","object":"chat.completion","choices":[]}'
    provider.answer(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(small) + small
    )

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                threading.Thread(target=provider._serve, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield provider
    finally:
        # A blocked accept() is woken by shutdown, not by close.
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
