"""E-mail addresses (and, beside them, what only looks like one).

Owns the rules of local parts and domains. Knows no label.
"""

from __future__ import annotations

import re

from proxy.core.redaction.detect.context import STRONG, Context

EMAIL_TAIL = rb"(?:@|%40)[A-Za-z0-9\xc0-\xff][A-Za-z0-9\xc0-\xff.\-]*\.[A-Za-z]{2,}"
"""From the at sign on; the local part is read backwards from it, so prose costs the automaton nothing."""
EMAIL_PUNY = rb"(?:@|%40)[A-Za-z0-9\xc0-\xff][A-Za-z0-9\xc0-\xff.\-]*\.xn--[A-Za-z0-9\-]{2,}"

_LOCAL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._%+-'&~" + bytes(range(0xC0, 0x100))
_PERCENT = re.compile(rb"%(?:3[0-9A-Fa-f]|2[0-9AC-Fac-f]|0[0-9A-Fa-f])")
_NOT_TLD = frozenset(b"png jpg jpeg gif webp svg ico bmp css js ts jsx tsx html htm json map woff ttf mp4".split())
_VERSION = re.compile(rb"[vV]?[0-9]+\.[0-9]")
_EXTENDED = re.compile(r"[\u0100-\u024f\u1e00-\u1eff]")
_MESSAGE_ID = re.compile(rb"(?i)(?:message-id|in-reply-to|references|content-id): ?<\Z")
_MAX_LOCAL = 64
_MAX_DOMAIN = 253


def email(ctx: Context, start: int, end: int) -> int:
    """Judge the at sign and domain at [start, end); return where the scan goes on."""
    data = ctx.data
    at_end = start + (3 if data[start] == 0x25 else 1)
    domain = data[at_end:end]
    if domain.find(b"..") >= 0:
        domain = domain[: domain.index(b"..")]
        if b"." not in domain:
            return end
        end = at_end + len(domain)
    lead = data[max(0, start - _MAX_LOCAL) : start]
    local = lead[len(lead.rstrip(_LOCAL)) :]
    if local.find(b"%") >= 0:
        local = _PERCENT.split(local)[-1]
    first = start - len(local)
    if first and data[first - 1] == 0x3F and not ctx.text.isascii():
        local = _wider(ctx, start, first)
        first = start - len(local)
    if local and first and data[first - 1] == 0x5C and local[0] in b"nrt":
        local = local[1:]
    local = local.lstrip(b".-'&~%+")
    if not local or local == b"git" or len(domain) > _MAX_DOMAIN or _is_no_domain(domain):
        return end
    first = start - len(local)
    if first and data[first - 1] == 0x3C and _MESSAGE_ID.search(data, max(0, first - 20), first):
        return end
    ctx.add(first, end, "EMAIL", 2, STRONG)
    return end


def _wider(ctx: Context, start: int, first: int) -> bytes:
    """Return the local part with its letters beyond Latin-1, which the bytes show as question marks."""
    stop = max(0, start - _MAX_LOCAL)
    while first > stop and (ctx.data[first - 1] in _LOCAL or _EXTENDED.match(ctx.text, first - 1)):
        first -= 1
    return ctx.data[first:start]


def _is_no_domain(domain: bytes) -> bool:
    top = domain[domain.rindex(b".") + 1 :].lower()
    return top in _NOT_TLD or _VERSION.match(domain) is not None or domain.find(b"-.") >= 0 or domain.find(b".-") >= 0


IPV4 = rb"\b[0-9]{1,3}(?:\.[0-9]{1,3}){3}(?:/[0-9]{1,2})?"
_HEX = rb"[0-9A-Fa-f]{1,4}"
_V4_TAIL = rb"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}"
_ZONE = rb"(?:%[A-Za-z0-9]{1,12})?(?:/[0-9]{1,3})?"
IPV6 = (
    rb"\b" + _HEX + rb"(?::" + _HEX + rb"){5}:(?:" + _HEX + rb":" + _HEX + rb"|" + _V4_TAIL + rb")" + _ZONE,
    rb"(?:\b"
    + _HEX
    + rb"(?::"
    + _HEX
    + rb"){0,6})?::(?:"
    + _HEX
    + rb":){0,6}(?:"
    + _V4_TAIL
    + rb"|"
    + _HEX
    + rb")"
    + _ZONE,
    rb"\b" + _HEX + rb"(?::" + _HEX + rb"){0,6}::" + _ZONE,
)
MAC = (
    rb"\b[0-9A-Fa-f]{2}(?:[:\-][0-9A-Fa-f]{2}){5}\b",
    rb"\b[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\b",
)

_OCTET = rb"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_V4 = re.compile(rb"\.".join([_OCTET] * 4) + rb"(/(?:[12]?[0-9]|3[0-2])(?![0-9]))?")
_VERSION_WORDS = (
    "version vers ver v release rel build firmware driver revision rev guile chrome safari firefox edge edg opera webkit python java"
    " kernel sdk api section sec chapter clause fig oid vers\xe3o"
).encode("latin-1").split()  # fmt: skip
_AFTER_VERSION = re.compile(
    rb"(?i)v?[ \t:=]{0,2}(?:\.?(?:" + b"|".join([word[::-1] for word in _VERSION_WORDS]) + rb")\b|/[A-Za-z])"
)
"""Read backwards from a number: a word after which it is a version, or a product and a slash."""
_OIDS = frozenset(((b"2", b"5", b"4"), (b"2", b"5", b"29"), (b"1", b"3", b"6"), (b"1", b"3", b"101")))
_OWN_NETWORKS = (b"0", b"127")
_MASK_OCTETS = (b"0", b"128", b"192", b"224", b"240", b"248", b"252", b"254", b"255")
_SAYS_VERSION = re.compile(rb"(?i)-[a-z]|\.v[0-9]| \(?(?:release|build|beta|alpha|rc)\b")
"""What follows a version of four numbers and no address."""
_PATH_BEFORE = re.compile(rb"\.[0-9]+[ ,]\Z")
_PATH_AFTER = re.compile(rb"[ ,]?-?[0-9]*\.[0-9]")
_CHANGES = re.compile(
    rb"(?i)\b(?:(?:(?:up|down)grad\w{0,4}|bump\w{0,3})(?: [a-z][\w\-]{0,20}){0,3}?(?: (?:from|to|back to))?"
    rb"|(?:updat\w{0,3}|patch\w{0,3}|roll\w{0,3})(?: [a-z][\w\-]{0,20}){0,2} (?:to|back to))"
    rb"(?: v?[0-9][\w.\-]{0,20} (?:to|->|=>))? v?$"
)
"""What is raised from one version to another."""
_CHANGE_STEMS = (b"grad", b"bump", b"updat", b"patch", b"roll")
"""One of them is in whatever ``_CHANGES`` matches."""
_OF_NETWORK = re.compile(
    rb"(?i)\b(?:ips?|dns|records?|servers?|hosts?|address\w*|gateways?|routes?|nodes?|peers?|vms?|prox\w+|endpoints?|resolvers?|subnets?"
    rb"|networks?|interfaces?|routers?|switch\w*|firewalls?|domains?|clients?|vpn|lan|wan)\b"
)
_WORD_COLON = re.compile(
    rb"(?:\?|(?<![A-Za-z0-9])(?:[A-Fa-f_]{0,12}[G-Zg-z_\x80-\xff][A-Za-z_\x80-\xff]*|[A-Fa-f]{5,12})):\Z"
)
_PRIVATE = frozenset((b"10", b"172", b"192"))
_FEW_GROUPS = re.compile(
    rb"(?!(?i:[23][0-9a-f]{3}|f[cdef][0-9a-f]{2}|64:ff9b|100:|::ffff:))[0-9A-Fa-f]{0,4}(?::[0-9A-Fa-f]{1,4})?::(?:[0-9A-Fa-f]{1,4})?"
)
"""Too little of an address that is in no network in use: a slice, a namespace, a field of a password file."""
_NUMBER_BEFORE = re.compile(rb"(?:\A|[ \n])-?[0-9]*\.[0-9][0-9.\-]*[ \n]\Z")
_NUMBER_BEHIND = re.compile(rb"[ \n]-?[0-9]*\.[0-9][0-9.\-]*(?:[ \n]|\Z)")
_QUAD = re.compile(rb"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_MAC = re.compile(
    rb"(?:[0-9A-Fa-f]{2}([:\-]))(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}|[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}"
)


def ipv4(ctx: Context, start: int) -> int:
    """Judge the dotted quad that starts here; return its end, or 0 when it is no quad at all."""
    data = ctx.data
    found = _V4.match(data, start)
    if found is None or data[found.end(4) : found.end(4) + 1].isdigit():
        return 0
    end = found.end()
    if data[end : end + 1] == b"." and data[end + 1 : end + 2].isdigit():
        return 0
    if ctx.is_glued_left(start) or ctx.is_glued_right(end) or (start and data[start - 1] in b".-+"):
        return end
    octets = found.group(1, 2, 3)
    if _is_no_host(octets) or _is_version(data[max(0, start - 64) : start]):
        return end
    is_weak = found.end(4) - start == len(b"1.2.3.4") or (not ctx.local and _is_among_numbers(data, start, end))
    if is_weak and not ctx.is_called(start, "IP_ADDRESS"):
        return end
    if (
        not ctx.local
        and data[end : end + 1] in (b"-", b".", b" ")
        and _SAYS_VERSION.match(data, end)
        and octets[0] not in _PRIVATE
    ):
        return end
    if len(octets[0]) == 1 and _PATH_AFTER.match(data, end) and _PATH_BEFORE.search(data, max(0, start - 8), start):
        return end  # of a drawing, whose numbers are not always set apart
    ctx.add(start, end, "IP_ADDRESS", 3, STRONG)
    return end


def _is_among_numbers(data: bytes, start: int, end: int) -> bool:
    """True between two numbers that are no addresses: the path of a drawing runs them together (``1.52-.87 3.51.98.32 2.03``)."""
    before = _NUMBER_BEFORE.search(data, max(0, start - 18), start)
    behind = _NUMBER_BEHIND.match(data, end, end + 18) if before else None
    if before is None or behind is None:
        return False
    return not (_QUAD.search(before[0]) or _QUAD.search(behind[0]))


def _is_version(lead: bytes) -> bool:
    """True when a word such as "version" or a product and a slash stand before."""
    bare = lead.rstrip(b" \t:=")
    if bare[-1:] in b"?!,;.)]":
        return False
    if lead[-2:] in (b">=", b"<=", b"~=") or _AFTER_VERSION.match(lead[:-17:-1]) is not None:
        return True
    lower = lead.lower()
    if not any([lower.find(stem) >= 0 for stem in _CHANGE_STEMS]):
        return False
    return _CHANGES.search(lead) is not None and _OF_NETWORK.search(lead) is None


def _is_no_host(octets: tuple[bytes, ...]) -> bool:
    """Loopback, this host, masks, and the object identifiers of certificates."""
    first = octets[0]
    return first in _OWN_NETWORKS or (first == b"255" and octets[1] in _MASK_OCTETS) or octets in _OIDS


def ipv6(ctx: Context, start: int, end: int) -> int:
    """Judge what has the colons of an IPv6 address; return where the scan goes on."""
    data = ctx.data
    slash = data.find(b"/", start, end)
    if slash >= 0 and (int(data[slash + 1 : end]) > 128 or ctx.is_glued_right(end)):
        end = slash
    if (
        ctx.is_glued_left(start)
        or ctx.is_glued_right(end)
        or (start and data[start - 1] in b":." and not _is_after_word(data, start))
    ):
        return end
    if data[end : end + 1] == b":" and (data[end + 1 : end + 2].isalnum() or data[end + 1 : end + 2] == b":"):
        return end
    if data[end : end + 1] == b"." and data[end + 1 : end + 2].isdigit():
        return end
    body = data[start:end].split(b"/")[0].split(b"%")[0]
    if len(body) < 6 and body.count(b":") < 4 and max([len(g) for g in body.split(b":")]) < 3:
        return end  # the bounds of a slice
    if _FEW_GROUPS.fullmatch(body) and slash < 0 and not ctx.is_called(start, "IP_ADDRESS"):
        return end
    wordlike = body[:2] != b"fe" and not any([0x30 <= c <= 0x39 for c in body])
    if wordlike or body in (b"::", b"::1") or not _is_v6(body):
        return end
    ctx.add(start, end, "IP_ADDRESS", 3, STRONG)
    return end


def _is_after_word(data: bytes, start: int) -> bool:
    """True where a word and a colon stand before, and the word is no group of hex digits (``host:2001:db8::1``)."""
    return _WORD_COLON.search(data, max(0, start - 16), start) is not None


def _is_v6(body: bytes) -> bool:
    if body.count(b"::") > 1 or body.find(b":::") >= 0:
        return False
    groups = [g for g in body.split(b":") if g]
    words = len(groups)
    if groups and groups[-1].find(b".") >= 0:
        quad = groups[-1].split(b".")
        if any([int(q) > 255 for q in quad]):
            return False
        words += 1
    return words <= 7 if body.find(b"::") >= 0 else words == 8


def mac(ctx: Context, start: int, end: int) -> int:
    """Judge six pairs or three quadruples of hex digits; return where the scan goes on."""
    data = ctx.data
    value = data[start:end]
    if _MAC.fullmatch(value) is None or ctx.is_glued_left(start) or ctx.is_glued_right(end):
        return end
    if (
        data[start - 1 : start] in (b":", b"-", b".")
        and start > 1
        and (data[start - 2 : start - 1].isalnum() or data[start - 2 : start] == b"[.")
        and not _is_after_word(data, start)
    ):
        return end
    if data[end : end + 1] in (b":", b"-", b".") and data[end + 1 : end + 2].isalnum():
        return end
    digits = value.replace(b":", b"").replace(b"-", b"").replace(b".", b"").lower()
    is_dotted = value[4:5] == b"."
    if len(set(digits)) == 1 or (is_dotted and (digits.isdigit() or data[start - 1 : start] in (b".", b"*"))):
        return end
    ctx.add(start, end, "MAC_ADDRESS", 2, STRONG)
    return end
