"""docs/reference.md, made from the tables that the program itself reads. ``python -m tests.docs.reference_page`` writes it.

Owns the page's layout; every word of content comes from the code, so the page cannot promise what the code does not do.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from proxy.cli import VERBS
from proxy.cli.schema import schema_of
from proxy.core.config.config_table import CONFIG
from proxy.core.config.schema import Key, Kind, ListOf, MapOf, Table
from proxy.core.policy.policy_table import POLICY
from proxy.core.routing.problems import Code, problem
from proxy.telemetry.metrics import Metrics
from proxy.terms.outcomes import Outcome, Status

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/reference.md"

HEAD = """\
# Reference

Made by `make reference` from the tables in the code; do not edit. The README explains, this page lists.
"""


def cell(text: str) -> str:
    """Return text as it may stand in a table cell."""
    return text.replace("|", "\\|").replace("\n", " ").strip()


def code(text: str | None) -> str:
    """Return text as inline code, or nothing."""
    return f"`{cell(text)}`" if text else ""


def rows_of(table: Table, path: str) -> Iterator[tuple[str, Key]]:
    """Yield every key of a table and of the tables within, with its full path."""
    for key in table.keys:
        where = f"{path}.{key.name}" if path else key.name
        yield where, key
        inner, step = table_within(key.kind)
        if inner is not None:
            yield from rows_of(inner, where + step)


def table_within(kind: Kind) -> tuple[Table | None, str]:
    """Return the table inside a kind and the step of the path that leads into it."""
    match kind:
        case Table():
            return kind, ""
        case ListOf(item=Table() as item):
            return item, "[]"
        case MapOf(value=Table() as value):
            return value, ".<name>"
    return None, ""


def keys_section(title: str, table: Table) -> Iterator[str]:
    """Yield one Markdown table with a file's keys."""
    yield f"\n## {title}\n"
    yield "| key | takes | default | meaning |"
    yield "|---|---|---|---|"
    for path, key in rows_of(table, ""):
        inner, _ = table_within(key.kind)
        takes = "" if inner is not None else cell(key.kind.what)
        default = "required" if key.is_required else code(key.default)
        example = (
            f" Example: {code(key.example)}" if key.example and key.example != key.default and inner is None else ""
        )
        yield f"| `{path}` | {takes} | {default} | {cell(key.doc)}{example} |"


def errors_section() -> Iterator[str]:
    """Yield the table of error codes."""
    yield "\n## Error codes\n"
    yield "`x-readygate-fault` names whose fault it is; *retry* is what `x-should-retry` and `retry-after` tell."
    yield "\n| code | status | fault | retry | message |"
    yield "|---|---|---|---|---|"
    for name in Code:
        row = problem(name)
        yield f"| `{row.code}` | {row.status} | {row.fault} | {row.retry or ''} | {cell(row.message)} |"


def metrics() -> dict[str, tuple[str, str, str]]:
    """Return name as scraped -> kind, labels, meaning; the series of state that others own are read from the source."""
    found: dict[str, tuple[str, str, str]] = {}
    for family in Metrics().collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(getattr(family, "_labelnames", ()))
        found[name] = (family.type, labels, family.documentation)
    for file in sorted((ROOT / "proxy").rglob("*.py")):
        if "add_gauges" in (text := file.read_text()):
            found.update(added_metrics(ast.parse(text)))
    return found


def added_metrics(tree: ast.Module) -> Iterator[tuple[str, tuple[str, str, str]]]:
    """Yield the series that calls of ``add_gauges`` (or of its short name ``add``) register: name, text, labels."""
    for call in ast.walk(tree):
        match call:
            case ast.Call(
                func=ast.Name(id="add") | ast.Attribute(attr="add_gauges"),
                args=[ast.Constant(value=str(name)), ast.Constant(value=str(text)), ast.Tuple(elts=labels), *_],
            ):
                is_counter = any(keyword.arg == "is_counter" for keyword in call.keywords)
                words = ", ".join(str(label.value) for label in labels if isinstance(label, ast.Constant))
                kind = "counter" if is_counter else "gauge"
                yield f"readygate_{name}{'_total' if is_counter else ''}", (kind, words, text)


def metrics_section() -> Iterator[str]:
    """Yield the table of metrics."""
    yield "\n## Metrics\n"
    yield "Served on `/metrics` of the admin port. Label values come from configuration or from the lists below."
    yield "\n| name | kind | labels | meaning |"
    yield "|---|---|---|---|"
    for name, (kind, labels, meaning) in metrics().items():
        yield f"| `{name}` | {kind} | {labels} | {cell(meaning)} |"


def admin_routes() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield method, path, role, query names and meaning of every call of the admin API, read from the source."""
    for file in sorted((ROOT / "proxy").rglob("*.py")):
        if "AdminRoute(" not in (text := file.read_text()):
            continue
        tree = ast.parse(text)
        tuples = {
            target.id: node.value
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Tuple)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        }
        for call in ast.walk(tree):
            match call:
                case ast.Call(
                    func=ast.Name(id="AdminRoute"),
                    args=[
                        ast.Constant(value=str(method)),
                        ast.Constant(value=str(path)),
                        ast.Attribute(attr=role),
                        *more,
                    ],
                    keywords=keywords,
                ):
                    given = {word.arg: word.value for word in keywords}
                    query = ", ".join(_names(more[1] if len(more) > 1 else given.get("query"), tuples))
                    doc = given.get("doc")
                    said = str(doc.value) if isinstance(doc, ast.Constant) else ""
                    yield method, f"/api/v1{path}", role.lower(), query, said


def _names(node: ast.expr | None, tuples: dict[str, ast.Tuple]) -> Iterator[str]:
    """Yield the words of a tuple, through the names it is put together from."""
    match node:
        case ast.Tuple(elts=elts):
            for element in elts:
                yield from _names(element, tuples)
        case ast.Starred(value=value):
            yield from _names(value, tuples)
        case ast.Name(id=name) if name in tuples:
            yield from _names(tuples[name], tuples)
        case ast.Name():
            yield "the filters of `audit query`"
        case ast.Constant(value=str(word)):
            yield word


def admin_section() -> Iterator[str]:
    """Yield the table of calls of the admin API."""
    yield "\n## Admin API\n"
    yield "On the admin port. A call that is not a GET carries `x-readygate-admin: 1`, or a JSON body with a token."
    yield "\n| method | path | role | query | does |"
    yield "|---|---|---|---|---|"
    for method, path, role, query, does in sorted(admin_routes(), key=lambda row: row[1]):
        yield f"| {method} | `{path}` | {role} | {cell(query)} | {cell(does)} |"


def words_section() -> Iterator[str]:
    """Yield the words that rows and metrics use."""
    yield "\n## How exchanges and attempts end\n"
    yield f"`status` of a row and of `readygate_exchanges_total`: {', '.join(f'`{word}`' for word in Status)}."
    yield f"\n`outcome` of an attempt: {', '.join(f'`{word}`' for word in Outcome)}."


def verbs_section() -> Iterator[str]:
    """Yield the verbs of the command line."""
    yield "\n## Command line\n"
    yield "`readygate VERB --help` lists the options. Exit codes: 0 done, 1 a finding, 2 wrong usage or configuration."
    yield "\n| verb | does |"
    yield "|---|---|"
    for verb, does in VERBS.items():
        yield f"| `{verb}` | {cell(does)} |"


def render() -> str:
    """Return the whole page."""
    lines = [HEAD.rstrip("\n")]
    lines += keys_section("config.yaml", CONFIG)
    lines += keys_section("policies/*.yaml", POLICY)
    lines += errors_section()
    lines += metrics_section()
    lines += admin_section()
    lines += words_section()
    lines += verbs_section()
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(render())
    print(f"{PAGE.relative_to(ROOT)}: {len(render().splitlines())} lines")
    for kind in ("config", "policy", "cases"):
        schema = ROOT / "docs/schema" / f"{kind}.schema.json"
        schema.parent.mkdir(exist_ok=True)
        schema.write_text(json.dumps(schema_of(kind), indent=2) + "\n")
        print(f"{schema.relative_to(ROOT)}: {len(schema.read_text().splitlines())} lines")
