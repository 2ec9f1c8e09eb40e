"""What is said of a source of callers' keys while the last good ones stay in force."""

from __future__ import annotations

from proxy.flow.key_source import KeySource


def test_what_was_never_read_well_has_failed() -> None:
    """Nobody is let in by it."""
    source = KeySource()
    source.bad("OSError: No such file or directory")

    assert ("failed", "no key is in force: OSError: No such file or directory", {"keys": 0}) == source.row(5.0)


def test_trouble_after_a_good_look_degrades_and_ends_with_the_next_good_one() -> None:
    """The count of what was refused stays, for rates."""
    source = KeySource(every_s=300.0)
    source.good(3, 10.0)
    source.bad("the issuer answers 503")

    assert ("degraded", "the last good keys stay: the issuer answers 503", {"keys": 3, "age_s": 20.0}) == source.row(
        30.0
    )
    source.good(2, 40.0)
    assert (("ok", "", {"keys": 2, "age_s": 0.0}), 1) == (source.row(40.0), source.refused)


def test_keys_that_nobody_refreshes_are_stale() -> None:
    """A fetch that never comes back makes no error."""
    source = KeySource(every_s=300.0)
    source.good(1, 0.0)

    assert ["ok", "degraded"] == [source.row(at_s)[0] for at_s in (899.0, 901.0)]
    changes_only = KeySource()
    changes_only.good(1, 0.0)
    assert "ok" == changes_only.row(1e6)[0]
