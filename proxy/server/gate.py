"""The strict gate: which request heads may go on at all, decided before anything is routed.

Pure functions over a parsed head; owns the rules of RFC 9112 that the C parser leaves to us and the
rules of our own (one Host, no foreign authority, no path tricks). Knows no connection and no policy.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from proxy.core.routing.problems import Code, Problem, problem
from proxy.terms.http import Header, RequestHead

SINGLETONS: Final = frozenset(
    {
        b"host",
        b"authorization",
        b"x-api-key",
        b"api-key",
        b"content-type",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
        b"x-readygate-app",
        b"x-readygate-user",
        b"x-readygate-conversation",
    }
)
"""Fields that must not come twice, nor in a spelling with underscores that another parser may take for them."""

MAX_HEADER_LINES: Final = 256
MAX_TARGET_BYTES: Final = 16 * 1024

_HOST = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?\Z")
_DOT_SEGMENT = re.compile(r"/(?:\.|%2e){1,2}(?:/|\\|%2f|%5c|$)", re.IGNORECASE)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


def is_ambiguous_repeat(name: bytes, seen: dict[bytes, bytes]) -> bool:
    """True when this lower-case field name may not follow what was already seen."""
    if name in SINGLETONS:
        return name in seen
    if b"_" in name:
        return name.replace(b"_", b"-") in SINGLETONS
    return False


def split_target(target: bytes) -> str | Problem:
    """Return the path of an origin-form target, or why it is refused."""
    if len(target) > MAX_TARGET_BYTES:
        return problem(Code.URI_TOO_LONG)
    if not target.startswith(b"/") or b"#" in target:
        return problem(Code.BAD_REQUEST, message="The request target must be a path such as /v1/chat/completions.")
    path = target.split(b"?", 1)[0].decode("ascii", "replace")
    if ("." in path or "%" in path) and _DOT_SEGMENT.search(path):
        return problem(Code.BAD_REQUEST, message="The request path may not hold '.' or '..' segments.")
    return path


def check_method(method: str) -> Problem | None:
    """Refuse methods that no provider API has and that mean something to proxies."""
    if method in _METHODS:
        return None
    return problem(Code.METHOD_NOT_ALLOWED, message=f"Method {method[:20]} is not accepted here.")


def check_version(version: str, fields: dict[bytes, bytes]) -> Problem | None:
    """Accept HTTP/1.1 with a Host and HTTP/1.0; nothing older or newer on this connection."""
    if version == "1.1":
        return None if b"host" in fields else problem(Code.BAD_REQUEST, message="The Host header is missing.")
    if version == "1.0":
        if b"transfer-encoding" in fields:
            return problem(Code.BAD_REQUEST, message="Transfer-Encoding needs HTTP/1.1.")
        return None
    return problem(Code.BAD_REQUEST, "Only HTTP/1.1 and HTTP/1.0 are spoken here.", status=505)


def host_name(value: bytes) -> str | None:
    """Return the lower-case name of a Host header without its port, or None when it is not a host."""
    if not _HOST.match(value):
        return None
    name = value.decode("ascii").lower()
    if name.startswith("["):
        return name[1 : name.index("]")]
    return name.rsplit(":", 1)[0] if ":" in name else name


def allowed_host_names(listen_host: str, extra: tuple[str, ...]) -> frozenset[str] | None:
    """Return the names a Host header may carry at a listener, or None for any.

    A listener on loopback answers for itself only, which also stops DNS rebinding; an open one takes every name
    unless a list was given.
    """
    if extra:
        return frozenset(extra)
    try:
        is_loopback = ipaddress.ip_address(listen_host).is_loopback
    except ValueError:
        is_loopback = listen_host == "localhost"
    return frozenset({"localhost", listen_host.lower()}) if is_loopback else None


def is_allowed_host(name: str, allowed: frozenset[str] | None) -> bool:
    """True for an allowed name and for every address: those cannot be rebound."""
    if allowed is None or name in allowed:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def check_coding(head: RequestHead) -> Problem | None:
    """Accept only a plain or exactly ``chunked`` body without content coding."""
    coding = head.fields.get(b"transfer-encoding")
    if coding is not None and coding.lower() != b"chunked":
        return problem(Code.BAD_REQUEST, message="The only transfer coding accepted is 'chunked'.")
    encoding = head.fields.get(b"content-encoding")
    if encoding is not None and encoding.lower() not in (b"identity", b""):
        return problem(
            Code.BODY_ENCODED,
            message="Compressed request bodies are not accepted: policy could not read them. Send the body uncompressed.",
        )
    expect = head.fields.get(b"expect")
    if expect is not None and expect.lower() != b"100-continue":
        return problem(Code.EXPECTATION_FAILED)
    return None


def without_upgrade(headers: list[Header]) -> list[Header]:
    """Return the headers of a request whose offer to change protocols is declined (RFC 9110 section 7.8).

    What else its Connection header names stays named, so that it is dropped on the way, and so does ``close``.
    """
    kept: list[Header] = []
    for name, value in headers:
        lower = name.lower()
        if lower == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            rest = [token for token in tokens if token.lower() not in (b"upgrade", b"http2-settings", b"")]
            if rest:
                kept.append((name, b", ".join(rest)))
        elif lower not in (b"upgrade", b"http2-settings"):
            kept.append((name, value))
    return kept


def render_head(method: str, target: bytes, version: str, headers: list[Header]) -> bytes:
    """Serialise a request head, for a parser that has to read it again."""
    lines = [method.encode("ascii"), b" ", target, b" HTTP/", version.encode("ascii"), b"\r\n"]
    for name, value in headers:
        lines += (name, b": ", value, b"\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def is_mostly_framing(data: bytes, spare_bytes: int) -> bool:
    """True when a chunked body that came in one read with its head has more chunk extensions than it accounts for.

    Its size alone is told by the parser only when the message is over. Whatever is no proper framing is the parser's to
    refuse.
    """
    at = data.find(b"\r\n\r\n") + 4
    if at < 4 or b";" not in data[at:] or b"chunked" not in data[:at].lower():
        return False
    framing = body = 0
    while at < len(data):
        end = data.find(b"\r\n", at)
        end = len(data) if end < 0 else end
        framing += end - at
        try:
            size = int(data[at:end].partition(b";")[0], 16)
        except ValueError:
            return False
        if size <= 0:
            break
        body += size
        at = end + size + 4
    return framing > spare_bytes + 16 * body
