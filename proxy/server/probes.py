"""The probes, answered by a thread of their own: they must not wait behind whatever keeps the event loop busy.

Owns the admin port's listening sockets and each connection until its first line has come. A probe is answered here
from what was published last; every other connection goes, with the bytes read so far, to the event loop. Knows no
component: the loop publishes what readiness and start-up are, and a beat that says that it still turns.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.core.config.settings import Listen
from proxy.server.admin_api import SECURITY_HEADERS

LIVE: Final = frozenset({"/livez", "/healthz"})
READY: Final = frozenset({"/readyz", "/ready"})
STARTED: Final = frozenset({"/startupz", "/startup"})
PROBES: Final = LIVE | READY | STARTED

STUCK_AFTER_S: Final = 5.0
"""A loop that has not beaten for so long is taken for dead."""
HEAD_MAX_BYTES: Final = 16 * 1024
HEAD_WITHIN_S: Final = 10.0
WAITING_MAX: Final = 256
SWEEP_EVERY_S: Final = 1.0
ACCEPT_PAUSE_S: Final = 0.1
"""Between tries while no descriptor is left."""

Verdict = tuple[bool, dict[str, Any]]
"""Yes or no, and the document that says why."""
Take = Callable[[socket.socket, bytes], None]
"""What takes a connection over; called in the probe thread, must only pass it on."""


@dataclass(frozen=True, slots=True)
class Published:
    """What the loop said last. Replaced whole, never changed, so that a thread may read it at any moment."""

    ready: Verdict
    started: Verdict
    at_s: float
    """Monotonic seconds of the beat."""


class _Waiting:
    """A connection whose first line has not come yet."""

    __slots__ = ("data", "since_s", "sock")

    def __init__(self, sock: socket.socket, now_s: float) -> None:
        self.sock = sock
        self.data = b""
        self.since_s = now_s


class ProbeDoor:
    """Owner of the admin port."""

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        self._why_dead: Callable[[], str] = str
        self._published: Published | None = None
        self._take: Take | None = None
        self._sockets: list[socket.socket] = []
        self._waiting: dict[int, _Waiting] = {}
        self._held: list[_Waiting] = []
        self._is_closing = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Bind, and answer probes from now on. Raises OSError when the address cannot be bound."""
        self._sockets = _bind(self._listen)
        self._thread = threading.Thread(target=self._run, name="probes", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The bound port."""
        port: int = self._sockets[0].getsockname()[1]
        return port

    def watch(self, why_dead: Callable[[], str]) -> None:
        """Ask this, too, whether the process lives: it says why not, or nothing. Called in the probe thread."""
        self._why_dead = why_dead

    def hand_to(self, take: Take) -> None:
        """Pass every connection that is not a probe to ``take`` from now on; those that came earlier wait until then."""
        self._take = take

    def publish(self, published: Published) -> None:
        """Say how the process is; also the loop's beat."""
        self._published = published

    def close(self) -> None:
        """Stop to listen and end the thread."""
        self._is_closing.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * SWEEP_EVERY_S)
        for sock in self._sockets:
            sock.close()

    # --- what a probe is told ---------------------------------------------------------------------

    def verdict(self, path: str, now_s: float) -> Verdict:
        """Answer one probe from what is known now."""
        published = self._published
        reason = self._why_dead()
        if published is not None and published.started[0] and now_s - published.at_s > STUCK_AFTER_S:
            reason = reason or f"event loop stuck for {now_s - published.at_s:.0f} s"
        if path in LIVE:
            return not reason, {"status": reason or "live"}
        if published is None:
            return False, {"status": "starting"}
        if path in STARTED:
            return published.started
        if reason:
            return False, {"status": "not ready", "missing": [reason]}
        return published.ready

    # --- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for listening in self._sockets:
                selector.register(listening, selectors.EVENT_READ)
            while not self._is_closing.is_set():
                events = selector.select(SWEEP_EVERY_S / 4 if self._held else SWEEP_EVERY_S)
                now_s = time.monotonic()
                for key, _ in events:
                    try:
                        if key.data is None:
                            self._accept(selector, key.fileobj, now_s)  # type: ignore[arg-type]  # a listening socket
                        else:
                            self._read(selector, key.data, now_s)
                    except OSError:
                        # A peer that went away, or no descriptor left: neither may end the thread that says we live.
                        if key.data is None:
                            self._is_closing.wait(ACCEPT_PAUSE_S)
                        else:
                            self._forget(selector, key.data, closes=True)
                self._sweep(selector, now_s)
            for waiting in [*self._waiting.values(), *self._held]:
                waiting.sock.close()

    def _accept(self, selector: selectors.BaseSelector, listening: socket.socket, now_s: float) -> None:
        try:
            sock, _ = listening.accept()
        except BlockingIOError:
            return
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        waiting = self._waiting[sock.fileno()] = _Waiting(sock, now_s)
        selector.register(sock, selectors.EVENT_READ, waiting)
        if len(self._waiting) > WAITING_MAX:
            # Whoever has said nothing for longest gives way: probes speak at once.
            self._forget(selector, next(iter(self._waiting.values())), closes=True)

    def _read(self, selector: selectors.BaseSelector, waiting: _Waiting, now_s: float) -> None:
        try:
            piece = waiting.sock.recv(HEAD_MAX_BYTES)
        except BlockingIOError:
            return
        if not piece:
            self._forget(selector, waiting, closes=True)
            return
        waiting.data += piece
        line, end, _ = waiting.data.partition(b"\r\n")
        if not end and len(waiting.data) < HEAD_MAX_BYTES:
            return
        probe = _probe_of(line)
        if probe is None:
            self._forget(selector, waiting, closes=False)
            self._pass_on(waiting)
        elif b"\r\n\r\n" in waiting.data:
            waiting.sock.send(_render(self.verdict(probe, now_s), is_head=line.startswith(b"HEAD ")))
            self._forget(selector, waiting, closes=True)
        elif len(waiting.data) >= HEAD_MAX_BYTES:
            self._forget(selector, waiting, closes=True)

    def _pass_on(self, waiting: _Waiting) -> None:
        if self._take is None:
            if len(self._held) < WAITING_MAX:
                self._held.append(waiting)
            else:
                waiting.sock.close()
            return
        try:
            self._take(waiting.sock, waiting.data)
        except RuntimeError:
            # The loop has ended; so will the process.
            waiting.sock.close()

    def _forget(self, selector: selectors.BaseSelector, waiting: _Waiting, *, closes: bool) -> None:
        if self._waiting.get(waiting.sock.fileno()) is not waiting:
            return
        del self._waiting[waiting.sock.fileno()]
        selector.unregister(waiting.sock)
        if closes:
            with contextlib.suppress(OSError):
                waiting.sock.shutdown(socket.SHUT_WR)
            waiting.sock.close()

    def _sweep(self, selector: selectors.BaseSelector, now_s: float) -> None:
        if self._take is not None and self._held:
            held, self._held = self._held, []
            for waiting in held:
                self._pass_on(waiting)
        late = [waiting for waiting in self._waiting.values() if now_s - waiting.since_s > HEAD_WITHIN_S]
        for waiting in late:
            self._forget(selector, waiting, closes=True)


def _probe_of(line: bytes) -> str | None:
    """Return the probe that a request line asks for, or None."""
    method, _, rest = line.partition(b" ")
    target, _, version = rest.partition(b" ")
    if method not in (b"GET", b"HEAD") or not version.startswith(b"HTTP/1."):
        return None
    path = target.partition(b"?")[0].decode("latin-1")
    return path if path in PROBES else None


def _render(verdict: Verdict, *, is_head: bool) -> bytes:
    is_well, detail = verdict
    body = orjson.dumps(detail, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    status = b"200 OK" if is_well else b"503 Service Unavailable"
    lines = b"".join(f"{name}: {value}\r\n".encode("ascii") for name, value in SECURITY_HEADERS.items())
    head = b"HTTP/1.1 %b\r\ncontent-type: application/json; charset=utf-8\r\ncontent-length: %d\r\n%bconnection: close\r\n\r\n"
    return head % (status, len(body), lines) + (b"" if is_head else body)


def _bind(listen: Listen) -> list[socket.socket]:
    """Return listening sockets on every address of the host, all on one port."""
    port, sockets = listen.port, []
    try:
        found = socket.getaddrinfo(listen.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
            port = sock.getsockname()[1]
            sock.listen(128)
            sock.setblocking(False)
    except OSError:
        for sock in sockets:
            sock.close()
        raise
    return sockets
