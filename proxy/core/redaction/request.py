"""Redacts one request: gate, walk, actions, and the vault that takes the originals.

Owns the order of these steps and the four possible answers. Does not know patterns, sockets or policies' files.
Everything here is free of shared state but for what a detector has said before: one redactor may serve any number of
threads.
"""

from __future__ import annotations

import copy
import hmac
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple

from proxy.core.dialect import EMBEDDINGS, Dialect
from proxy.core.redaction import fields
from proxy.core.redaction.actions import StandIns
from proxy.core.redaction.detectors import Blind, Detector
from proxy.core.redaction.edits import Renames, apply_edits
from proxy.core.redaction.jsonio import dumps, keeping_digits, loads
from proxy.core.redaction.names import NAME_KINDS, Collector, Found, WithNames
from proxy.core.redaction.normal import Allowlist, takes_everything
from proxy.core.redaction.scan import Scan, TooDeep
from proxy.core.redaction.seen import Remembering
from proxy.core.redaction.sites import Site, count_kinds, distinct
from proxy.core.redaction.vault import Vault, folded_tags
from proxy.terms.errors import ProxyError, RedactionFault
from proxy.terms.redaction import Action, DirectionPlan, Placeholders, RedactionPlan, Unscanned

UNSCANNED_KIND = "UNSCANNED"
"""What ``Blocked.kinds`` says when the policy refuses content that cannot be read."""

_ELSEWHERE = frozenset({"previous_response_id", "conversation"})
"""Members that go on from a history the provider keeps: its placeholders are not in the request, so numbers would be given twice."""
_MAX_PLACES = 64
"""More places than this are not told of."""
_SMALL_BYTES = 16 << 10
_STREAK = 3
_KEYS = re.compile(rb'"(?:[^"\\]|\\.)*"[ \t\r\n]*(:)?')
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,39}\Z")


@dataclass(frozen=True, slots=True)
class Untouched:
    """The request goes on byte for byte."""

    findings: dict[str, int] = field(default_factory=dict)
    """Type -> distinct values seen and left alone (``observe``)."""
    document: Any = None
    """The parsed request when it had to be parsed."""
    unscanned_bytes: int = 0


@dataclass(slots=True)
class Redacted:
    """The request goes on as ``body``."""

    body: bytes
    document: Any
    """What ``body`` says, parsed."""
    vault: Vault
    findings: dict[str, int]
    """Type -> distinct values seen, whatever was done with them."""
    sanitized: dict[str, int]
    """Type -> distinct values replaced."""
    unscanned_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Blocked:
    """The request must not leave."""

    kinds: tuple[str, ...]
    where: tuple[str, ...]
    """Places in the document (``messages[0].content``), never values."""
    findings: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Unreadable:
    """The gate fired, but the body is not the JSON it should be; the caller is told so with 400."""

    reason: str


Verdict = Untouched | Redacted | Blocked | Unreadable


NOTHING: Final = Untouched()
"""The verdict on a request in which nothing was found."""


class Sighting(NamedTuple):
    """One finding as it may be shown: what, where and what is done with it; never the value."""

    kind: str
    place: str
    action: Action


class RequestRedactor:
    """The request side of one route's redaction plan, compiled once."""

    __slots__ = (
        "_actions",
        "_allow",
        "_detector",
        "_hash_key",
        "_is_active",
        "_memory",
        "_observe_only",
        "_plan",
        "_reads_words",
        "_replaces_all",
        "_restores_all",
        "_streak",
        "_tag_key",
        "_takes_all",
        "_unscanned",
        "_value_key",
        "name_kinds",
    )

    def __init__(self, plan: RedactionPlan, detector: Detector, *, hash_key: bytes = b"") -> None:
        """Compile the plan.

        Args:
            hash_key: Secret of the tenant for ``hash`` pseudonyms.

        Raises:
            ValueError: A pattern is not RE2, or ``hash`` is used without a key.
        """
        self._actions = frozenset({plan.request.default, *plan.request.actions.values()})
        if Action.HASH in self._actions and not hash_key:
            raise ValueError("action 'hash' needs a key")
        is_keyed = plan.placeholders is Placeholders.KEYED
        if is_keyed and not hash_key:
            raise ValueError("keyed placeholders need a key")
        self._value_key = hmac.digest(hash_key, b"placeholders", "sha256") if hash_key else b""
        self._tag_key = self._value_key if is_keyed else b""
        self._replaces_all = not self._actions & {Action.BLOCK, Action.OBSERVE, Action.OFF}
        self._restores_all = self._actions == {Action.RESTORE}
        self._plan: DirectionPlan = plan.request
        self._memory: Remembering | None = Remembering(detector)
        self._detector: Detector = self._memory
        self.name_kinds = frozenset(
            kind for kind in NAME_KINDS & plan.request.actions.keys() if plan.request.action_for(kind) is not Action.OFF
        )
        """Types of this plan that a names service can find."""
        self._hash_key = hash_key
        self._observe_only = plan.observe_only
        self._reads_words = bool(plan.custom)
        self._unscanned = plan.unscanned
        self._streak = 0
        """Up to ``_STREAK``: how much the last requests speak for values in the next one."""
        self._allow = Allowlist(plan.request)
        self._takes_all = takes_everything(plan.request, self._allow)
        self._is_active = plan.request.is_active or plan.unscanned is Unscanned.REFUSE

    @property
    def refuses_unscanned(self) -> bool:
        """True when content that cannot be read must not leave."""
        return self._unscanned is Unscanned.REFUSE and not self._observe_only

    @property
    def is_observing(self) -> bool:
        """True when nothing is ever changed."""
        return self._observe_only

    @property
    def only_observes_names(self) -> bool:
        """True when nothing is done to names but counting them."""
        return self._observe_only or all(self._plan.action_for(kind) is Action.OBSERVE for kind in self.name_kinds)

    def collecting(self, texts: Collector) -> RequestRedactor:
        """Return a redactor that changes nothing and shows every text of the walk to ``texts``."""
        other = copy.copy(self)
        other._detector, other._memory = texts, None
        other._observe_only, other._is_active, other._streak = True, True, 0
        return other

    def with_names(self, found: Found) -> RequestRedactor:
        """Return a redactor for this one request, which acts on what a names service has found in its texts, too."""
        other = copy.copy(self)
        other._detector, other._memory, other._streak = WithNames(self._detector, found, self.name_kinds), None, 0
        return other

    def redact(self, body: bytes, dialect: Dialect, document: Any = None) -> Verdict:
        """Decide what may leave in place of ``body``.

        About 5 µs per KiB when the gate is silent. From some 256 KiB on, call it in a worker thread.

        Args:
            document: The same body already parsed, to spare a second time; it is taken over and may be changed.

        Raises:
            RedactionFault: A detector or the walk failed; nothing may leave. Not where policy only observes: what could not
                be looked at counts as unscanned there.
        """
        try:
            return self._decide(body, dialect, document)
        except ProxyError:
            raise
        except Exception as exc:
            if self._observe_only:
                return Untouched(unscanned_bytes=len(body))
            raise RedactionFault(f"redacting a request failed: {type(exc).__name__}") from exc

    def _unreadable(self, body: bytes, reason: str) -> Verdict:
        """Refuse a body that nobody could check; where policy only observes, count it instead."""
        return Untouched(unscanned_bytes=len(body)) if self._observe_only else Unreadable(reason)

    def sightings(self, body: bytes) -> list[Sighting]:
        """Return what would be found in a JSON body and where, for people who ask why. Not for the request path.

        Raises:
            ValueError: The body is not JSON in UTF-8.
        """
        scan = self._scan(self._detector)
        scan.request([loads(body)])
        return [
            Sighting(edit.kind, self._place(site), self._plan.action_for(edit.kind))
            for site in scan.sites
            for edit in site.edits
            if not edit.is_rest
        ]

    def _decide(self, body: bytes, dialect: Dialect, document: Any) -> Verdict:
        if not self._is_active:
            return Untouched()
        if self._streak > 1 and document is not None and len(body) <= _SMALL_BYTES:
            verdict = self._foreseen(body, dialect, document)
            if verdict is not None:
                return verdict
        if self._detector.is_silent(body):
            return NOTHING
        fired = self._detector.may_contain(body)
        is_escaped = has_opaque = False
        if not fired:
            if not fields.needs_second_look(body):
                return NOTHING
            is_escaped = b"\\u" in body or b"\\/" in body
            has_opaque = True
        try:
            document = keeping_digits(loads(body) if document is None else document, body)
        except ValueError:
            why = "the body is not valid JSON in UTF-8"
            return self._unreadable(body, why) if fired or is_escaped else Untouched()
        except RecursionError:
            return self._unreadable(body, "the body is nested too deeply")
        is_suspect = fired or is_escaped
        holder = [document]
        try:
            if is_escaped:
                plain = dumps(document)
                fired = b"\\u" in plain or self._detector.may_contain(plain)
            scan = self._scan(self._detector if fired else Blind())
            if fired or has_opaque:
                scan.request(holder)
        except (TooDeep, RecursionError):
            return self._unreadable(body, "the body is nested too deeply")
        self._note_streak(scan)
        return self._act(body, dialect, holder, scan, is_suspect=is_suspect)

    def _foreseen(self, body: bytes, dialect: Dialect, document: Any) -> Verdict | None:
        """Look for values at once, where the last requests held some; None: nothing is there, so the gate decides.

        Whatever is found here would have made the gate fire, so the verdict is the same and only comes sooner.
        """
        scan = self._scan(self._detector)
        try:
            holder = [document]
            scan.request(holder)
        except (TooDeep, RecursionError):
            return None
        if scan.loses_digits:
            return None
        self._note_streak(scan)
        return self._act(body, dialect, holder, scan, is_suspect=True) if scan.sites else None

    def _note_streak(self, scan: Scan) -> None:
        """Learn from a walk whether to expect values in the next request; a race of threads only costs time."""
        if scan.sites:
            if self._streak < _STREAK:
                self._streak += 1
        elif self._streak:
            self._streak -= 1

    def _scan(self, detector: Detector) -> Scan:
        memory = self._memory if detector is self._detector else None
        return Scan(detector, self._plan, self._allow, self._reads_words, self._takes_all, memory)

    def may_contain(self, raw: bytes) -> bool:
        """Tell whether policy could find anything in these bytes; False is a promise."""
        return self._is_active and self._detector.may_contain(raw)

    def _act(self, body: bytes, dialect: Dialect, holder: list[Any], scan: Scan, *, is_suspect: bool) -> Verdict:
        if self._observe_only:
            return Untouched(distinct(scan.sites), holder[0], scan.unscanned_bytes)
        if scan.sites and dialect is not EMBEDDINGS and self._restores(scan):
            return self._restorable(holder, scan)
        findings = distinct(scan.sites)
        blocked = self._blocked(scan, findings)
        if blocked is not None:
            return blocked
        vault = self._vault_for(scan, holder[0])
        makes = StandIns(self._plan, vault, self._hash_key, are_stable=dialect is EMBEDDINGS)
        sanitized: dict[tuple[str, str], None] = {}

        def settled(kind: str, value: str) -> str | None:
            stand_in = makes.for_value(kind, value)
            if stand_in is not None:
                sanitized[kind, value] = None
            return stand_in

        renames = Renames()
        for site in sorted(scan.sites, key=_is_key):  # keys last, because the other sites know their places by them
            apply_edits(site, settled, renames)
        renames.carry_out()
        document = holder[0]
        if not sanitized and not (is_suspect and has_repeated_keys(body, document)):
            return Untouched(findings, document, scan.unscanned_bytes)
        counts = findings if self._replaces_all else count_kinds(sanitized)
        return Redacted(dumps(document), document, vault, findings, counts, scan.unscanned_bytes)

    def _restores(self, scan: Scan) -> bool:
        """Tell whether everything that was found is to be restored, and nothing else is to be done."""
        if scan.unscanned_at and self._unscanned is Unscanned.REFUSE:
            return False
        if self._restores_all:
            return True
        kinds: set[str] = set()
        for site in scan.sites:
            kinds.update(site.kinds())
        return all(self._plan.action_for(kind) is Action.RESTORE for kind in kinds)

    def _vault_for(self, scan: Scan, document: Any) -> Vault:
        """Return a vault whose placeholders stand nowhere in the request, nor for other values in what it goes on from."""
        key = self._tag_key
        if not key and type(document) is dict and not _ELSEWHERE.isdisjoint(document):
            key = self._value_key if any(document.get(name) for name in _ELSEWHERE) else b""
        if scan.bracketed and Action.RESTORE in self._actions:
            return Vault((tag for text in scan.bracketed for tag in folded_tags(text)), key)
        return Vault((), key)

    def _restorable(self, holder: list[Any], scan: Scan) -> Redacted:
        """Put every finding into the vault and its placeholder into the document."""
        vault = self._vault_for(scan, holder[0])
        renames: Renames | None = None
        for site in scan.sites:
            if site.findings is not None:
                site.parent[site.key] = vault.put_away(site.text, site.findings)
            else:
                renames = renames or Renames()
                if not site.is_key:
                    apply_edits(site, vault.tag, renames)
        if renames is not None:  # keys last, because the other sites know their places by the old names
            for site in scan.sites:
                if site.is_key:
                    apply_edits(site, vault.tag, renames)
            renames.carry_out()
        counts = vault.counts()
        return Redacted(dumps(holder[0]), holder[0], vault, counts, counts, scan.unscanned_bytes)

    def _blocked(self, scan: Scan, findings: dict[str, int]) -> Blocked | None:
        kinds: list[str] = []
        if Action.BLOCK in self._actions:
            kinds = [kind for kind in findings if self._plan.action_for(kind) is Action.BLOCK]
        if kinds:
            sites = (site for site in scan.sites if any(edit.kind in kinds for edit in site.edits))
            where = [self._place(site) for site in islice(sites, _MAX_PLACES)]
            return Blocked(tuple(kinds), tuple(dict.fromkeys(where)), findings)
        if scan.unscanned_at and self._unscanned is Unscanned.REFUSE:
            where = [self._spell(path) for path in scan.unscanned_at[:_MAX_PLACES]]
            return Blocked((UNSCANNED_KIND,), tuple(dict.fromkeys(where)), findings)
        return None

    def _place(self, site: Site) -> str:
        return self._spell(site.path) + (" (a key)" if site.is_key else "")

    def _spell(self, path: tuple[Any, ...]) -> str:
        """Write a path so that it can be shown: a key that is anything but a plain name is starred."""
        spelled = ""
        for step in path:
            if isinstance(step, int):
                spelled += f"[{step}]"
            elif _PLAIN_NAME.match(step) and not self._detector.find(step):
                spelled += f".{step}"
            else:
                spelled += ".*"
        return spelled.removeprefix(".")


def _is_key(site: Site) -> bool:
    return site.is_key


def has_repeated_keys(body: bytes, document: Any) -> bool:
    """Tell whether some object of the body names a member twice, so that parsers may disagree about it."""
    if body == dumps(document):
        return False
    written = sum(1 for found in _KEYS.finditer(body) if found[1])
    return written != _count_members(document)


def _count_members(document: Any) -> int:
    count = 0
    pending = [document]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            count += len(node)
            pending.extend(node.values())
        elif isinstance(node, list):
            pending.extend(node)
    return count
