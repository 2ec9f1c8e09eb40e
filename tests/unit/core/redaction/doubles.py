"""A small detector for tests of the walk, the actions and the way back: two types, obvious patterns."""

from __future__ import annotations

import json
import re
from typing import Any

from proxy.core.dialect import Dialect
from proxy.core.redaction import Redacted, RequestRedactor, Vault
from proxy.terms.redaction import Action, DirectionPlan, Finding, RedactionPlan

_PATTERNS = (
    ("EMAIL", re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)*\.[a-z]{2,}")),
    ("CPF", re.compile(r"(?<![\d.])[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}-?[0-9]{2}(?![\d])")),
    ("CREDIT_CARD", re.compile(r"(?<![\d])[0-9]{4}(?: ?[0-9]{4}){3}(?![\d])")),
)
_LABELLED = re.compile(r"(?i)senha|password")


class TinyDetector:
    """Finds e-mail addresses, CPF-like and card-like numbers, and anything under a name like ``password``."""

    def find(self, text: str) -> list[Finding]:
        found = [
            Finding(match.start(), match.end(), kind, 0.9)
            for kind, pattern in _PATTERNS
            for match in pattern.finditer(text)
        ]
        return sorted(found)

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        if _LABELLED.search(label) and text:
            return [Finding(0, len(text), "PASSWORD", 0.8)]
        return self.find(text)

    def may_contain(self, raw: bytes) -> bool:
        return b"@" in raw or re.search(rb"[0-9]{3}|(?i:senha|password)", raw) is not None

    def is_silent(self, raw: bytes) -> bool:
        return False


def redactor(
    default: Action = Action.RESTORE, *, detector: Any = None, hash_key: bytes = b"k", **options: Any
) -> RequestRedactor:
    """Return a redactor over the small detector; ``observe_only`` and ``unscanned`` go to the plan, the rest to requests."""
    whole = {name: options.pop(name) for name in ("observe_only", "unscanned", "placeholders") if name in options}
    plan = RedactionPlan(request=DirectionPlan(default=default, **options), **whole)
    return RequestRedactor(plan, detector or TinyDetector(), hash_key=hash_key)


def chat(*contents: Any, **more: Any) -> bytes:
    """Return a chat request with one user message per content."""
    return dumped({"model": "m", "messages": [{"role": "user", "content": content} for content in contents], **more})


def dumped(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def redacted(body: bytes, dialect: Dialect = Dialect.CHAT, **options: Any) -> Redacted:
    """Redact and insist that something was replaced."""
    verdict = redactor(**options).redact(body, dialect)
    assert isinstance(verdict, Redacted), verdict
    return verdict


def contents(verdict: Redacted) -> list[Any]:
    """Return what the messages of a redacted chat request say now."""
    document = json.loads(verdict.body)
    assert document == verdict.document
    return [message["content"] for message in document["messages"]]


def vault_of(*values: str, kind: str = "EMAIL") -> Vault:
    """Return a vault in which the values have the numbers 1, 2, 3 of one type."""
    vault = Vault()
    for value in values:
        vault.tag(kind, value)
    return vault
