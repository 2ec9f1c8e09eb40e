"""The text of signed records: what is signed can be read back, and nothing else is believed."""

from __future__ import annotations

import orjson

from proxy.core.audit.chain import Chain
from proxy.core.audit.payload import encode_begin
from proxy.core.audit.records import (
    Draft,
    Record,
    Skip,
    checkpoint,
    interrupted,
    read_body,
    runs,
    skipped,
)
from proxy.core.audit.row import Stamp, merge
from tests.support.audit import typical_exchange

WRITER = "11111111-2222-4333-8444-555555555555"


def signed(draft: Draft) -> Record:
    return draft.signed("a key", b"a signature")


def test_checkpoint_says_how_far_and_what_came_before() -> None:
    """Signatures are chained too: a checkpoint that is left out shows in the next one."""
    record = signed(checkpoint(Chain(WRITER, 3, 70, 35, b"\x01" * 32), 1000, "ab"))

    assert {
        "kind": "checkpoint", "writer": WRITER, "epoch": 3, "seq": 70, "ts": 1000, "position": 35, "hash": "01" * 32,
        "previous": "ab",
    } == read_body(record)  # fmt: skip


def test_lone_rows_are_listed_by_writer_and_epoch() -> None:
    """One record for each chain they belong to."""
    rows = [merge(encode_begin(typical_exchange(n)), None, Stamp(WRITER, n % 2, n)) for n in (1, 2, 3)]
    drafts = interrupted([row._replace(hash=b"\x02") for row in rows], 1000)

    assert [(1, 3), (0, 2)] == [(draft.epoch, draft.seq) for draft in drafts]
    assert [[rows[0].id, 1, "02"], [rows[2].id, 3, "02"]] == orjson.loads(drafts[0].body)["rows"]


def test_body_that_does_not_fit_its_columns_is_not_believed() -> None:
    """The columns are for finding a record; only the body is signed."""
    record = signed(skipped(Skip(WRITER, 1, 4, 6, 12, b"\x03"), 1000, "retention"))

    assert None is not read_body(record)
    assert None is read_body(record._replace(seq=13))
    assert None is read_body(record._replace(body="[]"))
    assert None is read_body(record._replace(body="{"))


def test_neighbouring_places_become_one_run() -> None:
    """A run names its first place, and the number and hash of its last."""
    places = [Skip(WRITER, 1, n, n, 2 * n, bytes((n,))) for n in (1, 2, 3, 5, 6)] + [Skip(WRITER, 2, 7, 7, 14, b"\x07")]

    assert [
        Skip(WRITER, 1, 1, 3, 6, b"\x03"), Skip(WRITER, 1, 5, 6, 12, b"\x06"), Skip(WRITER, 2, 7, 7, 14, b"\x07"),
    ] == runs(places)  # fmt: skip
