"""The tables, indexed for the scan: shape -> kinds, digit count -> kinds, label -> kinds.

Owns which kinds exist. Knows no text; built once per detector.
"""

from __future__ import annotations

from typing import NamedTuple

from proxy.core.redaction.detect.kinds import CustomType, Kind
from proxy.core.redaction.detect.labels import NEGATIVE
from proxy.core.redaction.detect.tables import americas, asia, brazil, europe, general, opt_in, tongues
from proxy.core.redaction.detect.tables.negative import NEGATIVE_WORDS
from proxy.core.redaction.detect.validators import VALIDATORS, Validator
from proxy.terms.redaction import Action, DirectionPlan

ALL_KINDS: tuple[Kind, ...] = tuple(
    row._replace(labels=(*row.labels, *tongues.LABELS.get(row.name, ())))
    for table in (general, brazil, americas, europe, asia, opt_in)
    for row in table.KINDS
)
KIND_BY_NAME: dict[str, Kind] = {kind.name: kind for kind in ALL_KINDS}
KNOWN_KINDS: frozenset[str] = frozenset(KIND_BY_NAME)
OPT_IN_KINDS: frozenset[str] = frozenset(kind.name for kind in opt_in.KINDS)
"""Looked for only where a rule names them; a default action does not reach them."""
DEFAULT_KINDS: frozenset[str] = KNOWN_KINDS - OPT_IN_KINDS


class Rule(NamedTuple):
    """A kind's row, ready for the scan."""

    name: str
    priority: int
    check: Validator | None
    loose: Validator | None


class Catalog(NamedTuple):
    """Everything the scan looks up; keys of the shape maps are bytes."""

    rules: dict[str, Rule]
    strong: dict[bytes, tuple[Rule, ...]]
    soft: dict[bytes, tuple[Rule, ...]]
    labelled: dict[bytes, tuple[Rule, ...]]
    counted: dict[int, tuple[Rule, ...]]
    labels: dict[str, set[str]]


def build_catalog(kinds: frozenset[str], custom: tuple[CustomType, ...] = ()) -> Catalog:
    """Index the rows of the kinds named; labels of the others stay, for a label that names them is evidence too."""
    rules: dict[str, Rule] = {}
    shapes: tuple[dict[bytes, list[Rule]], ...] = ({}, {}, {})
    counted: dict[int, list[Rule]] = {}
    labels: dict[str, set[str]] = {}
    for row in ALL_KINDS:
        if row.name in OPT_IN_KINDS:
            continue
        for label in row.labels:
            labels.setdefault(label, set()).add(row.name)
        if row.name not in kinds:
            continue
        check = VALIDATORS[row.check] if row.check else None
        rule = rules[row.name] = Rule(row.name, row.priority, check, VALIDATORS[row.loose] if row.loose else check)
        for index, names in zip(shapes, (row.strong, row.soft, row.labelled), strict=True):
            for shape in names:
                index.setdefault(shape.encode(), []).append(rule)
        for count in row.counts:
            counted.setdefault(count, []).append(rule)
    for own in custom:
        for label in own.labels:
            labels.setdefault(label, set()).add(own.name)
    for word in (*NEGATIVE_WORDS, *tongues.NEGATIVE_WORDS):
        labels.setdefault(word, set()).add(NEGATIVE)
    strong, soft, labelled = [{k: tuple(v) for k, v in index.items()} for index in shapes]
    return Catalog(rules, strong, soft, labelled, {k: tuple(v) for k, v in counted.items()}, labels)


def kinds_of(plan: DirectionPlan) -> frozenset[str]:
    """Return the built-in kinds a plan looks for: the usual ones it does not switch off, and what its rules name."""
    asked = DEFAULT_KINDS | (OPT_IN_KINDS & plan.actions.keys())
    return frozenset(kind for kind in asked if plan.action_for(kind) is not Action.OFF)
