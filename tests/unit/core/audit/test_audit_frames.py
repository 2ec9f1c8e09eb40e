"""The spool's bytes: what was written is read back, and damage costs no more than what it hit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.core.audit.frames import (
    FRAME_OVERHEAD,
    HEADER_BYTES,
    MAX_PAYLOAD_BYTES,
    SegmentHeader,
    decode_header,
    encode_frame,
    encode_header,
    scan,
)

HEADER = SegmentHeader(spool=bytes(range(16)), epoch=3, first_seq=700)
payloads = st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=300)), min_size=1, max_size=12)


def segment(frames: list[tuple[int, bytes]]) -> tuple[bytes, list[int]]:
    """Return the bytes of frames numbered from 1, and where each ends."""
    data, ends = b"", []
    for seq, (kind, payload) in enumerate(frames, 1):
        data += encode_frame(kind, seq, payload)
        ends.append(len(data))
    return data, ends


def test_header_returns_what_was_put_in() -> None:
    """Identity and numbering of a spool live in its headers alone."""
    assert HEADER == decode_header(encode_header(HEADER) + b"frames")


def test_any_flipped_bit_in_a_header_is_noticed() -> None:
    """A header that lies would give rows to another sidecar."""
    good = encode_header(HEADER)
    for position in range(HEADER_BYTES):
        bad = bytearray(good)
        bad[position] ^= 0x10
        assert decode_header(bytes(bad)) is None


@given(payloads)
def test_frames_survive_a_round_trip(frames: list[tuple[int, bytes]]) -> None:
    """What is appended is what is recovered."""
    data, _ = segment(frames)
    found = scan(data, is_final=True)

    assert [(kind, seq, payload) for seq, (kind, payload) in enumerate(frames, 1)] == [
        (frame.kind, frame.seq, frame.payload) for frame in found.frames
    ]
    assert (len(data), 0, 0) == (found.consumed, found.damaged, found.torn_bytes)


@given(payloads, st.data())
def test_cut_anywhere_leaves_the_exact_prefix(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """A torn write costs the frame it tore and no other (AU-07)."""
    whole, ends = segment(frames)
    cut = data.draw(st.integers(0, len(whole)))
    found = scan(whole[:cut], is_final=True)
    complete = sum(end <= cut for end in ends)

    assert complete == len(found.frames)
    assert found.consumed == (ends[complete - 1] if complete else 0)


@given(payloads, st.integers(0, 5000))
def test_zeros_set_aside_after_the_last_frame_are_no_damage(frames: list[tuple[int, bytes]], zeros: int) -> None:
    """Room is set aside on disk before it is used; a killed process leaves it behind."""
    data, _ = segment(frames)
    found = scan(data + bytes(zeros), is_final=True)

    assert (len(frames), len(data), 0, 0) == (len(found.frames), found.consumed, found.damaged, found.torn_bytes)


@given(payloads, st.data())
def test_damage_in_one_frame_spares_all_others(frames: list[tuple[int, bytes]], data: st.DataObject) -> None:
    """A bad sector must not take the rest of the segment with it."""
    whole, ends = segment(frames)
    hit = data.draw(st.integers(0, len(frames) - 1))
    start = ends[hit - 1] if hit else 0
    position = data.draw(st.integers(start, ends[hit] - 1))
    bad = bytearray(whole)
    bad[position] ^= 0xFF
    found = scan(bytes(bad), is_final=True)

    assert [seq for seq in range(1, len(frames) + 1) if seq != hit + 1] == [frame.seq for frame in found.frames]
    assert (found.damaged == 1) or (found.torn_bytes > 0 and hit == len(frames) - 1)


@given(payloads, st.integers(1, 60))
def test_reading_in_pieces_equals_reading_at_once(frames: list[tuple[int, bytes]], step: int) -> None:
    """The reader sees a segment through a window; where the window ends must not matter."""
    whole, _ = segment(frames)
    seqs: list[int] = []
    position, window = 0, step
    while position < len(whole):
        piece = whole[position : position + window]
        is_final = position + len(piece) >= len(whole)
        found = scan(piece, is_final=is_final)
        seqs += [frame.seq for frame in found.frames]
        position += found.consumed
        window = window + step if not found.consumed else step

    assert list(range(1, len(frames) + 1)) == seqs


def test_length_beyond_the_cap_is_damage_not_an_allocation() -> None:
    """A wild length must not make us wait for, or allocate, gigabytes."""
    wild = (MAX_PAYLOAD_BYTES + 1).to_bytes(4, "little") + bytes(FRAME_OVERHEAD - 5) + b"\x01"
    after = encode_frame(2, 9, b"safe")
    found = scan(wild + after, is_final=False)

    assert [9] == [frame.seq for frame in found.frames]
    assert 1 == found.damaged


@given(st.binary(max_size=2000), payloads)
def test_noise_before_frames_is_passed_over(noise: bytes, frames: list[tuple[int, bytes]]) -> None:
    """Recovery never crashes and never loses what follows, whatever the disk returns."""
    data, _ = segment(frames)
    found = scan(noise + data, is_final=True)

    assert len(frames) <= len(found.frames)
    assert list(range(1, len(frames) + 1)) == [frame.seq for frame in found.frames][-len(frames) :]
