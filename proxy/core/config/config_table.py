"""The keys of config.yaml: one row each, with meaning, default and example.

Owns what the file may say. Reference pages and the JSON Schema are made from these rows.
Only keys that act are here; what is planned is in ``later`` and refused, so that nothing is ignored silently.
"""

from __future__ import annotations

from proxy.core.budget.shares import OnOutage
from proxy.core.config.budget_store import BudgetStoreText
from proxy.core.config.jwt_table import JWT
from proxy.core.config.kinds import Choice, Flag, Number, Text, duration, size
from proxy.core.config.language import Language
from proxy.core.config.schema import Key, ListOf, MapOf, Table
from proxy.core.config.settings import (
    Durability,
    LogFormat,
    LogLevel,
    OnNamesFailure,
    PolicyCases,
    ProviderKind,
    StreamUsage,
    WhenFull,
)
from proxy.core.config.texts import (
    PathText,
    Secret,
    StoreText,
    parse_allowed_host,
    parse_api_version,
    parse_auth_header,
    parse_base_url,
    parse_deployment,
    parse_header_name,
    parse_header_value,
    parse_listen_host,
    parse_model,
    parse_name,
    parse_proxy_url,
    parse_sha256,
)
from proxy.terms.admin import ADMIN_ROLES

LANGUAGE = Language()
"""Of config.yaml and the small files: one version so far."""
VERSION = LANGUAGE.key()


def _listen(name: str, port: int) -> Table:
    return Table(
        name,
        "An address to listen on.",
        (
            Key("host", Text("a host or IP address", parse_listen_host), "Address.", "127.0.0.1", "127.0.0.1"),
            Key("port", Number(0, 65535), "Port; 0 lets the system choose.", str(port), str(port)),
        ),
    )


_DRAIN = Table(
    "drain",
    "What happens between SIGTERM and the exit.",
    (
        Key("grace", duration("0s", "1h"), "New requests are accepted for so long after SIGTERM.", "5s", "5s"),
        Key("deadline", duration("1s", "24h"), "Streams are ended and the process exits by then.", "25s", "25s"),
    ),
)

_SERVER_TIMEOUTS = Table(
    "timeouts",
    "How long a caller may take.",
    (
        Key("head", duration("100ms", "10m"), "From the first byte of a request head to its end.", "15s", "15s"),
        Key("body", duration("100ms", "1h"), "Longest silence between two pieces of a request body.", "60s", "60s"),
        Key(
            "write_stall", duration("100ms", "1h"), "A caller that takes no bytes for so long is dropped.", "60s", "60s"
        ),
        Key("keepalive", duration("0s", "1h"), "Idle caller connections are closed after this.", "75s", "75s"),
    ),
)

_SERVER = Table(
    "server",
    "The two ports and their limits.",
    (
        Key("data", _listen("data", 8080), "The port of the apps: /v1/*.", "{}", "{host: 127.0.0.1, port: 8080}"),
        Key("admin", _listen("admin", 8081), "The port of probes, metrics and status.", "{}", "{port: 8081}"),
        Key(
            "max_body", size("1KiB", "16GiB"), "Larger bodies that policy reads (JSON, text) get 413.", "32MiB", "32MiB"
        ),
        Key("max_upload", size("1KiB", "1024GiB"), "Larger uploads that pass unread get 413.", "1GiB", "1GiB"),
        Key("max_head", size("4KiB", "1MiB"), "Larger request heads get 431.", "64KiB", "64KiB"),
        Key("timeouts", _SERVER_TIMEOUTS, "How long a caller may take.", "{}", "{keepalive: 75s}"),
        Key("max_connections", Number(1, 1_000_000), "Open caller connections at most.", "4096", "4096"),
        Key("drain", _DRAIN, "What happens between SIGTERM and the exit.", "{}", "{grace: 5s, deadline: 25s}"),
        Key(
            "allowed_hosts",
            ListOf(Text("a host name", parse_allowed_host)),
            "Names a Host header may carry besides the listener's own.",
            "[]",
            "[readygate.internal]",
        ),
    ),
    homes=dict.fromkeys(("grace", "deadline"), "server.drain")
    | dict.fromkeys(("host", "port"), "server.data")
    | dict.fromkeys(("head", "body", "write_stall", "keepalive"), "server.timeouts"),
)

_HEALTH_CHECK = Table(
    "health_check",
    "A free call (GET /models) now and then; {} for the defaults.",
    (
        Key("every", duration("1s", "1h"), "How often, about: the rhythm is jittered.", "30s", "30s"),
        Key("timeout", duration("100ms", "1m"), "A check that takes longer has failed.", "5s", "5s"),
    ),
)

_PROVIDER = Table(
    "provider",
    "One provider.",
    (
        Key(
            "base_url",
            Text("an http or https URL", parse_base_url, is_private=True),
            "Where it is; /v1/x of a request becomes base_url + /x.",
            is_required=True,
            example="https://api.openai.com/v1",
        ),
        Key("kind", Choice(tuple(ProviderKind)), "The API family it speaks.", "openai", "azure"),
        Key("api_key", Secret(), "Its key; leave it out for a server that takes none.", None, "{env: OPENAI_API_KEY}"),
        Key(
            "api_keys",
            MapOf(Secret(), "a map of name: reference", parse_name),
            "Several keys that share its load, each with its own health; instead of `api_key`.",
            "{}",
            "{first: {env: OPENAI_KEY_1}, second: {env: OPENAI_KEY_2}}",
        ),
        Key(
            "auth_header",
            Text("a header", parse_auth_header),
            'How the key is sent. Left out: "authorization: Bearer", azure api-key, anthropic x-api-key.',
            None,
            '"authorization: Bearer"',
        ),
        Key("api_version", Text("an API version", parse_api_version), "azure: the api-version.", None, '"2024-10-21"'),
        Key(
            "deployments",
            MapOf(Text("a deployment name", parse_deployment), "a map of model: deployment", parse_model),
            "azure: model -> deployment; a model not listed is its own deployment's name.",
            "{}",
            "{gpt-4o-mini: my-deployment}",
        ),
        Key(
            "headers",
            MapOf(Text("a header value", parse_header_value), "a map of header: value", parse_header_name),
            "Fixed headers added to every request.",
            "{}",
            '{openai-organization: "org-example"}',
        ),
        Key("ca_file", PathText(), "PEM file of the authorities to trust instead of the system's.", None, "ca.pem"),
        Key("keepalive", duration("0s", "1h"), "Idle upstream connections are dropped after this.", "4s", "4s"),
        Key("max_connections", Number(1, 100_000), "Open upstream connections at most.", "1024", "1024"),
        Key("health_check", _HEALTH_CHECK, "Ask it now and then, for free; left out: never.", None, "{every: 30s}"),
        Key(
            "egress_proxy",
            Text("an http or https URL", parse_proxy_url, is_private=True),
            "A forward proxy to go through.",
            None,
            "http://proxy.internal:3128",
        ),
        Key(
            "stream_usage",
            Choice(tuple(StreamUsage)),
            "ask: streams under a budget of tokens or cost carry stream_options.include_usage; leave: never add it.",
            "ask",
            "leave",
        ),
        Key(
            "region",
            Text("a region", parse_name),
            "Where it keeps what it is sent, unless a chain says otherwise.",
            None,
            "eu",
        ),
    ),
    homes={"timeouts": "routes of a policy", "model": "routes of a policy", "models": "routes of a policy"},
)

_BUDGETS = Table(
    "budgets",
    "Where spend is counted, and how limits are shared.",
    (
        Key(
            "store",
            BudgetStoreText(),
            "memory: each sidecar for itself; a URL: together.",
            "memory",
            "redis://redis:6379/0",
        ),
        Key("max_sidecars", Number(1, 100_000), "Sidecars that share the store at most, with surge.", "10", "10"),
        Key(
            "private_share",
            Number(0.0, 1.0, is_whole=False),
            "Part of each limit set aside for the sidecars' own slices, which need no store.",
            "0.25",
            "0.25",
        ),
        Key("on_outage", Choice(tuple(OnOutage)), "What is admitted while the store is away.", "strict", "strict"),
        Key(
            "boost_after",
            duration("1s", "1h"),
            "With on_outage boost: an outage so long lets slices grow.",
            "30s",
            "30s",
        ),
        Key("lease", duration("3s", "10m"), "The slots of a sidecar that died are free after this.", "30s", "30s"),
        Key("namespace", Text("a name", parse_name), "Sidecars with the same share their budgets.", "default", "prod"),
    ),
    homes={"prices": "the top of the file"},
)

_AUDIT = Table(
    "audit",
    "Where audit rows wait and where they end up.",
    (
        Key("store", StoreText(), "Where rows end up.", "sqlite:///var/audit.db", "sqlite:///var/audit.db"),
        Key("spool", PathText(), "Folder where rows wait on disk.", "var/spool", "var/spool"),
        Key("spool_max", size("1MiB", "1TiB"), "The spool never grows beyond this.", "1GiB", "1GiB"),
        Key("content_max", size("1MiB", "1TiB"), "Kept words wait in no more room.", "256MiB", "256MiB"),
        Key("durability", Choice(tuple(Durability)), "write outlives kill -9, fsync a power cut.", "write", "fsync"),
        Key("when_full", Choice(tuple(WhenFull)), "A full spool refuses requests, or sheds rows.", "refuse", "refuse"),
        Key("batch_rows", Number(1, 100_000), "A batch goes to the store when it holds so many.", "1000", "1000"),
        Key("batch_wait", duration("10ms", "1m"), "Or when its oldest row waited so long.", "500ms", "500ms"),
        Key("migrate", Flag(), "true: bring the store's tables up to date at start.", "true", "false"),
        Key(
            "key",
            Secret(),
            "Signs checkpoints, seals kept words; one for all sidecars of a store.",
            None,
            "{env: READYGATE_AUDIT_KEY}",
        ),
    ),
    homes={
        "required": "audit of a policy",
        "content": "audit of a policy",
        "content_retention": "audit of a policy",
        "retention": "audit of a policy",
    },
)

_CALLER = Table(
    "caller",
    "One caller key, by its hash.",
    (
        Key("name", Text("a name", parse_name), "What rows call the key.", is_required=True, example="shop-prod"),
        Key(
            "sha256",
            Text("64 hex digits", parse_sha256, is_private=True),
            "SHA-256 of the key.",
            is_required=True,
            example='"<64 hex digits>"',
        ),
        Key(
            "app", Text("an app name", parse_name), "The app its requests belong to.", is_required=True, example="shop"
        ),
    ),
    homes={
        "key": "sha256, hashed",
        "expires": "callers_file, by readygate keys create --expires",
        "models": "access of a policy that applies to this caller",
        "roles": "admin_tokens, or groups of a token (jwt)",
        "user": "the request: header x-readygate-user, or a token (jwt)",
    },
)

_ADMIN_TOKEN = Table(
    "admin_token",
    "One token of the admin API.",
    (
        Key("name", Text("a name", parse_name), "What records call its holder.", is_required=True, example="grafana"),
        Key(
            "role",
            Choice(ADMIN_ROLES),
            "viewer looks, operator also resets and rehearses, admin may do everything.",
            "viewer",
            "operator",
        ),
        Key("token", Secret(), "The token.", is_required=True, example="{env: READYGATE_VIEWER_TOKEN}"),
    ),
    later={"expires": "is not kept: a token ends when the secret that it is read from changes, at once"},
)

_NAMES = Table(
    "names",
    "A service that finds names and addresses in free text, over Presidio's analyzer API.",
    (
        Key(
            "url",
            Text("an http or https URL", parse_base_url, is_private=True),
            "Where it is; `/analyze` is added.",
            is_required=True,
            example="http://127.0.0.1:5002",
        ),
        Key(
            "languages",
            ListOf(Text("a language", parse_name), 1, 4),
            "Each text is asked about once in each.",
            "[en]",
            "[en]",
        ),
        Key(
            "timeout", duration("10ms", "1m"), "For all texts of one request, waiting in line included.", "2s", "500ms"
        ),
        Key("max_text", size("1KiB", "1MiB"), "New text of one request at most; more is unscanned.", "16KiB", "16KiB"),
        Key("concurrency", Number(1, 1024), "Calls at one time at most; eight more wait for each.", "4", "4"),
        Key(
            "on_failure",
            Choice(tuple(OnNamesFailure)),
            "No answer in time: the request is refused, or passes with what else was found.",
            "refuse",
            "pass",
        ),
        Key("api_key", Secret(), "Its key; leave it out for a service that takes none.", None, "{env: NAMES_KEY}"),
        Key(
            "auth_header",
            Text("a header", parse_auth_header),
            'How the key is sent. Left out: "authorization: Bearer".',
            None,
            '"x-api-key"',
        ),
        Key("ca_file", PathText(), "PEM file of the authorities to trust instead of the system's.", None, "ca.pem"),
    ),
)

_LOG = Table(
    "log",
    "What is logged and how.",
    (
        Key("level", Choice(tuple(LogLevel)), "The least severe line that is written.", "info", "info"),
        Key("format", Choice(tuple(LogFormat)), "One JSON object per line, or text for people.", "json", "text"),
    ),
)

_SECTIONS = {key.name: table.name for table in (_SERVER, _BUDGETS, _AUDIT, _LOG) for key in table.keys}

CONFIG = Table(
    "config",
    "config.yaml: what exists here.",
    (
        VERSION,
        Key("server", _SERVER, "The two ports and their limits.", "{}", "{max_body: 32MiB}"),
        Key("policies", PathText(), "Folder of the policy files.", "policies", "policies/"),
        Key(
            "policies_history",
            PathText(),
            "Folder that keeps every revision put in force, the last 50; left out: `policies` in the spool's folder.",
            None,
            "var/policies",
        ),
        Key(
            "shadow",
            PathText(),
            "Folder of a candidate policy set: it decides the same traffic without effect; left out: none.",
            None,
            "policies-next/",
        ),
        Key(
            "environment",
            Text("a name", parse_name),
            "Which of a policy's `overlays` acts here.",
            None,
            "prod",
        ),
        Key(
            "policy_cases",
            Choice(tuple(PolicyCases)),
            "What a case of policies/*.cases.yaml that does not hold does to the edit it came with.",
            PolicyCases.REFUSE.value,
            PolicyCases.WARN.value,
        ),
        Key(
            "providers",
            MapOf(_PROVIDER, "a map of name: provider", parse_name),
            "Who can be asked.",
            is_required=True,
            example='{local: {base_url: "http://127.0.0.1:11434/v1"}}',
        ),
        Key("default_provider", Text("a provider's name"), "Takes what no route matches.", None, "openai"),
        Key("budgets", _BUDGETS, "Where spend is counted.", "{}", "{store: memory}"),
        Key("prices", PathText(), "The price table, for the cost of exchanges.", None, "prices.yaml"),
        Key("audit", _AUDIT, "Where audit rows go.", "{}", '{store: "sqlite:///var/audit.db"}'),
        Key("callers", ListOf(_CALLER), "Caller keys; none: the data port stays on loopback.", "[]", "[]"),
        Key(
            "callers_file",
            PathText(),
            "Further caller keys, kept by `readygate keys`; re-read when it changes.",
            None,
            "var/callers.yaml",
        ),
        Key(
            "jwt",
            JWT,
            "Tokens that open the data port like caller keys do.",
            None,
            '{issuer: "https://login.example.com", audience: [readygate], jwks: {file: jwks.json}, claims: {app: azp}}',
        ),
        Key(
            "admin_token",
            Secret(),
            "Token of the admin port with the role admin.",
            None,
            "{env: READYGATE_ADMIN_TOKEN}",
        ),
        Key("admin_tokens", ListOf(_ADMIN_TOKEN), "Further tokens, each with a name and a role.", "[]", "[]"),
        Key(
            "redaction_key",
            Secret(),
            "Key of `hash` pseudonyms and keyed placeholders, the same in every sidecar; left out: one per start.",
            None,
            "{env: READYGATE_REDACTION_KEY}",
        ),
        Key(
            "names",
            _NAMES,
            "Finds the types person and address in free text of requests; left out: by their labels alone.",
            None,
            '{url: "http://127.0.0.1:5002", on_failure: refuse}',
        ),
        Key("log", _LOG, "What is logged and how.", "{}", "{level: info, format: json}"),
    ),
    later={
        **dict.fromkeys(
            ("tracing", "telemetry"), "is not there: times are in /metrics, audit rows and `server-timing`"
        ),
        "tls": "is not there: the ports are for the same host or pod; let a mesh or a proxy before them speak TLS",
    },
    homes=_SECTIONS | dict.fromkeys(("redaction", "routes", "readiness", "mode", "applies_to"), "a file in policies/"),
)
