"""Revisions that were in force stay at hand, and come back whole."""

from __future__ import annotations

import json
from pathlib import Path

from proxy.core.policy.revisions import Activation, Pin, Step
from proxy.core.policy.rollout import Remembered
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


# --- canaries


def activation(at_ms: int, step: Step = Step.IN_FORCE) -> Activation:
    return Activation(at_ms, "folder", "", step)


def test_what_became_of_a_canary_is_written_down(tmp_path: Path) -> None:
    """And a canary is not taken for a revision that was in force for everybody."""
    history = PolicyHistory(tmp_path)
    history.record("a" * 12, [("x.yaml", "1")], [], activation(1))
    history.record("b" * 12, [("x.yaml", "2")], [], activation(2, Step.CANARY))
    history.note("b" * 12, activation(3, Step.TAKEN_BACK))
    history.note("c" * 12, activation(4, Step.TAKEN_BACK))
    found = history.find("b" * 12)

    assert found is not None
    assert [Step.CANARY, Step.TAKEN_BACK] == [time.step for time in found.times]
    assert (False, "a" * 12) == (found.was_whole, history.last_whole())
    history.note("b" * 12, activation(5))
    assert "b" * 12 == history.last_whole()


def test_what_stands_behind_canaries_is_never_dropped(tmp_path: Path) -> None:
    """However many of them there were since: without it a restart would leave everybody to the canary."""
    history = PolicyHistory(tmp_path, max_revisions=3)
    history.record("a" * 12, [("x.yaml", "1")], [], activation(1))
    for number in range(6):
        history.record(f"{number:012d}", [("x.yaml", "2")], [], activation(2 + number, Step.CANARY))

    assert "a" * 12 == history.last_whole()
    assert 4 == len(history.all())


def test_history_of_an_earlier_release_is_read(tmp_path: Path) -> None:
    """It did not say what a revision became: all of them were in force for everybody."""
    plain = {"revision": "a" * 12, "files": [], "cases": [], "times": [{"at_ms": 1, "by": "folder", "why": ""}]}
    (tmp_path / f"{'a' * 12}.json").write_text(json.dumps(plain))

    assert "a" * 12 == PolicyHistory(tmp_path).last_whole()


def test_rollout_is_remembered_and_forgotten(tmp_path: Path) -> None:
    """What is damaged counts as absent, as everywhere in this folder."""
    history = PolicyHistory(tmp_path)
    memory = Remembered("b" * 12, "a" * 12, "plan", True, "errors", 1)
    assert history.rollout() is None
    history.keep_rollout(memory)
    assert memory == PolicyHistory(tmp_path).rollout()
    (tmp_path / "rollout.json").write_text("[]")
    assert history.rollout() is None
    history.keep_rollout(None)
    assert history.rollout() is None
    assert [] == history.all()
