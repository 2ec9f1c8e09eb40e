"""Providers whose certificate or protocol cannot be trusted get neither the key nor the prompt (SE-17)."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme

from tests.support.rawhttp import raw_chat
from tests.support.sidecar import OWN_KEY, Stage, check_refusal, stage

pytestmark = pytest.mark.faults

PROMPT = "tls prompt canary"
ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{"choices":[]}'


@dataclass
class TlsProvider:
    """A TLS server that keeps the bytes that came, as they came on the wire and as they were decrypted."""

    context: ssl.SSLContext | None
    port: int = 0
    wire: bytearray = field(default_factory=bytearray)
    plain: bytearray = field(default_factory=bytearray)
    connections: int = 0

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                peer, _ = listener.accept()
                self.connections += 1
                with peer, suppress(OSError, ssl.SSLError):
                    peer.settimeout(1.0)
                    self._talk(peer)

    def _talk(self, peer: socket.socket) -> None:
        if self.context is None:
            self.wire += peer.recv(65536)
            peer.sendall(ANSWER)
            return
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self.context.wrap_bio(incoming, outgoing, server_side=True)
        is_open = False
        while True:
            try:
                if not is_open:
                    tls.do_handshake()
                    is_open = True
                self.plain += tls.read(65536)
                tls.write(ANSWER)
                peer.sendall(outgoing.read())
                return
            except ssl.SSLWantReadError:
                peer.sendall(outgoing.read())
                data = peer.recv(65536)
                self.wire += data
                if not data:
                    return
                incoming.write(data)
            except ssl.SSLError:
                peer.sendall(outgoing.read())  # the alert
                raise


@contextmanager
def tls_provider(context: ssl.SSLContext | None) -> Iterator[TlsProvider]:
    listener = socket.create_server(("127.0.0.1", 0))
    provider = TlsProvider(context, listener.getsockname()[1])
    threading.Thread(target=provider.serve, args=(listener,), daemon=True).start()
    try:
        yield provider
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def serving_context(leaf: trustme.LeafCert, *, old: bool = False) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    leaf.configure_cert(context)
    if old:
        with suppress(ssl.SSLError):
            context.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
            context.minimum_version = ssl.TLSVersion.TLSv1
            context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, dict[str, TlsProvider]]]:
    """A sidecar that trusts one authority, in front of one good provider and five bad ones."""
    authority, stranger = trustme.CA(), trustme.CA()
    folder: Path = tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
    contexts: dict[str, ssl.SSLContext | None] = {
        "good": serving_context(authority.issue_cert("localhost", "127.0.0.1")),
        "wrong-host": serving_context(authority.issue_cert("other.example")),
        "expired": serving_context(authority.issue_cert("localhost", "127.0.0.1", not_before=past, not_after=past + dt.timedelta(days=1))),
        "self-signed": serving_context(stranger.issue_cert("localhost", "127.0.0.1")),
        "old-protocol": serving_context(authority.issue_cert("localhost", "127.0.0.1"), old=True),
        "no-tls": None,
    }  # fmt: skip
    with ExitStack() as running:
        providers = {name: running.enter_context(tls_provider(context)) for name, context in contexts.items()}
        rows = "".join(
            f'  {name}: {{{{base_url: "https://localhost:{one.port}/v1", api_key: {{{{env: RG_OWN_KEY}}}}, ca_file: {folder}/ca.pem}}}}\n'
            for name, one in providers.items()
        )
        routes = "".join(
            f'  - {{match: {{models: ["{name}"]}}, chain: [{{provider: {name}}}], retries: none}}\n'
            for name in providers
        )
        policy = f"version: 1\npolicy: tls\nroutes:\n{routes}"
        home = tmp_path_factory.mktemp("tls-sidecar")
        yield running.enter_context(stage(home, config=f"providers:\n{rows}", policies={"tls.yaml": policy})), providers


def test_trusted_provider_is_reached(tls: tuple[Stage, dict[str, TlsProvider]]) -> None:
    """The yardstick: with a good certificate key and prompt arrive, encrypted."""
    running, providers = tls
    answer = running.ask(raw_chat(PROMPT, model="good"))

    assert 200 == answer.status
    assert OWN_KEY.encode() in providers["good"].plain
    assert OWN_KEY.encode() not in providers["good"].wire


@pytest.mark.parametrize("name", ["wrong-host", "expired", "self-signed", "old-protocol", "no-tls"])
@pytest.mark.parametrize("stream", [False, True])
def test_untrusted_provider_gets_nothing(tls: tuple[Stage, dict[str, TlsProvider]], name: str, stream: bool) -> None:
    """SE-17: 502 upstream_tls_error; neither key nor prompt was written, in clear or encrypted."""
    running, providers = tls
    rows = running.kept_rows()
    answer = running.ask(raw_chat(PROMPT, model=name, stream=stream))
    provider = providers[name]

    assert (502, "upstream_tls_error") == (answer.status, answer.json()["error"]["code"])
    check_refusal(answer)
    assert ("provider", rows + 1) == (answer.get("x-readygate-fault"), running.kept_rows())
    assert "tls_error" == running.row(answer)["outcome"]
    assert provider.connections > 0
    for secret in (OWN_KEY.encode(), PROMPT.encode()):
        assert secret not in provider.plain
        assert secret not in provider.wire
    assert b"" == bytes(provider.plain)
