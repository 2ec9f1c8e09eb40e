"""What differs between two revisions is told by key paths, not by lines."""

from __future__ import annotations

from proxy.core.policy.meaning import changes_between

SHOP = """version: 1
policy: shop
redaction: {request: {default: restore, rules: [{types: [cpf], action: redact}]}}
routes:
  - {name: fast, match: {models: ["fast"]}, chain: [{provider: one}]}
"""


def told(before: str, after: str) -> list[str]:
    return [str(change) for change in changes_between([("a.yaml", before)], [("a.yaml", after)], None)]


def test_comments_and_layout_change_nothing() -> None:
    """A reviewer should not have to read what cannot act."""
    after = "# our shop\n" + SHOP.replace("{default: restore, rules", "{ default:  restore , rules")

    assert [] == told(SHOP, after)


def test_a_changed_value_is_shown_where_it_stands() -> None:
    """The path says which rule of which policy it is."""
    after = SHOP.replace("action: redact", "action: block")

    assert ['~ shop.redaction.request.rules[cpf].action: "redact" -> "block"'] == told(SHOP, after)


def test_a_route_put_in_front_moves_no_other() -> None:
    """Items of lists are named by what they are called, not by their number."""
    after = SHOP.replace(
        "routes:\n", 'routes:\n  - {name: slow, match: {models: ["slow"]}, chain: [{provider: two}]}\n'
    )

    assert [
        '+ shop.routes[slow].chain[two].provider: "two"',
        '+ shop.routes[slow].match.models: ["slow"]',
        '+ shop.routes[slow].name: "slow"',
    ] == told(SHOP, after)
