"""policies/*.yaml: what they become, and what is said of wrong ones."""

from __future__ import annotations

import functools
import re
from dataclasses import replace
from pathlib import Path

import pytest

from proxy.core.config.load import parse_settings
from proxy.core.config.problem import Severity
from proxy.core.config.schema import ListOf, MapOf, Table
from proxy.core.config.settings import Settings
from proxy.core.config.yaml_text import Map, Node, Sequence, parse_yaml
from proxy.core.policy.access import AccessPlan, Over, Patterns
from proxy.core.policy.applies import Applies
from proxy.core.policy.faults import FaultKind, InjectedFault, InjectPlan
from proxy.core.policy.layers import OWN_KEYS
from proxy.core.policy.load import PolicyResult, parse_policies
from proxy.core.policy.model import (
    NO_RETRIES,
    AuditPlan,
    BrokenStream,
    ContentRule,
    FirstTokenFor,
    PersonalData,
    Priority,
    ReadinessRule,
    Rescue,
    RetryPlan,
    RoutePlan,
    RouteRequirement,
    Scope,
    Share,
    ShareBy,
    Target,
    Timeouts,
    UnknownPrice,
    WhenExhausted,
)
from proxy.core.policy.policy_table import POLICY
from proxy.core.policy.rollout import RolloutPlan
from proxy.core.routing.overrides import OnFailure
from proxy.terms.outcomes import Outcome
from proxy.terms.redaction import (
    Action,
    CustomType,
    DirectionPlan,
    FileTypes,
    Placeholders,
    RedactionPlan,
    StreamMode,
    Unscanned,
)
from tests.support.budgets import budget_rule
from tests.support.mutants import mutants_of

ROOT = Path(__file__).parents[4]
FULL = (Path(__file__).parent / "samples" / "full_policy.yaml").read_text()
OLD = (Path(__file__).parent / "samples" / "full_policy_version_1.yaml").read_text()
FOR_ROUTES = (Path(__file__).parent / "samples" / "policy_for_routes.yaml").read_text()
SAMPLE = (ROOT / "policies" / "default.yaml").read_text()
TYPES = frozenset({"EMAIL", "PHONE", "CPF", "CNPJ", "CREDIT_CARD", "CVV", "IP_ADDRESS"})


@functools.cache
def settings_with(default_provider: str | None = None, more: str = "") -> Settings:
    text = "version: 1\nproviders:\n" + "".join(
        f'  {name}: {{base_url: "http://127.0.0.1:1/v1"}}\n' for name in ("openai", "groq", "azure", "local")
    )
    if default_provider:
        text += f"default_provider: {default_provider}\n"
    text += more
    settings = parse_settings(text, "config.yaml", Path("/etc/readygate")).settings
    assert settings is not None
    return settings


PRICED = (
    "prices: prices.yaml\naudit: {key: {env: AUDIT_KEY}}\ncallers: [{name: shop-key, app: shop-web, sha256: "
    + "a" * 64
    + "}]\n"
    + "jwt: {issuer: x, audience: [gate], jwks: {file: keys.json}, claims: {app: azp, groups: groups}}\n"
)


def load(*texts: str, default_provider: str | None = None, more: str = "") -> PolicyResult:
    files = [(f"p{index}.yaml", text) for index, text in enumerate(texts)]
    return parse_policies(files, settings_with(default_provider, more), TYPES)


LIKE_OTHERS = re.compile(r" +(?!tokens)\w+_per_(10s|minute|day|calendar_day|month)(_usd)?:")
HEAD = "version: 1\npolicy: p\n"
ROUTE = 'routes: [{match: {models: ["*"]}, chain: [{provider: openai}]}]\n'
GOOD = HEAD + ROUTE


def test_sample_policy_is_free_of_problems() -> None:
    """The policy in the repository is what people copy."""
    result = load(SAMPLE)

    assert () == result.problems
    assert result.policies is not None


def test_every_key_arrives_in_its_plan() -> None:
    """A key that is read and dropped would be worse than one that is refused."""
    policies = load(FULL, more=PRICED).policies

    assert policies is not None
    policy = policies.policies[0]
    assert (
        Applies(
            ("shop-*", "shop"),
            ("shop-key",),
            ("batch-*",),
            ("gpt-4*",),
            ("/chat*",),
            (("x-team", "risk-*"),),
            ("eng-search",),
        )
        == policy.applies
    )
    redaction = RedactionPlan(
        DirectionPlan(
            Action.RESTORE,
            {
                "CREDIT_CARD": Action.BLOCK,
                "CVV": Action.BLOCK,
                "IP_ADDRESS": Action.OBSERVE,
                "EMPLOYEE_ID": Action.OBSERVE,
            },
            frozenset({"support@example.com"}),
            (r"ORD-\d{8}",),
            0.5,
            {"IP_ADDRESS": 0.75, "EMPLOYEE_ID": 0.75},
            ("example.com",),
            ("10.0.0.0/8",),
        ),
        DirectionPlan(Action.REDACT, {"EMAIL": Action.OBSERVE}, frozenset({"sales@example.com"}), (), 0.2),
        Unscanned.REFUSE,
        StreamMode.LOW_LATENCY,
        FileTypes.TEXT,
        Placeholders.KEYED,
        86400.0,
        observe_only=True,
        custom=(
            CustomType(
                "EMPLOYEE_ID", "[0-9]{7}", ("employee",), "luhn", ("employee 1234566",), ("employee 1234567",), 0.9
            ),
            CustomType("CODE_NAME", terms=("Project Bluebird",)),
        ),
    )
    budget = budget_rule(
        "shop/groq-free",
        "groq",
        requests_per_minute=30,
        requests_per_hour=1000,
        requests_per_day=14400,
        tokens_per_minute=6000,
        concurrent=8,
        when_exhausted=WhenExhausted.REFUSE,
    )
    everything = budget_rule(
        "shop/everything",
        "openai",
        requests_per_10s=5,
        requests_per_calendar_day=4500,
        requests_per_month=45000,
        tokens_per_10s=50,
        tokens_per_hour=5000,
        tokens_per_day=50000,
        tokens_per_calendar_day=45000,
        tokens_per_month=450000,
        input_tokens_per_10s=50,
        input_tokens_per_minute=200,
        input_tokens_per_hour=5000,
        input_tokens_per_day=50000,
        input_tokens_per_calendar_day=45000,
        input_tokens_per_month=450000,
        output_tokens_per_10s=50,
        output_tokens_per_minute=200,
        output_tokens_per_hour=5000,
        output_tokens_per_day=50000,
        output_tokens_per_calendar_day=45000,
        output_tokens_per_month=450000,
        cost_per_hour_usd=2,
        cost_per_day_usd=20,
        cost_per_calendar_day_usd=19,
        cost_per_month_usd=100,
        when_exhausted=WhenExhausted.WAIT,
        wait_s=2.0,
        max_waiting=9,
        model="gpt-*",
        route="fast",
        app="shop-web",
        caller="shop-key",
        user="batch-*",
        per=(Scope.USER, Scope.APP),
        time_zone="Europe/Berlin",
        unknown_price=UnknownPrice.REFUSE,
    )
    access = AccessPlan(
        Patterns(("gpt-4o-mini", "gpt-*")),
        Patterns(("/chat/*",)),
        frozenset({"POST"}),
        ("openai", "groq", "azure"),
        ("eu", "us"),
        1024 * 1024,
        8192,
        Over.CLAMP,
        frozenset({"temperature", "max_tokens"}),
        frozenset({"stream"}),
    )
    assert [
        RoutePlan(
            name="fast",
            policy="shop",
            revision=policies.revision,
            chain=(
                Target("openai", "gpt-4o-mini", Timeouts(2.0, 20.0, 20.0, 120.0, 15.0)),
                Target(
                    "groq",
                    "llama-3.3-70b-versatile",
                    Timeouts(1.0, 5.0, 6.0, 30.0, 4.0),
                    takes_prefill=True,
                    context=128000,
                    modalities=frozenset({"text", "image"}),
                    personal_data=PersonalData.NONE,
                    drop_params=("seed",),
                    rename_params={"max_tokens": "max_completion_tokens"},
                ),
                Target("azure", "gpt-4o-mini", Timeouts(2.0, 20.0, 20.0, 120.0, 15.0), weight=3.0),
                Target("groq", "llama-3.1-8b-instant", Timeouts(2.0, 20.0, 20.0, 120.0, 15.0)),
            ),
            observe_only=True,
            redaction=replace(redaction, response=DirectionPlan(Action.HASH), stream_mode=StreamMode.STRICT),
            budgets=(budget, everything),
            audit=AuditPlan(False, 90 * 86_400, ContentRule(is_full=False, retention_s=30 * 86_400)),
            max_attempts=5,
            total_s=120.0,
            retries=RetryPlan(),
            broken_stream=BrokenStream.CUT,
            shares=(Share(2, 4, ShareBy.LATENCY, True),),
            rescue=Rescue.RESUME,
            first_token_for=FirstTokenFor.ALL,
            on_failure={Outcome.UPSTREAM_5XX: OnFailure.NEXT, Outcome.TTFB_TIMEOUT: OnFailure.STOP},
            priority=Priority.HIGH,
            output_cap=4096,
            access=access,
            inject=InjectPlan(InjectedFault(FaultKind.STATUS, 503.0, "groq", 0.5), takes_header=True),
        )
    ] == list(policy.routes)
    assert (budget, everything) == policies.budgets
    routes = (RouteRequirement("fast", 2, "shop"),)
    assert policies.readiness == ReadinessRule(
        frozenset({"policy", "spool", "audit_store"}), frozenset({"groq"}), 5.0, routes
    )


def test_no_retries_leaves_one_try_per_link() -> None:
    """A caller that retries by itself must be able to switch ours off."""
    policies = load(HEAD + 'routes: [{match: {models: ["*"]}, chain: [{provider: openai}], retries: none}]\n').policies

    assert policies is not None
    plan = policies.policies[0].routes[0]
    assert (NO_RETRIES, 1) == (plan.retries, plan.max_attempts)


def test_well_known_type_names_are_taken_as_ours() -> None:
    """People come with the names of other tools."""
    text = GOOD + "redaction: {request: {rules: [{types: [EMAIL_ADDRESS, phone_number], action: redact}]}}\n"
    policies = load(text).policies

    assert policies is not None
    assert {"EMAIL": Action.REDACT, "PHONE": Action.REDACT} == policies.policies[0].routes[0].redaction.request.actions


def test_revision_follows_meaning_only() -> None:
    """A comment is no new policy; a new limit is."""
    one, commented, other = (load(text).policies for text in (GOOD, "# why\n" + GOOD, GOOD.replace("openai", "groq")))

    assert one is not None
    assert commented is not None
    assert other is not None
    assert one.revision == commented.revision
    assert one.revision != other.revision
    assert 12 == len(one.revision)


def test_revision_does_not_depend_on_the_order_of_files() -> None:
    """Two sidecars with the same policies must name them alike."""
    special = GOOD.replace("policy: p", "policy: q\napplies_to: {apps: [shop]}")
    one, other = load(GOOD, special).policies, load(special, GOOD).policies

    assert one is not None
    assert other is not None
    assert one.revision == other.revision


R = HEAD + "routes:\n  - "
D = GOOD + "redaction:\n  request:\n    "
T = GOOD + "redaction:\n  types:\n    - "
BAD_FILES = [
    (D + "placeholders: numbered\n    keep_values: 24h\n", 6, 19, "contradiction", "say `keyed`"),
    (D + "keep_values: 5s\n", 6, 18, "out-of-range", ""),
    ("", 1, 1, "empty-file", "version:"),
    (HEAD, 1, 1, "no-route", "add a route"),
    (GOOD + "mode: observ\n", 4, 7, "unknown-value", "did you mean `observe`?"),
    (GOOD + "extends: base\n", 4, 1, "unknown-base", "no file has `base`"),
    (GOOD + "rollout: {}\n", 4, 10, "missing-key", "share: [5%, 25%, 50%]"),
    (GOOD + "rollout: 0%\n", 4, 10, "out-of-range", "0 % tries nothing"),
    (GOOD + "rollout: 100%\n", 4, 10, "out-of-range", "leave `rollout` out"),
    (GOOD + "rollout: 10\n", 4, 10, "missing-unit", "write `10%`"),
    (GOOD + "rollout: {share: ten%}\n", 4, 18, "wrong-type", ""),
    (GOOD + "rollout: [5%, 5%]\n", 4, 15, "rollout-order", "greater"),
    (GOOD + "rollout: {share: 10%, errors: 2%}\n", 4, 23, "unknown-key", "it belongs in `rollout.take_back`"),
    (GOOD + "rollout: {share: 10%, take_back: {errors: 100%}}\n", 4, 43, "out-of-range", ""),
    (GOOD + "rollout: {share: 10%, by: key}\n", 4, 27, "unknown-value", ""),
    (GOOD + "shadow: {}\n", 4, 1, "unknown-key", "it belongs in `config.yaml`"),
    (GOOD + "providers: {}\n", 4, 1, "unknown-key", "it belongs in `config.yaml`"),
    (GOOD.replace("policy: p", "policy: P"), 2, 9, "bad-value", "lower-case"),
    (GOOD + "applies_to: {apps: []}\n", 4, 20, "out-of-range", ""),
    # redaction
    (D + "default: restor\n", 6, 14, "unknown-value", "did you mean `restore`?"),
    (D + "default: off\n", 6, 14, "ambiguous-scalar", '"off"'),
    (D + "rules: [{types: [emial], action: block}]\n", 6, 22, "unknown-type", "did you mean `email`?"),
    (D + "rules: [{types: [email, EMAIL], action: block}]\n", 6, 29, "duplicate-type", ""),
    (D + "rules: [{types: [], action: block}]\n", 6, 21, "out-of-range", ""),
    (D + 'default: block\n    allow: {patterns: ["(a"]}\n', 7, 24, "bad-pattern", "RE2"),
    (D + 'default: block\n    allow: {patterns: ["(a)\\\\1"]}\n', 7, 24, "bad-pattern", "no back-references"),
    (D + 'default: block\n    allow: {patterns: ["(?=a)b"]}\n', 7, 24, "bad-pattern", "no look-around"),
    (D + 'default: block\n    allow: {patterns: ["a*"]}\n', 7, 24, "bad-pattern", ""),
    (D + 'default: block\n    allow: {patterns: [".+"]}\n', 7, 24, "unreachable-setting", "describe the values"),
    (D + 'allow: {values: ["a"]}\n', 6, 12, "unreachable-setting", "an action"),
    (D + 'default: block\n    allow: {values: ["a", "a"]}\n', 7, 27, "duplicate-value", ""),
    (D + "min_score: 2\n", 6, 16, "out-of-range", ""),
    (GOOD + "redaction: {response: {default: restore}}\n", 4, 33, "unsupported", ""),
    (GOOD + "redaction: {response: {stream: fast}}\n", 4, 32, "unknown-value", ""),
    (GOOD + "redaction: {custom: []}\n", 4, 13, "unknown-key", "it belongs in `types`"),
    (D + 'default: block\n    allow: {domains: ["*"]}\n', 7, 23, "bad-value", "a mail domain"),
    (D + 'default: block\n    allow: {networks: ["10.0.0.0/99"]}\n', 7, 24, "bad-value", ""),
    (D + "rules: [{types: [emial_addres], action: block}]\n", 6, 22, "unknown-type", "did you mean `email"),
    (T + "{name: a}\n", 6, 7, "bad-pattern", ""),
    (T + "{name: a, pattern: x, terms: [xx]}\n", 6, 36, "bad-pattern", ""),
    (T + "{name: email, pattern: x}\n", 6, 14, "bad-name", ""),
    (T + "{name: a b, pattern: x}\n    - {name: a_b, pattern: z}\n", 7, 14, "duplicate-name", ""),
    (T + "{name: 1a, pattern: x}\n", 6, 14, "bad-name", ""),
    (T + '{name: a, pattern: "(?=x)y"}\n', 6, 26, "bad-pattern", "no look-around"),
    (T + '{name: a, pattern: "x*"}\n', 6, 26, "bad-pattern", ""),
    (T + "{name: a, pattern: xx, validator: lunh}\n", 6, 41, "unknown-validator", "did you mean `luhn`?"),
    (T + '{name: a, pattern: xx, context: ["-"]}\n', 6, 39, "bad-pattern", ""),
    (T + "{name: a, pattern: xx, examples: {match: [xx, zz]}}\n", 6, 53, "failed-example", "mend"),
    (T + "{name: a, pattern: xx, examples: {match: [xx], no_match: [yxx]}}\n", 6, 65, "failed-example", "mend"),
    (T + "{name: a, terms: [x]}\n", 6, 24, "bad-pattern", ""),
    # budgets
    (GOOD + "budgets: [{provider: opnai, concurrent: 1}]\n", 4, 22, "unknown-provider", "did you mean `openai`?"),
    (GOOD + "budgets: [{provider: groq, concurrent: 1}]\n", 4, 22, "unused-budget", "route to it"),
    (GOOD + "budgets: [{provider: openai}]\n", 4, 11, "empty-budget", "requests_per_minute"),
    (GOOD + "budgets: [{provider: openai, cost_per_day_usd: 20}]\n", 4, 48, "unpriced-budget", "add `prices"),
    (GOOD + "budgets: [{provider: openai, concurrent: 0}]\n", 4, 42, "out-of-range", ""),
    (GOOD + "budgets: [{provider: openai, concurrent: 1, when_exhausted: wait}]\n", 4, 61, "unsupported", ""),
    (GOOD + "budgets:\n- {id: a, provider: openai, concurrent: 1}\n- {id: a, provider: openai, concurrent: 1}\n",
     6, 8, "duplicate-name", "another name"),
    # routes
    (R + "{match: {}, chain: [{provider: openai}]}\n", 4, 13, "no-match", '"*" is all'),
    (R + "{match: {models: [a]}, chain: []}\n", 4, 35, "out-of-range", ""),
    (R + "{match: {models: [*]}, chain: [{provider: openai}]}\n", 4, 24, "yaml-syntax", 'such as "*"'),
    (R + "{match: {model: a}, chain: [{provider: openai}]}\n", 4, 14, "unknown-key", "did you mean `models`?"),
    (R + "{match: {paths: [/v1/files]}, chain: [{provider: openai}]}\n", 4, 22, "bad-value", "leave /v1 out: /files"),
    (R + "{match: {paths: [files]}, chain: [{provider: openai}]}\n", 4, 22, "bad-value", "start it with /"),
    (R + "{match: {models: [a]}, chain: [{provider: opnai}]}\n", 4, 47, "unknown-provider", "did you mean `openai`?"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}, {provider: groq}]}\n", 4, 54, "duplicate-link", "once"),
    (R + "{match: {models: [a]}, chain: [{provider: groq, weight: 1}]}\n", 4, 53, "unknown-key", "of `split`"),
    (R + "{match: {models: [a]}, chain: [{provider: groq, by: weight}]}\n", 4, 57, "unreachable-setting", "add `split`"),
    (
        R + '{match: {models: [a]}, chain: [{provider: groq}], inject: {fault: "status=503;target=openai"}}\n',
        4, 71, "unreachable-setting", "known: first",
    ),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], inject: {fault: boom}}\n", 4, 71, "bad-value", "status=503"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], inject: {share: 0.5}}\n", 4, 71, "unreachable-setting", ""),
    (R + "{match: {models: [a]}, chain: [{model: m}]}\n", 4, 36, "missing-key", "provider: groq"),
    (R + "{match: {models: [a]}, chain: [{split: [{provider: groq}]}]}\n", 4, 44, "out-of-range", ""),
    (
        R + "{match: {models: [a]}, chain: [{model: m, split: [{provider: groq}, {provider: openai}]}]}\n",
        4, 44, "unreachable-setting", "in the members",
    ),
    (R + "{match: {models: [a]}, chain: [{provider: groq, prefill: true}]}\n", 4, 62, "unreachable-setting", "resume"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], timeouts: {first_token: 1s}}\n",
     4, 79, "unreachable-setting", "add a target"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], on_failure: {upstream_4xx: next}}\n", 4, 68, "bad-name", "dns_error"),
    (R + "{match: {models: [a]}, chain: [{provider: groq, region: us}], regions: [eu]}\n", 4, 61, "forbidden-region", "take"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], regions: [eu]}\n", 4, 36, "forbidden-region", "allow"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], retries: none, on_failure: {reset: retry}}\n",
     4, 83, "unreachable-setting", "retries: once"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], first_token_for: all}\n",
     4, 72, "unreachable-setting", "timeouts.first_token"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], timeouts: {idle: 20m}}\n", 4, 72, "unreachable-setting", ""),
    (R + "{match: {models: [a]}, chain: [{provider: groq, timeouts: {total: 20m}}]}\n",
     4, 71, "unreachable-setting", "raise the route's"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}, {provider: openai, model: x}], max_attempts: 1}\n",
     4, 99, "unreachable-link", "make it 2"),
    (R + "{match: {models: [a, a]}, chain: [{provider: groq}]}\n", 4, 26, "shadowed-route", ""),
    (R + '{match: {models: ["a*"]}, chain: [{provider: groq}]}\n  - {match: {models: ["a*"]}, chain: [{provider: openai}]}\n',
     5, 23, "shadowed-route", "more specific"),
    (R + '{match: {models: ["ab*z"]}, chain: [{provider: groq}]}\n  - {match: {models: ["ab?z"]}, chain: [{provider: local}]}\n',
     5, 23, "shadowed-route", "more specific"),
    (R + "{match: {paths: [/a*]}, chain: [{provider: groq}]}\n  - {match: {paths: [/a*]}, chain: [{provider: local}]}\n",
     5, 22, "shadowed-route", "more specific"),
    (R + "{name: x, match: {models: [a]}, chain: [{provider: groq}]}\n  - {name: x, match: {models: [b]}, chain: [{provider: groq}]}\n",
     5, 12, "duplicate-name", "another name"),
    (R + "{match: {models: [a], methods: [GET]}, chain: [{provider: groq}]}\n", 4, 27, "unknown-key", "`access`"),
    (R + "{match: {models: [a], apps: [x]}, chain: [{provider: groq}]}\n", 4, 27, "unknown-key", "`applies_to"),
    (R + "{match: {models: [a]}, chain: [{provider: groq}], hedge: 2s}\n", 4, 55, "unsupported", "delete it"),
    (HEAD + "applies_to: {groups: [eng]}\n" + ROUTE, 3, 22, "unreachable-setting", "users or callers"),
    # access
    (GOOD + "access: {model: [a]}\n", 4, 10, "unknown-key", "did you mean `models`?"),
    (GOOD + "access: {providers: [groq]}\n", 3, 43, "link-not-allowed", "allow its provider"),
    (GOOD + "access: {providers: [opnai]}\n", 4, 22, "unknown-provider", "did you mean `openai`?"),
    (GOOD + "access: {regions: [us]}\n", 4, 20, "unknown-region", "known: none"),
    (GOOD + "access: {paths: [/v1/files]}\n", 4, 18, "bad-value", "leave /v1 out"),
    (GOOD + "access: {methods: [get]}\n", 4, 20, "unknown-value", "did you mean `GET`?"),
    (GOOD + "access: {over_max_tokens: clamp}\n", 4, 27, "unreachable-setting", "add `max_tokens`"),
    (GOOD + "access: {params: [seed], forbidden_params: [seed]}\n", 4, 45, "unreachable-setting", "keep one"),
    (GOOD + "access: {forbidden_params: [model]}\n", 4, 29, "bad-value", "limit `models`"),
    (GOOD + "access: {models: [a, a]}\n", 4, 22, "duplicate-value", "delete one"),
    (GOOD + "access: {max_body: 10}\n", 4, 20, "missing-unit", "10MiB"),
    # the rest
    (GOOD + "audit: {content: full}\n", 4, 18, "content-needs-key", "set audit.key: {env: READYGATE_AUDIT_KEY}"),
    (GOOD + "audit: {content_retention: 2d}\n", 4, 28, "unreachable-setting", "say `content`"),
    (GOOD + "audit: {retention: 90}\n", 4, 20, "missing-unit", "90s"),
    (GOOD + "audit: {retention: 5m}\n", 4, 20, "out-of-range", ""),
    (GOOD + "audit: {store: x}\n", 4, 9, "unknown-key", "audit of config.yaml"),
    (GOOD + "readiness: {require: [polcy]}\n", 4, 23, "unknown-component", "did you mean `policy`?"),
    (GOOD + "readiness: {require: [{route: none, healthy: 1}]}\n", 4, 23, "unknown-route", "known: any"),
    (GOOD + "readiness: {require: [{route: any, healthy: 0}]}\n", 4, 45, "out-of-range", ""),
    (GOOD + "readiness: {require: [{healthy: 1}]}\n", 4, 23, "missing-key", "route: fast"),
    (GOOD + "readiness: {require: [spool, spool]}\n", 4, 30, "duplicate-value", ""),
    (GOOD + "audit: {required: yes}\n", 4, 19, "ambiguous-scalar", "true or false"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "line", "column", "code", "hint"), BAD_FILES, ids=[f"{i}-{b[3]}" for i, b in enumerate(BAD_FILES)]
)
def test_bad_policy_is_refused_at_its_place(text: str, line: int, column: int, code: str, hint: str) -> None:
    """Each mistake of a policy author, with the place and the way out."""
    result = load(text)

    assert result.policies is None
    found = {(p.line, p.column, p.code): p.suggestion for p in result.problems}
    assert (line, column, code) in found
    assert hint in found[line, column, code]


LINTS = [
    (GOOD + 'redaction: {request: {default: block, rules: [{types: [email], action: block}]}}\n', 4, 72, "no-effect"),
    (GOOD + "budgets: [{provider: openai, requests_per_minute: 9, requests_per_hour: 9}]\n", 4, 51, "no-effect"),
    (GOOD + "budgets: [{provider: openai, requests_per_minute: 9, requests_per_hour: 999}]\n", 4, 73, "no-effect"),
    (R + "{match: {models: [a]}, chain: [{provider: openai}], max_attempts: 9}\n", 4, 71, "no-effect"),
    (GOOD + "rollout: {share: 1%, watch: 5s}\n", 4, 29, "rollout-sample"),
    (R + "{match: {models: [a]}, chain: [{provider: openai, model: b}, {provider: groq}]}\n", 4, 66, "unset-model"),
    (D + "placeholders: keyed\n", 6, 19, "unset-key"),
    (D + "keep_values: 24h\n", 6, 18, "unset-key"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "line", "column", "code"), LINTS, ids=[f"{i}-{b[3]}" for i, b in enumerate(LINTS)])
def test_idle_rule_is_told_and_the_policy_still_loads(text: str, line: int, column: int, code: str) -> None:
    """What is odd but harmless must not stop a roll-out."""
    result = load(text)

    assert result.policies is not None
    assert [(line, column, code, Severity.LINT)] == [(p.line, p.column, p.code, p.severity) for p in result.problems]


def test_two_policies_for_the_same_apps_are_refused() -> None:
    """Which one decides must never be a matter of chance."""
    other = GOOD.replace("policy: p", "policy: q")

    assert [("p1.yaml", 2, 9, "policy-tie")] == [(p.file, p.line, p.column, p.code) for p in load(GOOD, other).problems]


def test_overlapping_app_patterns_of_equal_weight_are_refused() -> None:
    """`a*c` and `a?c` are as specific as each other and meet in `abc`."""
    one = GOOD.replace("policy: p", 'policy: p\napplies_to: {apps: ["a*c"]}')
    other = GOOD.replace("policy: p", 'policy: q\napplies_to: {apps: ["a?c"]}')

    assert [("p1.yaml", 3, 21, "policy-tie")] == [(p.file, p.line, p.column, p.code) for p in load(one, other).problems]


def test_two_policies_of_one_name_are_refused() -> None:
    """Rows and metrics name the policy."""
    other = GOOD.replace("policy: p", "policy: p\napplies_to: {apps: [shop]}")

    assert [("p1.yaml", 2, "duplicate-name")] == [(p.file, p.line, p.code) for p in load(GOOD, other).problems]


def test_files_that_differ_in_their_rollout_are_refused() -> None:
    """A revision comes into force in one way; a file that says nothing follows."""
    other = GOOD.replace("policy: p", "policy: q\napplies_to: {apps: [shop]}")
    third = GOOD.replace("policy: p", "policy: r\napplies_to: {apps: [desk]}")
    differing = load(GOOD + "rollout: 10%\n", other + "rollout: {share: 10%, by: app}\n", third)
    agreed = load(GOOD + "rollout: 10%\n", other + "rollout: {share: 10%}\n", third).policies

    assert [("p1.yaml", 5, 10, "rollout-differs")] == [(p.file, p.line, p.column, p.code) for p in differing.problems]
    assert agreed is not None
    assert agreed.rollout == RolloutPlan((0.1,))


def test_rollout_is_no_part_of_the_revision() -> None:
    """The same policies are the same revision, however they come into force: a share may grow, or the key may go."""
    plain, some, more = (load(GOOD + text).policies for text in ("", "rollout: 10%\n", "rollout: 25%\n"))

    assert plain is not None
    assert some is not None
    assert more is not None
    assert plain.revision == some.revision == more.revision
    assert (None, True) == (plain.rollout, some.rollout != more.rollout)


def test_share_of_one_app_is_told() -> None:
    """With a single app, a tenth of the apps is all of it or none."""
    keys = f"callers: [{{name: one, sha256: '{'a' * 64}', app: shop}}]\n"
    result = load(GOOD + "rollout: {share: 10%, by: app}\n", more=keys)

    assert [(4, 27, "rollout-coarse")] == [(p.line, p.column, p.code) for p in result.problems]


def test_problems_of_all_files_are_told_at_once() -> None:
    """One run of the check is enough."""
    problems = load("version: 1\npolicy: p\nmode: x\n" + ROUTE, "version: 1\npolicy: q\nmode: z\n" + ROUTE).problems

    assert [("p0.yaml", 3), ("p1.yaml", 3)] == [(p.file, p.line) for p in problems if p.code == "unknown-value"]


def test_no_policy_at_all_is_a_problem() -> None:
    """An empty folder must not mean that everything passes."""
    result = load()

    assert result.policies is None
    assert ["no-policy"] == [p.code for p in result.problems]


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
        assert key.doc.endswith(".") or key.doc.endswith("?"), key.name
        assert key.example, key.name
        key.default_value()
        found.add(key.name)
        kind = key.kind
        while isinstance(kind, ListOf | MapOf):
            kind = kind.item if isinstance(kind, ListOf) else kind.value
        if isinstance(kind, Table):
            found |= _keys(kind)
    return found


def test_full_sample_holds_every_key() -> None:
    """The mutation test below is only as good as the file it breaks."""
    assert set(OWN_KEYS) == _keys(POLICY) - _names(parse_yaml(FULL, "f")[0])  # those are test_policy_layers's


@pytest.mark.parametrize(
    ("text", "beside", "count", "every"),
    [(SAMPLE, (), 250, 1), (FULL, (), 250, 1), (OLD, (), 250, 7), (FOR_ROUTES, (FULL,), 100, 1)],
    ids=["sample", "full", "full of version 1", "for routes"],
)
def test_every_mutant_is_refused_at_its_line(text: str, beside: tuple[str, ...], count: int, every: int) -> None:
    """Nothing in the file may be misspelt, repeated or mistyped without a word at the right line."""
    # Keys of one kind made in one loop: the hour's stand for all of them.
    like_others = {n for n, line in enumerate(text.splitlines(), 1) if LIKE_OTHERS.match(line)}
    free = frozenset({"rename_params", "on_failure", "headers"})
    mutants = [mutant for mutant in mutants_of(text, free) if mutant.line not in like_others]
    missed = []
    assert load(text, *beside, more=PRICED).policies is not None
    for mutant in mutants[::every]:
        result = load(mutant.text, *beside, more=PRICED)
        here = [problem for problem in result.problems if problem.file == "p0.yaml"]
        places = {(p.line, p.column) for p in here} | {(p.line, 0) for p in here}
        if result.policies is not None or (mutant.line, mutant.column) not in places:
            missed.append((mutant.what, mutant.line, [str(p) for p in result.problems]))

    assert [] == missed
    assert len(mutants) > count
