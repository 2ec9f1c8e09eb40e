"""``readygate policy``: which revisions were in force, what differs between two of them, and the way back.

Owns the verb's arguments and output. Reads the folder of kept revisions beside a running sidecar; a policy folder that
cannot be written is left alone, and the running sidecar is asked to pin the revision instead.
"""

from __future__ import annotations

import argparse
import difflib
import getpass
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from proxy.cli import policy_upgrade
from proxy.cli.admin_client import AdminRefused, AdminUnreachable, add_arguments, connect
from proxy.cli.audit_store import EXIT_FINDING, EXIT_GOOD, EXIT_UNUSABLE, Unusable, find_settings
from proxy.cli.replay import report_lines
from proxy.core.audit.render import json_line
from proxy.core.config.settings import Settings
from proxy.core.policy.meaning import changes_between
from proxy.core.policy.revisions import Kept, Step, Texts
from proxy.sources.files import read_policies
from proxy.sources.policy_history import PolicyHistory, restore_texts

FOLDER: Final = "folder"
"""Stands for the policy folder as it is now, where a revision is expected."""
_SHORTEST: Final = 4
_ABOUT_ROLLOUT: Final = ("rollout", "promote", "take-back")


def add_parser(subparsers: Any) -> None:
    """Add the verb."""
    parser = subparsers.add_parser(
        "policy",
        help="revisions of the policies: history, diff, rollback, rollout, promote, take-back, shadow, upgrade",
        description="Revisions are named as in x-readygate-policy; their first 4 digits will do, and `folder` is the "
        "policy folder as it is. Exit code of diff, shadow and upgrade: 0 the same, 1 different; of rollout: 1 when the canary was "
        "taken back. Of the others: 0 done, 1 refused. 2: unusable.",
    )
    verbs = parser.add_subparsers(dest="policy_verb", metavar="VERB", required=True)
    history = verbs.add_parser("history", help="list the revisions that were in force, the last one first")
    diff = verbs.add_parser("diff", help="show what differs between two revisions, in meaning and as text")
    diff.add_argument("before", help="a revision")
    diff.add_argument("after", nargs="?", default=FOLDER, help="another; left out: the policy folder")
    rollback = verbs.add_parser("rollback", help="bring a revision back")
    rollback.add_argument("revision", help="as the history shows it")
    rollback.add_argument("--why", default="", help="a reason, for the history")
    rollback.add_argument(
        "--pin", action="store_true", help="leave the folder alone; have the sidecar pin it until the folder changes"
    )
    shadow = verbs.add_parser("shadow", help="what the candidate would do otherwise with the traffic of a sidecar")
    rollout = verbs.add_parser("rollout", help="how the canary of a sidecar does beside the revision before it")
    promote = verbs.add_parser("promote", help="put the canary in force for everybody now")
    take_back = verbs.add_parser("take-back", help="take the canary back now; it is not tried again until it changes")
    for verb in (promote, take_back):
        verb.add_argument("revision", nargs="?", help="only when this is the canary")
        verb.add_argument("--why", default="", help="a reason, for the history")
    upgrade = verbs.add_parser("upgrade", help="rewrite files of an older version of the language, comments kept")
    policy_upgrade.add_arguments(upgrade)
    for verb in (history, diff, rollback, rollout, promote, take_back, shadow, upgrade):
        add_arguments(verb)
        verb.add_argument("--format", choices=("text", "json"), default="text", help="output (%(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Run the verb below; return the exit code."""
    try:
        if args.policy_verb == "shadow":
            return _shadow(args)
        if args.policy_verb in _ABOUT_ROLLOUT:
            return _rollout(args)
        if args.policy_verb == "upgrade":
            return policy_upgrade.run(args)
        settings = find_settings(Path(args.config))
        history = PolicyHistory(settings.history_folder)
        if args.policy_verb == "history":
            return _history(args, history)
        if args.policy_verb == "diff":
            return _diff(args, settings, history)
        return _rollback(args, settings, history)
    except (Unusable, AdminUnreachable) as exc:
        print(f"readygate policy: {exc}", file=sys.stderr)
        return EXIT_UNUSABLE
    except AdminRefused as exc:
        print(f"readygate policy: {exc}", file=sys.stderr)
        return EXIT_FINDING


def _history(args: argparse.Namespace, history: PolicyHistory) -> int:
    kept = history.all()
    if args.format == "json":
        print(json_line({"revisions": [one.summary() for one in kept]}), end="")
        return EXIT_GOOD
    if not kept:
        print(f"no revision is kept in {history.folder}; a running sidecar keeps each one that it puts in force")
    pin = history.pinned()
    for one in kept:
        at = datetime.fromtimestamp(one.times[-1].at_ms / 1000, UTC).isoformat(timespec="seconds")
        step = one.times[-1].step
        note = "" if step is Step.IN_FORCE else f"  {step}"
        note += "  pinned" if pin is not None and pin.revision == one.revision else ""
        by = _clean(f"{one.times[-1].by} {one.times[-1].why}".strip())
        print(f"{one.revision}  {at.replace('+00:00', 'Z')}  {len(one.files)} files  {by}{note}")
    return EXIT_GOOD


def _diff(args: argparse.Namespace, settings: Settings, history: PolicyHistory) -> int:
    (before, _), (after, _) = (_texts(name, settings, history) for name in (args.before, args.after))
    changes = changes_between(before, after, settings.environment)
    text = _text_diff(before, after, args.before, args.after)
    if args.format == "json":
        plain = {"before": args.before, "after": args.after, "changes": [c._asdict() for c in changes], "text": text}
        print(json_line(plain), end="")
    else:
        print("\n".join(map(str, changes)) if changes else "the same in meaning")
        if text:
            print("\n" + "\n".join(text))
    return EXIT_FINDING if changes else EXIT_GOOD


def _rollback(args: argparse.Namespace, settings: Settings, history: PolicyHistory) -> int:
    kept = _found(args.revision, history)
    if args.pin:
        return _pin(args, kept)
    folder = settings.policies
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        print(f"{folder} cannot be written; asking the sidecar to pin the revision", file=sys.stderr)
        return _pin(args, kept)
    try:
        with suppress(OSError):  # then the history says that the folder was edited
            history.announce(kept.revision, _who(), args.why or "rollback")
        names = restore_texts(folder, kept)
    except OSError as exc:
        raise Unusable(f"{folder} cannot be written: {exc.strerror}; --pin leaves it alone") from None
    if args.format == "json":
        print(json_line({"revision": kept.revision, "written": names}), end="")
    else:
        shown = f"wrote {', '.join(names)}" if names else "nothing to write: the folder holds these texts"
        print(f"{kept.revision}: {shown}; a running sidecar takes them up within a second")
    return EXIT_GOOD


def _pin(args: argparse.Namespace, kept: Kept) -> int:
    shown = connect(args).call("POST", "/api/v1/policy/pin", {"revision": kept.revision, "why": args.why or "rollback"})
    if args.format == "json":
        print(json_line(shown), end="")
    else:
        print(f"{kept.revision} is pinned until the policy folder changes")
    return EXIT_GOOD


def _shadow(args: argparse.Namespace) -> int:
    document = connect(args).get("/api/v1/policy/shadow")
    if args.format == "json":
        print(json_line(document), end="")
    else:
        if document["trouble"]:
            print(f"the newest candidate cannot be used: {_clean(document['trouble'])}")
        print("\n".join(report_lines(document)))
    return EXIT_FINDING if document["changed"] or document["trouble"] else EXIT_GOOD


def _rollout(args: argparse.Namespace) -> int:
    """Show the rollout of a sidecar, after having it promoted or taken back where that is asked."""
    path = "/api/v1/policy/rollout"
    if args.policy_verb == "rollout":
        document = connect(args).get(path)
    else:
        asked = {"why": args.why, **({"revision": args.revision} if args.revision else {})}
        document = connect(args).call("POST", f"{path}/{args.policy_verb}", asked)
    if args.format == "json":
        print(json_line(document), end="")
    else:
        print("\n".join(rollout_lines(document)))
    is_bad = args.policy_verb == "rollout" and document["state"] == Step.TAKEN_BACK
    return EXIT_FINDING if is_bad else EXIT_GOOD


def rollout_lines(document: dict[str, Any]) -> list[str]:
    """Return what a person reads of a rollout."""
    shown = document if document["state"] != "none" else document.get("last")
    if shown is None:
        return ["no rollout is under way"]
    head = f"{shown['canary']} beside {shown['stable']}"
    if document["state"] == "none":
        lines = [f"no rollout is under way; the last was of {head}"]
    elif document["state"] == Step.TAKEN_BACK:
        lines = [f"{shown['canary']} was taken back; {shown['stable']} is in force", _clean(document["reason"])]
    else:
        steps = len(shown["shares"])
        step = f", step {shown['step']} of {steps}" if steps > 1 else ""
        watched = f"{shown['watched_s']:.0f} s of {shown['watch_s']:.0f} s"
        lines = [
            f"{head}: {shown['share'] * 100:.3g} % of exchanges by {shown['by']}{step}, {document['state']}, {watched}"
        ]
    for whose in ("canary", "stable"):
        counts = shown.get("counts", {}).get(whose)
        if counts:
            rates = ", ".join(f"{counts[what]} {what}" for what in ("errors", "refusals"))
            lines.append(f"  {whose:<7} {counts['exchanges']} exchanges, {rates}")
    return lines


def _texts(name: str, settings: Settings, history: PolicyHistory) -> tuple[Texts, Texts]:
    if name == FOLDER:
        found = read_policies(settings.policies)
        return _plain(found.files), _plain(found.cases)
    kept = _found(name, history)
    return kept.files, kept.cases


def _found(name: str, history: PolicyHistory) -> Kept:
    fitting = [one for one in history.all() if one.revision.startswith(name)] if len(name) >= _SHORTEST else []
    if len(fitting) != 1:
        what = "several kept revisions begin" if fitting else "no kept revision begins"
        raise Unusable(f"{what} with {name!r} in {history.folder}; `readygate policy history` lists them")
    return fitting[0]


def _text_diff(before: Texts, after: Texts, old: str, new: str) -> list[str]:
    was, now = dict(before), dict(after)
    lines: list[str] = []
    for name in sorted(was.keys() | now.keys()):
        found = difflib.unified_diff(
            was.get(name, "").splitlines(),
            now.get(name, "").splitlines(),
            f"{old}/{name}",
            f"{new}/{name}",
            lineterm="",
        )
        lines += [_clean(line) for line in found]
    return lines


def _plain(files: Sequence[tuple[str, str]]) -> Texts:
    return tuple((name.rsplit("/", 1)[-1], text) for name, text in files)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "somebody without a name"


def _clean(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else "?" for char in text)
