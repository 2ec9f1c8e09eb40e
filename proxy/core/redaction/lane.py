"""One logical text of an answer, given in pieces of any size, with the values put back.

Owns the tail that may still become a placeholder. Order within a lane: new findings are redacted first, then
placeholders restored, so a restored value is never redacted again. Does not know events or documents; whole answers use
the same lane with one piece, so streamed and whole restoring cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.redaction.edits import Move, moved
from proxy.core.redaction.jsoncursor import JsonCursor
from proxy.core.redaction.marks import Marks
from proxy.core.redaction.scan import is_protocol
from proxy.core.redaction.sieve import Sieve, Tally
from proxy.core.redaction.vault import Vault, may_hold_tag


class Lane:
    """One logical text: new findings go, then values come back. Fed piece by piece, it holds back only what may still
    become a finding or a placeholder.
    """

    __slots__ = ("_cursor", "_moves", "_read", "_sieve", "_tail", "_vault")

    def __init__(self, vault: Vault, *, is_json: bool, sieve: Sieve | None = None) -> None:
        """``is_json``: the text is JSON source by contract (arguments of a tool call)."""
        self._vault = vault
        self._sieve = sieve
        self._tail = ""
        self._read = 0
        self._moves: list[Move] = []
        self._cursor = JsonCursor(True if is_json else None) if vault.needs_escaping else None

    @property
    def is_holding(self) -> bool:
        return bool(self._tail) or (self._sieve is not None and self._sieve.is_holding)

    def feed(self, piece: str) -> str:
        """Take the next piece and return what can be given out."""
        return self._put_back(piece if self._sieve is None else self._sieve.feed(piece))

    def _put_back(self, piece: str) -> str:
        if not self._tail and not may_hold_tag(piece):
            if self._cursor is not None:
                self._cursor.feed(piece)
            self._read += len(piece)
            return piece
        text = self._tail + piece
        cut = self._vault.hold_from(text)
        self._tail = text[cut:]
        return self._release(text[:cut])

    def finish(self) -> str:
        """Return what was held at the lane's end; half a placeholder goes out as it is and carries nothing."""
        released = "" if self._sieve is None else self._put_back(self._sieve.finish())
        left, self._tail = self._tail, ""
        return released + self._release(left) if left else released

    def place(self, at: int) -> int:
        """Return where an offset into the text as it came is in the text as it went out."""
        if self._sieve is not None:
            at = moved(at, self._sieve.moves)
        return moved(at, self._moves)

    def _release(self, text: str) -> str:
        cursor = self._cursor
        pieces: list[str] = []
        done = 0
        for start, end, body in self._vault.tags_in(text):
            depth = 0
            if cursor is not None:
                cursor.feed(text[done:start])
                depth = cursor.depth
                cursor.feed(text[start:end])
            value = self._vault.value_of(body, depth)
            pieces += (text[done:start], value)
            self._moves.append((self._read + end, len(value) - (end - start)))
            done = end
        if cursor is not None:
            cursor.feed(text[done:])
        self._read += len(text)
        return "".join(pieces) + text[done:] if pieces else text


class Treatment:
    """What is done to every text of one answer: new findings replaced, then the exchange's values put back."""

    __slots__ = ("_marks", "_sieve", "vault")

    def __init__(self, vault: Vault, marks: Marks | None = None, *, only_counts: bool = False) -> None:
        """Choose the treatment.

        Args:
            vault: What is put back.
            marks: What is done with new findings; None where policy does not look at answers.
            only_counts: Nothing is done with them but counting.
        """
        self.vault = vault
        self._marks = marks
        self._sieve = Tally if only_counts else Sieve

    def lane(self, *, is_json: bool) -> Lane:
        """Return the lane of one text that will come in pieces."""
        return Lane(
            self.vault,
            is_json=is_json,
            sieve=None if self._marks is None else self._sieve(self._marks, is_json=is_json),
        )

    def whole(self, text: str, *, is_json: bool = False, name: str = "") -> str:
        """Treat a text that is there in one piece, exactly as a stream of its pieces would be.

        Args:
            text: The text.
            is_json: It is JSON source by contract.
            name: The member it stands under; identifiers and words of the protocol are not read.
        """
        if self._marks is None or is_protocol(name, text):
            return restore_whole(self.vault, text, is_json=is_json)
        lane = self.lane(is_json=is_json)
        return lane.feed(text) + lane.finish()

    def places(self, text: str, *, is_json: bool = False) -> Callable[[int], int]:
        """Return what tells where an offset into ``text`` is after the treatment."""
        lane = self.lane(is_json=is_json)
        lane.feed(text)
        lane.finish()
        return lane.place


def restore_whole(vault: Vault, text: str, *, is_json: bool) -> str:
    """Restore a text that is there in one piece, exactly as a stream of its pieces would be."""
    if not may_hold_tag(text):
        return text
    lane = Lane(vault, is_json=is_json)
    return lane.feed(text) + lane.finish()
