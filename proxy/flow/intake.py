"""Reading one request: what it asks for, and what may leave of it.

Owns the few facts that routing, budgets and the record need from a body. Parses JSON only to read it;
what goes on is the caller's own bytes unless policy changed something. Pure but for handing large bodies
to a worker thread.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from proxy.core.dialect import OTHER, Dialect
from proxy.core.dialect.json_text import dumps
from proxy.core.routing.problems import Code, Problem, problem
from proxy.flow.ports import BodySource

OFFLOAD_ABOVE_BYTES: Final = 256 * 1024
"""Bodies above this are read in a worker thread, so that the event loop does not stand still."""

AT_ONCE_BYTES: Final = 24 * 1024
"""Bodies up to this are redacted where they are, whatever they hold."""
_MAX_SIGNS: Final = 12 * 1024
_SIGNS: Final = b"0123456789@%:[\\"
"""What values are made of: each costs up to a microsecond to judge, other characters some nanoseconds."""

MULTIPART_PEEK_BYTES: Final = 64 * 1024
_MULTIPART_MODEL = re.compile(rb'name="?model"?\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]{1,256})\r\n', re.IGNORECASE)
_MODEL_VALUE = re.compile(rb'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')
_MODEL_KEY: Final = b'"model"'
DECIDING_KEYS: Final = ("model", "stream", "messages", "input", "prompt", "tools")
"""Top-level keys that decide what a request means; two of one kind would let two parsers disagree."""
_DECIDING: Final = tuple((key, f'"{key}"'.encode("ascii")) for key in DECIDING_KEYS)
_bare: Final = object.__new__
_LESS_COMMON: Final = frozenset(
    {"input", "max_completion_tokens", "max_output_tokens", "metadata", "n", "safety_identifier", "user"}
)
"""Members beside the few of the simplest request that say something of it."""
_SPLICEABLE = re.compile(r"[ !#-\[\]-~]*")
"""Printable ASCII without quote and backslash: a model name that needs no JSON escaping."""


@dataclass(slots=True)
class Large:
    """What is known of a large body besides what it asks for."""

    size: tuple[int, int]
    """Bytes of its text and number of its pictures, measured where it was read."""
    fitted: tuple[int | None, bool] | None = None
    """Its longest answer after a cap, and whether usage was asked for on our account; None: nothing was changed apart."""
    modalities: frozenset[str] = frozenset({"text"})
    asks_usage: bool = False
    """The caller wants a usage event at the end of a stream."""


@dataclass(slots=True)
class Request:
    """A request body, read."""

    body: bytes
    document: Any = None
    """The parsed JSON body, or None when it is not JSON (or was not parsed)."""
    model: str | None = None
    is_stream: bool = False
    messages: int = 0
    max_tokens: int | None = None
    choices: int = 1
    user: str = ""
    large: Large | None = None
    """Of a body that is read in the process for large bodies."""
    upload: BodySource | None = None
    """What is left of a body that was looked into and is too large to be gathered."""


def takes_long(body: bytes) -> bool:
    """True when redacting a body may hold up other exchanges: it is large, or dense with what values are made of."""
    size = len(body)
    if size <= AT_ONCE_BYTES:
        return False
    return size > OFFLOAD_ABOVE_BYTES or size - len(body.translate(None, _SIGNS)) > _MAX_SIGNS


def read_json(body: bytes, dialect: Dialect) -> Request | Problem:
    """Read the facts of a JSON body.

    A body that is not strict UTF-8 JSON is refused where its dialect demands JSON; elsewhere it passes
    unread and redaction decides.
    """
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        if dialect is OTHER:
            return Request(body)
        document = _loads_leniently(body)
    if document is None and dialect is not OTHER:
        return problem(Code.BODY_UNREADABLE, message=_why_unreadable(body))
    if not isinstance(document, dict):
        return Request(body, document)
    if (body.find(b"\\") >= 0 and body.find(b"\\u") >= 0) or _may_repeat(body, document):
        refusal = _check_repeats(body)
        if refusal is not None:
            return refusal
    return _facts(body, document)


def _may_repeat(body: bytes, document: dict[str, Any]) -> bool:
    """True when a deciding key of the document stands more than once in the bytes, at whatever depth."""
    for key, quoted in _DECIDING:  # noqa: SIM110 - a generator costs more than the counting
        if key in document and body.count(quoted) > 1:
            return True
    return False


def parsed(body: bytes) -> Any:
    """Return the document of a body that was found to be JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _loads_leniently(body)


def _loads_leniently(body: bytes) -> Any:
    """Parse what orjson refuses and providers may take: lone surrogates in escapes, NaN. None: not JSON at all."""
    try:
        return json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None


def _why_unreadable(body: bytes) -> str:
    """Say what is wrong with a JSON body without repeating any of it."""
    if not body.strip():
        return "The request body is empty; JSON was expected."
    if body[:3] == b"\xef\xbb\xbf" or b"\x00" in body[:4]:
        return "The request body must be UTF-8 JSON without a byte order mark."
    return "The request body is not valid JSON in UTF-8."


def _facts(body: bytes, document: dict[str, Any]) -> Request:
    get = document.get
    model, messages, limit, choices, user = get("model"), get("messages"), get("max_tokens"), None, ""
    if not _LESS_COMMON.isdisjoint(document):
        messages = messages or get("input")
        limit = get("max_completion_tokens") or limit or get("max_output_tokens")
        choices = get("n")
        user = _user_of(document)
    # Filled in place: calling ``__init__`` costs more than what it does, and every request passes here.
    request = _bare(Request)
    request.body = body
    request.document = document
    request.model = model if isinstance(model, str) else None
    request.is_stream = get("stream") is True
    request.messages = len(messages) if isinstance(messages, list) else 1
    request.max_tokens = limit if isinstance(limit, int) and limit > 0 else None
    request.choices = choices if isinstance(choices, int) and 0 < choices <= 128 else 1
    request.user = user
    request.large = request.upload = None
    return request


def _user_of(document: dict[str, Any]) -> str:
    """Return the end user the body names, as OpenAI's API does."""
    metadata = document.get("metadata")
    named = (
        document.get("safety_identifier")
        or document.get("user")
        or (metadata.get("user_id") if isinstance(metadata, dict) else None)
    )
    return named[:256] if isinstance(named, str) else ""


def _check_repeats(body: bytes) -> Problem | None:
    """Refuse a body whose top level names a deciding key twice: providers differ in which one they obey."""
    try:
        keys = json.loads(body, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        return problem(Code.BODY_UNREADABLE)
    names = [key for key, _ in keys] if isinstance(keys, _Pairs) else []
    for key in DECIDING_KEYS:
        if names.count(key) > 1:
            return problem(
                Code.BODY_UNREADABLE, message=f"The key {key!r} occurs twice in the request body.", param=key
            )
    return None


class _Pairs(list[tuple[str, Any]]):
    """A JSON object with its repeated keys."""


def model_in_multipart(held: bytes) -> str | None:
    """Return the ``model`` form field of the beginning of a multipart body, when it is there."""
    found = _MULTIPART_MODEL.search(held)
    if found is None:
        return None
    try:
        return found.group(1).decode("utf-8")
    except UnicodeDecodeError:
        return None


def with_model(body: bytes, document: Any, model: str) -> bytes:
    """Return the body asking for another model, every other byte as it was.

    Only when the one ``"model"`` in the bytes cannot be told for sure to be the top-level key is the parsed
    document written anew. What is no JSON object (no body, a list, a file) asks for no model and stays as it is.
    """
    if document is None and body.startswith(b"--"):  # a form that was gathered
        field = _MULTIPART_MODEL.search(body[:MULTIPART_PEEK_BYTES])
        return body if field is None else body[: field.start(1)] + model.encode() + body[field.end(1) :]
    if body.count(_MODEL_KEY) == 1 and b"\\u" not in body and _SPLICEABLE.fullmatch(model):
        found = _MODEL_VALUE.search(body)
        if found is not None:
            return body[: found.start(1)] + model.encode("ascii") + body[found.end(1) :]
    if document is None:  # a large body, read elsewhere, or none that names a model
        document = parsed(body)
    return dumps({**document, "model": model}) if isinstance(document, dict) else body


class ModelRenamer:
    """Puts the model name the caller asked for back into the events of a stream.

    Works on whole events. A ``"model"`` key in the raw bytes is always a key of the envelope: inside text
    its quotes are escaped.
    """

    __slots__ = ("_new", "_old")

    def __init__(self, asked: str) -> None:
        self._new = b'"model":' + orjson.dumps(asked)
        self._old: bytes | None = None

    def feed(self, data: bytes) -> bytes:
        """Rename in whole events."""
        if self._old is None or self._old not in data:
            found = _MODEL_VALUE.search(data)
            if found is None:
                return data
            self._old = found.group(0)
        return data.replace(self._old, self._new)

    def finish(self, broken: bool = False) -> bytes:
        """Nothing is held."""
        return b""


def rename_model(body: bytes, asked: str) -> bytes:
    """Put the model name the caller asked for back into a whole answer."""
    return ModelRenamer(asked).feed(body)
