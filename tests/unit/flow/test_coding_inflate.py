"""Undoing content codings within bounds."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.flow.coding import Inflater, InflateTooLarge, is_inflatable


def _raw_deflate(data: bytes) -> bytes:
    engine = zlib.compressobj(wbits=-15)
    return engine.compress(data) + engine.flush()


PACKERS = {b"gzip": gzip.compress, b"x-gzip": gzip.compress, b"deflate": zlib.compress}


@given(
    data=st.binary(max_size=300),
    cuts=st.lists(st.integers(0, 400), max_size=5),
    coding=st.sampled_from(sorted(PACKERS)),
    members=st.integers(1, 3),
)
def test_any_split_inflates_alike(data: bytes, cuts: list[int], coding: bytes, members: int) -> None:
    """The provider cuts where it likes; gzip may come in several members."""
    members = 1 if coding == b"deflate" else members
    packed = b"".join(PACKERS[coding](data) for _ in range(members))
    places = [0, *sorted(min(at, len(packed)) for at in cuts), len(packed)]
    inflater = Inflater(coding)

    assert data * members == b"".join(inflater.feed(packed[a:b]) for a, b in pairwise(places))


def test_raw_deflate_is_understood() -> None:
    """By the book it is zlib; in the wild it is often not."""
    assert b"hello" * 9 == Inflater(b"deflate").feed(_raw_deflate(b"hello" * 9))


@pytest.mark.parametrize(
    ("coding", "known"),
    [(b"gzip", True), (b" GZIP ", True), (b"deflate", True), (b"br", False), (b"zstd", False), (b"gzip, br", False)],
)
def test_known_codings(coding: bytes, known: bool) -> None:
    """Anything else is left as it is."""
    assert known == is_inflatable(coding)


def test_body_beyond_its_limit_is_stopped() -> None:
    """A bound in bytes for whole answers."""
    with pytest.raises(InflateTooLarge):
        Inflater(b"gzip", 1000).feed(gzip.compress(b"x" * 1001))
    assert 1000 == len(Inflater(b"gzip", 1000).feed(gzip.compress(b"x" * 1000)))


def test_bomb_is_stopped_before_it_has_gone_off() -> None:
    """300 MiB of nothing in 300 KiB: stopped soon after the first 8 MiB (UF-17)."""
    bomb = gzip.compress(bytes(64 * 1024 * 1024))
    inflater = Inflater(b"gzip")

    with pytest.raises(InflateTooLarge):
        inflater.feed(bomb)


def test_garbage_is_an_error() -> None:
    """Mislabelled bodies are not guessed at."""
    with pytest.raises(zlib.error):
        Inflater(b"gzip").feed(b"not gzip at all")
