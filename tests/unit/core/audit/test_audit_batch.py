"""When rows are sent, and how patiently a store that is away is asked again."""

from __future__ import annotations

from proxy.core.audit.batch import backoff_s, is_ripe


def test_batch_is_ripe_by_rows_or_by_age() -> None:
    """Busy sidecars send big batches, quiet ones do not keep a row waiting."""
    assert is_ripe(rows=500, age_s=0.0, max_rows=500, max_age_s=0.5)
    assert is_ripe(rows=1, age_s=0.5, max_rows=500, max_age_s=0.5)
    assert not is_ripe(rows=499, age_s=0.4, max_rows=500, max_age_s=0.5)
    assert not is_ripe(rows=0, age_s=99.0, max_rows=500, max_age_s=0.5)


def test_backoff_doubles_up_to_its_ceiling_and_jitter_only_shortens() -> None:
    """Hundreds of sidecars must not meet a recovering database in step."""
    waits = [backoff_s(failures, first_s=0.25, max_s=15.0, jitter=0.0) for failures in range(1, 9)]

    assert [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0] == waits
    assert 7.5 < backoff_s(5000, first_s=0.25, max_s=15.0, jitter=0.999) < 15.0
