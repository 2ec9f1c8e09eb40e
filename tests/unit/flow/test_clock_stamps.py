"""Ids of exchanges: what RFC 9562 asks of a UUIDv7, made in blocks."""

from __future__ import annotations

import random
import uuid

from proxy.flow.clock import SystemClock


def test_ids_are_version_7_of_their_millisecond_and_never_alike() -> None:
    """More than a block of them, with dice of our own."""
    now_s = 1_760_000_000.123
    clock = SystemClock(lambda: 0.0, lambda: now_s, random.Random(7).randbytes)  # type: ignore[arg-type]

    stamps = [clock.stamp() for _ in range(1000)]
    ids = [uuid.UUID(text) for text, _ in stamps]

    assert [str(one) for one in ids] == [text for text, _ in stamps]
    assert {7} == {one.version for one in ids}
    assert {uuid.RFC_4122} == {one.variant for one in ids}
    assert {1_760_000_000_123} == {one.int >> 80 for one in ids} == {ms for _, ms in stamps}
    assert 1000 == len({text[15:18] + text[20:23] + text[24:] for text, _ in stamps})
    for place in (*range(15, 18), *range(20, 23), *range(24, 36)):
        assert 16 == len({text[place] for text, _ in stamps}), "each digit is drawn"
    assert set("89ab") == {text[19] for text, _ in stamps}
