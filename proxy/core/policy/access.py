"""What a policy lets an app ask for: models, paths, methods, parameters, sizes.

Owns the compiled rules and their judgement of one request, as values: which rule refuses, and what the caller is told.
Knows no YAML and no live state. Providers and regions are settled when a policy is loaded (``access_checks``): a chain
that would leave them is refused there, so no request has to be asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, unquote

from proxy.core.policy.globs import compile_glob, is_glob
from proxy.core.routing.problems import Code, Problem, problem
from proxy.terms.outcomes import Fault

LENGTH_KEYS: Final = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Every name that a longest answer has at the top of some request."""
ALWAYS_ALLOWED: Final = frozenset({"model", "messages", "input", "prompt", "stream"})
"""Parameters that ``params`` need not list."""
_MODEL_FREE: Final = ("/files", "/uploads", "/vector_stores", "/conversations", "/containers")
"""Paths whose bodies name no model. Batches do, within their files, so they are not here."""
_IN_PATH: Final = re.compile(r"/models/(.+)|/engines/([^/]+)(?:/.*)?", re.DOTALL)


class Over(StrEnum):
    """What becomes of a request for a longer answer than allowed."""

    REFUSE = "refuse"
    CLAMP = "clamp"
    """It is asked for what is allowed."""


class Patterns:
    """Names and globs of which one has to match."""

    __slots__ = ("_exact", "_globs", "written")

    def __init__(self, written: Iterable[str]) -> None:
        self.written = tuple(written)
        self._exact = frozenset(pattern for pattern in self.written if not is_glob(pattern))
        self._globs = tuple(compile_glob(pattern) for pattern in self.written if is_glob(pattern))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Patterns) and self.written == other.written

    def __hash__(self) -> int:
        return hash(self.written)

    def __repr__(self) -> str:
        return f"Patterns({self.written!r})"

    @property
    def names(self) -> frozenset[str]:
        """What is spelled out."""
        return self._exact

    def allow(self, value: str) -> bool:
        """Say whether one of them matches."""
        return value in self._exact or any(glob.match(value) is not None for glob in self._globs)


@dataclass(frozen=True, slots=True)
class AccessPlan:
    """The rules of one policy; None: no rule of that kind."""

    models: Patterns | None = None
    paths: Patterns | None = None
    methods: frozenset[str] | None = None
    providers: tuple[str, ...] | None = None
    """Held by the check of chains; here to be told."""
    regions: tuple[str, ...] | None = None
    """As ``providers``."""
    max_body_bytes: int | None = None
    max_tokens: int | None = None
    over_max_tokens: Over = Over.REFUSE
    params: frozenset[str] | None = None
    forbidden_params: frozenset[str] = frozenset()

    @property
    def reads_params(self) -> bool:
        """True when the parsed body is needed."""
        return self.max_tokens is not None or self.params is not None or bool(self.forbidden_params)

    @property
    def asks_requests(self) -> bool:
        """True when something is left to decide per request."""
        static = (self.models, self.paths, self.methods, self.max_body_bytes)
        return self.reads_params or any(rule is not None for rule in static)


class Asked(NamedTuple):
    """One request as access rules see it."""

    method: str
    path: str
    """What follows ``/v1``, without query."""
    model: str | None
    """The body's; None: it names none, or none that can be read."""
    query: str = ""
    body_bytes: int | None = 0
    """None: a body of unknown length."""
    document: Any = None
    """The parsed JSON body."""
    is_readable: bool = True
    """False: parameters may be there that nobody here can see."""


class Verdict(NamedTuple):
    """One rule, what it was compared with, and the refusal it comes to."""

    key: str
    inputs: str
    refusal: Problem | None


def judge(plan: AccessPlan, asked: Asked) -> Verdict | None:
    """Return the first rule that refuses a request, or None."""
    return next((verdict for verdict in verdicts(plan, asked) if verdict.refusal is not None), None)


def verdicts(plan: AccessPlan, asked: Asked, *, knows_body: bool = True) -> Iterator[Verdict]:
    """Yield what every rule says, in the order they count; without a body those that need none."""
    if plan.methods is not None:
        is_allowed = asked.method in plan.methods
        yield Verdict("methods", asked.method, None if is_allowed else _denied("Policy does not allow this method."))
    if plan.paths is not None:
        yield Verdict("paths", asked.path, None if plan.paths.allow(asked.path) else _denied(_PATH))
    if plan.models is not None:
        yield _models(plan.models, asked, knows_body=knows_body)
    if plan.max_body_bytes is not None and knows_body:
        yield _body(plan.max_body_bytes, asked)
    if knows_body and plan.reads_params:
        yield from _params(plan, asked)


_PATH: Final = "Policy does not allow this path."


def _denied(message: str, param: str | None = None) -> Problem:
    return problem(Code.PERMISSION_DENIED, message, param=param)


def models_in(asked: Asked) -> list[str]:
    """Return every model a request names: in its body, its query or its path."""
    names = [] if asked.model is None else [asked.model]
    if "model" in asked.query or "%" in asked.query:
        names += [value for key, value in parse_qsl(asked.query, keep_blank_values=True) if key == "model"]
    found = _IN_PATH.fullmatch(asked.path)
    if found is not None:
        names.append(unquote(found[1] or found[2]))
    return names


def _models(allowed: Patterns, asked: Asked, *, knows_body: bool) -> Verdict:
    names = models_in(asked)
    told = ", ".join(repr(name[:100]) for name in names) or "no model"
    for name in names:
        if not allowed.allow(name):
            text = f"The model {name[:100]!r} does not exist or policy does not allow it."
            return Verdict("models", told, problem(Code.MODEL_NOT_FOUND, text, param="model"))
    if knows_body and _may_hide_a_model(asked, names):
        text = "Policy allows certain models only, and this request names none that can be read."
        return Verdict("models", told, _denied(text, "model"))
    return Verdict("models", told, None)


def _may_hide_a_model(asked: Asked, names: list[str]) -> bool:
    """Say whether something here that nobody can see may name a model, whatever query and path say."""
    if asked.path == "/realtime":
        return not names
    if any(asked.path == free or asked.path.startswith(free + "/") for free in _MODEL_FREE):
        return False
    has_body = asked.body_bytes is None or asked.body_bytes > 0
    return not asked.is_readable or (has_body and asked.model is None and not asked.path.startswith("/engines/"))


def _body(limit_bytes: int, asked: Asked) -> Verdict:
    if asked.body_bytes is not None and asked.body_bytes <= limit_bytes:
        return Verdict("max_body", f"{asked.body_bytes} bytes", None)
    what = "does not announce its length" if asked.body_bytes is None else f"has {asked.body_bytes} bytes"
    text = f"The request body {what}; policy allows {limit_bytes}."
    return Verdict("max_body", what, problem(Code.BODY_TOO_LARGE, text, fault=Fault.POLICY))


def _params(plan: AccessPlan, asked: Asked) -> Iterator[Verdict]:
    document: Mapping[str, Any] = asked.document if isinstance(asked.document, dict) else {}
    if not asked.is_readable:
        key = "params" if plan.params is not None else "forbidden_params" if plan.forbidden_params else "max_tokens"
        text = "Policy limits the parameters of requests, and those of this one cannot be read."
        yield Verdict(key, "a body that cannot be read", _denied(text))
        return
    if plan.params is not None:
        others = [name for name in document if name not in plan.params and name not in ALWAYS_ALLOWED]
        yield _named("params", others)
    if plan.forbidden_params:
        yield _named("forbidden_params", [name for name in document if name in plan.forbidden_params])
    if plan.max_tokens is not None:
        yield _length(plan, plan.max_tokens, document)


def _named(key: str, names: list[str]) -> Verdict:
    if not names:
        return Verdict(key, "nothing forbidden", None)
    name = str(names[0])[:64]
    return Verdict(key, name, _denied(f"Policy does not allow the parameter {name!r}.", name))


def _length(plan: AccessPlan, limit: int, document: Mapping[str, Any]) -> Verdict:
    written = {key: document[key] for key in LENGTH_KEYS if document.get(key) is not None}
    for key, value in written.items():
        if not isinstance(value, int) or isinstance(value, bool):
            return Verdict("max_tokens", key, _denied(f"{key} must be a whole number of at most {limit}.", key))
        if value > limit and plan.over_max_tokens is Over.REFUSE:
            text = f"{key} is {value}; policy allows {limit}."
            return Verdict("max_tokens", f"{key} {value}", _denied(text, key))
    told = ", ".join(f"{key} {value}" for key, value in written.items()) or "not named"
    return Verdict("max_tokens", told, None)


def clamped(plan: AccessPlan, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the document with every longest answer cut to the limit, or None when none is longer."""
    limit = plan.max_tokens
    if limit is None:
        return None
    long = [key for key in LENGTH_KEYS if isinstance(document.get(key), int) and document[key] > limit]
    return {**document, **dict.fromkeys(long, limit)} if long else None
