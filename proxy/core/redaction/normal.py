"""When two spellings mean the same value, and which values a policy lets through.

Owns normal forms and allowlists. Does not know JSON or actions.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import re2

from proxy.core.redaction.detect.engine import Test, compile_any
from proxy.terms.redaction import Action, DirectionPlan

_EXACT = frozenset({"PASSWORD", "API_KEY", "JWT", "PRIVATE_KEY", "URL_CREDENTIALS", "CRYPTO_WALLET"})
_SIGNS = {code: None for code in range(128) if not chr(code).isalnum()}
_FOLDED = frozenset({"EMAIL", "IP_ADDRESS", "MAC_ADDRESS", "DATE_OF_BIRTH"})


def normal_form(kind: str, value: str) -> str:
    """Return the form in which two spellings of one value are equal.

    Secrets count letter by letter; e-mail and network addresses without case; numbers and identifiers by their
    letters and digits alone, so ``529.982.247-25`` equals ``52998224725``.
    """
    if kind in _EXACT:
        return value
    folded = value.strip().lower()
    if kind in _FOLDED or "@" in folded:
        return folded
    plain = folded.translate(_SIGNS) if folded.isascii() else "".join(filter(str.isalnum, folded))
    return plain or folded


class Allowlist:
    """The values and patterns of one direction that are nobody's business."""

    __slots__ = ("_domains", "_is_whole", "_networks", "_occurs", "_patterns", "_values", "is_empty")

    def __init__(self, plan: DirectionPlan) -> None:
        """Compile the patterns.

        Raises:
            ValueError: A pattern is not RE2 (the message names it; it comes from the policy, not from traffic).
        """
        self._values = {value.strip() for value in plan.allow_values}
        self._values |= {value.lower() for value in self._values}
        self._values |= {form for value in self._values if (form := normal_form("", value))}
        self._patterns = [_compile(pattern) for pattern in plan.allow_patterns]
        self._is_whole, self._occurs = _any_of(plan.allow_patterns)
        self._domains = tuple(name for domain in plan.allow_domains for name in (f"@{domain}", f".{domain}"))
        self._networks = [ip_network(network) for network in plan.allow_networks]
        self.is_empty = not (self._values or self._patterns or self._domains or self._networks)

    def may_cover(self, text: str) -> bool:
        """Tell whether some pattern matches somewhere in a text, which costs less than to ask for each value in it."""
        return bool(self._patterns) and self._occurs(text)

    def allows(self, kind: str, text: str, start: int, end: int, *, may_cover: bool = True) -> bool:
        """Tell whether ``text[start:end]`` is allowed: by value, domain or network, or because a pattern covers all of it.

        Args:
            kind: Its type.
            text: Where it stands.
            start: Its first character.
            end: Behind its last one.
            may_cover: What ``may_cover`` says of the text, when it is known.
        """
        value = text[start:end]
        normal = normal_form(kind, value)
        if value in self._values or normal in self._values:
            return True
        if kind == "EMAIL" and self._domains and normal.endswith(self._domains):
            return True
        if kind == "IP_ADDRESS" and self._networks and _is_within(normal, self._networks):
            return True
        if not self._patterns:
            return False
        if self._is_whole(value) or (normal != value and self._is_whole(normal)):
            return True
        return may_cover and any(
            found.start() <= start and end <= found.end()
            for pattern in self._patterns
            for found in pattern.finditer(text)
        )


def _any_of(patterns: tuple[str, ...]) -> tuple[Test, Test]:
    """Return the tests of ``compile_any``; where patterns cannot stand together, those that ask one by one."""
    try:
        return compile_any(list(patterns))
    except ValueError:
        compiled = [_compile(pattern) for pattern in patterns]
        return (
            lambda text: any(pattern.fullmatch(text) for pattern in compiled),
            lambda text: any(pattern.search(text) for pattern in compiled),
        )


def takes_everything(plan: DirectionPlan, allow: Allowlist) -> bool:
    """Tell whether policy takes every finding, whatever its type, value and score."""
    return (
        allow.is_empty
        and not plan.min_score
        and not plan.scores
        and Action.OFF not in plan.actions.values()
        and plan.default is not Action.OFF
    )


def _is_within(value: str, networks: list[IPv4Network | IPv6Network]) -> bool:
    """Tell whether an address, or the whole of a network, lies in one of the networks."""
    try:
        inner = ip_network(value.partition("%")[0], strict=False)
    except ValueError:
        return False
    for outer in networks:
        if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network) and inner.subnet_of(outer):
            return True
        if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network) and inner.subnet_of(outer):
            return True
    return False


def _compile(pattern: str) -> re2._Regexp[str]:
    try:
        return re2.compile(pattern)
    except re2.error as exc:
        raise ValueError(f"allow pattern {pattern!r} is not valid RE2: {exc}") from exc
