"""A provider in a process of its own that answers each model with the bytes of a file: large answers cost it nothing.

Run as ``python -m tests.support.canned_provider FOLDER``; it prints its port. ``FOLDER/model`` is the whole answer, head
and body, to a request for that model; requests of other models get a short one.
"""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SHORT = (
    b'{"id":"c","object":"chat.completion","created":1,"model":"short","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"yes"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
_MODEL = re.compile(rb'"model"\s*:\s*"([\w-]+)"|name="model"\r\n\r\n([\w-]+)')
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def whole(body: bytes, content_type: str = "application/json", more: str = "") -> bytes:
    """Return an answer with a length."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{more}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


def streamed(events: list[bytes], events_per_chunk: int = 64) -> bytes:
    """Return a chunked event stream."""
    pieces = [b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"]
    for at in range(0, len(events), events_per_chunk):
        chunk = b"".join(events[at : at + events_per_chunk])
        pieces.append(b"%x\r\n%b\r\n" % (len(chunk), chunk))
    return b"".join([*pieces, b"0\r\n\r\n"])


def _serve(sock: socket.socket, folder: Path) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    held = b""
    with sock, contextlib.suppress(OSError):
        while True:
            while b"\r\n\r\n" not in held:
                piece = sock.recv(262144)
                if not piece:
                    return
                held += piece
            head, _, held = held.partition(b"\r\n\r\n")
            found = _LENGTH.search(head)
            left = int(found[1]) if found else 0
            beginning = held[:4096]
            left, held = left - len(held), held[left:]
            while left > 0:
                piece = sock.recv(min(left, 262144))
                if not piece:
                    return
                beginning = beginning if len(beginning) >= 4096 else beginning + piece
                left -= len(piece)
            named = _MODEL.search(beginning)
            path = folder / (named[1] or named[2]).decode() if named else folder
            sock.sendall(path.read_bytes() if path.is_file() else whole(SHORT))


def main(folder: Path) -> None:
    """Serve until the process is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    while True:
        sock, _ = listener.accept()
        threading.Thread(target=_serve, args=(sock, folder), daemon=True).start()


@contextmanager
def canned_provider(folder: Path) -> Iterator[str]:
    """Run one; gives its base URL."""
    command = [sys.executable, "-m", "tests.support.canned_provider", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
