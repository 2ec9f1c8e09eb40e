"""A pin holds for one state of the policy folder, over restarts, and for no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from proxy.core.policy.revisions import Activation, Pin
from proxy.flow.catalog import Catalog
from proxy.flow.policy_life import PolicyLife
from proxy.sources.policy_history import PolicyHistory

REVISION = "a" * 12


def life_of(history: PolicyHistory) -> PolicyLife:
    nobody = cast("Any", None)
    return PolicyLife(Catalog({}), history, nobody, nobody, lambda: 0, nobody)


@pytest.fixture
def history(tmp_path: Path) -> PolicyHistory:
    found = PolicyHistory(tmp_path)
    found.record(REVISION, [("x.yaml", "policy: x\n")], [], Activation(1, "folder", ""))
    found.pin(Pin(REVISION, "then", "ana", "why"))
    return found


def test_the_same_folder_finds_its_pin_again(history: PolicyHistory) -> None:
    """A restart must not undo a rollback."""
    found = life_of(history).remembered("then")

    assert found is not None
    assert (REVISION, "ana") == (found[0].revision, found[1].by)


def test_a_folder_that_changed_meanwhile_ends_the_pin_for_good(history: PolicyHistory) -> None:
    """Also when it later holds the same again: nobody pinned it then."""
    assert life_of(history).remembered("now") is None
    assert life_of(history).remembered("then") is None


def test_a_pin_on_a_revision_that_is_gone_is_over(history: PolicyHistory) -> None:
    """The folder's own policies are put in force instead of none."""
    (history.folder / f"{REVISION}.json").unlink()

    assert life_of(history).remembered("then") is None
    assert history.pinned() is None
