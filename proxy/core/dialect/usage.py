"""Reads token counts and in-band errors out of parsed answers and stream events.

Knows the spellings of the providers; never estimates.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from proxy.terms.exchange import Usage

_USAGE_KEY: Final = b'"usage"'
_COUNT_LIMIT: Final = 1 << 63
_is_chat: Final = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
).issuperset
_bare: Final = object.__new__


def read_usage(document: Any) -> Usage | None:
    """Return the tokens an answer (or one event of a stream) reports, or None when it reports none.

    Understands chat, completions and embeddings (``prompt_tokens``), Responses and Anthropic (``input_tokens``,
    also inside ``response`` or ``message``), Groq's ``x_groq``. Anthropic counts cached input apart from
    ``input_tokens``; here ``input_tokens`` always includes it. Counts that are no whole numbers from 0 to 2^63 - 1
    read as 0.
    """
    found = _usage_object(document)
    return None if found is None else _counts_of(found)


def read_usage_of(body: bytes) -> Usage | None:
    """Read the counts of a whole answer; most say them behind the text, which then need not be parsed.

    What stands behind the last ``usage`` key is a document by itself exactly when the key is one of the outermost.
    """
    at = body.rfind(_USAGE_KEY)
    if at < 0:
        return None
    try:
        own = orjson.loads(b"{" + body[at:])["usage"]
        if type(own) is dict and own:
            return _counts_of(own)
    except orjson.JSONDecodeError:
        pass  # the key stands deeper, or what looked like it is no key
    try:
        return read_usage(orjson.loads(body))
    except orjson.JSONDecodeError:
        return None


def _counts_of(found: dict[str, Any]) -> Usage:
    if not _is_chat(found):
        return _read_any(found)
    # The commonest spelling, for nearly every exchange: what ``_count`` says, in place, and an object without a call of
    # its ``__init__``, for both cost more than the sums.
    sent, said = found.get("prompt_tokens"), found.get("completion_tokens")
    usage = _bare(Usage)
    usage.input_tokens = sent if type(sent) is int and 0 < sent < _COUNT_LIMIT else 0
    usage.output_tokens = said if type(said) is int and 0 < said < _COUNT_LIMIT else 0
    usage.cached_tokens = usage.reasoning_tokens = 0
    usage.is_estimated = False
    details, spent = found.get("prompt_tokens_details"), found.get("completion_tokens_details")
    if type(details) is dict:
        usage.cached_tokens = _count(details, "cached_tokens")
    if type(spent) is dict:
        usage.reasoning_tokens = _count(spent, "reasoning_tokens")
    return usage


def _read_any(found: dict[str, Any]) -> Usage:
    details = _object(found, "prompt_tokens_details") or _object(found, "input_tokens_details")
    spent = _object(found, "completion_tokens_details") or _object(found, "output_tokens_details")
    apart = _count(found, "cache_read_input_tokens")
    cached = _count(details, "cached_tokens") or _count(found, "prompt_cache_hit_tokens") or apart
    return Usage(
        input_tokens=(
            _count(found, "prompt_tokens")
            or _count(found, "input_tokens") + apart + _count(found, "cache_creation_input_tokens")
        ),
        output_tokens=_count(found, "completion_tokens") or _count(found, "output_tokens"),
        cached_tokens=cached,
        reasoning_tokens=_count(spent, "reasoning_tokens"),
    )


def error_in_body(document: Any) -> bool:
    """Tell whether an answer with status 200 is an error all the same: a filled ``error`` member, or ``type: error``.

    A Responses object that failed carries its error and counts too; ``"error": null`` does not.
    """
    if not isinstance(document, dict):
        return False
    return bool(document.get("error")) or document.get("type") == "error" or document.get("object") == "error"


def _usage_object(document: Any) -> dict[str, Any] | None:
    if type(document) is not dict:
        return None
    own = document.get("usage")
    if type(own) is dict:
        return own or None
    for holder in (document.get("response"), document.get("message"), document.get("x_groq")):
        if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
            usage: dict[str, Any] = holder["usage"]
            return usage or None
    return None


def _object(parent: dict[str, Any], key: str) -> dict[str, Any]:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _count(parent: dict[str, Any], key: str) -> int:
    value = parent.get(key)
    return value if type(value) is int and 0 < value < _COUNT_LIMIT else 0
