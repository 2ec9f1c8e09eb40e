"""Revisions that were in force stay at hand, and come back whole."""

from __future__ import annotations

from pathlib import Path

from proxy.core.policy.revisions import Activation, Pin
from proxy.sources.policy_history import PolicyHistory, restore_texts

A, B = "a" * 12, "b" * 12


def put(history: PolicyHistory, revision: str, at_ms: int, text: str = "policy: x\n") -> None:
    history.record(revision, [("policies/x.yaml", text)], [], Activation(at_ms, "folder", ""))


def test_the_newest_revisions_are_kept_and_older_ones_go(tmp_path: Path) -> None:
    """The folder is bounded however often policies change."""
    history = PolicyHistory(tmp_path / "kept", max_revisions=3)
    names = [f"{number:012x}" for number in range(6)]

    for at_ms, name in enumerate(names):
        put(history, name, at_ms)

    assert names[:2:-1] == [one.revision for one in history.all()]


def test_a_restart_with_the_same_revision_is_no_new_event(tmp_path: Path) -> None:
    """The list tells of changes, not of starts."""
    history = PolicyHistory(tmp_path)

    for at_ms, revision in enumerate((A, A, B, A)):
        put(history, revision, at_ms)

    assert {A: [0, 3], B: [2]} == {one.revision: [time.at_ms for time in one.times] for one in history.all()}


def test_an_announced_change_carries_its_name_and_reason(tmp_path: Path) -> None:
    """Who rolled back and why is in the list; the next edit has no claim to it."""
    history = PolicyHistory(tmp_path)
    put(history, A, 1)
    history.announce(B, "ana", "too strict")

    put(history, B, 2)
    put(history, A, 3)

    times = {one.revision: one.times[-1] for one in history.all()}
    assert Activation(2, "ana", "too strict") == times[B]
    assert Activation(3, "folder", "") == times[A]


def test_a_damaged_file_counts_as_absent(tmp_path: Path) -> None:
    """One bad file must not take the history or the start with it."""
    history = PolicyHistory(tmp_path)
    put(history, A, 1)
    put(history, B, 2)
    (tmp_path / f"{B}.json").write_text('{"revision": "')

    assert [A] == [one.revision for one in history.all()]


def test_names_of_revisions_reach_no_other_file(tmp_path: Path) -> None:
    """The name comes from a caller of the admin API."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "secret.json").write_text("{}")

    assert PolicyHistory(tmp_path / "kept").find("../secret") is None


def test_a_pin_outlives_the_process(tmp_path: Path) -> None:
    """A rollback must not be undone by a restart."""
    PolicyHistory(tmp_path).pin(Pin(A, "digest", "ana", "why"))

    assert Pin(A, "digest", "ana", "why") == PolicyHistory(tmp_path).pinned()


def test_restoring_brings_the_folder_back_to_what_it_was(tmp_path: Path) -> None:
    """Changed files are replaced, later ones go, and what is not policy stays."""
    history = PolicyHistory(tmp_path / "kept")
    folder = tmp_path / "policies"
    folder.mkdir()
    history.record(A, [("p/x.yaml", "x: 1\n")], [("p/x.cases.yaml", "c: 1\n")], Activation(1, "folder", ""))
    (folder / "x.yaml").write_text("x: 2\n")
    (folder / "later.yaml").write_text("y: 1\n")
    (folder / "notes.md").write_text("keep me")
    kept = history.find(A)
    assert kept is not None

    assert ["later.yaml", "x.cases.yaml", "x.yaml"] == restore_texts(folder, kept)
    assert {"x.yaml", "x.cases.yaml", "notes.md"} == {path.name for path in folder.iterdir()}
    assert "x: 1\n" == (folder / "x.yaml").read_text()
