"""A names service that speaks Presidio's analyzer API over a real socket, finds the names it was told, and lies on request."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KNOWN = {"Ana Silva": "PERSON", "João Gonçalves": "PERSON", "Rua das Flores": "LOCATION", "Zoë": "PERSON"}
Answer = Callable[[str], Any]


def honest(text: str) -> list[dict[str, Any]]:
    """Find the known names, offsets in characters."""
    return [
        {"entity_type": kind, "start": hit.start(), "end": hit.end(), "score": 0.85}
        for name, kind in KNOWN.items()
        for hit in re.finditer(re.escape(name), text)
    ]


def in_utf16(text: str) -> list[dict[str, Any]]:
    """Find them with offsets in UTF-16 units."""

    def units(at: int) -> int:
        return len(text[:at].encode("utf-16-le")) // 2

    return [row | {"start": units(row["start"]), "end": units(row["end"])} for row in honest(text)]


@dataclass
class NamesService:
    """What the service does next, and what it was asked."""

    port: int
    answer: Answer = honest
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    holds: threading.Event = field(default_factory=threading.Event)
    """Answers wait until it is set."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reset(self) -> None:
        """Be honest and prompt again; forget what was asked."""
        self.answer, self.status, self.headers = honest, 200, {}
        self.holds.set()
        self.asked.clear()
        self.keys.clear()


@contextmanager
def names_service() -> Iterator[NamesService]:
    """Run a names service in threads."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        """An answer is one write: two would wait for each other's acknowledgement."""

        def do_POST(self) -> None:
            question = json.loads(self.rfile.read(int(self.headers["content-length"])))
            service.asked.append(question)
            service.keys.append(self.headers.get("x-api-key"))
            service.holds.wait(10)
            answer = service.answer(question["text"]) if self.path == "/analyze" else {"error": "no such path"}
            body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            try:
                self.send_response(service.status if self.path == "/analyze" else 404)
                for name, value in service.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            """Callers that leave are what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    service = NamesService(server.server_address[1])
    service.holds.set()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield service
    finally:
        service.holds.set()
        server.shutdown()
        thread.join(5)
        server.server_close()
