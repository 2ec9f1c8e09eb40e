"""The line to PostgreSQL: TLS that is verified to the host's name, and a real PgBouncer in transaction mode."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from proxy.cli import main
from proxy.core.audit.query import RowFilter
from proxy.stores.audit_reader import open_reader
from proxy.stores.postgres_sink import PostgresSink
from proxy.terms.errors import SinkUnavailable
from tests.support.audit_load import load_of
from tests.support.oracles import reconcile, rows_of_postgres
from tests.support.pgbouncer import pgbouncer
from tests.support.postgres import NoServer
from tests.support.simulator import Simulator
from tests.support.tls_front import tls_front
from tests.support.wire import eventually, sidecar_for, threaded_simulator

pytestmark = pytest.mark.integration
POLICY = """
version: 1
policy: default
routes: [{match: {models: ["*"]}, chain: [{provider: main}], retries: none}]
"""


@pytest.fixture
def provider() -> Iterator[Simulator]:
    with threaded_simulator() as simulator:
        yield simulator


def config(provider: Simulator) -> str:
    return f"""
providers: {{main: {{base_url: "{provider.base_url}"}}}}
audit: {{store: {{env: AUDIT_URL}}, spool: spool, batch_wait: 30ms}}
"""


def rows_through_a_sidecar(folder: Path, provider: Simulator, url: str, plain_url: str) -> None:
    """Ship rows of a short load by this URL and hold them to both journals."""
    with sidecar_for(folder, config(provider), POLICY, env={"AUDIT_URL": url}) as sidecar:
        with load_of(lambda: sidecar.data_port, 80) as load:
            eventually(lambda: len(load.calls) > 80, "the load is too slow")
        eventually(lambda: sidecar.metric("readygate_audit_waiting_rows") == 0, "rows still wait", 20)
        assert "ok" == sidecar.health()["components"]["audit_store"]["state"]
    rows = asyncio.run(rows_of_postgres(plain_url))

    assert [] == reconcile(load.calls, [entry.body.decode() for entry in provider.entries], rows)[:3]


@pytest.fixture
def tls_postgres(database_url: str) -> Iterator[tuple[str, trustme.CA]]:
    """PostgreSQL behind TLS as ``localhost``, and nothing else; its URL without options, and who signed its certificate.

    The server of the test wheel is built without TLS, so a front speaks PostgreSQL's negotiation for it.
    """
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    target = urlsplit(database_url)
    assert target.port is not None
    with tls_front(target.port, context) as port:
        yield f"postgresql://postgres@localhost:{port}{target.path}", authority


def test_rows_travel_over_verified_tls_and_no_other_way(
    tls_postgres: tuple[str, trustme.CA], database_url: str, tmp_path: Path, provider: Simulator
) -> None:
    """verify-full means: the right authority and the right name, or nothing is sent; reading obeys it too."""
    url, authority = tls_postgres
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    trustme.CA().cert_pem.write_to_path(tmp_path / "other-ca.pem")
    verified = f"{url}?sslmode=verify-full&sslrootcert={tmp_path / 'ca.pem'}"
    for wrong in (
        f"{url}?sslmode=verify-full&sslrootcert={tmp_path / 'other-ca.pem'}",
        verified.replace("localhost", "127.0.0.1"),
        f"{url}?sslmode=disable",
    ):
        with pytest.raises(SinkUnavailable):
            asyncio.run(PostgresSink(wrong).open())
        with pytest.raises(SinkUnavailable):
            asyncio.run(open_reader(wrong).count(RowFilter()))

    rows_through_a_sidecar(tmp_path, provider, verified, database_url)


def test_sidecar_and_readers_work_behind_a_real_pgbouncer(
    database_url: str,
    tmp_path: Path,
    provider: Simulator,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Transaction pooling: no session outlives a statement's transaction, and nothing of ours needs one."""
    try:
        with pgbouncer(database_url) as url:
            rows_through_a_sidecar(tmp_path, provider, url, database_url)
            asyncio.run(_read_at_once(url))
            monkeypatch.setenv("AUDIT_URL", url)
            assert 0 == main(["audit", "stats", "-c", str(tmp_path / "config.yaml"), "--format", "json"])
    except NoServer as exc:
        pytest.skip(str(exc))

    assert 80 < sum(one["exchanges"] for one in json.loads(capsys.readouterr().out)["sums"])


async def _read_at_once(url: str) -> None:
    """Six readers share the two server connections."""

    async def read() -> None:
        reader = open_reader(url)
        for _ in range(5):
            assert 60 == len(await reader.rows(RowFilter(), 60))
            await reader.sums(RowFilter())
        await reader.close()

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(read(), name=f"reader-{number}")
