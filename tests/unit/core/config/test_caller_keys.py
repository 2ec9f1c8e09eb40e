"""The caller keys' file: what it says, and what rotating and revoking do to it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.config.caller_keys import (
    KeyRecord,
    KeyState,
    parse_caller_keys,
    render_caller_keys,
    revoked,
    rotated,
    written,
)

NOW_S = 1_795_000_000.0
DAY_S = 86_400.0


def record(number: int, name: str = "shop", expires_s: float | None = None) -> KeyRecord:
    digest = hashlib.sha256(str(number).encode()).hexdigest()
    return KeyRecord(name, "shop", digest, written(NOW_S), None if expires_s is None else written(expires_s))


moments = st.none() | st.integers(0, 4_000_000_000).map(written)
records = st.builds(
    KeyRecord,
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    st.from_regex(r"[a-z][a-z0-9-]{0,20}", fullmatch=True),
    st.binary(min_size=32, max_size=32).map(bytes.hex),
    st.integers(0, 4_000_000_000).map(written),
    moments,
    moments,
)


@given(st.lists(records, unique_by=lambda key: key.sha256, max_size=5))
def test_what_is_written_is_what_is_read(keys: list[KeyRecord]) -> None:
    """A rotation that loses a key locks an app out."""
    result = parse_caller_keys(render_caller_keys(keys), "callers.yaml")

    assert (tuple(keys), ()) == (result.keys, result.problems)


def test_rotation_keeps_the_old_key_for_the_overlap_and_no_longer() -> None:
    """Both open the door while apps change over."""
    old, new = rotated((record(1),), record(2), NOW_S, DAY_S)

    assert (KeyState.EXPIRING, KeyState.ACTIVE) == (old.state(NOW_S + DAY_S - 1), new.state(NOW_S + DAY_S))
    assert KeyState.EXPIRED is old.state(NOW_S + DAY_S)


def test_rotation_never_gives_an_old_key_more_time() -> None:
    """A key that ends in an hour does not gain a day by being replaced."""
    old = record(1, expires_s=NOW_S + 3600)

    assert old == rotated((old,), record(2), NOW_S, DAY_S)[0]


def test_revoking_touches_its_name_or_its_id_alone() -> None:
    """A typo in a name must not lock others out."""
    keys = (record(1), record(2), record(3, "other"))

    assert [True, True, False] == [key.revoked is not None for key in revoked(keys, "shop", NOW_S)]
    assert [False, True, False] == [key.revoked is not None for key in revoked(keys, "shop", NOW_S, keys[1].id)]
    assert KeyState.REVOKED is revoked(keys, "shop", NOW_S)[0].state(NOW_S)


ENTRY = f'{{name: a, app: b, created: "2026-11-21T00:00:00Z", sha256: "{"a" * 64}"}}'


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("version: 1\nkeys: [{name: a}]\n", "missing-key"),
        (f"version: 1\nkeys: [{ENTRY}, {ENTRY}]\n", "duplicate-caller"),
        ("version: 1\nkeys: [" + ENTRY.replace("T00:00:00Z", "") + "]\n", "bad-value"),
        ("version: 1\nkeys: [" + ENTRY.replace("name", "nmae") + "]\n", "unknown-key"),
        ("version: 1\nkeys: [" + ENTRY.replace("a" * 64, "sk-live") + "]\n", "bad-value"),
        ("", "empty-file"),
    ],
)
def test_a_mistake_refuses_the_file_whole(text: str, code: str) -> None:
    """Half a list of keys is worse than yesterday's."""
    result = parse_caller_keys(text, "callers.yaml")

    assert result.keys is None
    assert code in {problem.code for problem in result.problems}
    assert "sk-live" not in str(result.problems)
