"""Judges JSON source while it grows: tool-call arguments, and answers that are JSON by themselves.

Owns strings and names: each string is a text of its own under its name, decoded for judging while the source keeps its
spelling; strings may hold JSON again. What stops being JSON half-way is judged as plain text from there. Does not know
what is looked for.
"""

from __future__ import annotations

import json
import re
from collections import deque
from typing import Final

from proxy.core.redaction import fields
from proxy.core.redaction.jsoncursor import opens_json
from proxy.core.redaction.judge import Judge, Run, TextJudge
from proxy.core.redaction.marks import Marks

_STRUCTURE: Final = re.compile(r'["{}\[\],:]')
_QUOTE_OR_ESCAPE: Final = re.compile(r'["\\]')
_BARE: Final = re.compile(r"[ \t\r\n0-9+\-.eEtrufalsn]*\Z")
"""What may stand outside strings besides signs: numbers, true, false, null, white space."""
_NUMBER: Final = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?\Z")
_WORDS: Final = frozenset({"true", "false", "null"})
_HEX: Final = re.compile(r"[0-9a-fA-F]{4}\Z")
_SHORT: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_MAX_LEVELS: Final = 8
_MAX_NESTING: Final = 192
_MAX_BARE: Final = 64
_MAX_NAME: Final = 64
_MAX_HEAD: Final = 64
_MIN_DIGITS: Final = 7


class AnyJudge:
    """Judges a text as JSON when it begins like JSON, else as it stands."""

    __slots__ = ("_head", "_judge", "_label", "_level", "_marks")

    def __init__(self, marks: Marks, label: str = "", level: int = 0, *, is_json: bool = False) -> None:
        """``is_json``: JSON source by contract, so its beginning is not waited for."""
        self._marks = marks
        self._label = label
        self._level = level
        self._head = ""
        self._judge: Judge | None = JsonJudge(marks, level) if is_json else None
        if level > _MAX_LEVELS:
            self._judge = TextJudge(marks, label)

    def feed(self, text: str) -> list[Run]:
        """Take the next characters; return what is decided by now."""
        if self._judge is not None:
            return self._judge.feed(text)
        self._head += text
        is_json = opens_json(self._head[:_MAX_HEAD])
        if is_json is None and len(self._head) <= _MAX_HEAD:
            return []
        self._judge = JsonJudge(self._marks, self._level) if is_json else TextJudge(self._marks, self._label)
        head, self._head = self._head, ""
        return self._judge.feed(head)

    def finish(self) -> list[Run]:
        """The text is over: decide the rest."""
        if self._judge is None:
            self._judge = TextJudge(self._marks, self._label)
            head, self._head = self._head, ""
            return self._judge.feed(head) + self._judge.finish()
        return self._judge.finish()


class JsonJudge:
    """Judges JSON source."""

    __slots__ = (
        "_bare", "_escape", "_expects_key", "_inner", "_is_key", "_label", "_labels", "_level", "_marks", "_name", "_plain",
        "_sizes", "_stack",
    )  # fmt: skip

    def __init__(self, marks: Marks, level: int = 0) -> None:
        self._marks = marks
        self._level = level
        self._stack: list[str] = []
        self._labels: list[str] = [""]
        self._label = ""
        self._expects_key = False
        self._is_key = False
        self._name = ""
        self._bare = ""
        self._escape = ""
        self._inner: Judge | None = None
        self._sizes: deque[tuple[int, int]] = deque()
        """(decoded, source) characters that the inner judge has been given and has not answered for."""
        self._plain: TextJudge | None = None

    def feed(self, text: str) -> list[Run]:
        """Take the next characters of the source; return what is decided by now."""
        runs: list[Run] = []
        at = 0
        while at < len(text):
            if self._plain is not None:
                runs += self._plain.feed(text[at:])
                break
            if self._inner is None:
                at = self._outside(text, at, runs)
            elif self._escape:
                at = self._in_escape(text, at, runs)
            else:
                at = self._in_string(text, at, runs, self._inner)
        return runs

    def finish(self) -> list[Run]:
        """The source is over: decide the rest."""
        runs: list[Run] = []
        if self._plain is not None:
            return self._plain.finish()
        if self._inner is not None:
            if self._escape:
                self._decode(self._inner, runs)
            runs += self._mapped(self._inner.finish())
            return runs
        return runs if self._judge_bare(runs) else self._finish_plain(runs)

    def _finish_plain(self, runs: list[Run]) -> list[Run]:
        return runs if self._plain is None else runs + self._plain.finish()

    # Outside strings

    def _outside(self, text: str, at: int, runs: list[Run]) -> int:
        sign = _STRUCTURE.search(text, at)
        end = sign.start() if sign else len(text)
        if end > at:
            self._bare += text[at:end]
            if self._bare.isspace():
                runs.append((len(self._bare), None))
                self._bare = ""
            elif len(self._bare) > _MAX_BARE or not _BARE.match(self._bare) or not self._stack:
                self._give_up(runs)
                return end
        if sign is None:
            return end
        if not self._judge_bare(runs):
            return end
        if (not self._stack and sign[0] not in "{[") or len(self._stack) > _MAX_NESTING:
            self._bare = sign[0]
            self._give_up(runs)
            return end + 1
        runs.append((1, None))
        self._structure(sign[0])
        return end + 1

    def _structure(self, sign: str) -> None:
        if sign == '"':
            self._is_key = self._expects_key
            self._expects_key = False
            self._name = ""
            label = "" if self._is_key or self._label in fields.CONTENT else self._label
            self._inner = AnyJudge(self._marks, label, self._level + 1)
        elif sign in "{[":
            self._stack.append(sign)
            self._labels.append(self._label)
            self._expects_key = sign == "{"
        elif sign in "}]":
            if self._stack:
                self._stack.pop()
                self._label = self._labels.pop()
            self._expects_key = False
        elif sign == ",":
            self._expects_key = bool(self._stack) and self._stack[-1] == "{"
            self._label = "" if self._expects_key else self._labels[-1]

    def _judge_bare(self, runs: list[Run]) -> bool:
        """Decide a number, or a word, that stands outside strings; anything else is no JSON: False."""
        bare, self._bare = self._bare, ""
        if not bare:
            return True
        number = bare.strip()
        if number and number not in _WORDS and not _NUMBER.match(number):  # `529.982.247-25 [`: no JSON
            self._bare = bare
            self._give_up(runs)
            return False
        if len(number) >= _MIN_DIGITS and _NUMBER.match(number):
            for f in self._marks.find_labelled(number, self._label):
                if f.start == 0 and f.end == len(number):
                    stand_in = self._marks.settle(f.kind, number)
                    if stand_in is not None:
                        lead = len(bare) - len(bare.lstrip())
                        tail = len(bare) - lead - len(number)
                        runs += [(lead, None), (len(number), json.dumps(stand_in, ensure_ascii=False)), (tail, None)]
                        return True
        runs.append((len(bare), None))
        return True

    def _give_up(self, runs: list[Run]) -> None:
        """Go on as plain text: it is no JSON."""
        self._plain = TextJudge(self._marks, self._label)
        bare, self._bare = self._bare, ""
        runs += self._plain.feed(bare)

    # Inside a string

    def _in_string(self, text: str, at: int, runs: list[Run], inner: Judge) -> int:
        special = _QUOTE_OR_ESCAPE.search(text, at)
        end = special.start() if special else len(text)
        if end > at:
            self._give(inner, text[at:end], end - at, runs)
        if special is None:
            return end
        if special[0] == "\\":
            self._escape = "\\"
            return end + 1
        runs += self._mapped(inner.finish())
        runs.append((1, None))
        self._inner = None
        if self._is_key:
            self._label = self._name
        return end + 1

    def _in_escape(self, text: str, at: int, runs: list[Run], /) -> int:
        """Take one more character of an escape sequence; half a surrogate pair waits for the other half."""
        inner = self._inner
        assert inner is not None
        escape = self._escape
        if len(escape) == 6 and text[at] != "\\":  # a lone high surrogate
            self._decode(inner, runs)
            return at
        escape = self._escape = escape + text[at]
        if len(escape) == 8 and escape[7] != "u":
            self._escape = escape[:6]
            self._decode(inner, runs)
            self._escape = escape[6:]
            escape = self._escape
        is_unicode = escape[1] == "u"
        if not is_unicode or len(escape) == 12 or (len(escape) == 6 and not _is_high(escape)):
            self._decode(inner, runs)
        return at + 1

    def _decode(self, inner: Judge, runs: list[Run]) -> None:
        """Hand an escape sequence to the judge of the string, as what it stands for."""
        escape, self._escape = self._escape, ""
        size = len(escape)
        if size == 12 and not (_HEX.match(escape[8:]) and 0xDC00 <= int(escape[8:], 16) <= 0xDFFF):
            self._give(inner, _unit(escape[:6]), 6, runs)
            self._give(inner, _unit(escape[6:]), 6, runs)
            return
        if size == 12:
            high, low = int(escape[2:6], 16), int(escape[8:], 16)
            character = chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))
        else:
            character = _unit(escape)
        self._give(inner, character, size, runs)

    def _give(self, inner: Judge, decoded: str, size: int, runs: list[Run]) -> None:
        """Feed the judge of the string with characters that take ``size`` in the source."""
        if self._is_key and len(self._name) < _MAX_NAME:
            self._name += decoded[: _MAX_NAME - len(self._name)]
        self._sizes.append((len(decoded), size))
        runs += self._mapped(inner.feed(decoded))

    def _mapped(self, inner_runs: list[Run]) -> list[Run]:
        """Return runs over decoded characters as runs over the source."""
        runs: list[Run] = []
        for count, stand_in in inner_runs:
            if stand_in is not None:
                stand_in = json.dumps(stand_in, ensure_ascii=False)[1:-1]
            runs.append((self._take(count), stand_in))
        return runs

    def _take(self, count: int) -> int:
        """Take so many decoded characters off the queue; return how many of the source they are."""
        source = 0
        sizes = self._sizes
        while count:
            decoded, size = sizes.popleft()
            if decoded > count:  # only runs of plain characters are longer than one
                sizes.appendleft((decoded - count, size - count))
                return source + count
            count -= decoded
            source += size
        return source


def _is_high(escape: str) -> bool:
    return _HEX.match(escape[2:6]) is not None and 0xD800 <= int(escape[2:6], 16) <= 0xDBFF


def _unit(escape: str) -> str:
    r"""Return the one character of ``\n`` or ``\u0040``; what is no escape is a question mark."""
    if escape[1:2] == "u":
        return chr(int(escape[2:6], 16)) if _HEX.match(escape[2:6]) else "?"
    return _SHORT.get(escape[1:2], escape[1:2] or "?")
