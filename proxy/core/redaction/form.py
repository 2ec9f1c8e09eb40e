"""Multipart uploads: the text fields and the files of text in them, redacted; everything else as it came.

Owns the taking apart and putting together of ``multipart/form-data``. Lines of a JSONL file (batches, training data) are
walked like requests. Does not look for values itself: the request's redactor does, over one document made of the parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

from proxy.core.dialect import Dialect
from proxy.core.redaction.jsonio import dumps, loads
from proxy.core.redaction.request import (
    UNSCANNED_KIND,
    Blocked,
    Redacted,
    RequestRedactor,
    Unreadable,
    Untouched,
    Verdict,
    has_repeated_keys,
)
from proxy.core.redaction.vault import Vault
from proxy.terms.redaction import FileTypes

_BOUNDARY: Final = re.compile(rb'boundary=(?:"([^"\r\n]{1,200})"|([^;,\s"]{1,200}))', re.IGNORECASE)
_NAME: Final = re.compile(rb'[;\s]name=(?:"((?:[^"\\]|\\.)*)"|([^;\s]+))', re.IGNORECASE)
_FILENAME: Final = re.compile(rb"[;\s]filename\*?=([^;\r\n]*)", re.IGNORECASE)
_TYPE: Final = re.compile(
    rb"(?:^|\r\n)content-type:[ \t]*([^;\r\n]*)(?:;[^\r\n]*charset=\"?([^\";\r\n]*))?", re.IGNORECASE
)
_CODING: Final = re.compile(rb"(?:^|\r\n)content-transfer-encoding:[ \t]*([^\r\n]*)", re.IGNORECASE)
_PLAIN_CODINGS: Final = frozenset({b"", b"7bit", b"8bit", b"binary"})
_CHARSETS: Final = frozenset({b"", b"utf-8", b"utf8", b"us-ascii"})
_LINES: Final = (".jsonl", ".ndjson")
_LINE_TYPES: Final = frozenset({b"application/jsonl", b"application/x-jsonlines", b"application/x-ndjson"})
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0e-\x1f]")
"""Beside bytes that are no UTF-8 these make a line binary: text in an old encoding has none of them."""
_TEXTS: Final = (".txt", ".md", ".csv", ".tsv", ".json", ".xml", ".html", ".yaml", ".yml", ".log", ".srt", ".vtt")
_MAX_PARTS: Final = 1000
_HARMLESS: Final = re.compile(
    rb"(?i)content-disposition:[ \t]*(?:form-data|attachment)|content-type:[ \t]*[a-z]+/[a-z0-9.+-]+(?=[;\r])|content-length:[ \t]*[0-9]+"
)
"""What the heads of parts say everywhere."""


@dataclass(slots=True)
class Part:
    """One part of a form, and what it says where it can be read."""

    head: bytes
    """From behind the boundary to the blank line, both included."""
    content: bytes
    name: str
    filename: str | None = None
    """Without quotes; None for a field."""
    text: str | None = None
    lines: list[Any] | None = None
    """Of a JSONL file; a line that is no JSON stands as a string."""
    is_garbled: bool = False
    """Not all of it is UTF-8: what is, is read, and all of it counts as unread too."""


def redact_form(redactor: RequestRedactor, body: bytes, content_type: bytes, files: FileTypes) -> Verdict:
    """Decide what may leave in place of an upload.

    Args:
        redactor: The route's.
        body: All of it.
        content_type: Of the upload, with its boundary.
        files: Which files are read besides the fields.

    Raises:
        RedactionFault: A detector or the walk failed; nothing may leave.
    """
    found = _BOUNDARY.search(content_type)
    boundary = b"--" + (found[1] or found[2]) if found is not None else b""
    parts = _parts(body, boundary) if boundary else None
    if parts is None:
        return _mislabelled(redactor, body)
    for part in parts:
        _read(part, files)
    margin = _beside_names(redactor, parts)
    if margin is not None:
        return margin
    unscanned = [part for part in parts if part.is_garbled or (part.text is None and part.lines is None)]
    hidden_bytes = sum(len(part.content) for part in unscanned)
    if unscanned and redactor.refuses_unscanned:
        return Blocked((UNSCANNED_KIND,), tuple(part.name for part in unscanned))
    readable = [part for part in parts if part.text is not None or part.lines is not None]
    document: list[dict[str, Any]] = [
        *({part.name: part.lines if part.text is None else part.text} for part in readable),
        *({"filename": part.filename} for part in parts if part.filename),
    ]
    verdict = redactor.redact(dumps(document), Dialect.OTHER, document)
    if isinstance(verdict, (Blocked, Unreadable)):
        return verdict
    if isinstance(verdict, Untouched):
        verdict = replace(verdict, document=None, unscanned_bytes=verdict.unscanned_bytes + hidden_bytes)
        if redactor.is_observing or not any(part.lines and _is_ambiguous(part) for part in parts):
            return verdict
        verdict = Redacted(b"", document, Vault(), verdict.findings, {}, verdict.unscanned_bytes)
    else:
        verdict = replace(verdict, unscanned_bytes=verdict.unscanned_bytes + hidden_bytes)
    _write(readable, verdict.document)
    _rename([part for part in parts if part.filename], verdict.document[len(readable) :])
    whole = b"".join([boundary + part.head + part.content + b"\r\n" for part in parts]) + boundary + b"--\r\n"
    return replace(verdict, body=whole, document=None)


def _beside_names(redactor: RequestRedactor, parts: list[Part]) -> Verdict | None:
    """Refuse values in a part's head outside its names: nobody writes them there but to pass them by."""
    said = b"".join(
        [_HARMLESS.sub(b"", _FILENAME.sub(b"", _NAME.sub(b"", part.head, count=1), count=1)) for part in parts]
    )
    if not redactor.may_contain(said):
        return None
    verdict = redactor.redact(dumps([said.decode("utf-8", "replace")]), Dialect.OTHER)
    if isinstance(verdict, Redacted):
        return Unreadable("the head of a part holds more than names")
    return None if isinstance(verdict, Untouched) else verdict


def _mislabelled(redactor: RequestRedactor, body: bytes) -> Verdict:
    """Read what is no form as JSON: servers look at a body and not at its label."""
    try:
        loads(body)
    except ValueError:
        if redactor.refuses_unscanned:
            return Blocked((UNSCANNED_KIND,), ("the body",))
        if redactor.may_contain(body) and not redactor.is_observing:  # others may make a form of it where we cannot
            return Unreadable("the form is not well-formed")
        return Untouched(unscanned_bytes=len(body))
    return redactor.redact(body, Dialect.OTHER)


def _parts(body: bytes, boundary: bytes) -> list[Part] | None:
    """Return the parts of a form; None when it is none."""
    pieces = (b"\r\n" + body).split(b"\r\n" + boundary)
    if len(pieces) < 3 or len(pieces) > _MAX_PARTS or not pieces[-1].startswith(b"--"):
        return None
    if pieces[0].strip() or pieces[-1][2:].strip():  # words before the first part or behind the last
        return None
    parts: list[Part] = []
    for piece in pieces[1:-1]:
        head, blank, content = piece.partition(b"\r\n\r\n")
        name = _NAME.search(head)
        if not blank or name is None or not head.startswith(b"\r\n"):
            return None
        filename = _FILENAME.search(head)
        parts.append(
            Part(
                head + blank,
                content,
                (name[1] or name[2] or b"").decode("utf-8", "surrogateescape"),
                None if filename is None else filename[1].strip().strip(b'"').decode("utf-8", "surrogateescape"),
            )
        )
    return parts


def _read(part: Part, files: FileTypes) -> None:
    """Find out what a part says, where it can be read and policy wants it."""
    kind, coding = _TYPE.search(part.head), _CODING.search(part.head)
    charset = kind[2].strip().lower() if kind is not None and kind[2] else b""
    if charset not in _CHARSETS or (coding is not None and coding[1].strip().lower() not in _PLAIN_CODINGS):
        return
    media = kind[1].strip().lower() if kind is not None else b""
    name = (part.filename or "").lower()
    is_lines = name.endswith(_LINES) or media in _LINE_TYPES or _begins_lines(part)
    is_text = (
        part.filename is None or media.startswith(b"text/") or media == b"application/json" or name.endswith(_TEXTS)
    )
    if part.filename is not None and not is_lines and (files is FileTypes.LINES or not is_text):
        return
    if is_lines:
        part.lines = [_line(line) for line in part.content.split(b"\n")]
    else:
        part.text = part.content.decode("utf-8", "surrogateescape")
    part.is_garbled = not _is_utf8(part.content) or b"\0" in part.content  # as in UTF-16


def _begins_lines(part: Part) -> bool:
    """Tell whether a file's first line is a JSON object: bytes sent without a name are a batch all the same."""
    if part.filename is None or part.content[:1] != b"{":
        return False
    try:
        return isinstance(loads(part.content.split(b"\n", 1)[0]), dict)
    except ValueError:
        return False


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _line(line: bytes) -> Any:
    """Return what a line says; None for one that is bytes and no text, whatever the file is called."""
    try:
        return loads(line)
    except ValueError:
        if _CONTROL.search(line) is not None and not _is_utf8(line):
            return None
        return line.decode("utf-8", "surrogateescape")


def _is_ambiguous(part: Part) -> bool:
    """Tell whether some line names a member twice, so that parsers may disagree about what it says."""
    return any(
        isinstance(value, (dict, list)) and has_repeated_keys(line, value)
        for line, value in zip(part.content.split(b"\n"), part.lines or (), strict=True)
    )


def _write(parts: list[Part], document: list[dict[str, Any]]) -> None:
    """Put what the document says now into the parts."""
    for part, row in zip(parts, document, strict=False):
        name, value = next(iter(row.items()))
        _replace_in_head(part, part.name, name)
        if isinstance(value, str):
            part.content = value.encode("utf-8", "surrogateescape")
        else:
            lines = zip(part.content.split(b"\n"), value, strict=True)
            part.content = b"\n".join([_written(line, now) for line, now in lines])


def _rename(parts: list[Part], document: list[dict[str, Any]]) -> None:
    """Give files the names they go by now."""
    for part, row in zip(parts, document, strict=True):
        _replace_in_head(part, part.filename or "", str(next(iter(row.values()))))


def _replace_in_head(part: Part, old: str, new: str) -> None:
    if new != old:
        part.head = part.head.replace(old.encode("utf-8", "surrogateescape"), new.encode("utf-8", "surrogateescape"))


def _written(line: bytes, value: Any) -> bytes:
    """Return a line anew; one that was no JSON is text, or was not read."""
    try:
        loads(line)
    except ValueError:
        if value is None:
            return line
        return str(value).encode("utf-8", "surrogateescape")
    return dumps(value)
