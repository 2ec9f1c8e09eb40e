"""``*.cases.yaml`` texts -> cases: a request, the state of the world, and what policy is expected to do.

Owns the keys of a case file and the unfolding of tables of cases. Runs nothing: ``flow/rehearsal`` does, and
``expectations`` compares.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from proxy.core.config.config_table import LANGUAGE, VERSION
from proxy.core.config.kinds import Choice, Flag, Number, Text, duration
from proxy.core.config.problem import Mark, Problem, error, in_order
from proxy.core.config.schema import Key, Kind, ListOf, MapOf, Problems, Section, Table
from proxy.core.config.yaml_text import BAD, Entry, Map, Node, Scalar, canonical, parse_yaml
from proxy.core.config.yaml_text import Sequence as ListNode
from proxy.terms.outcomes import Outcome, Status

MAX_CASES = 10_000


@dataclass(frozen=True, eq=False)
class AnyValue(Kind):
    """Whatever YAML can say."""

    what: str = "any value"

    def read(self, node: Node, path: str, problems: Problems) -> Any:
        """Return the plain value."""
        return canonical(node)

    def json_schema(self) -> dict[str, Any]:
        """Return a schema that takes anything."""
        return {}


_TEXTS = ListOf(Text(), max_items=100)
_COUNTS = MapOf(Number(0, 1_000_000), "a map of types to counts")

_REQUEST = Table(
    "request",
    "What the app sends.",
    (
        Key("method", Choice(("GET", "POST", "PUT", "PATCH", "DELETE")), "The method.", "POST", "GET"),
        Key("path", Text("a path"), "The path, with /v1.", "/v1/chat/completions", "/v1/embeddings"),
        Key("app", Text("an app"), "Who calls.", None, "shop"),
        Key("user", Text("a user"), "For whom.", None, "ana"),
        Key("groups", _TEXTS, "Groups of the caller's token.", "[]", "[eng-search]"),
        Key("conversation", Text("a conversation"), "In which conversation.", None, "c-1"),
        Key("headers", MapOf(Text(), "a map of header names to values"), "More header lines.", "{}", "{x-trace: '1'}"),
        Key("model", Text("a model"), "The model asked for.", None, "fast"),
        Key("system", Text(), "A system message.", None, "Be brief."),
        Key("text", Text(), "What the user says; a chat request is made of it.", None, "Mail ana@example.com"),
        Key("stream", Flag(), "Ask for a stream.", "false", "true"),
        Key("max_tokens", Number(1, 10_000_000), "The caller's own limit.", None, "200"),
        Key("body", AnyValue(), "The whole body, instead of the keys above.", None, "{model: fast, input: hello}"),
    ),
)

_OUTCOMES = tuple(outcome.value for outcome in Outcome if outcome is not Outcome.OK)

_REPLY = Table(
    "reply",
    "What a provider answers.",
    (
        Key("status", Number(200, 599), "The status.", "200", "429"),
        Key("text", Text(), "What the model says; left out: what it was told.", None, "Hello."),
        Key("code", Text(), "The code of the provider's error.", None, "model_not_found"),
        Key("retry_after", duration("0s", "30d"), "What it asks to wait.", None, "2s"),
        Key("fails", Choice(_OUTCOMES), "It does not answer, in this way.", None, "connect_error"),
    ),
)

_GIVEN = Table(
    "given",
    "How the world is when the request comes.",
    (
        Key(
            "providers",
            MapOf(ListOf(_REPLY, 1, 100), "a map of providers to lists of replies"),
            "What each answers, in order; the last reply is repeated.",
            "{}",
            "{openai: [{status: 503}]}",
        ),
        Key("spent", _TEXTS, "Budgets with nothing left, by name.", "[]", "[groq]"),
        Key("open_breakers", _TEXTS, "Deployments whose breaker is open.", "[]", '["openai:gpt-4o-mini"]'),
    ),
)

_TEXT_CHECK = Table(
    "text",
    "What a text must and must not hold.",
    (
        Key("contains", _TEXTS, "Pieces that must be there.", "[]", '["[EMAIL-1]"]'),
        Key("lacks", _TEXTS, "Pieces that must not be there.", "[]", '["ana@example.com"]'),
    ),
)

_EXPECT = Table(
    "expect",
    "What policy must do.",
    (
        Key("status", Number(100, 599), "The status the app sees.", None, "400"),
        Key("code", Text(), "The error code the app sees.", None, "content_policy_violation"),
        Key("result", Choice(tuple(s.value for s in Status)), "The row's status.", None, "blocked"),
        Key("policy", Text(), "Which policy decided.", None, "default"),
        Key("route", Text(), "Which route took it.", None, "fast"),
        Key("targets", _TEXTS, "Deployments that were asked, in order.", None, '["openai:gpt-4o-mini"]'),
        Key("skipped", _TEXTS, "Notes of targets passed over.", None, '["groq:no_key"]'),
        Key("sent", _TEXT_CHECK, "What left for the provider (all attempts).", "{}", "{lacks: [secret]}"),
        Key("answer", _TEXT_CHECK, "What the app got back.", "{}", "{contains: [ana@example.com]}"),
        Key("redactions", _COUNTS, "Values replaced, by type; exactly these.", None, "{email: 1}"),
        Key("findings", _COUNTS, "Values seen, by type; exactly these.", None, "{email: 1, ip_address: 1}"),
        Key("answer_findings", _COUNTS, "Values seen in the answer, by type; exactly these.", None, "{email: 1}"),
        Key("headers", MapOf(Text(), "a map of header names to values"), "Answer headers.", "{}", "{x-a: b}"),
        Key("row", MapOf(AnyValue(), "a map of columns to values"), "Columns of the audit row.", "{}", "{app: shop}"),
    ),
)

_CASE = Table(
    "case",
    "One case, or a table of them.",
    (
        Key("name", Text("what it shows"), "What it shows.", is_required=True, example="A card never leaves"),
        Key("request", _REQUEST, "What the app sends.", "{}", "{model: fast, text: hello}"),
        Key("given", _GIVEN, "How the world is.", "{}", "{spent: [groq]}"),
        Key("expect", _EXPECT, "What policy must do.", "{}", "{status: 200}"),
        Key("columns", _TEXTS, "Keys that each row sets.", None, "[request.text, expect.code]"),
        Key("rows", ListOf(ListOf(AnyValue(), 1, 50), 1, 1000), "One case per row.", None, "[[hello, x]]"),
    ),
)

CASES = Table(
    "cases",
    "policies/*.cases.yaml: what the policies beside it are expected to do.",
    (VERSION, Key("cases", ListOf(_CASE, 1, 1000), "The cases.", is_required=True, example="[{name: a}]")),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a provider answers once. ``fails`` stands for no answer at all."""

    status: int = 200
    text: str | None = None
    code: str | None = None
    retry_after_s: float | None = None
    fails: Outcome | None = None


@dataclass(frozen=True, slots=True)
class TextCheck:
    """Pieces that must and must not be in a text."""

    contains: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Expected:
    """What policy must do; None: not looked at."""

    status: int | None = None
    code: str | None = None
    result: str | None = None
    policy: str | None = None
    route: str | None = None
    targets: tuple[str, ...] | None = None
    skipped: tuple[str, ...] | None = None
    sent: TextCheck = TextCheck()
    answer: TextCheck = TextCheck()
    redactions: Mapping[str, int] | None = None
    findings: Mapping[str, int] | None = None
    answer_findings: Mapping[str, int] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One request, the state of the world, and what is expected."""

    name: str
    mark: Mark
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    app: str
    user: str
    conversation: str
    replies: Mapping[str, tuple[Reply, ...]]
    spent: tuple[str, ...]
    open_breakers: tuple[str, ...]
    expected: Expected
    groups: tuple[str, ...] = ()
    marks: Mapping[tuple[str, str], Mark] = field(default_factory=dict, compare=False)
    """What is named, and its name -> where; see ``case_checks``."""


def parse_cases(files: Sequence[tuple[str, str]]) -> tuple[tuple[Case, ...], tuple[Problem, ...]]:
    """Read case files; a file with problems gives no cases."""
    cases: list[Case] = []
    problems: list[Problem] = []
    for name, text in files:
        node, found = parse_yaml(text, name)
        if node is not None and LANGUAGE.is_too_new(node, found):
            node = None
        unfolded = _unfold(node, found) if node is not None else BAD
        top = CASES.read(unfolded, "", found) if unfolded is not BAD else BAD
        if isinstance(top, Section) and not found:
            cases += [_case(section, found) for section in top["cases"].values]
        problems += found
    if len(cases) > MAX_CASES:
        problems.append(error(cases[MAX_CASES].mark, "too-many-cases", f"more than {MAX_CASES} cases"))
    return tuple(cases[:MAX_CASES]), in_order(problems)


def _unfold(root: Node, problems: Problems) -> Node:
    """Return the tree with every table of cases written out as cases."""
    if not isinstance(root, Map) or not isinstance(root.entries.get("cases", Entry(root.mark, root)).node, ListNode):
        return root
    entry = root.entries["cases"]
    assert isinstance(entry.node, ListNode)
    items: list[Node] = []
    for item in entry.node.items:
        has_rows = isinstance(item, Map) and ("columns" in item.entries or "rows" in item.entries)
        items += _rows_of(item, problems) if isinstance(item, Map) and has_rows else [item]
    cases = Entry(entry.mark, ListNode(entry.node.mark, items))
    return Map(root.mark, {**root.entries, "cases": cases})


def _rows_of(item: Map, problems: Problems) -> list[Node]:
    columns, rows = (item.entries.get(key) for key in ("columns", "rows"))
    if columns is None or rows is None:
        problems.append(error(item.mark, "missing-key", "a table of cases needs both `columns` and `rows`"))
        return [item]
    if not isinstance(columns.node, ListNode) or not isinstance(rows.node, ListNode):
        return [item]  # the table of keys says what is wrong
    rest = {key: entry for key, entry in item.entries.items() if key not in ("columns", "rows")}
    wrong = [node for node in columns.node.items if not isinstance(node, Scalar) or not isinstance(node.value, str)]
    if wrong:
        text = "a column is the path of a key, such as request.text"
        problems += [error(node.mark, "wrong-type", text, "write it in quotes if it is one") for node in wrong]
        return [Map(item.mark, rest)]
    paths = [node.text for node in columns.node.items if isinstance(node, Scalar)]
    if not rows.node.items:
        problems.append(error(rows.node.mark, "out-of-range", "a table of cases needs at least one row"))
    made: list[Node] = []
    for number, row in enumerate(rows.node.items, 1):
        if not isinstance(row, ListNode) or len(row.items) != len(paths):
            problems.append(error(row.mark, "bad-value", f"a row needs {len(paths)} values, one per column"))
            continue
        case: Map = Map(row.mark, dict(rest))
        for path, value in zip(paths, row.items, strict=True):
            case = _with(case, path.split("."), value, problems)
        name = rest.get("name")
        if name is not None and isinstance(name.node, Scalar) and isinstance(name.node.value, str):
            shown = replace(name.node, value=f"{name.node.value} [{number}]")
            case.entries["name"] = Entry(name.mark, shown)
        made.append(case)
    return made or [Map(item.mark, rest)]


def _with(node: Map, path: list[str], value: Node, problems: Problems) -> Map:
    """Return a map with one inner value set; maps on the way are copied or made."""
    key, rest = path[0], path[1:]
    if not rest:
        return Map(node.mark, {**node.entries, key: Entry(value.mark, value)})
    inner = node.entries.get(key)
    if inner is not None and not isinstance(inner.node, Map):
        problems.append(error(inner.node.mark, "wrong-type", f"`{key}` expects a map, which a column goes on with"))
    below = inner.node if inner is not None and isinstance(inner.node, Map) else Map(value.mark)
    return Map(node.mark, {**node.entries, key: Entry(value.mark, _with(below, rest, value, problems))})


def _case(section: Section, problems: Problems) -> Case:
    request, given = section["request"], section["given"]
    path = request["path"]
    if not path.startswith("/v1/"):
        problems.append(error(request.at("path"), "bad-value", "`request.path` begins with /v1/"))
    for key in ("model", "system", "text", "stream", "max_tokens") if request["body"] is not None else ():
        if request.is_written(key):
            text = f"`request.{key}` never acts beside `body`, which is the whole of it"
            problems.append(error(request.at(key), "unreachable-setting", text, "write it into the body"))
    return Case(
        name=section["name"],
        mark=section.mark,
        method=request["method"],
        path=path,
        headers=dict(request["headers"].values),
        body=_body(request),
        app=request["app"] or "",
        user=request["user"] or "",
        conversation=request["conversation"] or "",
        groups=tuple(request["groups"].values),
        replies={name: tuple(map(_reply, items.values)) for name, items in given["providers"].values.items()},
        spent=tuple(given["spent"].values),
        open_breakers=tuple(given["open_breakers"].values),
        expected=_expected(section["expect"]),
        marks=_marks(given, section["expect"]),
    )


def _marks(given: Section, expect: Section) -> dict[tuple[str, str], Mark]:
    """Return where a case names something that has to be there."""
    found = {(key, name): mark for key in ("spent", "open_breakers") for name, mark in given[key]}
    found |= {("providers", name): mark for name, mark in given["providers"].marks.items()}
    found |= {(key, expect[key]): expect.at(key) for key in ("policy", "route") if expect[key] is not None}
    found |= {("row", name): mark for name, mark in expect["row"].marks.items()}
    for key in ("redactions", "findings", "answer_findings"):
        if expect[key] is not None:
            found |= {("types", name.lower()): mark for name, mark in expect[key].marks.items()}
    return found


def _body(request: Section) -> bytes:
    """Return the request's body: the one written out, or a chat request made of the short keys."""
    if request["body"] is not None:
        return json.dumps(request["body"], ensure_ascii=False).encode()
    if request["method"] == "GET" or (request["text"] is None and request["model"] is None):
        return b""
    messages = [{"role": "system", "content": request["system"]}] if request["system"] is not None else []
    messages.append({"role": "user", "content": request["text"] or "Hello."})
    body: dict[str, Any] = {"model": request["model"] or "", "messages": messages}
    if request["stream"]:
        body["stream"] = True
    if request["max_tokens"] is not None:
        body["max_tokens"] = request["max_tokens"]
    return json.dumps(body, ensure_ascii=False).encode()


def _reply(section: Section) -> Reply:
    fails = Outcome(section["fails"]) if section["fails"] is not None else None
    return Reply(section["status"], section["text"], section["code"], section["retry_after"], fails)


def _expected(section: Section) -> Expected:
    def texts(key: str) -> tuple[str, ...] | None:
        return None if section[key] is None else tuple(section[key].values)

    def counts(key: str) -> dict[str, int] | None:
        return None if section[key] is None else {kind.lower(): n for kind, n in section[key].values.items()}

    def check(key: str) -> TextCheck:
        return TextCheck(tuple(section[key]["contains"].values), tuple(section[key]["lacks"].values))

    return Expected(
        status=section["status"],
        code=section["code"],
        result=section["result"],
        policy=section["policy"],
        route=section["route"],
        targets=texts("targets"),
        skipped=texts("skipped"),
        sent=check("sent"),
        answer=check("answer"),
        redactions=counts("redactions"),
        findings=counts("findings"),
        answer_findings=counts("answer_findings"),
        headers={name.lower(): value for name, value in section["headers"].values.items()},
        row=dict(section["row"].values),
    )
