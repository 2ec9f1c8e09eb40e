"""A stage for hostile callers: the real sidecar as a process in front of the simulated provider, and what must
hold for every refusal.

Owns the configurations that the framing and security tests share. The simulated provider's journal is the oracle
for what left the sidecar, the audit store for what was recorded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from proxy.simulator import Entry
from tests.support.rawhttp import Answer, RawCaller
from tests.support.simulator import Simulator
from tests.support.wire import Sidecar, sidecar_for, threaded_simulator

OWN_KEY = "sk-own-canary-7Qw2Lm9Zx4Tv8Kp1"
GOOG_KEY = "goog-own-canary-5Hj3Nd6Rb0Yc2Fs"
"""Keys that only providers may see."""

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_FAULTS = ("client", "policy", "gateway", "provider")

CONFIG = """\
providers:
  main: {{base_url: "{origin}/v1", api_key: {{env: RG_OWN_KEY}}}}
  bare: {{base_url: "{origin}/bare/v1"}}
  thin: {{base_url: "{origin}/thin/v1", api_key: {{env: RG_OWN_KEY}}}}
  goog: {{base_url: "{origin}/goog/v1", api_key: {{env: RG_GOOG_KEY}}, auth_header: x-goog-api-key}}
  azure: {{base_url: "{origin}/openai", kind: azure, api_key: {{env: RG_OWN_KEY}}, api_version: "2024-10-21"}}
audit: {{store: "sqlite:///audit.db", spool: spool, batch_wait: 10ms}}
log: {{level: debug, format: json}}
"""

POLICY = """\
version: 1
policy: plain
applies_to: {apps: ["*"]}
routes:
  - {name: bare, match: {models: ["bare-*"]}, chain: [{provider: bare}], retries: none}
  - {name: goog, match: {models: ["goog-*"]}, chain: [{provider: goog}], retries: none}
  - {name: azure, match: {models: ["azure-*"]}, chain: [{provider: azure}], retries: none}
  - {name: any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""

STRICT_POLICY = """\
version: 1
policy: pii
applies_to: {apps: ["pii"]}
redaction: {request: {default: restore}}
routes:
  - {name: pii-any, match: {models: ["*"]}, chain: [{provider: main}], retries: none}
"""

THIN_POLICY = """\
version: 1
policy: thin
applies_to: {apps: ["thin"]}
budgets: [{provider: thin, requests_per_day: 1, when_exhausted: refuse}]
routes:
  - {name: thin-any, match: {models: ["*"]}, chain: [{provider: thin}], retries: none}
"""

POLICIES = {"plain.yaml": POLICY, "pii.yaml": STRICT_POLICY, "thin.yaml": THIN_POLICY}

TARGETS = 48
"""Providers ``s0`` … of the brittle stage, one for each fault: a breaker that opens on one leaves the others alone.
Asked for by model (``s7-x``) and by path (``/v1/s7/x``)."""


def brittle_config() -> str:
    """Return the shared configuration with the targets of faults."""
    targets = [
        f'  s{n}: {{{{base_url: "{{origin}}/s{n}/v1", api_key: {{{{env: RG_OWN_KEY}}}}}}}}\n' for n in range(TARGETS)
    ]
    return CONFIG.replace("  main:", "".join(targets) + "  main:", 1)


def brittle_policies() -> dict[str, str]:
    """Return the shared policies with a route to each target."""
    routes = [
        f'  - {{name: s{n}-{kind}, match: {{{kind}: ["{match}"]}}, chain: [{{provider: s{n}}}], retries: none}}\n'
        for n in range(TARGETS)
        for kind, match in (("models", f"s{n}-*"), ("paths", f"/s{n}/*"))
    ]
    return {**POLICIES, "plain.yaml": POLICY.replace("routes:\n", "routes:\n" + "".join(routes))}


def cases(table: Mapping[str, Any], wrong: Mapping[str, str] | None = None) -> list[Any]:
    """Return the parameters of a table by name; those that the product gets wrong are expected to fail, strictly.

    Args:
        table: Name -> value, or a tuple of values.
        wrong: Name -> what is wrong.
    """
    marks = {name: [pytest.mark.xfail(strict=True, reason=reason)] for name, reason in (wrong or {}).items()}
    assert set(marks) <= set(table), set(marks) - set(table)
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), id=name, marks=marks.get(name, ()))
        for name, value in table.items()
    ]


@dataclass(slots=True)
class Stage:
    """A sidecar, the provider behind it and the checks."""

    sidecar: Sidecar
    provider: Simulator
    promised: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Exchange id -> status and code of the refusals whose rows have still to be seen in the store."""

    def caller(self, timeout_s: float = 5.0, *, receive_buffer: int = 0) -> RawCaller:
        """Open a connection to the data port."""
        return RawCaller(self.sidecar.data_port, timeout_s, receive_buffer=receive_buffer)

    def ask(self, data: bytes, timeout_s: float = 5.0) -> Answer:
        """Send bytes on a fresh connection and return the answer."""
        with self.caller(timeout_s) as caller:
            caller.send(data)
            return caller.read(data.partition(b" ")[0].decode("latin-1"))

    @property
    def asked(self) -> int:
        """How many requests the provider has begun to receive so far."""
        return self.provider.journal.request_count

    def kept_rows(self) -> int:
        """How many audit rows were made so far."""
        return int(self.sidecar.metric("readygate_audit_rows_kept_total"))

    def entries(self, marker: str) -> list[Entry]:
        """The provider's requests that hold ``marker`` anywhere."""
        wanted = marker.encode()
        return [e for e in self.provider.entries if wanted in e.body or marker in e.target or marker in str(e.headers)]

    def row(self, answer: Answer) -> dict[str, Any]:
        """The one row of an answer."""
        return self.sidecar.row(answer.get("x-readygate-id"))

    def refused(self, *data: bytes, status: int | tuple[int, ...], code: str = "", closes: bool = True) -> Answer:
        """Send bytes that must be refused, and check everything a refusal owes.

        Well-framed; the four-key error with the request id; the headers; exactly one row that says the same; nothing
        at the provider; the connection closed with nothing behind the answer.
        """
        rows, asked = self.kept_rows(), self.asked
        with self.caller() as caller:
            for piece in data:
                if not caller.try_send(piece):
                    break
            method = data[0].partition(b" ")[0].decode("latin-1")
            answer = caller.read(method)
            assert answer.status in ((status,) if isinstance(status, int) else status), answer.text
            end, rest = caller.ending() if closes else ("open", b"")
        check_refusal(answer, code, is_head=method == "HEAD")
        assert (asked, rows + 1) == (self.asked, self.kept_rows()), "requests at the provider, rows"
        code = "" if method == "HEAD" else answer.json()["error"]["code"]
        self.promised[answer.get("x-readygate-id")] = (answer.status, code)
        if closes:
            assert (True, b"") == (answer.closes, rest), "the connection is not announced to close, or more came"
            assert end != "open", "the connection stays open"
        return answer

    def keep_promises(self) -> None:
        """Check that every refusal so far left exactly one row that says what its caller was told."""
        last = next(reversed(self.promised), "")
        if last:
            self.sidecar.row(last)
        stored = [(row["id"], row["http_status"], row["error_code"]) for row in self.sidecar.rows()]
        told = {(key, status, code) for key, (status, code) in self.promised.items()}
        missing = told - {
            (key, status, code if self.promised.get(key, (0, ""))[1] else "") for key, status, code in stored
        }
        self.promised.clear()

        assert not missing, f"refusals without their row: {sorted(missing)[:10]}"
        assert len(stored) == len({key for key, _, _ in stored})


def resident_kib(running: Stage) -> int:
    """Return the resident memory of the sidecar."""
    with open(f"/proc/{running.sidecar.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def check_refusal(answer: Answer, code: str = "", *, is_head: bool = False) -> None:
    """Check what every refusal of the sidecar's own owes a caller."""
    exchange_id = answer.get("x-readygate-id")
    assert _UUID7.match(exchange_id), f"x-readygate-id {exchange_id!r}"
    assert exchange_id == answer.get("x-request-id")
    assert answer.get("x-readygate-fault") in _FAULTS, answer.headers
    assert "application/json" == answer.get("content-type")
    if answer.status in (400, 401, 403, 404, 405, 413, 414, 415, 417, 421, 431, 501, 505):
        assert "false" == answer.get("x-should-retry"), "a client may retry what can never succeed"
    if is_head:
        assert b"" == answer.body
        return
    error = answer.json()["error"]
    assert {"message", "type", "param", "code", "request_id"} == set(error)
    assert exchange_id == error["request_id"]
    assert error["message"]
    assert error["type"]
    if code:
        assert code == error["code"]


@contextmanager
def stage(
    folder: Path,
    *,
    config: str = "",
    policies: dict[str, str] | None = None,
    server: str = "",
    env: dict[str, str] | None = None,
    **options: Any,
) -> Iterator[Stage]:
    """Run a simulated provider (options are its settings) and a sidecar in front of it.

    Args:
        folder: Empty; holds config, spool, database and log.
        config: Text of config.yaml with ``{origin}`` for the provider; the shared one when empty.
        policies: File name -> text; the shared ones when None.
        server: More of the server section, in flow style.
        env: More environment of the sidecar.
    """
    secrets = {"RG_OWN_KEY": OWN_KEY, "RG_GOOG_KEY": GOOG_KEY, **(env or {})}
    with threaded_simulator(**options) as provider:
        text = (config or CONFIG).format(origin=provider.origin)
        with sidecar_for(
            folder, text, POLICIES if policies is None else policies, server=server, env=secrets
        ) as sidecar:
            running = Stage(sidecar, provider)
            yield running
            running.keep_promises()
