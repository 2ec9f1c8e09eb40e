"""``readygate keys``: make, list, take back and rotate caller keys.

Owns the verb's arguments and its output. A key is shown once, when it is made; the file holds its hash. A running
sidecar sees the file change within a second.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import secrets
import sys
import time
from pathlib import Path
from typing import Any, Final

from proxy.core.config.caller_keys import KeyRecord, KeyState, revoked, rotated, written
from proxy.core.config.texts import parse_name
from proxy.core.config.units import UnitMissing, UnitUnknown, parse_duration
from proxy.sources.caller_keys import changing, read_caller_keys, replace_caller_keys
from proxy.sources.files import read_config

EXIT_GOOD, EXIT_FINDING, EXIT_UNUSABLE = 0, 1, 2
KEY_BYTES: Final = 32
_COLUMNS = ("name", "app", "id", "state", "created", "until")


class _Unusable(Exception):
    """The file or the arguments cannot be used; the message says what to do."""


def add_parser(subparsers: argparse._SubParsersAction[Any]) -> None:
    """Add the verb and its own verbs."""
    parser = subparsers.add_parser(
        "keys",
        help="make, list, revoke and rotate caller keys",
        description="Caller keys live as hashes in the file that `callers_file` of config.yaml names (or --file). "
        "Exit code 0: done, 1: no such key, or the name is taken, 2: unusable file or arguments.",
    )
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("-c", "--config", default="config.yaml", metavar="PATH", help="config file (%(default)s)")
    common.add_argument("--file", metavar="PATH", help="the keys' file, instead of the config's")
    common.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    create = actions.add_parser("create", parents=[common], help="make a key; it is shown once")
    create.add_argument("name", type=_name, help="what rows call it")
    create.add_argument("--app", type=_name, required=True, help="whose requests it brings")
    create.add_argument("--expires", type=_duration, metavar="TIME", help="such as 90d; left out: it has no end")
    actions.add_parser("list", parents=[common], help="show all keys, without the keys")
    revoke = actions.add_parser("revoke", parents=[common], help="take all keys of a name back, at once")
    revoke.add_argument("name", type=_name)
    revoke.add_argument("--id", default="", help="only the one with this id (see list)")
    rotate = actions.add_parser("rotate", parents=[common], help="make a new key of a name; the old one ends later")
    rotate.add_argument("name", type=_name)
    rotate.add_argument("--overlap", type=_duration, default=86_400.0, metavar="TIME", help="both work so long (24h)")
    rotate.add_argument("--expires", type=_duration, metavar="TIME", help="end of the new key")


def run(args: argparse.Namespace) -> int:
    """Do it; return the exit code."""
    try:
        path = _path(args)
        if args.action == "list":
            return _list(args, _keys(path))
        with changing(path):
            return _change(args, path)
    except _Unusable as exc:
        print(f"readygate keys: {exc}", file=sys.stderr)
    except OSError as exc:
        print(f"readygate keys: {exc.filename}: {exc.strerror}", file=sys.stderr)
    return EXIT_UNUSABLE


def _change(args: argparse.Namespace, path: Path) -> int:
    keys = _keys(path)
    now_s = time.time()  # noqa: TID251 - a verb, not the sidecar
    same = [key for key in keys if key.name == args.name and key.state(now_s) in (KeyState.ACTIVE, KeyState.EXPIRING)]
    if args.action == "create":
        if same:
            return _finding(f"{args.name} has a key that works; `readygate keys rotate {args.name}` makes the next")
        return _made(args, path, keys, args.app, now_s)
    if not same:
        return _finding(f"no key called {args.name} works")
    if args.action == "rotate":
        return _made(args, path, keys, same[-1].app, now_s)
    found = [key for key in same if key.id.startswith(args.id)]
    if not found:
        return _finding(f"no key of {args.name} has the id {args.id}")
    replace_caller_keys(path, revoked(keys, args.name, now_s, args.id))
    ids = [key.id for key in found]
    print(json.dumps({"name": args.name, "revoked": ids}) if args.format == "json" else f"revoked {', '.join(ids)}")
    return EXIT_GOOD


def _made(args: argparse.Namespace, path: Path, keys: tuple[KeyRecord, ...], app: str, now_s: float) -> int:
    """Add a new key, show it, and let the others of its name end."""
    key = f"rgk_{secrets.token_urlsafe(KEY_BYTES)}"
    digest = hashlib.sha256(key.encode()).hexdigest()
    expires = None if args.expires is None else written(now_s + args.expires)
    record = KeyRecord(args.name, app, digest, written(now_s), expires)
    overlap_s: float = getattr(args, "overlap", 0.0)
    replace_caller_keys(path, rotated(keys, record, now_s, overlap_s))
    if args.format == "json":
        print(json.dumps({"name": args.name, "app": app, "id": record.id, "expires": expires, "key": key}))
    else:
        print(key)
        print(f"{args.name} ({record.id}) for {app}; the key is shown this once", file=sys.stderr)
    return EXIT_GOOD


def _list(args: argparse.Namespace, keys: tuple[KeyRecord, ...]) -> int:
    now_s = time.time()  # noqa: TID251 - a verb, not the sidecar
    rows = [
        (key.name, key.app, key.id, key.state(now_s).value, key.created, key.revoked or key.expires or "-")
        for key in keys
    ]
    if args.format == "json":
        print(json.dumps([dict(zip(_COLUMNS, row, strict=True)) for row in rows], indent=2))
        return EXIT_GOOD
    table = [_COLUMNS, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return EXIT_GOOD


def _path(args: argparse.Namespace) -> Path:
    if args.file is not None:
        return Path(args.file)
    settings = read_config(Path(args.config)).settings
    if settings is None:
        raise _Unusable(f"{args.config} cannot be used; `readygate check` says why, or name the keys' --file")
    if settings.callers_file is None:
        raise _Unusable(f"{args.config} has no `callers_file`; add it, or name the keys' --file")
    return settings.callers_file


def _keys(path: Path) -> tuple[KeyRecord, ...]:
    if not path.exists():
        return ()
    result = read_caller_keys(path)
    if result.keys is None:
        raise _Unusable("\n  ".join(map(str, result.problems)))
    return result.keys


def _finding(text: str) -> int:
    print(f"readygate keys: {text}", file=sys.stderr)
    return EXIT_FINDING


def _name(text: str) -> str:
    try:
        return parse_name(text)
    except ValueError as exc:
        raise argparse.ArgumentTypeError(str(exc)) from None


def _duration(text: str) -> float:
    try:
        return parse_duration(text)
    except (UnitMissing, UnitUnknown, ValueError):
        raise argparse.ArgumentTypeError(f"a time such as 24h or 90d, got {text!r}") from None
