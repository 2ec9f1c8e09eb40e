"""policies/*.yaml texts -> PolicySet, or everything that is wrong with them.

Owns the checks across files and the revision. Reads no file; the last good set is for ``flow`` to keep.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from proxy.core.config.language import in_words_of
from proxy.core.config.problem import Mark, Problem, error, has_errors, in_order
from proxy.core.config.schema import Section
from proxy.core.config.settings import Settings
from proxy.core.config.yaml_text import Node, canonical
from proxy.core.policy.access_checks import may_ask
from proxy.core.policy.applies import Applies, may_tie
from proxy.core.policy.checks import check_policy
from proxy.core.policy.compile import applies_of, compile_policy
from proxy.core.policy.globs import specificity
from proxy.core.policy.layers import layered
from proxy.core.policy.model import Policy
from proxy.core.policy.policy_set import PolicySet
from proxy.core.policy.policy_table import POLICY
from proxy.core.policy.rollout_table import agree_on_rollout
from proxy.core.policy.taking import is_readable, owners_of, routes_for

_NOT_MEANT = frozenset({"version", "rollout"})


@dataclass(frozen=True, slots=True)
class PolicyResult:
    """What became of the policy texts. ``policies`` is None exactly when one of the problems is an error."""

    policies: PolicySet | None
    problems: tuple[Problem, ...]


def parse_policies(
    files: Sequence[tuple[str, str]], settings: Settings, known_types: frozenset[str], everyday: Sequence[str] = ()
) -> PolicyResult:
    """Compile all policy files together and return the set or every problem, never only the first.

    Args:
        files: Name (for messages) and text of each file.
        settings: The config they refer to.
        known_types: Redaction types that exist, in upper case.
        everyday: Lines with nothing to redact, against which a policy's own types are tried; none: not tried.
    """
    layers = layered(files, settings.environment)
    problems = list(layers.problems)
    if layers.is_too_new:
        return PolicyResult(None, in_order(problems))
    tops: list[tuple[str, Section]] = []
    meanings: list[object] = []
    for name, node in layers.policies:
        top = POLICY.read(node, "", problems)
        if isinstance(top, Section):
            tops.append((name, top))
            meanings.append(_meaning(node))
    owners = owners_of([top for _, top in tops], settings)
    for _, top in tops:
        problems += check_policy(top, settings, known_types, everyday, owners)
    for _, node in layers.others:
        top = POLICY.read(node, "", problems)
        if isinstance(top, Section):
            problems += check_policy(top, settings, known_types, owners=owners)
    if not files:
        text = "there is no policy"
        problems.append(error(Mark(str(settings.policies)), "no-policy", text, "add a file such as default.yaml"))
    problems += _across_files(tops)
    rollout, differing = agree_on_rollout(tops)
    problems += differing
    problems = [in_words_of(layers.edits.get(problem.file, ()), problem) for problem in problems]
    if has_errors(problems):
        return PolicyResult(None, in_order(problems))
    revision = revision_of(meanings)
    default = settings.default_provider
    policies = [
        compile_policy(
            top,
            name,
            revision,
            default if may_ask(top["access"], default, settings) else None,
            routes_for(top, owners),
        )
        for name, top in tops
    ]
    result = PolicyResult(PolicySet(_most_specific_first(policies), revision, rollout), in_order(problems))
    _let_go(owners, tops, meanings, layers.policies, layers.others)
    return result


def _let_go(*lists: list[Any]) -> None:
    """Drop what was read piece by piece: the trees of many files, dropped at once, give no other thread a turn for 10 ms."""
    for one in lists:
        while one:
            one.pop()


def _meaning(node: Node) -> object:
    """Return what a policy means: neither how it comes into force (``rollout``) nor the language's version is part of it."""
    plain = canonical(node)
    return {key: value for key, value in plain.items() if key not in _NOT_MEANT} if isinstance(plain, dict) else plain


def revision_of(meanings: list[object]) -> str:
    """Return 12 hex digits that change when, and only when, the policies mean something else."""
    texts = sorted(json.dumps(meaning, sort_keys=True, ensure_ascii=True) for meaning in meanings)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _most_specific_first(policies: list[Policy]) -> tuple[Policy, ...]:
    return tuple(sorted(policies, key=lambda p: max(specificity(app) for app in p.applies.apps), reverse=True))


def _across_files(tops: list[tuple[str, Section]]) -> list[Problem]:
    problems: list[Problem] = []
    names: dict[str, Mark] = {}
    rivals: list[tuple[Applies, Mark]] = []
    for _, top in tops:
        if top.is_good("policy"):
            name, mark = top["policy"], top.at("policy")
            if name in names:
                text = f"another policy is called {name} already: {names[name].file}:{names[name].line}"
                problems.append(error(mark, "duplicate-name", text, "give it another name"))
            names.setdefault(name, mark)
        section: Section = top["applies_to"]
        if not is_readable(section):
            continue
        applies = applies_of(section)
        at = _place_of(top, section)
        rival = next((place for other, place in rivals if may_tie(applies, other)), None)
        if rival is not None:
            text = f"some requests are claimed with equal right at {rival.file}:{rival.line}"
            hint = "make one of the two `applies_to` more specific"
            problems.append(error(at, "policy-tie", text, hint))
        rivals.append((applies, at))
    return problems


def _place_of(top: Section, section: Section) -> Mark:
    """Return where a policy says whose requests it decides, or where its name stands when it does not."""
    if section.is_written("apps") and len(section["apps"]):
        mark: Mark = section["apps"].marks[0]
        return mark
    return top.at("applies_to") if top.is_written("applies_to") else top.at("policy")
