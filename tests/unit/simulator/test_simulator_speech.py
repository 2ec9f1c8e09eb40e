"""Texts, their pieces, event writing, codings, forms, websocket frames and the journal's bounds."""

import gzip
import json
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.simulator.answers import Event, Kind, json_string, write_events
from proxy.simulator.codings import coder_for
from proxy.simulator.forms import read_form
from proxy.simulator.journal import Journal
from proxy.simulator.settings import Speech
from proxy.simulator.text import Prompt, answer_text, cut_pieces, default_text, read_messages, sample_of
from proxy.simulator.websocket import BINARY, TEXT, FrameReader, ProtocolViolation, write_frame


@given(st.text(), st.integers(0, 5))
def test_pieces_join_to_the_text(text: str, chars: int) -> None:
    """Echo is exact however it is cut."""
    assert text == "".join(cut_pieces(text, chars, utf16=False))


@given(st.text(), st.integers(1, 3))
def test_utf16_pieces_join_to_the_text_and_are_json(text: str, chars: int) -> None:
    """Half emojis travel as escapes and meet again at the other end."""
    pieces = [json.loads(json_string(piece)) for piece in cut_pieces(text, chars, utf16=True)]

    assert text == "".join(pieces).encode("utf-16-le", "surrogatepass").decode("utf-16-le")


def test_default_texts_of_two_voices_never_begin_alike() -> None:
    """A rescue must be able to meet a target that says something else."""
    first, second = default_text(30), default_text(30, voice=1)

    assert first.split()[0] != second.split()[0]
    assert 30 == len(first.split()) == len(second.split())


def test_prefill_is_continued_when_it_fits() -> None:
    """Otherwise the whole text is said again."""
    assert " three" == answer_text(Prompt("echo: one two three", "one two"), "")
    assert "one two three" == answer_text(Prompt("echo: one two three", "uno"), "")


def test_prompt_is_the_last_user_message_without_its_marker() -> None:
    """Parts are joined, marks removed, strangers passed over."""
    parts = [{"type": "text", "text": "[[sim stall]] echo: "}, {"type": "image_url"}, {"type": "text", "text": "x"}]
    prompt = read_messages([{"role": "user", "content": "old"}, 7, {"role": "user", "content": parts}])

    assert "echo: x" == prompt.last_user


def test_schema_sample_has_the_types_asked_for() -> None:
    """Structured output parses at the client."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"enum": ["x"]}, "c": {"type": "array"}}}

    assert {"a": 1, "b": "x", "c": [{}]} == sample_of(schema)


@pytest.mark.parametrize(
    ("speech", "written"),
    [
        (Speech(), b'event: e\ndata: {"a":1,"b":2}\n\n'),
        (Speech(eol="crlf"), b'event: e\r\ndata: {"a":1,"b":2}\r\n\r\n'),
        (Speech(eol="cr", nospace=True), b'event:e\rdata:{"a":1,"b":2}\r\r'),
        (Speech(comments=True, tight_end=True), b': ping 0\nevent: e\ndata: {"a":1,"b":2}\n'),
        (Speech(multiline=True, bom=True), b'\xef\xbb\xbfevent: e\ndata: {"a":1,\ndata: "b":2}\n\n'),
    ],
)
def test_event_is_written_in_the_dialect_told(speech: Speech, written: bytes) -> None:
    """Every dialect the standard allows (UF-24)."""
    assert [written] == write_events([Event(b'{"a":1,"b":2}', Kind.CONTENT, "e")], speech)


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_coded_pieces_decode_to_the_whole(pieces: list[bytes]) -> None:
    """Flushed per piece, readable as one."""
    for name, decode in (("gzip", gzip.decompress), ("deflate", zlib.decompress)):
        coder = coder_for(name)
        assert coder is not None
        assert b"".join(pieces) == decode(b"".join([coder.piece(piece) for piece in pieces]) + coder.end())


def test_zstd_is_a_frame_of_raw_blocks() -> None:
    """Magic, single segment with a four-byte size, one last raw block."""
    coder = coder_for("zstd")
    assert coder is not None
    frame = coder.whole(b"hello")

    assert b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", 5) == frame[:9]
    assert struct.pack("<I", 5 << 3 | 1)[:3] + b"hello" == frame[9:]


@given(st.binary(max_size=500))
def test_form_content_survives_any_bytes(content: bytes) -> None:
    """Uploads are compared byte for byte."""
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + content + b"\r\n--b--\r\n"
    form = read_form("multipart/form-data; boundary=b", body)

    if b"\r\n--b" not in b"\r\n" + content:
        assert form is not None
        assert content == form["file"].content


def masked(opcode: int, payload: bytes, is_final: bool = True) -> bytes:
    frame = write_frame(opcode, payload)
    mask = b"\x01\x02\x03\x04"
    head = len(frame) - len(payload)
    body = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
    return bytes([frame[0] & (0xFF if is_final else 0x7F), frame[1] | 0x80]) + frame[2:head] + mask + body


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=5), st.integers(1, 50))
def test_frames_are_read_from_any_split(payloads: list[bytes], step: int) -> None:
    """Codec: any cut of the bytes gives the same messages."""
    data = b"".join(masked(BINARY, payload) for payload in payloads)
    reader = FrameReader()
    got = [message.payload for at in range(0, len(data), step) for message in reader.feed(data[at : at + step])]

    assert payloads == got


def test_fragments_join_around_a_ping() -> None:
    """Control frames may come between fragments."""
    reader = FrameReader()
    got = reader.feed(masked(TEXT, b"he", is_final=False) + masked(9, b"p") + masked(0, b"llo"))

    assert [(9, b"p"), (TEXT, b"hello")] == [(message.opcode, message.payload) for message in got]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (write_frame(TEXT, b"x"), 1002),
        (b"\xc1\x80....", 1002),
        (masked(0, b"x"), 1002),
        (b"\x82\xff" + b"\xff" * 8, 1009),
    ],
)
def test_broken_frames_name_their_close_code(data: bytes, code: int) -> None:
    """Unmasked, reserved bits, lone continuation, too large."""
    with pytest.raises(ProtocolViolation) as broken:
        FrameReader().feed(data)

    assert code == broken.value.code


def test_journal_forgets_the_oldest_bodies_first_but_keeps_their_digest() -> None:
    """Memory is bounded; the digest still joins the journals."""
    journal = Journal(max_entries=3, max_body_bytes=4, max_total_bytes=8)
    for body in (b"aaaa", b"bbbbbb", b"cccc", b"dddd"):
        entry = journal.begin(1, 0.0)
        journal.received(entry, body, 1.0)
        journal.end(entry, 2.0)

    assert [2, 3, 4] == [entry.number for entry in journal]
    assert [b"", b"cccc", b"dddd"] == [entry.body for entry in journal]
    assert 6 == journal[0].body_bytes
    assert 64 == len(journal[0].sha256)
