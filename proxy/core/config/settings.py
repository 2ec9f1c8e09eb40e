"""The settings of one process: what exists here. Read once at start, frozen ever after.

Owns the shapes that ``config.yaml`` becomes. Knows neither YAML nor the world: a secret is a reference,
a path is an absolute path that may or may not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from proxy.core.budget.shares import Shares
from proxy.core.config.problem import Mark
from proxy.terms.admin import Role

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret is found: exactly one of ``env`` and ``file``. Never the secret itself.

    ``mark`` is where the reference was written, for messages; it takes no part in equality.
    """

    env: str | None = None
    file: Path | None = None
    mark: Mark = field(default=Mark("config.yaml"), compare=False, repr=False)

    def __str__(self) -> str:
        return f"environment variable {self.env}" if self.env else f"file {self.file}"


@dataclass(frozen=True, slots=True)
class Listen:
    """An address to listen on. Port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """The two doors and their limits."""

    data: Listen = Listen("127.0.0.1", 8080)
    admin: Listen = Listen("127.0.0.1", 8081)
    max_body_bytes: int = 32 * MIB
    """Of a body that is gathered because policy reads it."""
    max_upload_bytes: int = GIB
    """Of a body that streams through."""
    max_head_bytes: int = 64 * KIB
    head_timeout_s: float = 15.0
    """From the first byte of a request head to its end."""
    body_timeout_s: float = 60.0
    """Longest silence between two pieces of a request body."""
    write_stall_s: float = 60.0
    """Longest time a caller may take none of the bytes waiting for it."""
    keepalive_s: float = 75.0
    """How long an idle caller connection stays open."""
    max_connections: int = 4096
    drain_grace_s: float = 5.0
    """After SIGTERM new requests are still accepted for so long."""
    drain_deadline_s: float = 25.0
    """After SIGTERM everything is over by then."""
    allowed_hosts: tuple[str, ...] = ()
    """Lower-case host names without port that a Host header may carry; empty: the listener's own names."""


class ProviderKind(StrEnum):
    """The API family a provider speaks: how paths and credentials are written."""

    OPENAI = "openai"
    AZURE = "azure"
    ANTHROPIC = "anthropic"


class StreamUsage(StrEnum):
    """Whether a provider may be asked to report usage in streams, where a budget counts tokens."""

    ASK = "ask"
    LEAVE = "leave"
    """For servers that refuse ``stream_options``: what passes is counted instead."""


@dataclass(frozen=True, slots=True)
class AuthHeader:
    """How the key is sent: header ``name`` (lower case) with the value ``prefix + key``."""

    name: str = "authorization"
    prefix: str = "Bearer "


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """A free call (``GET /models``) now and then; its rhythm is jittered."""

    every_s: float = 30.0
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class ProviderSettings:
    """One provider: where it is and how to speak to it. ``/v1/x`` maps to ``base_url + /x``."""

    name: str
    base_url: str
    """http or https, no user info, query, fragment or trailing slash."""
    kind: ProviderKind = ProviderKind.OPENAI
    api_key: SecretRef | None = None
    """None: the provider takes no key (a local server). With several keys the first of them."""
    auth_header: AuthHeader = AuthHeader()
    api_version: str | None = None
    """Azure only: the ``api-version`` query of deployment paths; None for Azure's ``/openai/v1`` paths."""
    headers: dict[str, str] = field(default_factory=dict)
    """Fixed headers added to every request, names in lower case."""
    deployments: dict[str, str] = field(default_factory=dict)
    """Azure only: model -> deployment; a model not listed is its own deployment's name."""
    ca_file: Path | None = None
    keepalive_s: float = 4.0
    """Idle upstream connections are dropped after this; keep it below the provider's own."""
    max_connections: int = 1024
    egress_proxy: str | None = None
    """URL of a forward proxy, without credentials."""
    stream_usage: StreamUsage = StreamUsage.ASK
    api_keys: dict[str, SecretRef] = field(default_factory=dict)
    """Several keys by name, which share the provider's load; empty: there is one or none."""
    health_check: HealthCheck | None = None
    """None: only traffic tells how it is."""
    region: str | None = None
    """Where it works, as policies call it; None: not declared."""


@dataclass(frozen=True, slots=True)
class BudgetStoreSettings:
    """Where spend is counted, and how limits are shared among sidecars."""

    url: str | SecretRef | None = None
    """None: in this process. Otherwise the URL of a Redis or Valkey, or a reference to one with a password."""
    shares: Shares = field(default_factory=lambda: Shares(1, 1.0))
    boost_after_s: float = 30.0
    lease_s: float = 30.0
    """A slot whose sidecar has died is free again after so long."""
    namespace: str = "default"
    """Sidecars that share budgets have the same."""


class Durability(StrEnum):
    """What an appended audit record survives."""

    WRITE = "write"
    """Death of the process."""
    FSYNC = "fsync"
    """Loss of power, too; costs a disk flush shared by the records of a few milliseconds."""


class PolicyCases(StrEnum):
    """What a case beside the policies that does not hold does to the edit it came with."""

    REFUSE = "refuse"
    """The edit is refused; the last good policies stay."""
    WARN = "warn"
    """The edit is taken; the log says which cases do not hold."""
    OFF = "off"
    """Cases are not played."""


class WhenFull(StrEnum):
    """What happens when the spool's disk limit is reached."""

    REFUSE = "refuse"
    """503 ``audit_backpressure`` before any upstream call."""
    SHED = "shed"
    """The exchange runs; its row is counted as shed and leaves a gap record."""


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """Where rows wait and where they end up."""

    store: str | SecretRef = "sqlite:///var/audit.db"
    """``sqlite:///`` + absolute path, ``postgresql://…`` without password, or a reference to either."""
    spool: Path = Path("var/spool")
    spool_max_bytes: int = GIB
    content_max_bytes: int = GIB // 4
    """Kept words wait beside the spool in no more room."""
    durability: Durability = Durability.WRITE
    when_full: WhenFull = WhenFull.REFUSE
    sink_batch_rows: int = 1000
    """A batch goes to the store when it holds so many rows…"""
    sink_batch_wait_s: float = 0.5
    """…or when its oldest row has waited so long."""
    may_migrate: bool = True
    """False: a store with an older schema is left alone, and rows wait until somebody has brought it up to date."""
    key: SecretRef | None = None
    """Signs checkpoints; None: a key made beside the spool does."""


class OnNamesFailure(StrEnum):
    """What becomes of a request about which the names service did not answer."""

    REFUSE = "refuse"
    GO_ON = "pass"


@dataclass(frozen=True, slots=True)
class NamesSettings:
    """A service that finds names and addresses in free text (Presidio's analyzer API)."""

    url: str
    """Without trailing slash; ``/analyze`` follows."""
    languages: tuple[str, ...] = ("en",)
    timeout_s: float = 2.0
    """For all questions of one request, waiting in line included."""
    max_text_bytes: int = 16 * 1024
    """Text of one request that is asked about at most; more counts as unscanned."""
    concurrency: int = 4
    on_failure: OnNamesFailure = OnNamesFailure.REFUSE
    api_key: SecretRef | None = None
    auth_header: AuthHeader = AuthHeader()
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class CallerKey:
    """One caller key, known only by its hash."""

    name: str
    sha256: str
    """64 lower-case hex digits: SHA-256 of the key's UTF-8 bytes."""
    app: str
    """The app name an exchange with this key belongs to."""
    until_s: float | None = None
    """Unix seconds from which it opens nothing; None: it has no end."""


@dataclass(frozen=True, slots=True)
class JwtSettings:
    """Whose JSON Web Tokens open the data port, and what their claims mean."""

    issuer: str
    audience: tuple[str, ...]
    jwks_file: Path | None
    jwks_url: str | None
    algorithms: tuple[str, ...]
    leeway_s: float
    refresh_s: float
    app_claim: str
    user_claim: str = "sub"
    groups_claim: str | None = None


@dataclass(frozen=True, slots=True)
class AdminToken:
    """One token of the admin API, by reference."""

    name: str
    """What log lines and records of writes call its holder."""
    role: Role
    token: SecretRef


class LogFormat(StrEnum):
    """How a log line looks."""

    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least severe line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class LogSettings:
    """What is logged and how."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.JSON


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything ``config.yaml`` says, with absolute paths."""

    server: ServerSettings
    policies: Path
    providers: dict[str, ProviderSettings]
    policy_cases: PolicyCases = PolicyCases.REFUSE
    policies_history: Path | None = None
    """Where revisions that were put in force are kept; None: beside the rows that wait."""
    shadow: Path | None = None
    """Folder of a candidate that decides without effect; None: none."""
    environment: str | None = None
    """Which overlay of the policies acts here; None: none."""
    default_provider: str | None = None
    """Takes exchanges that no route matches; None: they are refused."""
    budgets: BudgetStoreSettings = BudgetStoreSettings()
    prices: Path | None = None
    """The price table; None: nothing has a price."""
    audit: AuditSettings = AuditSettings()
    callers: tuple[CallerKey, ...] = ()
    """Empty, without ``callers_file`` and ``jwt``: no caller authentication, so the data port must be loopback."""
    callers_file: Path | None = None
    """Further caller keys, which come and go while the process runs."""
    jwt: JwtSettings | None = None
    admin_token: SecretRef | None = None
    """A token with the role admin, called ``admin``."""
    admin_tokens: tuple[AdminToken, ...] = ()
    redaction_key: SecretRef | None = None
    """Makes pseudonyms and keyed placeholders; None: a random key per start."""
    names: NamesSettings | None = None
    """None: names and addresses are found by their labels alone."""
    log: LogSettings = LogSettings()

    @property
    def history_folder(self) -> Path:
        """Where revisions of the policies are kept."""
        return self.policies_history or self.audit.spool / "policies"

    @property
    def knows_callers(self) -> bool:
        """True when nobody without a caller key or a token is let in."""
        return bool(self.callers) or self.callers_file is not None or self.jwt is not None


def endpoints_of(providers: Mapping[str, ProviderSettings]) -> dict[str, ProviderSettings]:
    """Return everything that is dialled: each provider by its name, and each of its several keys as ``provider/key``."""
    found = dict(providers)
    for name, provider in providers.items():
        for key, ref in provider.api_keys.items():
            found[f"{name}/{key}"] = replace(provider, api_key=ref, api_keys={})
    return found
