"""``readygate doctor``: look at everything the sidecar needs to run here, and say what to do about what is missing.

Owns the list of looks and how they are told. Changes nothing: a store is read, a provider is asked for its models, which
is free, a port is bound and let go.
"""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

from proxy.cli.check import find_problems
from proxy.core.config.budget_store import MEMORY_STORE, parse_budget_store
from proxy.core.config.caller_keys import KeyState
from proxy.core.config.settings import Listen, ProviderSettings, SecretRef, Settings, endpoints_of
from proxy.core.config.texts import parse_store_url
from proxy.sources.caller_keys import read_caller_keys
from proxy.sources.files import read_config
from proxy.sources.secrets import Secrets, references
from proxy.terms.errors import ProxyError
from proxy.terms.outcomes import Outcome

EXIT_GOOD, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2
OK, WARN, BAD = "ok", "warn", "bad"
CHECK_TIMEOUT_S = 5.0
CLOCK_SLACK_S = 5.0
_SOON_S = 7 * 86400.0


class Finding(NamedTuple):
    """One look: what at, how it is, what was seen, what to do."""

    name: str
    state: str
    text: str
    advice: str = ""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "doctor",
        help="look at everything the sidecar needs: files, secrets, ports, disk, stores, providers, clock",
        description="Exit code: 0 it can run here, 1 something keeps it from that, 2 the config cannot be read.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.add_argument("--offline", action="store_true", help="ask no provider and no store")


def run(args: argparse.Namespace) -> int:
    """Look and tell; return the exit code."""
    path = Path(args.config)
    settings = read_config(path).settings
    if settings is None:
        problems, _ = find_problems(path)
        for problem in problems:
            print(problem, file=sys.stderr)
        print(f"readygate doctor: {path} cannot be used; mend that first", file=sys.stderr)
        return EXIT_UNUSABLE
    findings = list(_local(path, settings))
    if not args.offline:
        findings += asyncio.run(_remote(path.absolute().parent, settings))
    if args.format == "json":
        print(json.dumps({"findings": [finding._asdict() for finding in findings]}, indent=2))
    else:
        _print(findings)
    return EXIT_FINDING if any(finding.state == BAD for finding in findings) else EXIT_GOOD


def _print(findings: list[Finding]) -> None:
    width = max(len(finding.name) for finding in findings)
    for finding in findings:
        print(f"{finding.state:4}  {finding.name:{width}}  {finding.text}")
        if finding.advice:
            print(f"      {'':{width}}  -> {finding.advice}")
    bad, warned = (sum(finding.state == state for finding in findings) for state in (BAD, WARN))
    print(f"{len(findings)} looks: {bad} bad, {warned} to look at")


# --- here -----------------------------------------------------------------------------------------


def _local(path: Path, settings: Settings) -> Iterator[Finding]:
    problems, _ = find_problems(path)
    errors = [problem for problem in problems if problem.is_error]
    lints = len(problems) - len(errors)
    advice = f"readygate check -c {path}" if problems else ""
    text = f"{errors[0]}" if errors else f"{path} and {settings.policies} load, {lints} lints"
    yield Finding("files", BAD if errors else WARN if lints else OK, text, advice)
    yield from _secrets(settings)
    yield from _caller_keys(settings)
    is_running = False
    for finding in _ports(settings):
        is_running = is_running or "sidecar is running" in finding.text
        yield finding
    yield _spool(settings, is_running=is_running)
    year = datetime.fromtimestamp(time.time_ns() / 1e9, UTC).year
    yield Finding("clock", OK if year >= 2025 else BAD, f"the year is {year}", "" if year >= 2025 else "set the clock")


def _secrets(settings: Settings) -> Iterator[Finding]:
    secrets = Secrets()
    secrets.load(references(settings))
    keyed = {name: p for name, p in settings.providers.items() if p.api_key is not None}
    missing = [ref for ref in references(settings) if secrets.current(ref) is None]
    if not missing:
        yield Finding("secrets", OK, f"{len(references(settings))} set")
        return
    usable = [
        name for name, p in keyed.items() if any(secrets.current(r) for r in (p.api_key, *p.api_keys.values()) if r)
    ]
    keys = {p.api_key for p in endpoints_of(settings.providers).values()}
    for ref in missing:
        is_key = ref in keys
        advice = f"export {ref.env}=…" if ref.env else "mount the file or correct the path"
        if is_key and not usable:
            advice += "; without any key `serve` puts the simulated provider in place"
        yield Finding("secrets", WARN if is_key else BAD, secrets.trouble(ref), advice)


def _caller_keys(settings: Settings) -> Iterator[Finding]:
    """Look at the callers' file: without a key that opens, nobody gets in."""
    if settings.callers_file is None:
        return
    found = read_caller_keys(settings.callers_file)
    if found.keys is None:
        text = str(next(problem for problem in found.problems if problem.is_error))
        yield Finding("caller keys", BAD, text, "mend the file, or restore it: until then the last good keys stay")
        return
    now_s = time.time_ns() / 1e9
    states = [key.state(now_s) for key in found.keys]
    good = sum(state in (KeyState.ACTIVE, KeyState.EXPIRING) for state in states)
    soon = [key for key in found.keys if key.until_s is not None and now_s < key.until_s < now_s + _SOON_S]
    if not good and not settings.callers and settings.jwt is None:
        yield Finding("caller keys", BAD, f"none of {len(states)} opens the data port", "readygate keys create")
    elif soon:
        names = ", ".join(sorted({key.name for key in soon}))
        yield Finding(
            "caller keys", WARN, f"{good} open the data port; end within a week: {names}", "readygate keys rotate"
        )
    else:
        yield Finding("caller keys", OK, f"{good} open the data port")


async def _jwt_keys(settings: Settings) -> list[Finding]:
    """Fetch the issuer's keys once, as a sidecar would."""
    if settings.jwt is None:
        return []
    from proxy.sources.tokens import fetch_keys, read_keys, why_not  # noqa: PLC0415 - only who takes tokens pays for the library

    where = str(settings.jwt.jwks_file or settings.jwt.jwks_url)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            data = await asyncio.to_thread(fetch_keys, settings.jwt)
        keys = read_keys(data, settings.jwt.algorithms)
    except TimeoutError:
        return [Finding("jwt keys", BAD, f"{where}: no answer in time", "check jwks and the network")]
    except (OSError, HTTPException, ValueError) as exc:
        return [
            Finding(
                "jwt keys", BAD, f"{where}: {why_not(exc)}", "check jwks; no token opens the data port without keys"
            )
        ]
    return [Finding("jwt keys", OK, f"{len(keys)} usable at {where}")]


def _ports(settings: Settings) -> Iterator[Finding]:
    for name, listen in (("data port", settings.server.data), ("admin port", settings.server.admin)):
        trouble = _why_not_bound(listen)
        if trouble is None:
            yield Finding(name, OK, f"{listen} is free")
        elif trouble == errno.EADDRINUSE and _is_sidecar(settings.server.admin):
            yield Finding(name, OK, f"{listen}: a sidecar is running")
        else:
            advice = "stop what listens there, or choose another port under `server:`"
            yield Finding(name, BAD, f"{listen}: {os.strerror(trouble).lower()}", advice)


def _why_not_bound(listen: Listen) -> int | None:
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError as exc:
            return exc.errno or errno.EINVAL
    return None


def _is_sidecar(admin: Listen) -> bool:
    host = "127.0.0.1" if admin.host in ("0.0.0.0", "::", "") else admin.host  # noqa: S104 - asked, not listened on
    with suppress(OSError), socket.create_connection((host, admin.port), timeout=2.0) as sock:
        sock.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        return b'"status"' in b"".join(iter(lambda: sock.recv(4096), b""))
    return False


def _spool(settings: Settings, *, is_running: bool) -> Finding:
    folder, limit = settings.audit.spool, settings.audit.spool_max_bytes
    where = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=where):
            pass
        free = shutil.disk_usage(where).free
    except OSError as exc:
        text = f"{where} cannot be written: {(exc.strerror or type(exc).__name__).lower()}"
        return Finding("spool", BAD, text, "mount a writable volume, or set audit.spool")
    if free < limit and not is_running:
        text = f"{free >> 20} MiB free at {where}, the spool may take {limit >> 20} MiB"
        return Finding("spool", WARN, text, "free the disk or lower audit.spool_max")
    return Finding("spool", OK, f"{folder} can be written, {free >> 20} MiB free")


# --- elsewhere ------------------------------------------------------------------------------------


async def _remote(base_dir: Path, settings: Settings) -> list[Finding]:
    secrets = Secrets()
    secrets.load(references(settings))
    looks: list[Coroutine[Any, Any, list[Finding]]] = [
        _audit_store(base_dir, settings, secrets),
        _budget_store(settings, secrets),
        _jwt_keys(settings),
        _providers(settings, secrets),
    ]
    findings: list[Finding] = []
    for look in looks:
        findings += await look
    return findings


def _text_of(value: str | SecretRef | None, secrets: Secrets) -> str:
    if not isinstance(value, SecretRef):
        return value or ""
    secret = secrets.current(value)
    return "" if secret is None else secret.reveal()


async def _audit_store(base_dir: Path, settings: Settings, secrets: Secrets) -> list[Finding]:
    from proxy.stores.audit_reader import open_reader  # noqa: PLC0415 - drivers load only when a store is asked
    from proxy.stores.audit_stores import sqlite_path  # noqa: PLC0415

    url = _text_of(settings.audit.store, secrets)
    if isinstance(settings.audit.store, SecretRef) and url:
        url = parse_store_url(url, base_dir)
    if not url or url.startswith("stdout:"):
        return [Finding("audit store", OK if url else BAD, url or "its URL is not set")]
    kind = url.partition(":")[0]
    if kind == "sqlite" and not (file := sqlite_path(url)).exists():
        return [Finding("audit store", OK, f"{file} will be made at the first start")]
    reader = open_reader(url, limit_s=CHECK_TIMEOUT_S)
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await reader.shed_rows()
    except (ProxyError, OSError, TimeoutError) as exc:
        text = f"{kind}: {str(exc) or type(exc).__name__}"
        return [
            Finding(
                "audit store", BAD, text, "start it or correct audit.store; `readygate audit migrate` makes the tables"
            )
        ]
    finally:
        await reader.close()
    return [Finding("audit store", OK, f"{kind} answers")]


async def _budget_store(settings: Settings, secrets: Secrets) -> list[Finding]:
    url = _text_of(settings.budgets.url, secrets)
    if not url or url == MEMORY_STORE:
        return [Finding("budget store", OK, "in process")]
    from proxy.stores.redis_client import STORE_ERRORS, connect  # noqa: PLC0415 - only who shares budgets pays for the driver

    client = None
    try:
        client = connect(parse_budget_store(url))
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await client.ping()
    except (*STORE_ERRORS, ValueError) as exc:
        # The message of a driver may hold the URL, and that a password.
        text = f"no answer: {type(exc).__name__}"
        return [Finding("budget store", WARN, text, "start it; until then each sidecar has its own share only")]
    finally:
        if client is not None:
            await client.aclose()
    return [Finding("budget store", OK, "answers")]


class _Keys:
    """Provider keys for one look; implements ``upstream.providers.Credentials``."""

    def __init__(self, providers: dict[str, ProviderSettings], secrets: Secrets) -> None:
        self._keys = {name: _text_of(p.api_key, secrets) or None for name, p in providers.items()}

    def current(self, provider: str) -> str | None:
        return self._keys.get(provider)

    async def refresh(self, provider: str) -> bool:
        return False


async def _providers(settings: Settings, secrets: Secrets) -> list[Finding]:
    from proxy.flow.free_checks import ask_for_models  # noqa: PLC0415 - half a second of imports
    from proxy.upstream.providers import Providers  # noqa: PLC0415

    endpoints = endpoints_of(settings.providers)
    dialled = {name: p for name, p in endpoints.items() if not p.api_keys}
    upstream = Providers(settings.providers, _Keys(endpoints, secrets), time.monotonic)
    findings: list[Finding] = []
    try:
        async with asyncio.TaskGroup() as tasks:
            asked = {
                name: tasks.create_task(
                    ask_for_models(upstream, name, provider.kind, CHECK_TIMEOUT_S, time.monotonic),
                    name=f"doctor-{name}",
                )
                for name, provider in dialled.items()
                if not upstream.lacks_key(name)
            }
    finally:
        await upstream.close()
    for name, provider in dialled.items():
        if name not in asked:
            findings.append(Finding(f"provider {name}", WARN, "not asked: its key is not set"))
            continue
        result = asked[name].result()
        findings.append(_told(name, provider, result.outcome, result.http_status, result.latency_ms, result.is_well))
        findings += _clock(name, result.date)
    return findings


def _told(
    name: str, provider: ProviderSettings, outcome: Outcome, status: int, latency_ms: float, is_well: bool
) -> Finding:
    advice = {
        Outcome.OWN_KEY_REFUSED: "it does not take this key: set the right one",
        Outcome.DNS_ERROR: "its name is not found here: check base_url and the resolver",
        Outcome.TLS_ERROR: "its certificate is not trusted here: set ca_file, or check who answers",
        Outcome.CONNECT_ERROR: "nothing listens there: check base_url, the firewall and egress_proxy",
        Outcome.CONNECT_TIMEOUT: "no connection in time: check the firewall and egress_proxy",
    }
    text = (
        f"{provider.base_url} answers {status} after {latency_ms:.0f} ms"
        if status
        else f"{provider.base_url}: {outcome}"
    )
    return Finding(
        f"provider {name}", OK if is_well else BAD, text, "" if is_well else advice.get(outcome, "see its status page")
    )


def _clock(name: str, date: str) -> list[Finding]:
    """Compare with a provider's clock: a wrong one breaks TLS, retry-after dates and day budgets."""
    try:
        theirs = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return []
    apart_s = time.time_ns() / 1e9 - theirs
    if abs(apart_s) <= CLOCK_SLACK_S:
        return []
    return [Finding("clock", WARN, f"{abs(apart_s):.0f} s apart from {name}'s", "keep the clock with NTP")]
