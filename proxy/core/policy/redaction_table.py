"""The keys of ``redaction`` in a policy and in a route: one row each, with meaning, default and example.

Owns what may be said of types, actions and what is left alone. Where these keys stand is ``policy_table``'s affair.
"""

from __future__ import annotations

import ipaddress

from proxy.core.config.kinds import Choice, Number, Text, duration
from proxy.core.config.schema import Key, ListOf, Table
from proxy.core.policy.custom_types import TYPES_KEY, parse_type
from proxy.terms.redaction import Action, FileTypes, Placeholders, StreamMode, Unscanned

_ANSWER_ACTIONS = tuple(action.value for action in Action if action is not Action.RESTORE)
_REFUSED = {"off": "is `ignore` since version 2 of the language"}
_ANSWER_REFUSED = {
    **_REFUSED,
    "restore": "has no sense for answers: nothing would ever be put back; `redact` leaves a mark, `hash` a name",
}


def _parse_domain(text: str) -> str:
    name = text.strip().lower().removeprefix("@").removeprefix("*.").rstrip(".")
    if "." not in name or "*" in name or "@" in name or " " in name:
        raise ValueError("a mail domain such as example.com; those below it are included")
    return name


def _parse_network(text: str) -> str:
    return str(ipaddress.ip_network(text.strip(), strict=False))


def _direction(name: str, doc: str, actions: tuple[str, ...], refused: dict[str, str], *more: Key) -> Table:
    rule = Table(
        "rule",
        "What is done with some types.",
        (
            Key("types", ListOf(Text("a type", parse_type), 1), "Which.", is_required=True, example="[email, cpf]"),
            Key("action", Choice(actions, refused), "What is done.", is_required=True, example=actions[0]),
            Key(
                "min_score",
                Number(0.0, 1.0, is_whole=False),
                "Findings of these types less certain are ignored; left out: the direction's.",
                None,
                "0.9",
            ),
        ),
    )
    allow = Table(
        "allow",
        "Values that are never touched.",
        (
            Key("values", ListOf(Text("a value")), "Exact values.", "[]", '["support@example.com"]'),
            Key(
                "patterns",
                ListOf(Text("an RE2 pattern"), max_items=100),
                "Patterns of whole values.",
                "[]",
                '["ORD-\\\\d{8}"]',
            ),
            Key(
                "domains",
                ListOf(Text("a mail domain", _parse_domain), max_items=1000),
                "Mail domains, those below them included.",
                "[]",
                '["example.com"]',
            ),
            Key(
                "networks",
                ListOf(Text("a network in CIDR form", _parse_network), max_items=1000),
                "Networks whose addresses may pass.",
                "[]",
                '["10.0.0.0/8"]',
            ),
        ),
    )
    score = Number(0.0, 1.0, is_whole=False)
    keys = [
        Key("default", Choice(actions, refused), "What is done with types that no rule names.", "ignore", actions[0]),
        Key("rules", ListOf(rule), "Exceptions from the default, by type.", "[]", "[{types: [cpf], action: observe}]"),
    ]
    keys.append(Key("allow", allow, "Values that are never touched.", "{}", '{values: ["support@example.com"]}'))
    keys.append(Key("min_score", score, "Findings less certain than this are ignored.", "0.0", "0.5"))
    return Table(name, doc, (*keys, *more))


_PLACEHOLDERS = Key(
    "placeholders",
    Choice(tuple(Placeholders)),
    "By order of appearance, or by the value itself: for applications that cut or reorder their histories.",
    "numbered",
    "keyed",
)
_KEEP_VALUES = Key(
    "keep_values",
    duration("1m", "30d"),
    "For how long values of a conversation are kept, sealed, in the budget store, so that placeholders of turns that only"
    " the provider still has become values again; makes placeholders keyed. Left out: an exchange forgets its values when"
    " it ends.",
    None,
    "24h",
)
_STREAM = Key(
    "stream",
    Choice(tuple(StreamMode)),
    "How long a streamed answer waits for a value that may be coming: about a word; not for plain words; until it is over.",
    "strict",
    "low_latency",
)


def _directions(default: str | None) -> tuple[Key, Key]:
    there, back = "On the way to the provider.", "On the way back: what the model itself writes."
    request = _direction("request", there, tuple(Action), _REFUSED, _PLACEHOLDERS, _KEEP_VALUES)
    response = _direction("response", back, _ANSWER_ACTIONS, _ANSWER_REFUSED, _STREAM)
    return (
        Key("request", request, there, default, "{default: restore}"),
        Key("response", response, back, default, "{default: redact}"),
    )


ROUTE_REDACTION = Table("redaction", "A direction given here stands in place of the policy's.", _directions(None))
"""A route's."""

REDACTION = Table(
    "redaction",
    "What is done with personal data and secrets.",
    (
        *_directions("{}"),
        Key(
            "files",
            Choice(tuple(FileTypes)),
            "Files of uploads that are read: JSON lines; files of text too.",
            "jsonl",
            "text",
        ),
        Key("unscanned", Choice(tuple(Unscanned)), "Content that cannot be read as text.", "pass", "refuse"),
        TYPES_KEY,
    ),
    homes={**dict.fromkeys(("default", "rules", "allow", "min_score"), "redaction.request"), "custom": "types"},
)
"""A policy's."""
