"""Bases and overlays: several layers of YAML make one policy, each part keeping the place it was written at.

Owns what is merged and how: maps are merged key by key, anything else (a list, a value) is replaced as a whole, later
layers winning: base, policy, overlay of the environment. Each file is read in the current version of the language, whatever
version it is written in. Knows no key of a policy but its own three. Every overlay is
read, also those of other environments, so that a mistake shows where it is made and not where it is deployed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from proxy.core.config.language import Edit
from proxy.core.config.problem import Problem, error, lint
from proxy.core.config.schema import closest
from proxy.core.config.yaml_text import Entry, Map, Node, Scalar, parse_yaml
from proxy.core.policy.versions import POLICY_LANGUAGE

OWN_KEYS = ("base", "extends", "overlays")
_NOT_IN_OVERLAYS = ("version", "policy", *OWN_KEYS)
_MAX_DEPTH = 8


@dataclass(slots=True)
class Layered:
    """Policy trees ready to be read."""

    policies: list[tuple[str, Node]] = field(default_factory=list)
    """File name and tree of each policy, bases and the environment's overlay merged in."""
    others: list[tuple[str, Node]] = field(default_factory=list)
    """Trees that do not act here and still have to be free of mistakes: other environments, bases nobody extends."""
    problems: list[Problem] = field(default_factory=list)
    edits: dict[str, tuple[Edit, ...]] = field(default_factory=dict)
    """What was changed, by file, to read an older version of the language as the current one."""
    is_too_new: bool = False
    """Some file is of a version that this release does not know, so nothing can be said about the set."""


def layered(files: Sequence[tuple[str, str]], environment: str | None) -> Layered:
    """Read policy texts and merge their layers."""
    result = Layered()
    roots: list[tuple[str, Map]] = []
    bases: dict[str, Map] = {}
    for name, text in files:
        node, found = parse_yaml(text, name)
        result.problems += found
        if not isinstance(node, Map):
            if node is not None:
                result.policies.append((name, node))
            continue
        if POLICY_LANGUAGE.is_too_new(node, result.problems):
            result.is_too_new = True
            continue
        node, edits = POLICY_LANGUAGE.read(node, result.problems)
        if edits:
            result.edits[name] = edits
        if "base" in node.entries:
            _add_base(node, bases, result.problems)
        else:
            roots.append((name, node))
    used: set[str] = set()
    for name, root in roots:
        _add_policy(name, root, bases, used, environment, result)
    for name, base in bases.items():
        if name not in used:
            mark = base.entries["base"].mark
            result.problems.append(lint(mark, "unused-base", f"no policy extends {name!r}", "delete it, or extend it"))
            result.others.append((mark.file, _standing_for_a_policy(base)))
    return result


def _add_base(node: Map, bases: dict[str, Map], problems: list[Problem]) -> None:
    entry = node.entries["base"]
    name = _name_of(entry, "base", problems)
    if "policy" in node.entries:
        at = node.entries["policy"].mark
        problems.append(error(at, "contradiction", "a base is no policy: `base` and `policy` exclude each other"))
    if name is None:
        return
    if name in bases:
        other = bases[name].entries["base"].mark
        text = f"another base is called {name} already: {other.file}:{other.line}"
        problems.append(error(entry.mark, "duplicate-name", text, "give it another name"))
    bases.setdefault(name, node)


def _add_policy(
    name: str, root: Map, bases: dict[str, Map], used: set[str], environment: str | None, result: Layered
) -> None:
    merged = _with_base(root, bases, used, result.problems)
    overlays = _overlays(merged, result.problems)
    plain = _without_own(merged)
    if overlays and environment is None:
        at = merged.entries["overlays"].mark
        text = "the overlays never act: config.yaml names no `environment`"
        result.problems.append(lint(at, "no-effect", text, f"for example `environment: {next(iter(overlays))}`"))
    for overlay, node in overlays.items():
        if overlay != environment:
            result.others.append((name, merge(plain, node)))
    chosen = overlays.get(environment) if environment is not None else None
    result.policies.append((name, plain if chosen is None else merge(plain, chosen)))


def _with_base(root: Map, bases: dict[str, Map], used: set[str], problems: list[Problem]) -> Map:
    """Return a tree with all the bases it extends merged under it."""
    chain: list[Map] = []
    node = root
    seen: list[str] = []
    while "extends" in node.entries:
        entry = node.entries["extends"]
        name = _name_of(entry, "extends", problems)
        if name is None:
            break
        if name not in bases:
            hint = closest(name, bases) or (f"bases: {', '.join(sorted(bases))}" if bases else "no file has `base`")
            problems.append(error(entry.mark, "unknown-base", f"no base is called {name!r}", hint))
            break
        if name in seen or len(seen) >= _MAX_DEPTH:
            problems.append(error(entry.mark, "base-loop", f"{' → '.join([*seen, name])} never ends"))
            break
        seen.append(name)
        used.add(name)
        node = bases[name]
        chain.append(node)
    merged = root
    for base in chain:
        under = Map(base.mark, {key: entry for key, entry in base.entries.items() if key not in ("base", "extends")})
        merged = merge(under, merged)
    return merged


def _overlays(node: Map, problems: list[Problem]) -> dict[str, Map]:
    entry = node.entries.get("overlays")
    if entry is None:
        return {}
    if not isinstance(entry.node, Map):
        problems.append(
            error(entry.mark, "wrong-type", "`overlays` expects a map of environments to parts of a policy")
        )
        return {}
    found: dict[str, Map] = {}
    for name, overlay in entry.node.entries.items():
        if not isinstance(overlay.node, Map):
            text = f"`overlays.{name}` expects a part of a policy, a map"
            problems.append(error(overlay.mark, "wrong-type", text))
            continue
        for key in _NOT_IN_OVERLAYS:
            if key in overlay.node.entries:
                text = f"`{key}` cannot stand in an overlay"
                problems.append(
                    error(overlay.node.entries[key].mark, "wrong-place", text, "put it at the top of the file")
                )
        found[name] = overlay.node
    return found


def _name_of(entry: Entry, key: str, problems: list[Problem]) -> str | None:
    if isinstance(entry.node, Scalar) and isinstance(entry.node.value, str) and entry.node.value.strip():
        return entry.node.value
    problems.append(error(entry.node.mark, "wrong-type", f"`{key}` expects the name of a base"))
    return None


def _without_own(node: Map) -> Map:
    return Map(node.mark, {key: entry for key, entry in node.entries.items() if key not in OWN_KEYS})


def _standing_for_a_policy(base: Map) -> Map:
    """Return a base as a policy of its own name, to read it when nobody extends it."""
    entries = dict(_without_own(base).entries)
    entries["policy"] = base.entries["base"]
    return Map(base.mark, entries)


def merge(under: Map, over: Map) -> Map:
    """Return one map of two: maps key by key, anything else from ``over``."""
    entries = dict(under.entries)
    for key, entry in over.entries.items():
        below = entries.get(key)
        if below is not None and isinstance(below.node, Map) and isinstance(entry.node, Map):
            entries[key] = Entry(entry.mark, merge(below.node, entry.node))
        else:
            entries[key] = entry
    return Map(over.mark, entries)
