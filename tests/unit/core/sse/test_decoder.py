"""The framing of event streams: any split, any line ending, every byte kept."""

import pytest

from proxy.core.sse import EventDecoder, EventTooLarge, encode


def decoded(*pieces: bytes, flush: bool = True) -> list[tuple[bytes, bytes | None]]:
    decoder = EventDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    if flush:
        events += decoder.flush()
    return [(event.name, event.data) for event in events if event.data is not None]


STREAM = (
    b"\xef\xbb\xbf: hello\n\n"
    b"event: one\r\nid: 7\r\nretry: 100\r\ndata: a\r\ndata:b\r\n\r\n"
    b'data: {"x":"\xc3\xa9"}\r\r'
    b": ping\n\n"
    b"data\n\n"
    b"data: last"
)


def test_all_line_endings_fields_and_a_missing_last_blank_line_are_read() -> None:
    """Providers mix all of these, and clients rely on them."""
    assert [
        (b"one", b"a\nb"),
        (b"", b'{"x":"\xc3\xa9"}'),
        (b"", b""),
        (b"", b"last"),
    ] == decoded(STREAM)


def test_every_split_in_two_gives_the_same_events_and_the_same_bytes() -> None:
    """A TCP read may end inside a line, a CRLF, the byte order mark or a character."""
    whole = decoded(STREAM)

    for at in range(len(STREAM) + 1):
        decoder = EventDecoder()
        events = decoder.feed(STREAM[:at]) + decoder.feed(STREAM[at:]) + decoder.flush()
        assert STREAM == b"".join(event.raw for event in events), at
        assert whole == [(event.name, event.data) for event in events if event.data is not None], at


def test_one_byte_at_a_time_gives_the_same_events() -> None:
    """The worst split there is."""
    assert decoded(STREAM) == decoded(*(STREAM[at : at + 1] for at in range(len(STREAM))))


def test_id_and_retry_are_kept() -> None:
    """A rewritten event must carry them on."""
    (event,) = EventDecoder().feed(b"id: 3\nretry: 10\ndata: x\n\n")

    assert (b"3", b"10", b"x") == (event.id, event.retry, event.data)


@pytest.mark.parametrize("ping", [b": ping\n", b"\n", b": a\n: b\r\n", b"\r\n"])
def test_keep_alive_between_events_is_given_out_at_once(ping: bytes) -> None:
    """Held back until the next event it would not keep anything alive."""
    decoder = EventDecoder()

    assert ping == b"".join(event.raw for event in decoder.feed(ping))
    assert decoder.is_idle


def test_event_larger_than_the_limit_is_refused_before_its_end() -> None:
    """Memory per stream is bounded, whatever the upstream sends."""
    decoder = EventDecoder(max_event_bytes=1000)

    for _ in range(10):
        decoder.feed(b"data: " + b"x" * 94)
    with pytest.raises(EventTooLarge):
        decoder.feed(b"x")


def test_large_event_in_one_read_is_refused_too() -> None:
    """The quick way through the decoder keeps the same limit."""
    with pytest.raises(EventTooLarge):
        EventDecoder(max_event_bytes=1000).feed(b"data: " + b"x" * 2000 + b"\n\n")


def test_event_of_one_megabyte_in_small_reads_is_fed_in_linear_time() -> None:
    """Searching again from the start for each read would take minutes here."""
    decoder = EventDecoder()
    piece = b"x" * 256

    decoder.feed(b"data: ")
    for _ in range(4000):
        assert [] == decoder.feed(piece)
    (event,) = decoder.feed(b"\n\n")

    assert 4000 * 256 == len(event.data or b"")


@pytest.mark.parametrize("text", [b"a\nb", b"a\r\nb", b"a\rb", b"x\n\ndata: forged\n\n", b"\n", b"a\xe2\x80\xa8b"])
def test_text_with_line_breaks_cannot_forge_an_event(text: bytes) -> None:
    """A restored value with a blank line inside must stay inside its event."""
    (event,) = EventDecoder().feed(encode(text, name=b"n", event_id=b"1\ndata: no"))

    assert text.replace(b"\r\n", b"\n").replace(b"\r", b"\n") == event.data
    assert (b"n", b"1data: no") == (event.name, event.id)
