"""``readygate serve``: read the files, say what is wrong or what is running, and run until a signal.

Owns the messages of start-up and its exit codes. The sidecar itself is ``app.App``.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import gc
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from proxy.core.config.problem import Problem
from proxy.core.config.settings import Listen, ProviderKind, Settings, endpoints_of
from proxy.sources.files import FolderSnapshot, read_config, read_policies
from proxy.sources.secrets import Secrets, references, secret_problems
from proxy.terms.errors import SpoolLocked, SpoolUnavailable

EXIT_DONE, EXIT_UNUSABLE = 0, 2
LARGE_BLOCK_BYTES = 4 << 20
SWITCH_S = 0.001
"""So long another thread may keep the event loop from going on: while policies compile, each wait of an exchange costs up to this,
5 ms with the interpreter's own setting."""
_MMAP_THRESHOLD = -3
_NO_KEY_CODES = frozenset({"unset-secret", "no-usable-provider"})


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "serve",
        help="run the sidecar",
        description="Run the sidecar until SIGTERM or SIGINT, then drain. When no provider key is set, the bundled "
        "simulated provider answers in the place of every provider that needs one.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument(
        "--simulate",
        choices=("auto", "never", "always"),
        default="auto",
        help="put the simulated provider in the place of providers that need a key: when none is set (auto), "
        "never, or always (%(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Serve; 0 after an orderly end, 2 when it cannot start."""
    result = read_config(Path(args.config))
    if result.settings is None:
        return _refuse(result.problems)
    settings = result.settings
    secrets = Secrets()
    secrets.load(references(settings))
    keyed = frozenset(name for name, p in settings.providers.items() if p.api_key is not None)
    keys = [p.api_key for p in endpoints_of(settings.providers).values() if p.api_key is not None]
    has_key = any(secrets.current(key) is not None for key in keys)
    simulates = bool(keyed) and (args.simulate == "always" or (args.simulate == "auto" and not has_key))
    problems = [*result.problems, *secret_problems(settings, secrets)]
    if simulates:
        problems = [p for p in problems if p.code not in _NO_KEY_CODES]
    if any(p.is_error for p in problems):
        return _refuse(problems)
    policies = read_policies(settings.policies)
    if not policies.files:
        return _refuse([*problems, *policies.problems])
    for problem in problems:
        print(problem, file=sys.stderr)
    simulated = keyed if simulates else frozenset()
    return _run_loop(settings, secrets, policies, simulated)


def _refuse(problems: tuple[Problem, ...] | list[Problem]) -> int:
    for problem in problems:
        print(problem, file=sys.stderr)
    print("readygate: not started; see the problems above (`readygate check` lists them all)", file=sys.stderr)
    return EXIT_UNUSABLE


def _run_loop(settings: Settings, secrets: Secrets, policies: FolderSnapshot, simulated: frozenset[str]) -> int:
    _keep_large_blocks_apart()
    try:
        import uvloop  # noqa: PLC0415 - optional
    except ImportError:
        runner = asyncio.Runner()
    else:
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
    sys.setswitchinterval(SWITCH_S)
    with runner:
        code: int = runner.run(_serve(settings, secrets, policies, simulated))
    return code


def _keep_large_blocks_apart() -> None:
    """Have the C library give each large block pages of its own, always: it would learn not to from the first one freed.

    A body that grows then moves by pages, not byte by byte (17 ms for 32 MB), and one that is done goes back to the system.
    glibc's knob; where there is another library it decides as it likes.
    """
    import ctypes  # noqa: PLC0415 - nobody else needs it

    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, LARGE_BLOCK_BYTES)


async def _serve(settings: Settings, secrets: Secrets, policies: FolderSnapshot, simulated: frozenset[str]) -> int:
    from proxy.app import App, Started  # noqa: PLC0415 - the config is judged before half a second of imports

    provider = None
    if simulated:
        settings, provider = await _with_simulated_provider(settings, simulated)

    def started(facts: Started) -> None:
        # Start-up leaves many long-lived objects; freezing them keeps the collector off the request path. What an
        # exchange makes is freed by counting references; the few cycles (errors with their tracebacks) can wait longer.
        gc.collect()
        gc.freeze()
        gc.set_threshold(10_000, 20, 20)
        _say_started(settings, facts, simulated)

    try:
        app = App(settings, secrets, policies, simulated=simulated, on_started=started)
        if app.catalog.snapshot is None:
            problems = await app.texts.load_first()
            for problem in problems:
                print(problem, file=sys.stderr)
            if app.catalog.snapshot is None:
                await app.close()
                return _refuse([])
        await app.run()
    except (SpoolLocked, SpoolUnavailable) as exc:
        print(f"readygate: the audit spool {settings.audit.spool} cannot be used: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except OSError as exc:
        return _say_busy(settings, exc)
    finally:
        if provider is not None:
            await provider.stop()
    return EXIT_DONE


async def _with_simulated_provider(settings: Settings, simulated: frozenset[str]) -> tuple[Settings, Any]:
    """Start the simulated provider on a free loopback port and point the keyless providers at it."""
    from proxy import simulator  # noqa: PLC0415 - only a keyless start pays for it

    provider = simulator.SimulatedProvider(simulator.Settings(port=0))
    await provider.start()
    providers = {
        name: dataclasses.replace(
            p, base_url=provider.base_url, api_key=None, api_keys={}, kind=ProviderKind.OPENAI, api_version=None, headers={}, ca_file=None, egress_proxy=None
        )
        if name in simulated
        else p
        for name, p in settings.providers.items()
    }  # fmt: skip
    return dataclasses.replace(settings, providers=providers), provider


def _shown_host(host: str) -> str:
    return "127.0.0.1" if host in ("0.0.0.0", "::", "") else f"[{host}]" if ":" in host else host  # noqa: S104


def _say_started(settings: Settings, facts: Any, simulated: frozenset[str]) -> None:
    base = f"http://{_shown_host(settings.server.data.host)}:{facts.data_port}/v1"
    admin = f"http://{_shown_host(settings.server.admin.host)}:{facts.admin_port}/"
    lines = [f"Readygate is up after {facts.seconds:.2f} s.", f"  base URL     {base}", f"  status page  {admin}"]
    if simulated:
        lines.append(
            "  No provider key is set: the bundled simulated provider answers for " + ", ".join(sorted(simulated))
        )
    model = facts.model
    lines += [
        "Try it:",
        f"  curl -s {base}/chat/completions -H 'content-type: application/json' \\",
        f"""    -d '{{"model":"{model}","messages":[{{"role":"user","content":"echo: write to ana@example.com"}}]}}'""",
        f"  OPENAI_BASE_URL={base} your-app",
    ]
    print("\n".join(lines), flush=True)


def _say_busy(settings: Settings, exc: OSError) -> int:
    busy = [listen for listen in (settings.server.data, settings.server.admin) if not _is_free(listen)]
    if busy:
        for listen in busy:
            print(
                f"readygate: {listen} is in use by another process; stop it, or choose another port under `server:` "
                "in the config file",
                file=sys.stderr,
            )
    else:
        where = f": {exc.filename}" if exc.filename else ""
        print(f"readygate: cannot start: {exc.strerror or exc}{where}", file=sys.stderr)
    return EXIT_UNUSABLE


def _is_free(listen: Listen) -> bool:
    """True when the address could be bound now."""
    family = socket.AF_INET6 if ":" in listen.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((listen.host, listen.port))
        except OSError:
            return False
    return True
