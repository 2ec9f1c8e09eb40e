"""``readygate audit verify``: walk the chains of the store, or of an export, and say what is wrong with them.

Owns the verb's arguments and its output. Exit code 0: whole; 1: a finding, the first one named; 2: wrong usage.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson

from proxy.cli.audit_output import Progress
from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, Unusable, find_keys, find_settings, find_store
from proxy.core.audit.records import Record
from proxy.core.audit.render import json_line
from proxy.core.audit.verify import Finding, IsSigned, Report, Verifier
from proxy.stores.audit_keys import AuditKeys, HmacKeys, TrustedKeys
from proxy.stores.chain_scan import ChainSource, ExportedChains, open_lines, open_source, records_in
from proxy.stores.stdout_sink import plain_gap, plain_record

_SIGNED_WITHIN_MS: Final = 3_600_000
"""A chain whose newest row is older must have a checkpoint."""
_SHOWN: Final = 20


def add_verb(verbs: Any) -> None:
    """Add the verb to ``readygate audit``."""
    parser = verbs.add_parser(
        "verify",
        help="prove that no row was edited, deleted, moved or slipped in",
        description="Walk the chain of every writer and compare it with the signed checkpoints. "
        "Exit code: 0 whole, 1 a finding (the first one is named), 2 wrong usage or configuration.",
    )
    parser.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="(%(default)s)")
    parser.add_argument(
        "--file", metavar="PATH", help="an export (JSON lines, also .gz) instead of the store; needs no config"
    )
    parser.add_argument(
        "--checkpoints", metavar="PATH", help="log lines or an export kept elsewhere: their checkpoints must hold too"
    )
    parser.add_argument(
        "--public-key", action="append", default=[], metavar="HEX", help="trust this signing key; may be repeated"
    )
    parser.add_argument(
        "--key-file",
        action="append",
        default=[],
        metavar="PATH",
        help="trust the audit.key of a spool; may be repeated",
    )


def run(args: argparse.Namespace) -> int:
    """Verify and print; return the exit code. Raises Unusable, SinkUnavailable."""
    trusted = _trusted(args)
    if args.file:
        source: ChainSource = _exported(Path(args.file))
    else:
        try:
            source = open_source(find_store(Path(args.config)))
        except ValueError as exc:
            raise Unusable(str(exc)) from None
    elsewhere = list(_read_checkpoints(Path(args.checkpoints))) if args.checkpoints else []
    started_s = time.perf_counter()
    report = asyncio.run(walk(source, trusted, elsewhere, time.time_ns() // 1_000_000))
    if isinstance(source, ExportedChains) and source.passed_over:
        print(f"{source.passed_over} lines are neither rows nor records", file=sys.stderr)
    (_as_json if args.format == "json" else _as_text)(report, trusted is not None, time.perf_counter() - started_s)
    return EXIT_FINDING if report.findings else EXIT_GOOD


async def walk(source: ChainSource, trusted: TrustedKeys | None, elsewhere: list[Record], now_ms: int) -> Report:
    """Walk all chains of a source. Raises SinkUnavailable."""

    def is_signed(record: Record) -> bool | None:
        if trusted is None or not trusted.knows(record.key):
            return None
        return trusted.is_signed(record.key, record.body.encode(), record.signature)

    check: IsSigned | None = None if trusted is None else is_signed
    verifier = Verifier(check, unsigned_before_ms=now_ms - _SIGNED_WITHIN_MS)
    try:
        chains = await source.chains()
        progress = Progress(chains.row_count, sys.stderr, time.monotonic)
        verifier.learn([*chains.records, *elsewhere], chains.gaps)
        done = 0
        async for rows in source.rows():
            for row in rows:
                verifier.feed(row)
            done += len(rows)
            progress.show(done)
        progress.end()
        return verifier.finish()
    finally:
        await source.close()


async def proof_lines(args: argparse.Namespace) -> list[str]:
    """Return gaps and signed records of the store as lines for an export. Raises Unusable, SinkUnavailable."""
    if args.format not in {"json", "jsonl"}:
        raise Unusable("--proof: expected --format jsonl")
    source = open_source(find_store(Path(args.config)))
    try:
        chains = await source.chains()
    finally:
        await source.close()
    lines = [json_line({"audit_gap": plain_gap(gap)}) for gap in chains.gaps]
    return lines + [json_line({"audit_checkpoint": plain_record(record)}) for record in chains.records]


def _exported(path: Path) -> ExportedChains:
    try:
        bar = Progress(path.stat().st_size, sys.stderr, time.monotonic)
    except OSError as exc:
        raise Unusable(f"--file: {exc}") from None
    return ExportedChains(path, bar.show)


def _trusted(args: argparse.Namespace) -> TrustedKeys | None:
    """Return the keys to trust: those that were named, else those of the config; None without any."""
    try:
        public = [bytes.fromhex(text) for text in args.public_key]
        own = [HmacKeys(Path(path).read_bytes().strip()) for path in args.key_file]
    except (ValueError, OSError) as exc:
        raise Unusable(f"cannot use this key: {exc}") from None
    config = Path(args.config)
    if not public and not own and (not args.file or config.exists()):
        keys = find_keys(find_settings(config))
        public = [keys.public] if isinstance(keys, AuditKeys) else []
        own = [keys] if isinstance(keys, HmacKeys) else []
    if not public and not own:
        return None
    try:
        return TrustedKeys(public_keys=public, own=own)
    except ValueError as exc:
        raise Unusable(f"--public-key: {exc}") from None


def _read_checkpoints(path: Path) -> Iterator[Record]:
    try:
        with open_lines(path) as lines:
            yield from records_in(lines)
    except (OSError, EOFError) as exc:
        raise Unusable(f"--checkpoints: {exc}") from None


def _as_json(report: Report, has_keys: bool, took_s: float) -> None:
    first = report.findings[0] if report.findings else None
    document = {
        "is_whole": first is None,
        "first_finding": None if first is None else first._asdict(),
        "findings": [finding._asdict() for finding in report.findings],
        "more_findings": report.more_findings,
        "rows": report.rows,
        "chains": report.chains,
        "checkpoints": report.checkpoints,
        "rows_behind_last_checkpoint": report.uncovered,
        "rows_before_the_chain": report.unchained,
        "erased_rows": report.erased,
        "gaps": report.gaps,
        "shed_rows": report.shed,
        "records_of_unknown_keys": report.unknown_keys,
        "has_trusted_key": has_keys,
        "took_s": round(took_s, 3),
    }
    sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")


def _as_text(report: Report, has_keys: bool, took_s: float) -> None:
    for finding in report.findings[:_SHOWN]:
        print(_sentence(finding))
    hidden = len(report.findings) + report.more_findings - _SHOWN
    if hidden > 0:
        print(f"... and {hidden} more")
    print(
        f"{report.rows} rows in {report.chains} chains, {report.checkpoints} signed checkpoints, "
        f"{report.erased} rows erased, {report.shed} rows known to be missing ({took_s:.1f} s)"
    )
    if report.uncovered:
        print(f"{report.uncovered} rows are newer than the last checkpoint of their chain")
    if report.unchained:
        print(f"{report.unchained} rows were written before there was a chain")
    if report.unknown_keys:
        print(f"{report.unknown_keys} records are signed with keys that are not trusted here")
    if not has_keys:
        print("no key is trusted: hashes were compared, signatures were not (see --public-key, --key-file)")
    print("whole" if not report.findings else "NOT WHOLE")


def _sentence(finding: Finding) -> str:
    row = f" (row {finding.row})" if finding.row else ""
    words = (
        f"{finding.what}: writer {finding.writer} epoch {finding.epoch} sequence {finding.seq}{row}: {finding.detail}"
    )
    return json_line(words)[1:-2].replace('\\"', '"')
