"""The fault proxy does what it is told, and nothing else."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support.fault_proxy import FaultProxy, Line, fault_proxy


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connection,), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with closing(connection):
            try:
                while piece := connection.recv(65536):
                    connection.sendall(piece)
            except OSError:
                return

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


@pytest.fixture
def proxy(echo: int) -> Iterator[FaultProxy]:
    with fault_proxy(echo) as running:
        yield running


def dial(proxy: FaultProxy, timeout_s: float = 2.0) -> socket.socket:
    """Connect through the proxy."""
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=timeout_s)


def said(connection: socket.socket, data: bytes) -> bytes:
    """Send and read as much back."""
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = connection.recv(65536)
        if not piece:
            return got
        got += piece
    return got


def rest_of(connection: socket.socket) -> bytes:
    """Read until the connection ends, well or badly."""
    got = b""
    try:
        while piece := connection.recv(65536):
            got += piece
    except ConnectionError:
        pass
    return got


def test_healthy_line_passes_both_ways(proxy: FaultProxy) -> None:
    """Without a fault nobody notices it."""
    with dial(proxy) as connection:
        assert b"x" * 200_000 == said(connection, b"x" * 200_000)
    assert 200_000 == proxy.counts.bytes_up


def test_refused_line_resets_what_is_open_and_heals(proxy: FaultProxy) -> None:
    """The outage that clients see at once."""
    with dial(proxy) as connection:
        assert b"a" == said(connection, b"a")
        proxy.refuse()
        with pytest.raises(ConnectionError):
            dial(proxy)
        with pytest.raises(ConnectionError):
            said(connection, b"b")
    assert Line.REFUSE is proxy.line
    proxy.heal()
    with dial(proxy) as connection:
        assert b"c" == said(connection, b"c")


def test_black_hole_holds_bytes_and_delivers_them_late(proxy: FaultProxy) -> None:
    """The outage that clients see only by their own clock; what was sent meanwhile still arrives."""
    with dial(proxy, 0.2) as connection:
        assert b"a" == said(connection, b"a")
        proxy.black_hole()
        with pytest.raises(TimeoutError):
            said(connection, b"late")
        with dial(proxy, 0.1) as second, pytest.raises(TimeoutError):
            said(second, b"?")
        proxy.heal()
        connection.settimeout(2)
        assert b"late" == connection.recv(10)


def test_dropped_reply_is_lost_and_the_next_one_is_not(proxy: FaultProxy) -> None:
    """The target did the work; the client cannot know."""
    with dial(proxy, 0.2) as connection:
        assert b"a" == said(connection, b"a")
        proxy.drop_replies()
        with pytest.raises(TimeoutError):
            said(connection, b"lost")
        assert b"kept" == said(connection, b"kept")
    assert 1 == proxy.counts.replies_dropped


def test_cut_connection_carries_exactly_the_bytes_before(proxy: FaultProxy) -> None:
    """A request that arrives in part."""
    with dial(proxy) as connection:
        proxy.cut_after(3)
        connection.sendall(b"abcdef")
        assert b"abcdef" != rest_of(connection)
    with dial(proxy) as connection:
        assert b"whole" == said(connection, b"whole")
    assert 1 == proxy.counts.cuts


def test_delay_and_throttle_take_their_time(proxy: FaultProxy) -> None:
    """Slow is the worse kind of broken."""
    with dial(proxy) as connection:
        proxy.delay(0.1)
        began_s = time.monotonic()
        said(connection, b"a")
        delayed_s = time.monotonic() - began_s
        proxy.delay(0.0)
        proxy.throttle(1000)
        began_s = time.monotonic()
        said(connection, b"b" * 300)
        throttled_s = time.monotonic() - began_s

    assert delayed_s >= 0.2
    assert throttled_s >= 0.25
