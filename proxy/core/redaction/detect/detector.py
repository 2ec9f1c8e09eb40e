"""The detector: text in, findings out; compiled once from the tables, at policy load.

Owns the scan loop and the dispatch of candidates to their families. Knows no JSON and no policy.
"""

from __future__ import annotations

import re
import sys
from bisect import bisect_left
from functools import cached_property, partial
from itertools import accumulate

from proxy.core.redaction.detect import accounts, announced_other, commands, dates, layout, network, secrets
from proxy.core.redaction.detect.announced import GENERIC_KEY, JOINERS, LABEL_STEM, PASSWORD_STEMS, Announced
from proxy.core.redaction.detect.catalog import DEFAULT_KINDS, KNOWN_KINDS, build_catalog
from proxy.core.redaction.detect.context import LABELLED, Context, Item, resolve
from proxy.core.redaction.detect.custom import CustomTypes
from proxy.core.redaction.detect.digit_looks import PLAIN_DATES
from proxy.core.redaction.detect.digits import DIGIT_RUN, SHAPE, DigitRuns, Handler
from proxy.core.redaction.detect.engine import NextFrom, Search, compile_search, compile_union
from proxy.core.redaction.detect.fold import has_other_letters, is_escape, plain_view, to_bytes
from proxy.core.redaction.detect.gate import (
    TOKENS_KEY,
    GateContext,
    compile_silence,
    is_open,
    may_contain,
    without_limits,
)
from proxy.core.redaction.detect.kinds import CustomType
from proxy.core.redaction.detect.labels import NEGATIVE_ALONE, LabelIndex
from proxy.core.redaction.detect.live import live_start
from proxy.core.redaction.detect.opt_in import OptIn
from proxy.core.redaction.detect.reach import reach_of
from proxy.terms.redaction import Finding

_LETTERS = re.compile(
    rb"(?P<jwt>" + secrets.JWT + rb")|(?P<named>" + dates.MONTH_FIRST + rb")|(?P<mac>" + b"|".join(network.MAC) + rb")"
    rb"|(?P<six>"
    + b"|".join(network.IPV6)
    + rb")|(?P<command>"
    + commands.COMMAND
    + rb")|(?P<call>"
    + commands.CALL
    + rb")|(?P<piped>"
    + commands.PIPED
    + rb")"
)
_MIXED = re.compile(
    rb"(?P<named>"
    + b"|".join((dates.DAY_FIRST, dates.YEAR_FIRST, dates.CJK))
    + rb")|(?P<mac>"
    + b"|".join(network.MAC)
    + rb")"
    rb"|(?P<six>" + b"|".join(network.IPV6) + rb")|(?P<quad>" + network.IPV4 + rb")"
)
_STEM = re.compile(LABEL_STEM + b"|" + GENERIC_KEY)
_LABEL = re.compile(LABEL_STEM)
_GENERIC = re.compile(GENERIC_KEY)
_PASS = (b"pass", b"pw")
_BIRTH = re.compile(dates.BIRTH)
_RUN = re.compile(DIGIT_RUN)
_SHORT = re.compile(dates.SHORT)
_RUN_CHARS = b"0123456789 /()\xa0+"
_WORD = re.compile(rb"[A-Za-z]+")
_LONG_RUN = 768
_WINDOW, _MARGIN = 512, 160
"""Characters read at once of a longer run of digits, and how many at their end may belong to what is cut there."""
_ANY_LENGTH = sys.maxsize
_SIGNS_OF_TABLES = (b"\n", b"nsert", b"NSERT", b"<th", b"<TH", b'["')
_SENTENCE = re.compile(r" (?:that|which|and|the|to|is|are|we|for|with)(?: |$)")


class Detector:
    """Finds values of the chosen kinds. Immutable once built; safe to share between threads."""

    def __init__(self, kinds: frozenset[str], custom: tuple[CustomType, ...] = (), engine: str = "auto") -> None:
        self._custom = CustomTypes(custom, KNOWN_KINDS)
        self._reach = reach_of(custom)
        catalog = build_catalog(kinds, custom)
        self.kinds = kinds | self._custom.names
        self._opt_in = OptIn(kinds)
        self._has_more = bool(self._custom.types or self._opt_in.kinds)
        """True when text is searched once more, for the policy's own types or for labelled free text."""
        self._takes_all = kinds >= DEFAULT_KINDS
        self._engine = engine
        self._labels = LabelIndex(catalog.labels, engine)
        forms = (
            DIGIT_RUN, network.EMAIL_TAIL, network.EMAIL_PUNY, secrets.SOURCE, network.IPV4, *network.IPV6, *network.MAC,
            commands.COMMAND, commands.CALL, commands.PIPED, LABEL_STEM, GENERIC_KEY, dates.BIRTH, dates.DAY_FIRST, dates.YEAR_FIRST, dates.MONTH_FIRST, dates.CJK,
            dates.SHORT,
            accounts.UUID, accounts.IBAN, accounts.VAT, *accounts.CNPJ_ALNUM, *accounts.WALLET,
        )  # fmt: skip
        self._scan = compile_union((*forms, *secrets.union_patterns(), *accounts.shape_patterns(catalog)), engine)
        self.is_silent = (
            _never
            if self._has_more
            else compile_silence((*forms, *secrets.union_patterns(), *accounts.shape_signs(catalog)), engine)
        )
        """Of a body: True only when nothing can be found in it, and nothing in it is hidden or unreadable."""
        self._priority = {name: rule.priority for name, rule in catalog.rules.items()}
        self._digits = DigitRuns(catalog)
        self._plain = self._digits.exact_shapes | PLAIN_DATES
        self._accounts = accounts.Accounts(catalog)
        self._issuers = secrets.IssuerRules()
        self._announced = Announced(self._issuers)
        self._handlers: list[Handler] = [self._letters] * 256
        for char in b"0123456789":
            self._handlers[char] = self._mixed
        for char in b"+(":
            self._handlers[char] = self._signed
        for char in b"@%":
            self._handlers[char] = _at_sign
        for char in self._issuers.mark_starts:
            self._handlers[char] = self._mark
        self._handlers[0x2D] = self._dash
        self._handlers[0x3A] = self._colon
        self._inside_runs = self._handlers.copy()
        """The same for candidates inside a long run of digits."""
        for chars, handler in ((b"0123456789", self._mixed), (b"+(", self._signed)):
            for char in chars:
                self._inside_runs[char] = partial(handler, longest=_ANY_LENGTH)

    def find(self, text: str, *, local: bool = False) -> list[Finding]:
        """Return the values seen in a text, in order, none overlapping another.

        Args:
            local: Decide by at most 96 characters to the left of a value and one to its right, as a stream must:
                neither headers of tables nor labels behind a value count then.
        """
        if text.isascii() and "%" not in text and "\\" not in text:
            return self._find(text, text.encode(), local, False)
        view = plain_view(text)
        if view is None:
            return self._find_any(text, local)
        plain, starts = view
        found = self._find_any(plain, local)
        return [f._replace(start=starts[f.start], end=_end_of(text, starts[f.end - 1])) for f in found]

    def _find_any(self, text: str, local: bool) -> list[Finding]:
        """Search a text that is read as it is written."""
        data = to_bytes(text)
        return self._find(text, data, local, has_other_letters(text, data))

    def _find(self, text: str, data: bytes, local: bool, is_foreign: bool) -> list[Finding]:
        size = len(data)
        next_from = self._scan(data)
        [(start, end)] = next_from(0, size)
        if start < 0 and not self._has_more and not is_foreign:
            return []
        ctx = Context(text, data, self._labels, local, is_foreign)
        if is_foreign:
            announced_other.search(ctx, self._issuers)
        handlers = self._handlers
        while start >= 0:
            [(start, end)] = next_from(handlers[data[start]](ctx, start, end), size)
        if self._has_more:
            self._custom.search(ctx, text)
            if not local:
                self._opt_in.search(ctx, text)
        if ctx.orphans and not local:
            self._tables(ctx)
        found = ctx.found
        if found and not self._takes_all:
            found = [item for item in found if item[3].kind in self.kinds]
        return resolve(found) if found else []

    def _tables(self, ctx: Context) -> None:
        """Search the cells of tables again, each under its header, which outweighs what was guessed without it."""
        if not any([ctx.data.find(sign) >= 0 for sign in _SIGNS_OF_TABLES]):
            return
        known, spans = ctx.found, list[tuple[int, int]]()
        ctx.found = []
        for start, end, header in layout.cells(ctx.text, self._names_column):
            if spans and start < spans[-1][0]:  # tables of another sort, from the beginning of the text
                known, spans, ctx.found = _outweighed(known, spans) + ctx.found, [], []
            shift = start - len(header) - 2
            under = self._find_any(f"{header}: {ctx.text[start:end]}", True)
            found = [f for f in under if f.start + shift >= start]
            if found:
                while ctx.found and ctx.found[-1][3].end > start and ctx.found[-1][3].score <= LABELLED:
                    ctx.found.pop()
                spans.append((start, end))
                for f in found:
                    ctx.add(f.start + shift, f.end + shift, f.kind, self._priority.get(f.kind, 1), f.score, f.sub)
        ctx.found = _outweighed(known, spans) + ctx.found

    def _names_kind(self, header: str) -> bool:
        """True when a JSON key or column header announces values of some kind."""
        if self._labels.named_by(header) - NEGATIVE_ALONE or announced_other.has_word(header):
            return True
        data = to_bytes(header)
        return self._may_be_stem(data, 0)[0] >= 0 and _STEM.search(data) is not None

    @cached_property
    def _may_be_stem(self) -> Search:
        """The search for the name of a secret in a header; compiled with the first table, of whose words most are none."""
        return compile_search((LABEL_STEM, GENERIC_KEY), self._engine)

    def _names_column(self, header: str) -> bool:
        """True when a column's header announces values of some kind and is no part of a sentence."""
        return self._names_kind(header) and _SENTENCE.search(header) is None

    def check_examples(self) -> None:
        """Hold the custom types to their examples; ValueError when one fails."""
        self._custom.check_examples(self.find)

    def _along(self, ctx: Context, start: int, end: int) -> int:
        """Judge a long run of digits; where not all of it is judged at once, go on piece by piece.

        A run that holds many dates would else be read to its end for each of them. A window that turns out too narrow
        for what begins in it is widened.
        """
        data, handlers = ctx.data, self._inside_runs
        start = handlers[data[start]](ctx, start, end)
        width = _WINDOW
        while start < end:
            opened, limit = start, min(ctx.size, start + width)
            sure = min(end, limit - _MARGIN if limit < ctx.size else limit)
            next_from = self._scan(data)
            width = _WINDOW
            while start < sure:
                [(first, last)] = next_from(start, limit)
                if first < 0 or first >= sure:
                    start = sure
                    break
                known = len(ctx.found)
                start = handlers[data[first]](ctx, first, last)
                if start > sure and limit < ctx.size:
                    del ctx.found[known:]
                    width = _WINDOW if first - opened > _WINDOW // 2 else (limit - opened) * 4
                    start = first
                    break
        return start

    def _signed(self, ctx: Context, start: int, end: int, longest: int = _LONG_RUN) -> int:
        """A candidate that begins with a plus sign or a bracket."""
        return self._digits.read(ctx, start, end) if end - start <= longest else self._along(ctx, start, end)

    def _mixed(self, ctx: Context, start: int, end: int, longest: int = _LONG_RUN) -> int:
        """A candidate that begins with a digit."""
        if end - start > longest:
            return self._along(ctx, start, end)
        data = ctx.data
        candidate = data[start:end]
        shape = candidate.translate(SHAPE)
        if shape[:19] in self._plain:
            return self._digits.judge(ctx, start, end, candidate, shape)
        if data.count(b".", start, end) == 3:
            stop = network.ipv4(ctx, start)
            if stop:
                return stop
        if end - start < 13 and _SHORT.fullmatch(data, start, end):
            if end - start < 9 or ctx.birth or end - start > 10:
                return dates.short_date(ctx, start, end)
            return self._digits.read(ctx, start, end)
        if not candidate.translate(None, _RUN_CHARS):
            return self._digits.judge(ctx, start, end, candidate, shape)
        run = _RUN.match(data, start, end)
        if run is not None and run.end() == end:
            special = _MIXED.match(data, start, end)
            if special is not None and special.end() == end and special.lastgroup == "mac":
                return network.mac(ctx, start, end)
            return self._digits.read(ctx, start, end)
        special = _MIXED.match(data, start, end)
        if special is not None and special.end() == end:
            return self._special(ctx, start, end, special.lastgroup)
        stop = self._accounts.judge(ctx, start, end) or self._issuers.key_at(ctx, start)
        if stop:
            return stop
        return self._digits.read(ctx, start, run.end()) if run is not None else max(start + 1, end - 1)

    def _letters(self, ctx: Context, start: int, end: int) -> int:
        """A candidate that begins with a letter or a rare sign."""
        data = ctx.data
        candidate = data[start:end]
        stop = self._accounts.account(ctx, start, candidate) if candidate[2:4].isdigit() else 0
        if stop:
            return stop
        is_password = PASSWORD_STEMS.get(candidate)
        is_word = not candidate[1:2].isdigit()  # no label and no word of birth has a digit for its second
        if is_password is None and is_word:
            is_password = PASSWORD_STEMS.get(candidate.lower().translate(None, JOINERS))
        if is_password is not None:
            return self._announced.judge(ctx, start, end, is_password)
        stop = self._issuers.prefixed(ctx, start)
        if stop:
            return stop
        special = None if candidate.isalnum() else _LETTERS.match(data, start, end)
        if special is not None and special.end() == end:
            return self._special(ctx, start, end, special.lastgroup)
        stop = self._accounts.judge(ctx, start, end)
        if stop:
            return stop
        stop = self._word(ctx, start, end) if is_word else 0
        if stop:
            return stop
        word = _WORD.match(data, start, end)
        return word.end() if word else start + 1

    def _word(self, ctx: Context, start: int, end: int) -> int:
        """A candidate that may be a word with which something is announced; 0 when it is none."""
        data = ctx.data
        hidden = _LABEL.match(data, start, end)  # the word of a label, and more that looked like a key at first
        if hidden is not None and hidden.end() < end:
            is_password = PASSWORD_STEMS[hidden[0].lower().translate(None, JOINERS)]
            return self._announced.judge(ctx, start, hidden.end(), is_password)
        if _GENERIC.match(data, start, end):
            name = data[start:end].rstrip(b"\"' :=?])*>|-")
            return self._announced.judge(ctx, start, start + len(name), name[-4:].lower().lstrip(b"_-") in _PASS)
        if _BIRTH.match(data, start, end):
            ctx.birth = True
            dates.said_before(ctx, start)
            return end
        return 0

    def _special(self, ctx: Context, start: int, end: int, family: str | None) -> int:
        """Hand a candidate to the family whose form it has in full."""
        match family:
            case "jwt":
                return secrets.jwt(ctx, start, end)
            case "named":
                return dates.named_date(ctx, start, end)
            case "mac":
                return network.mac(ctx, start, end)
            case "six":
                return network.ipv6(ctx, start, end)
            case "command":
                return commands.command(ctx, start, end)
            case "call":
                return commands.call(ctx, start, end)
            case "piped":
                return commands.piped(ctx, start, end)
            case _:
                return network.ipv4(ctx, start) or end

    def _dash(self, ctx: Context, start: int, end: int) -> int:
        if ctx.data.startswith(b"-----BEGIN", start):
            return secrets.private_key(ctx, start, end)
        return self._mark(ctx, start, end)

    def _mark(self, ctx: Context, start: int, end: int) -> int:
        """A candidate that may be the mark inside a key."""
        return self._issuers.marked(ctx, start) or self._letters(ctx, start, end)

    def _colon(self, ctx: Context, start: int, end: int) -> int:
        if ctx.data.startswith(b"://", start):
            return secrets.url_credentials(ctx, start, end)
        return network.ipv6(ctx, start, end)

    def find_labelled(self, text: str, label: str) -> list[Finding]:
        """Return the values seen in a text that stands under a JSON key or column header."""
        if not self._opt_in.kinds and not self._names_kind(label):
            return self.find(text)
        shift = len(label) + 2
        found = self.find(f"{label}: {text}")
        return [f._replace(start=f.start - shift, end=f.end - shift) for f in found if f.start >= shift]

    def may_contain(self, raw: bytes) -> bool:
        """Return False only when no string of this JSON body can hold a finding of any kind."""
        if raw.find(TOKENS_KEY) >= 0:
            raw = without_limits(raw)
        if self._has_more or raw.find(b"\\") >= 0 or raw.find(b"%") >= 0 or not raw.isascii():
            return may_contain(raw, self._labels, self._walk)
        next_from = self._scan(raw)  # it reads as it is written: one scan, stopped at the first value
        [(start, end)] = next_from(0, len(raw))
        return start >= 0 and self._opens(raw, start, end, next_from)

    def _opens(self, raw: bytes, start: int, end: int, next_from: NextFrom) -> bool:
        """Judge a body from its first candidate on."""
        ctx = GateContext("", raw, self._labels)
        handlers = self._handlers
        while start >= 0:
            resume = handlers[raw[start]](ctx, start, end)
            if ctx.fired:
                return True
            [(start, end)] = next_from(resume, ctx.size)
        return is_open(ctx)

    def _walk(self, ctx: GateContext) -> None:
        """Run the families over a gate's context until one has fired."""
        if self._has_more:
            text = ctx.text or ctx.data.decode("latin-1")
            ctx.fired = self._custom.could_match(text) or self._opt_in.could_match(text)
        data, handlers = ctx.data, self._handlers
        if ctx.birth:
            announced_other.search(ctx, self._issuers)
        next_from = self._scan(data)
        [(start, end)] = next_from(0, ctx.size)
        while start >= 0 and not ctx.fired:
            [(start, end)] = next_from(handlers[data[start]](ctx, start, end), ctx.size)

    def live_start(self, text: str, *, is_hasty: bool = False) -> int:
        """Return the leftmost position from which a value could still grow past the end of the text."""
        start = live_start(text, is_hasty=is_hasty)
        return min(start, max(0, len(text) - self._reach)) if self._reach else start


def _outweighed(found: list[Item], spans: list[tuple[int, int]]) -> list[Item]:
    """Return what is left of findings where cells at ``spans``, in order of their starts, hold others."""
    if not spans:
        return found
    starts = [start for start, _ in spans]
    reach = list(accumulate([end for _, end in spans], max))
    kept: list[Item] = []
    for item in found:
        before = bisect_left(starts, item[3].end)
        if item[3].score > LABELLED or not before or reach[before - 1] <= item[3].start:
            kept.append(item)
    return kept


def _never(raw: bytes) -> bool:
    """Of text that is searched once more: the signs do not tell."""
    return False


def _at_sign(ctx: Context, start: int, end: int) -> int:
    """A candidate that begins with an at sign: what stands before it is a mailbox, or user and password of a data source."""
    if ctx.data[end - 1] == 0x28 or ctx.data[start + 1] == 0x2F:
        return secrets.source_credentials(ctx, start, end)
    return network.email(ctx, start, end)


def _end_of(text: str, last: int) -> int:
    """Return the end of the character, or of the escape, that starts at ``last``."""
    return last + 3 if text[last] == "%" and is_escape(text[last : last + 3]) else last + 1


def build_detector(
    kinds: frozenset[str] | None = None, custom: tuple[CustomType, ...] = (), *, engine: str = "auto"
) -> Detector:
    """Compile a detector for the kinds named (None: all that need not be asked for) and the policy's own types.

    Raises:
        ValueError: An unknown kind, or a custom type whose pattern, validator or examples do not hold.
    """
    unknown = (kinds or frozenset()) - KNOWN_KINDS
    if unknown:
        raise ValueError(f"unknown kinds: {', '.join(sorted(unknown))}")
    detector = Detector(DEFAULT_KINDS if kinds is None else kinds, custom, engine)
    detector.check_examples()
    return detector
