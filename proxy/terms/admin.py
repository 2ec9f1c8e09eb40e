"""The vocabulary of the admin API: roles, one call, what it may answer, one row of the table of calls.

Frozen data and nothing else. Whoever owns a state writes handlers over these words; the admin door alone knows
HTTP, and knows of no handler what it does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Role(StrEnum):
    """What a caller of the admin door may do; each role may do what those before it may."""

    CALLER = "caller"
    """An app with its caller key: see what concerns that app alone. No admin token has this role."""
    VIEWER = "viewer"
    """Look at states, counts and metrics."""
    OPERATOR = "operator"
    """Also act on what runs: reset a breaker, rehearse a fault."""
    ADMIN = "admin"
    """Also what touches people's data or what is in force: audit content, erasure, keys, policies."""

    def permits(self, needed: Role) -> bool:
        """True when this role may do what ``needed`` may."""
        return _RANK[self] >= _RANK[needed]


ADMIN_ROLES = (Role.VIEWER, Role.OPERATOR, Role.ADMIN)
"""What an admin token may be given."""

_RANK = {Role.CALLER: -1, Role.VIEWER: 0, Role.OPERATOR: 1, Role.ADMIN: 2}


@dataclass(frozen=True, slots=True)
class Actor:
    """Who calls: the name of the token, never the token. ``is_named`` False: no token is configured."""

    name: str
    role: Role
    is_named: bool = True
    app: str = ""
    """The app whose caller key was presented, with the role ``CALLER``."""


@dataclass(frozen=True, slots=True)
class AdminCall:
    """One call, as data."""

    actor: Actor
    params: Mapping[str, str] = field(default_factory=dict)
    """Parts of the path, decoded."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Only names that the route declares, each at most once."""
    body: Any = None
    """The parsed JSON document; None when none was sent."""
    id: str = ""
    """Also the answer's ``x-request-id``."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The call is not carried out. ``message`` holds nothing secret; ``code`` is a stable word."""

    status: int
    code: str
    message: str
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Download:
    """A long answer that is sent as it is made. A piece that fails cuts the answer off, visibly for the client."""

    pieces: AsyncIterator[bytes]
    content_type: str = "application/x-ndjson"
    file_name: str = ""
    """Empty: shown rather than saved."""


AdminAnswer = tuple[int, Any] | Refused | Download
"""Status and document (anything JSON can hold), a refusal, or a download."""

AdminHandler = Callable[[AdminCall], Awaitable[AdminAnswer]]


@dataclass(frozen=True, slots=True)
class AdminRoute:
    """One row of the table of calls."""

    method: str
    path: str
    """Below ``/api/v1``, with ``{name}`` for a part: ``/breakers/{name}/reset``."""
    role: Role
    handler: AdminHandler
    query: tuple[str, ...] = ()
    """Names of the query that act; any other is refused."""
    shown: tuple[str, ...] = ()
    """Path parts that the record of a write may hold; leave out those that name a person."""
    max_body_bytes: int = 1024 * 1024
    timeout_s: float = 30.0
    """A handler that takes longer is cancelled and the answer is 504; a download may then take its reader's time."""

    doc: str = ""
    """One line for the reference page."""

    @property
    def is_write(self) -> bool:
        """True for calls that change something."""
        return self.method not in ("GET", "HEAD")


@dataclass(frozen=True, slots=True)
class AdminWrite:
    """The record of one call that was meant to change something, carried out or refused by its handler."""

    id: str
    actor: str
    role: str
    method: str
    path: str
    """The route's pattern, with only those parts filled in that it says may be shown."""
    status: int
