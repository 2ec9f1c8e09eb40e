"""What the data path reads of a policy: frozen plans with every question already answered.

Owns the shapes of a compiled route. Knows no YAML and no live state; ``load`` builds them,
``policy_set`` chooses among them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from proxy.core.budget.dimensions import UNITS, Dimension, Unit
from proxy.core.policy.access import AccessPlan
from proxy.core.policy.applies import Applies
from proxy.core.policy.faults import InjectPlan
from proxy.core.routing.overrides import OnFailure
from proxy.terms.outcomes import Outcome
from proxy.terms.redaction import RedactionPlan

RETRIED_STATUSES = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
"""Statuses that ``retries: once`` tries again at the same target; 429 only when there is no other and the wait that it
names is short, 529 never."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one attempt, in seconds."""

    connect_s: float = 2.0
    first_byte_s: float = 60.0
    """From the request's last byte to the answer's first."""
    idle_s: float = 60.0
    """Longest silence within an answer."""
    total_s: float = 600.0
    """The whole attempt; ``RoutePlan.total_s`` bounds all attempts together."""
    first_token_s: float | None = None
    """From the beginning of the attempt to the first content of a stream; None: bounded by the others alone."""


class PersonalData(StrEnum):
    """What of the values that policy found a target may get."""

    ANY = "any"
    NONE = "none"
    """Nothing that was found and not replaced, and nothing that could not be read."""


@dataclass(frozen=True, slots=True)
class Target:
    """One link of a chain: whom to ask, for what, how long."""

    provider: str
    model: str | None = None
    """None: the model the caller asked for."""
    timeouts: Timeouts = Timeouts()
    takes_prefill: bool = False
    """It goes on from a trailing assistant message; a cut stream is continued there instead of begun anew."""
    weight: float = 1.0
    """Its part of a step that shares load."""
    context: int | None = None
    """Tokens its model can read; None: not declared."""
    modalities: frozenset[str] | None = None
    """What it can read; None: not declared."""
    personal_data: PersonalData = PersonalData.ANY
    drop_params: tuple[str, ...] = ()
    """Top-level parameters it does not get."""
    rename_params: dict[str, str] = field(default_factory=dict)


class ShareBy(StrEnum):
    """How the members of a step share its load."""

    WEIGHT = "weight"
    """Turns in proportion to weights."""
    LEAST_BUSY = "least_busy"
    """The one with the fewest requests under way, by weight."""
    LATENCY = "latency"
    """The better of two drawn ones by latency (peak EWMA) and requests under way."""


@dataclass(frozen=True, slots=True)
class Share:
    """Targets ``chain[start:stop]`` are one step: any of them may be asked first, the others are asked after it."""

    start: int
    stop: int
    by: ShareBy = ShareBy.WEIGHT
    is_sticky: bool = False
    """A conversation stays with one member while that can be asked."""


class WhenExhausted(StrEnum):
    """What a spent budget does to an exchange."""

    NEXT = "next"
    """The chain walks on to the next target."""
    WAIT = "wait"
    """The exchange waits in line for so long at most; then the chain walks on."""
    REFUSE = "refuse"
    """The exchange is refused."""


class Scope(StrEnum):
    """What a budget may be counted by."""

    PROVIDER = "provider"
    MODEL = "model"
    ROUTE = "route"
    APP = "app"
    CALLER = "caller"
    USER = "user"


class UnknownPrice(StrEnum):
    """What a budget of cost does with a model that has no price."""

    ALLOW = "allow"
    """Its cost is not counted against the budget, but in a metric."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class BudgetRule:
    """Limits on the use of what the rule names; a name that is None is no condition."""

    id: str
    """Unique in the policy set: ``policy/provider`` or ``policy/name``."""
    provider: str | None
    limits: tuple[tuple[Dimension, int], ...] = ()
    """In whole units; cost in billionths of a US dollar."""
    when_exhausted: WhenExhausted = WhenExhausted.NEXT
    wait_s: float = 0.0
    """Longest wait in line, with ``when_exhausted: wait``."""
    max_waiting: int = 100
    """Exchanges that may wait in line."""
    model: str | None = None
    """Name or glob of the model that is asked of the provider."""
    route: str | None = None
    app: str | None = None
    caller: str | None = None
    """Name of a caller key."""
    user: str | None = None
    per: tuple[Scope, ...] = ()
    """Each different one of these has a counter of its own."""
    time_zone: str = "UTC"
    """Where calendar days and months begin."""
    unknown_price: UnknownPrice = UnknownPrice.ALLOW

    def counts(self, *units: Unit) -> bool:
        """Say whether some limit counts one of these."""
        return any(UNITS[dimension] in units for dimension, _ in self.limits)


class Priority(StrEnum):
    """Whose turn it is among exchanges that wait for one budget."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


class BrokenStream(StrEnum):
    """What a caller's stream gets when the upstream's breaks after the first byte."""

    AUTO = "auto"
    """``event``; but a route of one target without retries passes a broken connection on as a broken connection."""
    EVENT = "event"
    """An in-band SSE error event, then the connection closes."""
    CUT = "cut"
    """The connection closes without a proper end."""


class Rescue(StrEnum):
    """What becomes of a stream that breaks after its first content."""

    NONE = "none"
    """It ends as ``broken_stream`` says."""
    HOLD = "hold"
    """Nothing is delivered before the stream is whole, so a break stays unseen and the chain walks on."""
    RESUME = "resume"
    """Plain chat text goes on at the next target; anything else ends as ``broken_stream`` says."""


class FirstTokenFor(StrEnum):
    """Whom the first-token limit cuts."""

    OTHERS = "others"
    """Every target but the last that may still be tried: better late than never."""
    ALL = "all"


@dataclass(frozen=True, slots=True)
class RetryPlan:
    """Whether a failed attempt may be repeated at the same target (once)."""

    same_target: bool = True
    statuses: frozenset[int] = RETRIED_STATUSES


NO_RETRIES = RetryPlan(same_target=False, statuses=frozenset())


@dataclass(frozen=True, slots=True)
class ContentRule:
    """What is kept of an exchange's words, sealed."""

    is_full: bool
    """True: as the caller sent and saw them; False: as they left for the provider and came back."""
    retention_s: float


@dataclass(frozen=True, slots=True)
class AuditPlan:
    """What the record of an exchange must hold."""

    required: bool = True
    """True: an exchange whose row cannot be kept is refused before any upstream call."""
    retention_s: float | None = None
    """Rows older than this may be deleted; None: kept for ever."""
    content: ContentRule | None = None
    """None: no words are kept."""


@dataclass(frozen=True, slots=True)
class RouteRequirement:
    """So many targets of a route's chain have to be healthy: a provider that can be used and a breaker that is not open."""

    route: str
    healthy: int = 1
    policy: str = ""
    """The policy whose route it is."""


@dataclass(frozen=True, slots=True)
class ReadinessRule:
    """What has to be well for ``/readyz`` to say yes."""

    components: frozenset[str] = frozenset({"policy", "spool"})
    """Some of ``policy``, ``spool``, ``audit_store``."""
    providers: frozenset[str] = frozenset()
    """Providers that have to be healthy."""
    settle_s: float = 10.0
    """A state must have lasted so long before the answer changes."""
    routes: tuple[RouteRequirement, ...] = ()

    @property
    def depends_on_others(self) -> bool:
        """True when something outside this process is required."""
        return bool(self.providers or self.routes or "audit_store" in self.components)


@dataclass(frozen=True, slots=True)
class RoutePlan:
    """Everything one exchange needs to know of its policy."""

    name: str
    policy: str
    revision: str
    chain: tuple[Target, ...]
    observe_only: bool = False
    """``mode: observe``: decide and record, change and refuse nothing."""
    redaction: RedactionPlan = field(default_factory=RedactionPlan)
    budgets: tuple[BudgetRule, ...] = ()
    """The policy's budgets that may act on this chain."""
    priority: Priority = Priority.NORMAL
    output_cap: int | None = None
    """Longest answer in tokens; sent along when the caller names none or a longer one."""
    audit: AuditPlan = AuditPlan()
    max_attempts: int = 2
    """Attempts of one exchange over the whole chain, retries included."""
    total_s: float = 600.0
    """The whole exchange, all attempts together."""
    retries: RetryPlan = RetryPlan()
    broken_stream: BrokenStream = BrokenStream.AUTO
    shares: tuple[Share, ...] = ()
    rescue: Rescue = Rescue.NONE
    first_token_for: FirstTokenFor = FirstTokenFor.OTHERS
    on_failure: dict[Outcome, OnFailure] = field(default_factory=dict)
    """Failure classes with a consequence of their own."""
    inject: InjectPlan | None = None
    """Faults to rehearse; None: none, and nobody asks."""
    access: AccessPlan | None = None
    """What may be asked for; None: whatever the route takes, and nobody asks."""
    owner: str = ""
    """The policy that has the route, where ``policy`` decides in its place (``applies_to.routes``)."""


class NoRouteReason(StrEnum):
    """Why no route takes an exchange."""

    NO_POLICY = "no_policy"
    """No policy applies to the app."""
    UNKNOWN_MODEL = "unknown_model"
    """No route matches the model (and path), and there is no default provider."""
    UNKNOWN_PATH = "unknown_path"
    """The request names no model, and no route matches its path."""


@dataclass(frozen=True, slots=True)
class NoRoute:
    """No route takes the exchange."""

    reason: NoRouteReason
    known_models: tuple[str, ...] = ()
    """Exact model names that would have matched, for the message."""


@dataclass(frozen=True, slots=True)
class ModelList:
    """What ``GET /v1/models`` may answer for one app."""

    names: tuple[str, ...] = ()
    """Exact names of matches, sorted; globs are not listed."""
    has_wildcard: bool = False
    """True when some route takes models that are not in ``names``."""
    is_hidden: bool = False
    """The policy does not let this path be asked."""


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """One pattern pair of a route. None: anything, or nothing at all."""

    plan: RoutePlan
    model: str | None
    """Exact name or glob; None for a route that matches by path alone."""
    path: str | None
    """Exact path or glob, of the path after ``/v1``, such as ``/files*``; None: any path."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One policy file, compiled."""

    name: str
    file: str
    applies: Applies
    """Whose requests it decides."""
    routes: tuple[RoutePlan, ...]
    matches: tuple[RouteMatch, ...]
    """One or more per route: which requests it takes. Most specific first."""
    pass_through: RoutePlan | None
    """Takes what no route matches, when the config names a default provider."""
    budgets: tuple[BudgetRule, ...] = ()
    readiness: ReadinessRule = ReadinessRule()
    access: AccessPlan | None = None
    is_observing: bool = False
