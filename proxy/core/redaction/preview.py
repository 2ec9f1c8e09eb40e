"""What redaction would do to one text or document, and why: for policy authors, never on the way of a request.

Owns the listing. The decision itself is ``RequestRedactor``'s; this only reads along.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from proxy.core.dialect import Dialect
from proxy.core.redaction.actions import StandIns
from proxy.core.redaction.detect.catalog import KIND_BY_NAME
from proxy.core.redaction.detectors import Detector
from proxy.core.redaction.jsonio import dumps, loads
from proxy.core.redaction.normal import Allowlist
from proxy.core.redaction.request import Blocked, Redacted, RequestRedactor, Unreadable
from proxy.core.redaction.scan import Scan
from proxy.core.redaction.sites import Edit, Site
from proxy.core.redaction.vault import Vault
from proxy.terms.redaction import RedactionPlan

Evidence = dict[tuple[int, int, str], tuple[float, str]]


class Shown(NamedTuple):
    """One finding, without its value."""

    kind: str
    where: str
    """Path in the document; empty for a plain text."""
    start: int
    end: int
    confidence: float | None
    """None for a value deep inside JSON text, whose own search is not repeated."""
    action: str
    stand_in: str
    """What stands in its place; empty when it stays."""
    why: str
    text: str
    """The whole text it was found in."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What would leave, and what was seen."""

    document: Any
    """As it would leave; None when it would not."""
    findings: tuple[Shown, ...]
    refused: str
    """Why nothing would leave, or an empty string."""
    vault: Vault


def preview(document: Any, plan: RedactionPlan, detector: Detector, hash_key: bytes) -> Preview:
    """Redact a parsed JSON document as a request would be, and list what was found.

    Raises:
        TooDeep: Nested too deeply to be read.
    """
    redactor = RequestRedactor(plan, detector, hash_key=hash_key)
    body = dumps(document)
    scan = Scan(detector, plan.request, Allowlist(plan.request), reads_words=bool(plan.custom))
    scan.request([loads(body)])
    verdict = redactor.redact(body, Dialect.CHAT)
    vault = verdict.vault if isinstance(verdict, Redacted) else Vault()
    makes = StandIns(plan.request, vault, hash_key, are_stable=False)
    sees_only = plan.observe_only or isinstance(verdict, Blocked)
    shown: list[Shown] = []
    for site in scan.sites:
        evidence = _evidence(site, detector)
        shown += [_shown(site, edit, plan, evidence, None if sees_only else makes) for edit in site.edits]
    match verdict:
        case Blocked():
            refused = f"blocked: {', '.join(kind.lower() for kind in verdict.kinds)} at {', '.join(verdict.where)}"
        case Unreadable():
            refused = verdict.reason
        case _:
            refused = ""
    left = None if refused else verdict.document if isinstance(verdict, Redacted) else document
    return Preview(left, tuple(shown), refused, vault)


def _shown(site: Site, edit: Edit, plan: RedactionPlan, evidence: Evidence, makes: StandIns | None) -> Shown:
    score, sub = evidence.get((edit.start, edit.end, edit.kind), (None, ""))
    return Shown(
        edit.kind,
        ".".join(str(step) for step in site.path) + (" (a key)" if site.is_key else ""),
        edit.start,
        edit.end,
        score,
        plan.request.action_for(edit.kind).value,
        (makes.for_value(edit.kind, edit.value) if makes else None) or "",
        why(edit.kind, score, sub),
        site.text,
    )


def _evidence(site: Site, detector: Detector) -> Evidence:
    """Search a text again, once, for what the walk does not keep: confidence and issuer by span and type."""
    label = next((step for step in reversed(site.path) if isinstance(step, str)), "")
    found = (*detector.find_labelled(site.text, label), *detector.find(site.text))
    return {(one.start, one.end, one.kind): (one.score, one.sub) for one in found}


def why(kind: str, score: float | None, sub: str = "") -> str:
    """Say in a few words what made a finding, from its type and its confidence."""
    row = KIND_BY_NAME.get(kind)
    if row is None:
        return "a type of the policy"
    if sub:
        return "a label before it, and random enough" if sub == "LABELLED" else f"form of {sub.lower()}"
    if score is None:
        return "a value inside JSON text"
    check = f" and check {row.check}" if row.check else ""
    if score < 0.8:
        return "a label alone, no check"
    if score < 0.88:
        return f"digits{check}, no label against it"
    return f"a label{check}" if score < 0.93 else f"form{check}"
