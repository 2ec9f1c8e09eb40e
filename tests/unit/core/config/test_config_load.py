"""config.yaml: what it becomes, and what is said of a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.core.budget.shares import OnOutage, Shares
from proxy.core.config.config_table import CONFIG
from proxy.core.config.load import ConfigResult, parse_settings
from proxy.core.config.schema import ListOf, MapOf, Table
from proxy.core.config.settings import (
    AuthHeader,
    BudgetStoreSettings,
    Durability,
    HealthCheck,
    JwtSettings,
    Listen,
    NamesSettings,
    OnNamesFailure,
    ProviderKind,
    ProviderSettings,
    SecretRef,
    ServerSettings,
    StreamUsage,
    WhenFull,
    endpoints_of,
)
from proxy.core.config.yaml_text import Map, Node, Sequence, parse_yaml
from tests.support.mutants import mutants_of

ROOT = Path(__file__).parents[4]
FULL = (Path(__file__).parent / "samples" / "full_config.yaml").read_text()
SAMPLE = (ROOT / "config.yaml").read_text()
FREE_MAPS = frozenset({"providers", "headers", "deployments", "api_keys"})
BASE = 'version: 1\nproviders:\n  a: {base_url: "http://127.0.0.1:1/v1"}\n'


def load(text: str) -> ConfigResult:
    return parse_settings(text, "config.yaml", Path("/etc/readygate"))


def test_sample_file_loads_with_documented_defaults() -> None:
    """The file in the repository is the documentation of the defaults, so it must be them."""
    result = load(SAMPLE)

    assert () == result.problems
    assert result.settings is not None
    assert ServerSettings() == result.settings.server
    assert ["openai", "groq", "cerebras", "gemini", "openrouter", "local", "azure"] == list(result.settings.providers)
    assert "sqlite:////etc/readygate/var/audit.db" == result.settings.audit.store
    assert Path("/etc/readygate/policies") == result.settings.policies


def test_smallest_file_gets_all_defaults() -> None:
    """One provider is enough to start."""
    result = load(BASE)

    assert result.settings is not None
    assert ServerSettings() == result.settings.server
    assert ProviderSettings("a", "http://127.0.0.1:1/v1") == result.settings.providers["a"]
    assert Path("/etc/readygate/var/spool") == result.settings.audit.spool


def test_every_key_arrives_in_its_setting() -> None:
    """A key that is read and dropped would be worse than one that is refused."""
    settings = load(FULL).settings

    assert settings is not None
    assert (
        ServerSettings(
            Listen("0.0.0.0", 8080),
            Listen("::1", 8081),
            16 << 20,
            2 << 30,
            32 << 10,
            10.0,
            30.0,
            20.0,
            60.0,
            512,
            2.0,
            20.0,
            ("readygate.internal", "10.0.0.7"),
        )
        == settings.server
    )
    base = Path("/etc/readygate")
    assert (
        ProviderSettings(
            "azure",
            "https://example-resource.openai.azure.com/openai",
            ProviderKind.AZURE,
            SecretRef(file=base / "secrets/azure"),
            AuthHeader("api-key", ""),
            "2024-10-21",
            {"openai-organization": "org-example"},
            {"gpt-4o-mini": "mini"},
            base / "ca.pem",
            3.0,
            64,
            "http://127.0.0.1:3128",
            StreamUsage.LEAVE,
            region="eu",
        )
        == settings.providers["azure"]
    )
    several = settings.providers["several"]
    assert {"first": SecretRef(env="KEY_1"), "second": SecretRef(env="KEY_2")} == several.api_keys
    assert HealthCheck(20.0, 3.0) == several.health_check
    assert ["azure", "local", "several", "several/first", "several/second"] == list(endpoints_of(settings.providers))
    audit = settings.audit
    assert SecretRef(env="AUDIT_DATABASE_URL") == audit.store
    assert (SecretRef(env="READYGATE_AUDIT_KEY"), False, 128 << 20) == (
        audit.key, audit.may_migrate, audit.content_max_bytes,
    )  # fmt: skip
    assert (2 << 30, Durability.FSYNC, WhenFull.SHED, 100, 0.25) == (
        audit.spool_max_bytes, audit.durability, audit.when_full, audit.sink_batch_rows, audit.sink_batch_wait_s,
    )  # fmt: skip
    assert (
        BudgetStoreSettings(SecretRef(env="REDIS_URL"), Shares(12, 0.5, OnOutage.BOOST), 60.0, 20.0, "prod")
        == settings.budgets
    )
    assert base / "prices.yaml" == settings.prices
    assert ("shop-prod", "shop") == (settings.callers[0].name, settings.callers[0].app)
    assert (base / "rules", "local") == (settings.policies, settings.default_provider)
    assert SecretRef(env="READYGATE_ADMIN_TOKEN") == settings.admin_token
    assert SecretRef(env="READYGATE_REDACTION_KEY") == settings.redaction_key
    assert Path("/etc/readygate/var/callers.yaml") == settings.callers_file
    url, claims = "https://login.example.com/jwks.json", ("azp", "email", "realm_access.roles")
    token = JwtSettings("https://login.example.com", ("readygate",), None, url, ("ES256",), 10.0, 600.0, *claims)
    assert token == settings.jwt
    names = NamesSettings(
        "http://127.0.0.1:5002",
        ("en", "pt"),
        0.5,
        64 << 10,
        8,
        OnNamesFailure.GO_ON,
        SecretRef(env="NAMES_KEY"),
        AuthHeader("x-api-key", ""),
        base / "ca.pem",
    )
    assert names == settings.names
    assert ("debug", "text") == (settings.log.level.value, settings.log.format.value)


def test_default_auth_follows_the_kind() -> None:
    """Azure and Anthropic take the bare key in a header of their own."""
    text = "version: 1\nproviders:\n" + "".join(
        f'  {kind}: {{kind: {kind}, base_url: "https://h.example/v1", api_key: {{env: K}}}}\n'
        for kind in ("openai", "azure", "anthropic")
    )
    settings = load(text).settings

    assert settings is not None
    assert {
        "openai": AuthHeader("authorization", "Bearer "),
        "azure": AuthHeader("api-key", ""),
        "anthropic": AuthHeader("x-api-key", ""),
    } == {name: provider.auth_header for name, provider in settings.providers.items()}


P = "version: 1\nproviders:\n  a: "
BAD_FILES = [
    (P + '{base_url: "http://h/v1", api_key: {env: K}, api_keys: {b: {env: L}}}\n', 3, 61, "duplicate-key", "move"),
    # keys
    (BASE + "polices: p\n", 4, 1, "unknown-key", "did you mean `policies`?"),
    (BASE + "server: {prot: 1}\n", 4, 10, "unknown-key", "known here: data"),
    (BASE + "server: {host: h}\n", 4, 10, "unknown-key", "it belongs in `server.data`"),
    (BASE + "routes: []\n", 4, 1, "unknown-key", "it belongs in `a file in policies/`"),
    (BASE + "version: 1\n", 4, 1, "duplicate-key", "delete one of the two"),
    ("version: 1\n", 1, 1, "missing-key", "for example"),
    ("providers: {}\n", 1, 1, "missing-key", "for example `version: 1`"),
    (P + "{kind: openai}\n", 3, 6, "missing-key", "for example `base_url"),
    ("version: 2\nproviders: {a: {base_url: http://h}}\n", 1, 10, "version-too-new", "version 1"),
    ("- a\n", 1, 1, "wrong-type", ""),
    ("version: 1\nproviders: {}\n", 2, 12, "no-provider", "add at least one"),
    ("version: 1\nproviders: [a]\n", 2, 12, "wrong-type", ""),
    # units and numbers
    (BASE + "server: {max_body: 32}\n", 4, 20, "missing-unit", "write `32MiB`"),
    (BASE + "server: {max_body: 32MB}\n", 4, 20, "bad-unit", "did you mean MiB?"),
    (BASE + "server: {timeouts: {head: 5}}\n", 4, 27, "missing-unit", "write `5s`"),
    (BASE + "server: {timeouts: {head: 5KiB}}\n", 4, 27, "bad-unit", "use one of ms, s, m, h, d"),
    (BASE + "server: {timeouts: {head: 0s}}\n", 4, 27, "out-of-range", ""),
    (BASE + "server: {timeouts: {head: -5s}}\n", 4, 27, "bad-unit", ""),
    (BASE + "server: {data: {port: 70000}}\n", 4, 23, "out-of-range", ""),
    (BASE + 'server: {data: {port: "80"}}\n', 4, 23, "wrong-type", "write it without quotes"),
    (BASE + "server: {data: {port: 80.5}}\n", 4, 23, "wrong-type", ""),
    (BASE + "server: {max_connections: true}\n", 4, 27, "wrong-type", ""),
    (BASE + "server: {data: {port: 8081}}\n", 4, 23, "same-port", "give them two ports"),
    (BASE + "server: {drain: {grace: 30s}}\n", 4, 25, "unreachable-setting", "longer than `grace`"),
    (BASE + "server: {allowed_hosts: api.example}\n", 4, 25, "wrong-type", "write [api.example]"),
    (BASE + 'server: {allowed_hosts: ["https://x"]}\n', 4, 26, "bad-value", "the host name alone"),
    (BASE + "server: {data: {host: 127.0.0}}\n", 4, 23, "bad-value", "an IP address"),
    # values
    (BASE + "log: {level: inof}\n", 4, 14, "unknown-value", "did you mean `info`?"),
    (BASE + "log:\n  level:\n", 5, 9, "no-value", "or delete the key"),
    (BASE + "budgets: {store: redis}\n", 4, 18, "bad-value", "redis://host"),
    (BASE + "budgets: {max_sidecars: 3}\n", 4, 25, "unreachable-setting", "store's URL"),
    (BASE + "default_provider: b\n", 4, 19, "unknown-provider", "known: a"),
    (BASE + 'audit: {store: "mysql://h/d"}\n', 4, 16, "bad-value", "use sqlite:///path"),
    (BASE + 'audit: {store: "postgresql://h"}\n', 4, 16, "bad-value", "name a database"),
    # secrets
    (P + '{base_url: "http://h/v1", api_key: sk-abc}\n', 3, 41, "inline-secret", "write a reference"),
    (P + '{base_url: "http://h/v1", api_key: {env: sk-abc}}\n', 3, 47, "bad-value", "such as OPENAI_API_KEY"),
    (P + '{base_url: "http://h/v1", api_key: {evn: K}}\n', 3, 42, "unknown-key", "did you mean `env`?"),
    (P + '{base_url: "http://h/v1", api_key: {env: K, file: F}}\n', 3, 41, "bad-value", ""),
    (P + '{base_url: "http://h/v1", headers: {Authorization: x}}\n', 3, 42, "bad-name", "belongs in `api_key`"),
    (P + '{base_url: "http://h/v1", headers: {Host: x}}\n', 3, 42, "bad-name", "the sidecar sets"),
    (P + '{base_url: "http://h/v1", headers: {x-a: "a\\nb"}}\n', 3, 47, "bad-value", "no line breaks"),
    (BASE + 'audit: {store: "postgresql://u:secret@h/d"}\n', 4, 16, "inline-secret", "{env: NAME}"),
    (BASE + "admin_token: letmein\n", 4, 14, "inline-secret", "write a reference"),
    # providers
    (P + '{base_url: "ftp://h/v1"}\n', 3, 17, "bad-value", "http:// or https://"),
    (P + '{base_url: "h/v1"}\n', 3, 17, "bad-value", "http:// or https://"),
    (P + '{base_url: "https://u:p@h/v1"}\n', 3, 17, "bad-value", "no user or password"),
    (P + '{base_url: "https://h/v1?key=1"}\n', 3, 17, "bad-value", "no query"),
    (P + '{base_url: "https://h/v1#x"}\n', 3, 17, "bad-value", "no query and no fragment"),
    (P + '{base_url: "https://h/v1/chat/completions"}\n', 3, 17, "bad-value", "stop before the endpoint"),
    (P + '{base_url: "https://h:99999/v1"}\n', 3, 17, "bad-value", "Port out of range"),
    (P + '{base_url: "https://h/../x"}\n', 3, 17, "bad-value", "no . or .."),
    (P + '{base_url: "http://[::1/v1"}\n', 3, 17, "bad-value", ""),
    (P + '{base_url: "http://h/v1", auth_header: "x y"}\n', 3, 45, "bad-value", "authorization: Bearer"),
    (P + '{base_url: "http://h/v1", auth_header: api-key}\n', 3, 45, "unreachable-setting", "add `api_key`"),
    (P + '{base_url: "http://h/v1", api_version: "1"}\n', 3, 45, "unreachable-setting", "kind: azure"),
    (P + '{kind: azure, base_url: "http://h", deployments: {a: b}}\n', 3, 55, "missing-key", "api_version"),
    (P + '{kind: azure, base_url: "http://h", deployments: {a: ../b}}\n', 3, 59, "bad-value", ""),
    ('version: 1\nproviders:\n  A B: {base_url: "http://h/v1"}\n', 3, 3, "bad-name", "lower-case"),
    ('version: 1\nproviders:\n  spool: {base_url: "http://h/v1"}\n', 3, 3, "bad-name", ""),
    (P + '{base_url: "http://h h/v1"}\n', 3, 17, "bad-value", "neither spaces"),
    (P + '{base_url: "http:///v1"}\n', 3, 17, "bad-value", "give it a host"),
    (P + '{base_url: "http://h:0/v1"}\n', 3, 17, "bad-value", "port 0"),
    (P + '{base_url: "http://h/v1", egress_proxy: "http://p/x"}\n', 3, 46, "bad-value", "has no path"),
    (P + '{base_url: "http://h/v1", headers: {"a b": x}}\n', 3, 42, "bad-name", "letters, digits"),
    (P + '{base_url: "http://h/v1", headers: {x-a: b, X-A: c}}\n', 3, 50, "duplicate-key", ""),
    (P + '{base_url: "http://h/v1", headers: {x-k: b}, auth_header: X-K, api_key: {env: K}}\n',
     3, 42, "duplicate-key", "delete one of the two"),
    (P + '{base_url: "http://h/v1", api_key: [K]}\n', 3, 41, "wrong-type", ""),
    (P + '{base_url: ""}\n', 3, 17, "no-value", "or delete the key"),
    (P + '{kind: azure, base_url: "http://h", api_version: "1/2"}\n', 3, 55, "bad-value", "in quotes"),
    (P + '{kind: azure, base_url: "http://h", api_version: "1", deployments: {" a": b}}\n', 3, 74, "bad-name", ""),
    (BASE + "audit: {store: sqlite:///var/}\n", 4, 16, "bad-value", "name a file"),
    # callers and doors
    (BASE + "server: {data: {host: 0.0.0.0}}\n", 4, 23, "open-data-port", "add a caller key"),
    (BASE + "server: {data: {host: 192.168.0.1}}\ncallers: []\n", 4, 23, "open-data-port", "listen on 127.0.0.1"),
    (BASE + "callers: [{name: a, sha256: my-key, app: a}]\n", 4, 29, "bad-value", "sha256sum"),
    (BASE + "callers: [{name: a, key: k, app: a}]\n", 4, 21, "unknown-key", "sha256, hashed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "hint"), BAD_FILES, ids=[f"{i}-{b[3]}" for i, b in enumerate(BAD_FILES)]
)
def test_bad_file_is_refused_at_its_place(text: str, line: int, column: int, code: str, hint: str) -> None:
    """Each mistake of a newcomer, with the place and the way out."""
    result = load(text)

    assert result.settings is None
    found = {(p.line, p.column, p.code): p.suggestion for p in result.problems}
    assert (line, column, code) in found
    assert hint in found[line, column, code]


@pytest.mark.parametrize("secret", ["sk-abc", "u:secret@", "letmein", "my-key"])
def test_message_never_repeats_what_may_be_secret(secret: str) -> None:
    """A key pasted into the wrong place must not reach a log through the complaint about it."""
    texts = [text for text, *_ in BAD_FILES if secret in text]
    told = " ".join(str(problem) for text in texts for problem in load(text).problems)

    assert texts
    assert secret not in told


def test_audit_store_may_be_postgres_without_a_password() -> None:
    """A server that trusts its peers (a socket, a certificate) needs no secret."""
    settings = load(BASE + 'audit: {store: "postgresql://db.internal:5432/audit"}\n').settings

    assert settings is not None
    assert "postgresql://db.internal:5432/audit" == settings.audit.store


def test_audit_store_may_be_standard_output() -> None:
    """Platforms that collect standard output need no database."""
    settings = load(BASE + 'audit: {store: "stdout:"}\n').settings

    assert settings is not None
    assert "stdout:" == settings.audit.store


def test_two_callers_with_one_key_are_refused() -> None:
    """Whose request it was must be certain."""
    caller = '  - {{name: {}, sha256: "{}", app: x}}\n'
    text = BASE + "callers:\n" + caller.format("a", "0" * 64) + caller.format("b", "0" * 64)

    assert [(6, 23, "duplicate-caller")] == [(p.line, p.column, p.code) for p in load(text).problems]


def test_loopback_needs_no_callers() -> None:
    """The sidecar's usual place asks for no keys."""
    for host in ("127.0.0.1", "127.0.0.9", '"::1"', "localhost"):
        assert () == load(BASE + f"server: {{data: {{host: {host}}}}}\n").problems


def _names(node: Node | None) -> set[str]:
    match node:
        case Map():
            return set(node.entries).union(*(_names(entry.node) for entry in node.entries.values()))
        case Sequence():
            return set[str]().union(*(_names(item) for item in node.items))
        case _:
            return set()


def _keys(table: Table) -> set[str]:
    found: set[str] = set()
    for key in table.keys:
        found.add(key.name)
        kind = key.kind
        while isinstance(kind, ListOf | MapOf):
            kind = kind.item if isinstance(kind, ListOf) else kind.value
        if isinstance(kind, Table):
            found |= _keys(kind)
    return found


def test_full_sample_holds_every_key() -> None:
    """The mutation test below is only as good as the file it breaks."""
    assert set() == _keys(CONFIG) - _names(parse_yaml(FULL, "f")[0])


@pytest.mark.parametrize("text", [SAMPLE, FULL], ids=["sample", "full"])
def test_every_mutant_is_refused_at_its_line(text: str) -> None:
    """Nothing in the file may be misspelt, repeated or mistyped without a word at the right line."""
    mutants = list(mutants_of(text, FREE_MAPS))
    missed = []
    for mutant in mutants:
        result = load(mutant.text)
        places = {(p.line, p.column) for p in result.problems} | {(p.line, 0) for p in result.problems}
        if result.settings is not None or (mutant.line, mutant.column) not in places:
            missed.append((mutant.what, mutant.line, [str(p) for p in result.problems]))

    assert [] == missed
    assert len(mutants) > 250


def test_each_key_has_documentation_and_a_default_that_loads() -> None:
    """Reference pages are made from the rows."""

    def check(table: Table) -> None:
        for key in table.keys:
            assert key.doc.endswith("."), key.name
            assert key.example, key.name
            key.default_value()
            kind = key.kind
            while isinstance(kind, ListOf | MapOf):
                kind = kind.item if isinstance(kind, ListOf) else kind.value
            if isinstance(kind, Table):
                check(kind)

    check(CONFIG)


@pytest.mark.parametrize(
    ("jwks", "code"),
    [
        ('{url: "http://login.example.com/keys"}', "bad-value"),
        ('{url: "file:///etc/passwd"}', "bad-value"),
        ('{url: "https://me:pw@login.example.com/keys"}', "bad-value"),
        ('{url: "https://login.example.com/keys", file: keys.json}', "bad-value"),
        ("{}", "bad-value"),
        ("{path: keys.json}", "unknown-key"),
        ("keys.json", "wrong-type"),
    ],
)
def test_keys_of_tokens_come_from_one_safe_place(jwks: str, code: str) -> None:
    """Who can change the keys on the way can be anybody."""
    text = f"version: 1\nproviders: {{a: {{base_url: 'http://127.0.0.1:1/v1'}}}}\njwt: {{issuer: x, audience: [gate], claims: {{app: azp}}, jwks: {jwks}}}\n"
    result = parse_settings(text, "config.yaml", Path("/"))

    assert result.settings is None
    assert {code} == {problem.code for problem in result.problems}


def test_tokens_let_the_data_port_leave_loopback() -> None:
    """A port that demands a token is no open port; HS256 is no way to check one."""
    text = "version: 1\nserver: {data: {host: 0.0.0.0}}\nproviders: {a: {base_url: 'http://127.0.0.1:1/v1'}}\n"
    token = "jwt: {issuer: x, audience: [gate], claims: {app: azp}, jwks: {file: k.json}"

    assert parse_settings(text + token + "}\n", "config.yaml", Path("/")).settings is not None
    assert parse_settings(text + token + ", algorithms: [HS256]}\n", "config.yaml", Path("/")).settings is None
    assert parse_settings(text, "config.yaml", Path("/")).settings is None
