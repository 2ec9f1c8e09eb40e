"""What goes upstream in place of a value, per action.

Owns the stand-ins and decides nothing about which values get one.
"""

from __future__ import annotations

import hashlib
import hmac
import re

from proxy.core.redaction.detect.stand_ins import OWN_MARK
from proxy.core.redaction.normal import normal_form
from proxy.core.redaction.tags import tag_name
from proxy.core.redaction.vault import Vault
from proxy.terms.redaction import Action, DirectionPlan

_VISIBLE = 4
_NOTHING_VISIBLE = frozenset({"PASSWORD", "PRIVATE_KEY", "JWT"})
_OWN_MARK = re.compile(OWN_MARK)
_MAX_MARK = 64


def is_own_mark(text: str, start: int, end: int) -> bool:
    """Tell whether ``text[start:end]`` lies inside a stand-in of ours: a history came back, or a text comes twice."""
    opened = text.rfind("[", max(0, start - _MAX_MARK), start + 1)
    if opened < 0:
        return False
    mark = _OWN_MARK.match(text, opened)
    return mark is not None and end <= mark.end()


class StandIns:
    """Makes the stand-ins of one exchange."""

    __slots__ = ("_actions", "_are_stable", "_default", "_hash_key", "_vault")

    def __init__(self, plan: DirectionPlan, vault: Vault, hash_key: bytes, *, are_stable: bool) -> None:
        """``are_stable``: no numbers, nothing to restore, for texts whose vector counts and not their wording."""
        self._actions = plan.actions
        self._default = plan.default
        self._vault = vault
        self._hash_key = hash_key
        self._are_stable = are_stable

    def for_value(self, kind: str, value: str) -> str | None:
        """Return the stand-in, or None when the policy leaves the text alone."""
        action = self._actions.get(kind, self._default)
        if action is Action.RESTORE:
            if self._are_stable:
                return f"[{tag_name(kind)}]"
            return self._vault.tag(kind, value)
        match action:
            case Action.REDACT:
                return f"[{kind}_REDACTED]"
            case Action.MASK:
                return mask(kind, value)
            case Action.HASH:
                return f"[{kind}:{pseudonym(self._hash_key, kind, value)}]"
            case Action.BLOCK | Action.OBSERVE | Action.OFF:
                return None


def mask(kind: str, value: str) -> str:
    """Return the value with all but its last four letters or digits starred.

    Never more than half of a short value stays visible, and nothing of a password, key or token.
    """
    places = [at for at, c in enumerate(value) if c.isalnum()]
    visible = 0 if kind in _NOTHING_VISIBLE else min(_VISIBLE, len(places) // 2)
    hidden = set(places[: len(places) - visible])
    return "".join(["*" if at in hidden else c for at, c in enumerate(value)])


def pseudonym(key: bytes, kind: str, value: str) -> str:
    """Return eight hexadecimal digits that are the same for every spelling of a value under one key."""
    message = f"{kind}\0{normal_form(kind, value)}".encode("utf-8", "surrogatepass")
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:8]
