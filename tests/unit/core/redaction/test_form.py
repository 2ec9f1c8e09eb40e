"""Multipart uploads: what can be read in them is redacted, the rest stays byte for byte."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.redaction import Blocked, Redacted, Untouched
from proxy.core.redaction.form import redact_form
from proxy.terms.redaction import Action, FileTypes, Unscanned
from tests.unit.core.redaction.doubles import redactor

TYPE = b"multipart/form-data; boundary=cut"
MP3 = bytes(range(256)) * 4


def form(*parts: tuple[str, bytes]) -> bytes:
    """Return a form of (rest of the disposition and more head lines, content)."""
    return b"".join(
        b"--cut\r\nContent-Disposition: form-data; " + head.encode() + b"\r\n\r\n" + content + b"\r\n"
        for head, content in parts
    ) + b"--cut--\r\n"  # fmt: skip


def verdict(body: bytes, files: FileTypes = FileTypes.LINES, content_type: bytes = TYPE, **options: Any) -> Any:
    return redact_form(redactor(**options), body, content_type, files)


def test_text_fields_are_redacted_and_files_stay() -> None:
    """A transcription's prompt names people; its sound cannot be read."""
    body = form(('name="file"; filename="a.mp3"', MP3), ('name="prompt"', b"for ana@x.com"), ('name="n"', b"7"))
    result = verdict(body)

    assert isinstance(result, Redacted)
    assert body.replace(b"ana@x.com", b"[EMAIL-1]") == result.body
    assert "ana@x.com" == result.vault.restore_text("[EMAIL-1]")
    assert ({"EMAIL": 1}, len(MP3)) == (result.sanitized, result.unscanned_bytes)


def test_form_without_findings_goes_untouched() -> None:
    """Not a byte is changed without need."""
    result = verdict(form(('name="file"; filename="a.mp3"', MP3), ('name="prompt"', b"hello")))

    assert Untouched({}, None, len(MP3)) == result


def test_field_name_is_the_label_of_its_value() -> None:
    """Nobody writes "password:" into a field of that name."""
    result = verdict(form(('name="password"', b"hunter2!Xy")))

    assert b"\r\n\r\n[PASSWORD-1]\r\n" in result.body


def test_names_of_fields_and_files_are_read() -> None:
    """What stands in a part's head leaves the pod as well."""
    result = verdict(form(('name="f"; filename="cv bob@y.org.pdf"', MP3), ('name="ana@x.com"', b"1")))

    assert 2 == result.body.count(b"[EMAIL-")
    assert not [value for value in (b"ana@x.com", b"bob@y.org") if value in result.body]


def test_lines_of_a_batch_are_walked() -> None:
    """Each line is a request; values keep their placeholder over the lines."""
    lines = [
        {"custom_id": f"r{n}", "body": {"messages": [{"role": "user", "content": f"I am ana@x.com, {n}"}]}}
        for n in range(3)
    ]
    content = b"\n".join(json.dumps(line).encode() for line in lines) + b"\n"
    result = verdict(form(('name="purpose"', b"batch"), ('name="file"; filename="in.jsonl"', content)))
    rows = result.body.split(b"\r\n\r\n")[2].split(b"\n")[:3]

    assert [f"I am [EMAIL-1], {n}" for n in range(3)] == [
        json.loads(row)["body"]["messages"][0]["content"] for row in rows
    ]
    assert 0 == result.unscanned_bytes


def test_bytes_called_lines_stay_byte_for_byte_and_text_in_an_old_encoding_is_read() -> None:
    """Three megabytes of anything hold what looks like a value; a file must come back as it went."""
    noise = b"\x00\xff ana@x.com \x01"
    old = "João ana@x.com".encode("latin-1")
    body = form(('name="file"; filename="a.jsonl"', b"\n".join([noise, old, b"null", noise])))
    result = verdict(body)

    assert isinstance(result, Redacted)
    assert b"\n".join([noise, old.replace(b"ana@x.com", b"[EMAIL-1]"), b"null", noise]) in result.body
    assert ({"EMAIL": 1}, len(noise) * 2 + len(old) + 7) == (result.sanitized, result.unscanned_bytes)


def test_line_that_says_two_things_is_written_anew() -> None:
    """Parsers differ in which of two equal names they obey."""
    line = b'{"a":"bob@y.org","a":"nothing"}'
    result = verdict(form(('name="file"; filename="in.jsonl"', line + b"\nnot json ana@x.com")))

    assert b"bob" not in result.body
    assert b'{"a":"nothing"}\nnot json [EMAIL-1]' in result.body
    assert b"bob" not in verdict(form(('name="file"; filename="in.jsonl"', line))).body


@pytest.mark.parametrize(
    ("files", "read"), [(FileTypes.LINES, b"ana@x.com,1"), (FileTypes.TEXT, b"[EMAIL-1],1")], ids=["jsonl", "text"]
)
def test_files_of_text_are_read_when_policy_asks(files: FileTypes, read: bytes) -> None:
    """A table of customers is text, whatever it is uploaded as."""
    body = form(('name="file"; filename="people.csv"\r\nContent-Type: text/csv', b"ana@x.com,1"))
    result = verdict(body, files)

    assert read in (result.body if isinstance(result, Redacted) else body)


@pytest.mark.parametrize(
    "body",
    [
        form(('name="file"; filename="a.mp3"', MP3)),
        form(('name="t"\r\nContent-Transfer-Encoding: base64', b"YW5hQHguY29t")),
        form(('name="t"\r\nContent-Type: text/plain; charset=utf-16', "ana@x.com".encode("utf-16"))),
        form(('name="t"', b"\xff\xfe")),
        b"no form at all",
        form(('name="t"', b"x")).removesuffix(b"--\r\n"),
        b"--cut\r\nno head\r\n--cut--\r\n",
    ],
    ids=["file", "base64", "charset", "no utf-8", "no form", "no end", "no head"],
)
def test_what_cannot_be_read_is_counted_or_refused(body: bytes) -> None:
    """Policy decides what is to become of it."""
    counted, refused = verdict(body), verdict(body, unscanned=Unscanned.REFUSE)

    assert isinstance(counted, Untouched)
    assert counted.unscanned_bytes
    assert ("UNSCANNED",) == refused.kinds


def test_blocked_value_in_a_field_is_refused_by_its_place() -> None:
    """The caller is told where, never what."""
    result = verdict(form(('name="prompt"', b"4111 1111 1111 1111")), actions={"CREDIT_CARD": Action.BLOCK})

    assert isinstance(result, Blocked)
    assert "4111" not in repr(result)


def test_observing_policy_changes_nothing() -> None:
    """``mode: observe`` is for rollout."""
    result = verdict(form(('name="prompt"', b"ana@x.com")), observe_only=True, unscanned=Unscanned.REFUSE)

    assert ({"EMAIL": 1}, True) == (result.findings, isinstance(result, Untouched))


@pytest.mark.parametrize(
    "content_type", [b'Multipart/Form-Data; boundary="cut"', b"multipart/form-data; boundary=cut; x=y"]
)
def test_boundary_is_read_as_written(content_type: bytes) -> None:
    """Clients quote it or not."""
    assert b"[EMAIL-1]" in verdict(form(('name="p"', b"ana@x.com")), content_type=content_type).body


def test_json_under_the_label_of_a_form_is_read() -> None:
    """Servers look at a body and not at its label."""
    assert b'{"x":"[EMAIL-1]"}' == verdict(b'{"x":"ana@x.com"}').body
