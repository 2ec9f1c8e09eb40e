"""The versions of the language of ``policies/*.yaml``, and what each says otherwise than the one before.

Owns the list: a change that older files do not survive gets a version and a step here, never a second spelling in
``policy_table``. Steps name edits in a tree that may be wrong in any way; ``core/config/language`` carries them out.

Version 2: the action for types that are not looked for is `ignore`. It was "off", the only word of the language that had to be
quoted, because YAML readers take a bare off for false. And a route's `output_cap` is `max_output_tokens`, named like every other
upper limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from proxy.core.config.language import CannotRewrite, Edit, Language, Rename, Reword, Step, rewritten, version_of
from proxy.core.config.yaml_text import Map, Node, Scalar, Sequence, canonical, parse_yaml


def _to_2(root: Map) -> Iterator[Edit]:
    overlays = _below(root, "overlays")
    parts = [root, *(entry.node for entry in overlays.entries.values())] if isinstance(overlays, Map) else [root]
    for part in parts:
        yield from _actions_to_2(_below(part, "redaction"))
        for route in _items(_below(part, "routes")):
            yield from _actions_to_2(_below(route, "redaction"))
            if isinstance(route, Map) and "output_cap" in route.entries:
                yield Rename(route.entries["output_cap"].mark, "output_cap", "max_output_tokens")


def _actions_to_2(redaction: Node | None) -> Iterator[Edit]:
    for direction in (_below(redaction, "request"), _below(redaction, "response")):
        places = [
            _below(direction, "default"),
            *(_below(rule, "action") for rule in _items(_below(direction, "rules"))),
        ]
        for place in places:
            if isinstance(place, Scalar) and place.value == "off":
                yield Reword(place.mark, "off", "ignore")


def _below(node: Node | None, key: str) -> Node | None:
    entry = node.entries.get(key) if isinstance(node, Map) else None
    return None if entry is None else entry.node


def _items(node: Node | None) -> list[Node]:
    return node.items if isinstance(node, Sequence) else []


POLICY_LANGUAGE: Final = Language(
    (Step('`ignore` instead of "off"; `max_output_tokens` instead of `output_cap`', _to_2),)
)


class Upgrade(NamedTuple):
    """A file as it is written in the current version."""

    text: str
    version: int
    """The version it was written in."""


def upgraded(text: str, file: str) -> Upgrade:
    """Return a policy file in the current version, with its comments and its layout; unchanged when it is in it already.

    Raises:
        CannotRewrite: It is no YAML that we read, or nothing we may change without a person.
    """
    root, problems = parse_yaml(text, file)
    version = None if root is None else version_of(root)
    if problems or not isinstance(root, Map) or version is None:
        raise CannotRewrite(str(problems[0]) if problems else f"{file} has no `version` that is a whole number")
    if not 1 <= version <= POLICY_LANGUAGE.current:
        raise CannotRewrite(f"{file} is in version {version}; this release knows 1 to {POLICY_LANGUAGE.current}")
    tree, edits = POLICY_LANGUAGE.read(root, problems)
    if problems:
        raise CannotRewrite(str(problems[0]))
    if not edits:
        return Upgrade(text, version)
    made = rewritten(text, edits)
    again, found = parse_yaml(made, file)
    if found or again is None or canonical(again) != canonical(tree):
        raise CannotRewrite(f"{file} would not mean the same")
    return Upgrade(made, version)
