"""What an upstream answered, as one word: statuses, content types and errors in bodies to outcomes.

Owns the classes. Knows neither what follows from them (``table``) nor how they were observed: the
upstream hand reports facts.
"""

from __future__ import annotations

import json
from typing import Final

import orjson

from proxy.terms.outcomes import OK, Outcome

_OWN_KEY_STATUSES = frozenset({401, 402, 403})
"""Refused, unpaid or forbidden: with a credential of ours, nothing the caller could mend."""
_CONFLICT_STATUSES = frozenset({408, 409, 425})
_BODILESS_STATUSES = frozenset({204, 205, 304})


def classify_answer(
    status: int,
    content_type: str,
    is_stream_asked: bool,
    is_own_key: bool,
    has_error_body: bool = False,
    *,
    is_known_shape: bool = True,
    is_body_empty: bool = False,
) -> Outcome:
    """Name an answer by its head and what is known of its body.

    Args:
        status: As received; not necessarily a valid one.
        content_type: Media type with or without parameters, any case; empty when the header is missing.
        is_stream_asked: The caller asked for an event stream.
        is_own_key: The credential was ours, not the caller's.
        has_error_body: The body is a JSON document whose top level says error.
        is_known_shape: The path answers with JSON or events (chat, embeddings, …). False accepts any
            content and none, as files, audio and unknown paths may have it.
        is_body_empty: The whole body is there and has no bytes.
    """
    if 200 <= status < 300 or status == 304:
        return _classify_success(
            status, content_type, is_stream_asked, has_error_body, is_known_shape, is_body_empty=is_body_empty
        )
    if 300 <= status < 400:
        return Outcome.REDIRECT
    if 400 <= status < 500:
        return _classify_refusal(status, is_own_key)
    if 500 <= status < 600:
        return Outcome.OVERLOADED if status == 529 else Outcome.UPSTREAM_5XX
    return Outcome.BAD_RESPONSE


def classify_error_event(error_type: str, error_code: str = "") -> Outcome:
    """Name an error that came as the first event of a stream, before anything was handed on.

    The caller's own mistakes and rate limits are what they would have been as a status; the rest is the
    provider's failure.
    """
    words = f"{error_type} {error_code}".lower()
    if "overloaded" in words:
        return Outcome.OVERLOADED
    if "rate_limit" in words or "429" in words:
        return Outcome.RATE_LIMITED
    if "invalid_request" in words or "content_filter" in words or "content_policy" in words:
        return Outcome.UPSTREAM_4XX
    return Outcome.UPSTREAM_ERROR_EVENT


def classify_error_data(data: bytes) -> Outcome:
    """Name the error that an event's data describes, in whichever provider's words."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return Outcome.UPSTREAM_ERROR_EVENT
    holder = document.get("response", document) if isinstance(document, dict) else {}
    error = holder.get("error") if isinstance(holder, dict) else None
    said = error if isinstance(error, dict) else holder if isinstance(holder, dict) else {}
    return classify_error_event(str(said.get("type") or ""), str(said.get("code") or ""))


def says_error(body: bytes) -> bool:
    """True when a small JSON body is an error document under a success status; cheap for ordinary answers."""
    start = body[:8]
    if start == b'{"error"' or start == b'{"object':
        return body.startswith(_ERRORS) and not _is_null(body[8:24])
    return start[1:2] != b'"' and _says_error_spaced(body[:256])


_ERRORS: Final = (b'{"error"', b'{"object":"error"')


def is_document(body: bytes) -> bool:
    """True for JSON from its first byte to its last; half a surrogate pair in an escape is allowed, providers send it."""
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            return False
    return True


def _says_error_spaced(start: bytes) -> bool:
    """The same for a body that begins with white space or is laid out over lines."""
    packed = b"".join(start.split())
    return packed.startswith(_ERRORS) and not _is_null(packed[8:24])


def _is_null(behind: bytes) -> bool:
    """True when what follows an ``error`` key is null: no error, only a field for one."""
    return behind.lstrip(b": \t\r\n").startswith(b"null")


def judge_plain(body: bytes, needs_choices: bool) -> Outcome:
    """Name a whole JSON answer without reading it: complete only if it says so itself, a chat only if it has choices."""
    if body[-1] != _CLOSES and body.rstrip()[-1:] != b"}":
        return Outcome.TRUNCATED
    if needs_choices and body.find(b'"choices"') < 0:
        return Outcome.BAD_RESPONSE
    return OK


_CLOSES: Final = ord("}")
_TOO_LONG = (b"context_length_exceeded", b"prompt is too long", b"maximum context length", b"context window")


def says_too_long(status: int, body: bytes) -> bool:
    """True when a refusal says that the request is longer than the model can read, in any provider's words."""
    if status not in (400, 413, 422):
        return False
    start = body[:4096].lower()
    return any(words in start for words in _TOO_LONG)


def _classify_refusal(status: int, is_own_key: bool) -> Outcome:
    if status == 429:
        return Outcome.RATE_LIMITED
    if status in _CONFLICT_STATUSES:
        return Outcome.UPSTREAM_CONFLICT
    if is_own_key and status in _OWN_KEY_STATUSES:
        return Outcome.OWN_KEY_REFUSED
    return Outcome.UPSTREAM_4XX


def _classify_success(
    status: int,
    content_type: str,
    is_stream_asked: bool,
    has_error_body: bool,
    is_known_shape: bool,
    *,
    is_body_empty: bool,
) -> Outcome:
    if has_error_body:
        return Outcome.ERROR_IN_200
    if not is_known_shape:
        return OK
    if is_body_empty or status in _BODILESS_STATUSES:
        return Outcome.BAD_RESPONSE
    if content_type in ("application/json", "text/event-stream"):
        media = content_type
    else:
        media = content_type.partition(";")[0].strip().lower()
    if not media:
        return OK
    if is_stream_asked:
        return OK if media == "text/event-stream" else Outcome.BAD_CONTENT_TYPE
    return OK if media == "application/json" or media.endswith("+json") else Outcome.BAD_CONTENT_TYPE
