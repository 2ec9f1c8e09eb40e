"""``readygate simulate``: the simulated provider as a process, and budgets on virtual time.

Owns the options and messages of the provider; ``simulate_budgets`` those of the other. Knows nothing of the sidecar.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from proxy.cli import simulate_budgets
from proxy.simulator import BadSetting, Settings, SimulatedProvider, Speech, parse_fault
from proxy.simulator.faults import CATALOGUE
from proxy.simulator.settings import DEFAULT_MODELS, parse_duration, speech_with

_EXAMPLES = """examples:
  readygate simulate provider --port 9100
  readygate simulate provider --port 9100 --first-token 300ms --rate 50 --tokens 60
  readygate simulate provider --port 9100 --fault 429:retry_after=2
  readygate simulate provider --port 9100 --bench --bench-events 100

try it:
  curl -s http://127.0.0.1:9100/v1/chat/completions -d \\
    '{"model":"gpt-4o-mini","messages":[{"role":"user","content":"echo: hello"}]}'

A single request asks for a fault with the header x-sim-fault, with [[sim FAULT]] in its prompt or with the
model sim/FAULT; tests in other processes use /__sim__/journal, script, faults, stats, reset.
--list-faults shows every fault with its arguments.
"""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb and what can be simulated."""
    verb = subparsers.add_parser("simulate", help="run the simulated provider, or budgets of many sidecars",
                                 description="Run a simulation of something Readygate stands in front of.")  # fmt: skip
    kinds = verb.add_subparsers(dest="simulated", metavar="WHAT", title="what to simulate", required=True)
    parser = kinds.add_parser(
        "provider",
        help="an OpenAI-shaped provider that needs no key",
        description="Run an OpenAI-shaped provider that says, and does wrong, what it is told.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_places(parser)
    _add_speech(parser)
    _add_behaviour(parser)
    budgets = kinds.add_parser(
        "budgets",
        help="what many sidecars with one budget admit when things break, on virtual time",
        description="Play what a fleet of sidecars admits under one budget, with the code that decides in the sidecar.",
        epilog=simulate_budgets.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    simulate_budgets.add_options(budgets)


def _add_places(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    group.add_argument("--port", type=_port, default=9100, help="0 takes a free one (default: %(default)s)")
    group.add_argument("--admin-port", type=_port, metavar="PORT",
                       help="serve /__sim__/ there and not on --port")  # fmt: skip
    group.add_argument("--journal", metavar="FILE", help="append one JSON line per request to this file")
    group.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _add_speech(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how it speaks (each can be set per request, see --fault ok:KEY=VALUE)")
    duration, setting = _reader(parse_duration), _reader(_speech_pair)
    group.add_argument("--latency", type=duration, default=0.0, metavar="TIME", help="wait before an answer begins")
    group.add_argument("--first-token", type=duration, default=0.0, metavar="TIME",
                       help="wait between the head of a stream and its first text")  # fmt: skip
    group.add_argument(
        "--rate", type=float, default=0.0, metavar="N", help="stream events per second (default: as taken)"
    )
    group.add_argument("--tokens", type=int, default=20, metavar="N", help="length of the text (default: %(default)s)")
    group.add_argument("--chars", type=int, default=0, metavar="N", help="characters per event (default: one word)")
    group.add_argument("--split", type=int, default=0, metavar="BYTES", help="cut the wire every so many bytes")
    group.add_argument("--say", type=setting, action="append", default=[], metavar="KEY=VALUE",
                       help="any other speech setting, for example eol=crlf")  # fmt: skip


def _add_behaviour(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what it does")
    group.add_argument("--fault", default="", metavar="FAULT", type=_reader(_known_fault),
                       help="go wrong on every request; every_nth=10 on each tenth only")  # fmt: skip
    group.add_argument("--list-faults", action="store_true", help="print every fault and its arguments, then exit")
    group.add_argument("--api-key", action="append", default=[], metavar="KEY",
                       help="accept this credential only (repeatable; default: any)")  # fmt: skip
    group.add_argument("--model", action="append", default=[], metavar="NAME",
                       help="serve this model only, 404 for others (repeatable)")  # fmt: skip
    group.add_argument("--keepalive", type=_reader(parse_duration), default=75.0, metavar="TIME",
                       help="close idle connections after this long (default: 75s)")  # fmt: skip
    group.add_argument("--bench", action="store_true", help="one fixed answer to every POST, as cheaply as possible")
    group.add_argument(
        "--bench-events", type=int, default=60, metavar="N", help="events per bench stream (default: 60)"
    )
    group.add_argument("--bench-interval", type=_reader(parse_duration), default=0.0, metavar="TIME",
                       help="time between the events of a bench stream (default: none)")  # fmt: skip


def _reader(read: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return ``read`` with its complaint in the words of argparse."""

    def reader(text: str) -> Any:
        try:
            return read(text)
        except BadSetting as problem:
            raise argparse.ArgumentTypeError(str(problem)) from None

    return reader


def _port(text: str) -> int:
    if not text.isdigit() or not 0 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _known_fault(text: str) -> str:
    parse_fault(text)
    return text


def _speech_pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise BadSetting(f"expected KEY=VALUE, got {text!r}")
    speech_with(Speech(), {key: value})
    return key, value


def run(args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM; 2 when the port is taken or a file cannot be written."""
    if args.simulated == "budgets":
        return simulate_budgets.run(args)
    if args.list_faults:
        for name, (what, arguments) in CATALOGUE.items():
            print(f"{name:15} {what}" + (f"  [{', '.join(sorted(arguments))}]" if arguments else ""))
        return 0
    settings = _settings_of(args)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            return runner.run(_serve(settings, args.quiet))
    except OSError as problem:
        print(f"readygate simulate: {_explained(problem, settings)}", file=sys.stderr)
        return 2


def _settings_of(args: argparse.Namespace) -> Settings:
    speech = Speech(latency=args.latency, first_token=args.first_token, rate=args.rate, tokens=args.tokens,
                    chars=args.chars, split=args.split)  # fmt: skip
    return Settings(
        host=args.host, port=args.port, admin_port=args.admin_port, speech=speech_with(speech, dict(args.say)),
        fault=args.fault, api_keys=tuple(args.api_key), models=tuple(args.model) or DEFAULT_MODELS,
        strict_models=bool(args.model), keepalive_s=args.keepalive, journal_path=args.journal, bench=args.bench,
        bench_events=args.bench_events, bench_interval_s=args.bench_interval,
    )  # fmt: skip


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    with contextlib.suppress(ImportError):
        import uvloop  # noqa: PLC0415 - a faster loop where there is one

        return uvloop.new_event_loop
    return None


async def _serve(settings: Settings, is_quiet: bool) -> int:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    async with SimulatedProvider(settings) as provider:
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stop.set)
        if not is_quiet:
            admin = f"http://{settings.host}:{provider.admin_port or provider.port}/__sim__/"
            print(f"simulated provider: {provider.base_url}  (journal and faults: {admin})", flush=True)
        await stop.wait()
    return 0


def _explained(problem: OSError, settings: Settings) -> str:
    if problem.errno == errno.EADDRINUSE:
        ports = str(settings.port) if settings.admin_port is None else f"{settings.port} or {settings.admin_port}"
        return f"port {ports} on {settings.host} is taken by another process; choose one with --port, or 0 for any"
    if problem.errno == errno.EACCES and problem.filename is None:
        return f"port {settings.port} may not be used by this user; choose one above 1023"
    if problem.filename is not None:
        return f"cannot write the journal {problem.filename}: {os.strerror(problem.errno or 0)}"
    return f"cannot listen on {settings.host}:{settings.port}: {problem.strerror or problem}"
