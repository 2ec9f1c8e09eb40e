"""Runs of digits with single separators: cards, national numbers, telephones, and the dates and times among them.

Owns the cutting of a run into values (a run is always tried whole first, so nothing is cut out of a longer number)
and the order of evidence: shape, label, checksum. Knows the catalog's rows, no country.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from proxy.core.redaction.detect import dates, phones
from proxy.core.redaction.detect.catalog import Catalog, Rule
from proxy.core.redaction.detect.context import LABELLED, NEAR, SOFT, STRONG, WEAK, Context
from proxy.core.redaction.detect.digit_looks import (
    CARD,
    MAX_CARDS,
    NON_DIGITS,
    SEPARATORS,
    before_open,
    cards_from,
    is_benign,
    is_clear,
    is_date_shape,
    is_of_more,
    is_of_telephone,
    is_operand,
    is_timestamp,
    spaced,
    stands_alone,
)
from proxy.core.redaction.detect.labels import NEGATIVE, NEGATIVE_ALONE, Label
from proxy.core.redaction.detect.network import ipv4
from proxy.core.redaction.detect.validators_americas import card

Handler = Callable[[Context, int, int], int]
"""(context, start, end of a candidate) -> where the scan goes on."""

DIGIT_RUN = rb"(?:\+ ?|\( ?\+? ?)?[0-9](?:(?:[ .\-/:\xa0_+]|  |\)(?:  ?|\+)?[\-/]?|[ .\xa0+]?\()?[0-9]){6,}"
"""Seven digits or more, at most one separator between two of them, brackets around an area code."""

SHAPE = bytes(
    0x30 if 0x30 <= c <= 0x39 else 0x41 if 0x41 <= c <= 0x5A or 0x61 <= c <= 0x7A else 0x20 if c == 0xA0 else c
    for c in range(256)
)
_EDGE = bytes(1 if (chr(c).isalnum() and c < 128) or c in b"_-./:#" else 0 for c in range(256))
_WORD = bytes(1 if (chr(c).isalnum() and c < 128) or c == 0x5F else 0 for c in range(256))
"""What a number may be glued to: on its left, over one sign; on its right, at once."""
_BESIDE = _WORD[:0x3A] + b"\x01" + _WORD[0x3B:]
"""What stands right after a number that has to be looked at: a colon may go on with an address."""
_NO_POINTS = bytes(c for c in range(256) if c not in b"-/.")
"""What is left of a date and of an address are their two or three separators."""
_OPENING = re.compile(rb"0*[^0]?")
_GROUPS = re.compile(rb"[0-9]+")
_TRUNK = re.compile(rb"0[^0-9]{0,2}[1-9]")
_MAX_GROUPS = 8
_MAX_VALUE = 32
_LONG_GROUP = b"0" * 13
"""A number that is long enough by itself: with groups beside it, they are not one value."""
_SPLIT_CARD = re.compile(
    rb"[0-9]{4}([ -])(?:[0-9]{4}\r?\n *[0-9]{4}\1[0-9]{4}|[0-9]{4}\1[0-9]{4}\r?\n *[0-9]{4})(?![ \-]?[0-9])"
)
_COORDINATES = frozenset((b"0000-00000", b"000000-0000000"))
_COORDINATES_NORTH = frozenset(b"+" + shape for shape in _COORDINATES)
_WRITTEN_ABROAD = re.compile(rb"\+0{1,3}[ .\-](?:\(0{1,4}\) ?)?0{1,4}([ .\-])(?:0{2,5}\1){0,3}0{2,5}")
_JOINTS = b"-./:_"
_EXTENSION = re.compile(rb"(?i) ?(?:x|ext\.?|extension|ramal) ?[0-9]{1,6}(?![0-9A-Za-z])")
_CARDS = frozenset(b" ".join([CARD] * count) for count in range(2, MAX_CARDS + 1))
_COLON_JOINED = re.compile(rb":(?:[0-9A-Fa-f]{1,4})?:")
_THOUSANDS = re.compile(rb"[0-9]{1,2}([ .\xa0])[0-9]{3}(?:\1[0-9]{3})+")
"""One large number, its digits in threes: nothing is cut out of it."""
_THOUSANDS_LEFT = re.compile(rb"[0-9],[0-9]{3},\Z")
_SPECIAL = re.compile(
    rb"(?<![0-9])(?<![0-9][-/.])(?:"
    rb"(?P<date>(?:19|20)[0-9]{2}([-/.])(?:0?[1-9]|1[0-2])\2(?:0?[1-9]|[12][0-9]|3[01])"
    rb"|(?:0?[1-9]|[12][0-9]|3[01])([-/.])(?:0?[1-9]|[12][0-9]|3[01])\3(?:19|20)[0-9]{2})(?![-/.]?[0-9])"
    rb"(?P<time>[ :]{1,2}[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,9})?)?(?![0-9]))?"
    rb"|(?P<ip>[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})(?![0-9])(?!\.[0-9])"
    rb")"
)
"""Dates, times of day after them, and dotted quads: they part a run."""


class DigitRuns:
    """The handler of digit runs, over one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self._strong = catalog.strong
        self._soft = catalog.soft
        self._labelled = catalog.labelled
        self._counted = catalog.counted
        self._phone = catalog.rules.get("PHONE")
        self._ambiguous = _ambiguous(catalog)
        self._shared = frozenset(s for s in self._ambiguous if not _others(catalog, s))
        """Ambiguous shapes of strong kinds alone, of which mostly one alone accepts a number."""
        exact = {s for s in (*catalog.strong, *catalog.soft) if b"A" not in s} | set(phones.NATIONAL_SHAPES)
        self._openings = frozenset(_OPENING.match(s)[0] for s in exact)  # type: ignore[index]
        self.exact_shapes = self._exact = {
            s for s in exact if s.count(b".") != 3
        }  # four dotted groups may be an address
        self._clear = frozenset(s for s in self._exact if is_clear(s))
        """Shapes of which every number with nothing beside it is judged as a whole."""

    def read(self, ctx: Context, start: int, end: int) -> int:
        """Judge the run at [start, end); return where the scan goes on."""
        run = ctx.data[start:end]
        return self.judge(ctx, start, end, run, run.translate(SHAPE))

    def judge(self, ctx: Context, start: int, end: int, run: bytes, shape: bytes) -> int:
        """Do so where the run and its shape are known."""
        data = ctx.data
        if is_date_shape(run, shape):
            if (ctx.birth or data[end : end + 2] == b" (") and not dates.report(ctx, start, start + 10):
                ctx.orphans = True
            return end
        before = data[start - 1] if start else 0x20
        has_neighbour = bool(_EDGE[before] or before == 0x2C or (end < ctx.size and _BESIDE[data[end]]))
        if shape in self._clear and not has_neighbour:
            if not self._judge(ctx, start, end, run, shape, whole=True) and shape.strip(b"0"):
                self._windows(ctx, start, run, shape)
            return end
        return self._beside_others(ctx, start, end, run, shape, has_neighbour=has_neighbour)

    def _beside_others(
        self, ctx: Context, start: int, end: int, run: bytes, shape: bytes, *, has_neighbour: bool
    ) -> int:
        """Judge a run that may hold a date or be glued to something."""
        if run[0] == 0x28 and b")" not in run:
            return start + 1  # an opening bracket that is not the number's own
        opened = run.rfind(b"(")
        if opened > 0 and run.find(b")", opened) < 0:  # "+44 7401 758210 (9 to 5)"
            self.read(ctx, start, start + before_open(run, opened))
            return start + opened + 1
        return self._parted(ctx, start, end, run, shape, has_neighbour=has_neighbour)

    def _parted(self, ctx: Context, start: int, end: int, run: bytes, shape: bytes, *, has_neighbour: bool) -> int:
        """Judge a run after what belongs to its surroundings is cut away."""
        data = ctx.data
        resume, stop = end, end
        is_passed_over = False
        if has_neighbour:
            start, stop = self._trim(ctx, start, end)
            resume = end if stop == end else max(stop, start + 1)
        if shape not in self._exact and len(shape.translate(None, _NO_POINTS)) > 1:
            special = _SPECIAL.search(data, start, stop)
            is_passed_over = special is not None and is_of_telephone(data, start, special)
            if special is not None and not is_passed_over:
                if special.start() == start:
                    return self._special(ctx, special)
                resume = special.start()
                stop = start + len(data[start:resume].rstrip(SEPARATORS))
        if stop - start != len(run):
            run = data[start:stop]
            shape = run.translate(SHAPE)
        if shape.count(b"0") < 7 or (
            (run[0] == 0x39 or shape.find(b".") >= 0 or len(run) == 9) and is_benign(run, shape)
        ):
            return start + 1 if is_passed_over else resume
        # A form field writes blanks as plus signs; two blanks join groups only where a label stands before them.
        is_spaced = shape not in self._exact and (
            (shape.find(b"+", 1) > 0 and data[start - 1 : start] == b"=")
            or (shape.find(b"  ") >= 0 and ctx.label(start) is not None)
        )
        if is_spaced and self._judge(ctx, start, stop, run, spaced(shape), whole=True):
            return resume
        if self._judge(ctx, start, stop, run, shape, whole=True) or not shape.strip(b"0"):
            return resume
        known = len(ctx.found)
        self._windows(ctx, start, run, shape)
        if len(ctx.found) == known and data[stop : stop + 1] == b":":
            self._before_last(ctx, start, run)
        is_telephone = not is_passed_over or any([item[3].start == start for item in ctx.found[known:]])
        return resume if is_telephone else start + 1  # read again without its sign: there may be addresses in it

    def _before_last(self, ctx: Context, start: int, run: bytes) -> None:
        """Judge a run without its last group, of which nobody knows yet whether it begins an address."""
        run = run[: max(0, run.rfind(b" "))].rstrip(SEPARATORS)
        shape = run.translate(SHAPE)
        if shape.count(b"0") > 6 and not self._judge(ctx, start, start + len(run), run, shape, whole=True):
            self._windows(ctx, start, run, shape)

    def _special(self, ctx: Context, special: re.Match[bytes]) -> int:
        """A date or an address at the start of a run: judge it and go on behind it."""
        if special["ip"] is not None:
            return ipv4(ctx, special.start()) or special.end()
        if ctx.birth and not dates.report(ctx, *special.span("date")):
            ctx.orphans = True
        return special.end()

    def _trim(self, ctx: Context, start: int, end: int) -> tuple[int, int]:
        """Drop a first or last group that is glued to a word or to a decimal part."""
        data = ctx.data
        before = data[start - 1] if start else 0x20
        joined = before in b"-._#" and start > 1 and ctx.is_glued_left(start - 1) and data[start] not in b"+("
        if before == 0x2C and _THOUSANDS_LEFT.search(data, max(0, start - 6), start):
            joined = data[start : start + 3].isdigit() and not data[start + 3 : start + 4].isdigit()
        if joined or (ctx.is_glued_left(start) and not _is_glued_label(ctx, start)):
            first = _GROUPS.search(data, start)
            following = _GROUPS.search(data, first.end(), end) if first else None
            while following is not None and data[following.start() - 1] in _JOINTS:
                following = _GROUPS.search(data, following.end(), end)  # "x-2013-01-22-22-04": all of it is one name
            if following is None:
                return end, end
            start = following.start()
        if ctx.is_glued_right(end) and not _EXTENSION.match(data, end):
            end = start + len(data[start:end].rstrip(b"0123456789"))
            end = start + len(data[start:end].rstrip(SEPARATORS))
        if _COLON_JOINED.match(data, end):  # "4111111111111111 00:1A:2B:3C:4D:5E": the last group begins an address
            blank = data.rfind(b" ", start, end)
            end = start + len(data[start:blank].rstrip(SEPARATORS)) if blank > start else end
        return start, end

    def _judge(self, ctx: Context, start: int, end: int, run: bytes, shape: bytes, *, whole: bool) -> bool:
        """Report the run as one value if evidence suffices."""
        digits = run.translate(None, NON_DIGITS).decode()
        strong = self._strong.get(shape, ())
        sole = _sole(strong, digits) if shape in self._shared else None
        if sole is not None and not is_of_more(ctx, start, end, shape):
            ctx.add(start, end, sole.name, sole.priority, STRONG)
            return True
        if whole and sole is None and shape in self._ambiguous:
            label = ctx.label(start) or ctx.label_after(end)
            if label is not None and self._by_label(ctx, start, end, shape, digits, label):
                return True
        if is_of_more(ctx, start, end, shape):
            return False
        for rule in strong:
            if rule.check is None or rule.check(digits):
                ctx.add(start, end, rule.name, rule.priority, STRONG)
                return True
        if run[0] in b"+(" and self._phone_by_shape(ctx, start, end, shape, digits):
            return True
        label = (ctx.label(start) or ctx.label_after(end)) if whole else None
        if label is not None:
            ctx.orphans = ctx.orphans or label.gap.find(b"\n") >= 0  # the last word of a header row, perhaps
            if self._by_label(ctx, start, end, shape, digits, label):
                return True
            if self._speaks_against(label, digits):
                return False
        elif whole and self._as_listed(ctx, start, end, shape, digits):
            return True
        return self._unlabelled(ctx, start, end, shape, digits)

    def _as_listed(self, ctx: Context, start: int, end: int, shape: bytes, digits: str) -> bool:
        """Report one more value of a list whose first was found; a table's header may tell of it otherwise."""
        ctx.orphans = True
        listed = ctx.listed(start)
        return listed is not None and self._by_label(ctx, start, end, shape, digits, listed)

    def _speaks_against(self, label: Label, digits: str) -> bool:
        """True for an order number, and for a number announced as a kind whose check it fails."""
        if NEGATIVE in label.kinds:
            return True
        return label.distance < 4 and any([rule.name in label.kinds for rule in self._counted.get(len(digits), ())])

    def _unlabelled(self, ctx: Context, start: int, end: int, shape: bytes, digits: str) -> bool:
        for rule in self._soft.get(shape, ()) if not is_timestamp(digits) else ():
            if rule.check is None or rule.check(digits):
                ctx.add(start, end, rule.name, rule.priority, SOFT)
                return True
        return self._phone_by_shape(ctx, start, end, shape, digits)

    def _by_label(self, ctx: Context, start: int, end: int, shape: bytes, digits: str, label: Label) -> bool:
        if label.kinds == NEGATIVE_ALONE:
            return False
        is_odd = (
            shape[:1] == b"+" or shape.find(b":") >= 0 or (shape.find(_LONG_GROUP) >= 0 and bool(shape.strip(b"0")))
        )  # a telephone number, or a time and the like: no identifier
        for rule in (*self._labelled.get(shape, ()), *(() if is_odd else self._counted.get(len(digits), ()))):
            if rule.name in label.kinds and (rule.loose is None or rule.loose(digits)):
                ctx.add(start, end, rule.name, rule.priority, LABELLED if rule.loose else WEAK)
                return True
        if "CREDIT_CARD" in label.kinds and not ctx.local and _card_over_lines(ctx, start):
            return True
        if "DATE_OF_BIRTH" in label.kinds and dates.is_calendar_date(ctx.data[start:end]):
            return dates.report(ctx, start, end)
        if (
            self._phone
            and "PHONE" in label.kinds
            and shape.find(b":") < 0
            and shape[:4] != b"0.0."
            and not (label.distance == 0 and ctx.is_glued_left(start))
            and phones.is_plausible(digits)
        ):
            ctx.add(start, _with_extension(ctx, end), "PHONE", self._phone.priority, LABELLED)
            return True
        return not is_odd and 0 < label.distance <= NEAR and self._by_form(ctx, start, end, shape, digits, label)

    def _by_form(self, ctx: Context, start: int, end: int, shape: bytes, digits: str, label: Label) -> bool:
        """Report what a label calls a kind and whose check is wrong: mistyped, or made up, and somebody's all the same."""
        if len(set(digits)) < 3:
            return False
        exact = (*self._strong.get(shape, ()), *self._soft.get(shape, ()), *self._labelled.get(shape, ()))
        for rule in (*exact, *self._counted.get(len(digits), ())):
            if rule.name in label.kinds and (rule.name != "CREDIT_CARD" or 15 <= len(digits) <= 16):
                ctx.add(start, end, rule.name, rule.priority, WEAK)
                return True
        return False

    def _phone_by_shape(self, ctx: Context, start: int, end: int, shape: bytes, digits: str) -> bool:
        if self._phone is None or not 7 <= len(digits) <= 15 or shape.find(b":") >= 0 or shape.find(b"+", 1) > 1:
            return False
        if shape[0] == 0x2B and is_operand(ctx.data, start, end):
            return False
        if shape in _COORDINATES_NORTH or (shape in _COORDINATES and ctx.data[start - 1 : start] == b"-"):
            return False
        if shape[0] == 0x2B or shape[:2] in (b"(+", b"+ "):
            known, score = phones.is_international(digits), STRONG
            if not known and _WRITTEN_ABROAD.fullmatch(shape) is not None:
                known, score = True, SOFT  # of no plan, and written as one
        elif digits[:2] == "00" and shape[:2] == b"00" and len(digits) > 9 and shape.strip(b"0"):
            known, score = phones.is_international(digits[2:]), SOFT
        else:
            known, score = phones.is_national_shape(shape, digits), SOFT
        if known:
            ctx.add(start, _with_extension(ctx, end), "PHONE", self._phone.priority, score)
        return known

    def _windows(self, ctx: Context, start: int, run: bytes, shape: bytes) -> None:
        """Try the group sequences inside a run that is no value as a whole, longest first, left to right."""
        if _THOUSANDS.fullmatch(run):
            return
        if shape in _CARDS and self._all_cards(ctx, start, run):
            return
        groups = [found.span() for found in _GROUPS.finditer(run)]
        i = taken = 0
        while i < len(groups):
            first = groups[i][0]
            count = cards_from(shape, first) if i == taken else 0
            if count > 1 and self._all_cards(ctx, start + first, run[first : first + 20 * count - 1]):
                i = taken = i + 4 * count
                continue
            j = self._window_from(ctx, start, run, shape, groups, i, taken)
            i, taken = (i + 1, taken) if j < 0 else (j + 1, j + 1)

    def _all_cards(self, ctx: Context, start: int, run: bytes) -> bool:
        """Report card numbers in fours that stand one behind the other; False when not all of them are."""
        known = len(ctx.found)
        for at in range(0, len(run), 20):
            if not self._judge(ctx, start + at, start + at + 19, run[at : at + 19], CARD, whole=False):
                del ctx.found[known:]
                return False
        return True

    def _window_from(
        self, ctx: Context, start: int, run: bytes, shape: bytes, groups: list[tuple[int, int]], i: int, taken: int
    ) -> int:
        """Return the last group of the value that starts with group ``i``, or -1; groups before ``taken`` are values."""
        first = groups[i][0]
        while first and run[first - 1] in b"+(":
            first -= 1
        # Telephone formats are open, no table of shapes has them all: they begin with a sign or one trunk zero.
        free = i == 0 or run[first] in b"+("
        is_trunk = i == taken and not free and run[first] == 0x30 and _TRUNK.match(run, first) is not None
        opens = shape[first : groups[i][1] + 1] in self._openings or shape[first : groups[i][1]] in self._exact
        if not (free or is_trunk or opens):
            return -1
        for j in range(min(len(groups), i + _MAX_GROUPS) - 1, i - 1, -1):
            last = groups[j][1]
            if not 7 <= last - first <= _MAX_VALUE:
                continue
            part = shape[first:last]
            is_open = free or (is_trunk and 9 <= last - first - (j - i) <= 11)
            if not (is_open or part in self._exact) or not stands_alone(run, groups, i, j, taken):
                continue
            if self._judge(ctx, start + first, start + last, run[first:last], part, whole=i == 0):
                return j
        return -1


def _ambiguous(catalog: Catalog) -> frozenset[bytes]:
    """Strong shapes that are also written for other kinds: there a label outweighs a check that fits by chance."""
    found = set()
    for shape, rules in catalog.strong.items():
        if b"A" not in shape and (_others(catalog, shape) or len({rule.name for rule in rules}) > 1):
            found.add(shape)
    return frozenset(found)


def _others(catalog: Catalog, shape: bytes) -> set[str]:
    """Return the kinds a strong shape is also written for, less certain ones."""
    others = {r.name for index in (catalog.soft, catalog.labelled) for r in index.get(shape, ())}
    if len(set(shape.translate(None, b"0"))) == 1 and len({len(g) for g in re.split(rb"[^0]", shape)}) == 1:
        others |= {r.name for r in catalog.counted.get(shape.count(b"0"), ())}
    return others - {rule.name for rule in catalog.strong[shape]}


def _sole(rules: tuple[Rule, ...], digits: str) -> Rule | None:
    """Return the kind that takes a number without a label when no other would take it, not even beside its own."""
    sole = None
    for rule in rules:
        if rule.loose is None or rule.loose(digits):
            if sole is not None:
                return None
            sole = rule
    return sole if sole is not None and (sole.check is None or sole.check(digits)) else None


def _is_glued_label(ctx: Context, start: int) -> bool:
    """True where the word a number is glued to announces it: ``CPF529.982.247-25``; its check must be right then."""
    data = ctx.data
    if not data[start - 1 : start].isalpha() or (data[start - 1] in b"Tt" and data[start - 2 : start - 1].isdigit()):
        return False  # the commonest by far is the letter between a day and a time
    label = ctx.label(start)
    return label is not None and label.distance == 0 and NEGATIVE not in label.kinds


def _card_over_lines(ctx: Context, start: int) -> bool:
    """Report a card whose groups go on in the next line, as in print."""
    found = _SPLIT_CARD.match(ctx.data, start)
    if found is None or not card(found[0].translate(None, NON_DIGITS).decode()):
        return False
    ctx.add(start, found.end(), "CREDIT_CARD", 5, LABELLED)
    return True


def _with_extension(ctx: Context, end: int) -> int:
    extension = _EXTENSION.match(ctx.data, end)
    return extension.end() if extension else end
