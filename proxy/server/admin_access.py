"""Who may do what at the admin door.

Owns the counts of failed sign-ins and of calls. Knows tokens only while it compares them, and no HTTP library.
Comparison takes the same time whatever is presented; every attempt costs the same few microseconds.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from proxy.terms.admin import Actor, Role

FAILURES_AT_ONCE: Final = 10
FAILURES_PER_S: Final = 0.2
CALLS_AT_ONCE: Final = 60
CALLS_PER_S: Final = 20.0
NAMES_MAX: Final = 1024


class Credential(NamedTuple):
    """One configured token: what it is called, what it may do, and the values that are right at this moment."""

    name: str
    role: Role
    values: tuple[str, ...]


class Rejected(NamedTuple):
    """The call is not let in."""

    status: int
    code: str
    message: str
    retry_after_s: float = 0.0


class Allowance:
    """So many at once and so many a second after that, for each of a bounded number of names."""

    def __init__(self, at_once: float, per_s: float) -> None:
        self._at_once = at_once
        self._per_s = per_s
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait_s(self, name: str, now_s: float) -> float:
        """Return how long this name has to wait for its next one; 0 when it may."""
        return max(0.0, (1.0 - self._of(name, now_s)) / self._per_s)

    def spend(self, name: str, now_s: float) -> None:
        """Count one; what was not asked about may go below nothing."""
        left = self._of(name, now_s)
        self._left[name] = (left - 1.0, now_s)
        self._left.move_to_end(name)
        if len(self._left) > NAMES_MAX:
            self._left.popitem(last=False)

    def _of(self, name: str, now_s: float) -> float:
        left, at_s = self._left.get(name, (self._at_once, now_s))
        return min(self._at_once, left + max(0.0, now_s - at_s) * self._per_s)


@dataclass(slots=True)
class Access:
    """The one place that says who a caller of the admin door is."""

    credentials: Callable[[], Sequence[Credential]]
    """What is configured; empty means that nobody needs a token."""
    is_loopback: bool
    """The door listens on loopback only."""
    now_s: Callable[[], float]
    """Monotonic seconds."""
    caller_of: Callable[[str], tuple[str, str] | None] = field(default=lambda _: None)
    """The name and the app of the caller key with this SHA-256 (64 hex digits), or None."""
    _failures: Allowance = field(init=False, default_factory=lambda: Allowance(FAILURES_AT_ONCE, FAILURES_PER_S))
    _calls: Allowance = field(init=False, default_factory=lambda: Allowance(CALLS_AT_ONCE, CALLS_PER_S))

    def identify(self, authorization: str, peer: str) -> Actor | Rejected:
        """Say who presents this ``Authorization`` header from this address, or why nobody does."""
        known = self.credentials()
        if not known:
            # A caller key asks for what its app may see, also where nobody needs a token to see everything.
            app = self._caller(authorization)
            if app is not None:
                return app
            return Actor("local", Role.ADMIN, False) if self.is_loopback else Actor("anyone", Role.VIEWER, False)
        now_s = self.now_s()
        wait_s = self._failures.wait_s(peer, now_s)
        if wait_s > 0.0:
            return Rejected(429, "too_many_failures", "Too many wrong admin tokens from this address.", wait_s)
        scheme, _, presented = authorization.partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            return Rejected(401, "invalid_admin_token", "This needs an admin token: Authorization: Bearer …")
        actor = _match(presented.strip(), known) or self._caller(authorization)
        if actor is None:
            self._failures.spend(peer, now_s)
            return Rejected(401, "invalid_admin_token", "This is not an admin token.")
        return actor

    def _caller(self, authorization: str) -> Actor | None:
        scheme, _, presented = authorization.partition(" ")
        if scheme.lower() != "bearer" or not presented.strip():
            return None
        digest = hashlib.sha256(presented.strip().encode("utf-8", "surrogatepass")).hexdigest()
        found = self.caller_of(digest)
        return None if found is None else Actor(found[0], Role.CALLER, app=found[1])

    def count_call(self, actor: Actor, peer: str) -> Rejected | None:
        """Count one API call of an actor; a rejection when there were too many."""
        name = actor.name if actor.is_named else f"{actor.name}@{peer}"
        now_s = self.now_s()
        wait_s = self._calls.wait_s(name, now_s)
        if wait_s > 0.0:
            return Rejected(429, "rate_limit_exceeded", "Too many admin calls; wait a moment.", wait_s)
        self._calls.spend(name, now_s)
        return None


def refuse_role(actor: Actor, needed: Role) -> Rejected | None:
    """Say that an actor may not make a call that needs this role, or return None."""
    if actor.role.permits(needed):
        return None
    if not actor.is_named:
        text = f"This needs the role {needed}: configure `admin_tokens`, because the admin port is not on loopback."
        return Rejected(403, "permission_denied", text)
    return Rejected(403, "permission_denied", f"This needs the role {needed}; this token has {actor.role}.")


def is_loopback_host(host: str) -> bool:
    """True when a listener on this host is reached from this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _match(presented: str, known: Sequence[Credential]) -> Actor | None:
    """Compare with every value of every token, always all of them, by digests of one length."""
    digest = hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()
    found: Actor | None = None
    for credential in known:
        for value in credential.values:
            if hmac.compare_digest(digest, hashlib.sha256(value.encode()).digest()):
                found = Actor(credential.name, credential.role)
    return found
