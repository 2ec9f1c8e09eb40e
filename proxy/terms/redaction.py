"""The vocabulary of redaction: what may be done, what was seen, what the plan of a route says.

Knows no pattern and no JSON: detectors live in ``core/redaction``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class Action(StrEnum):
    """What is done with one finding; the words are those of the policy file."""

    RESTORE = "restore"
    """A reversible placeholder goes upstream; the caller gets the value back."""
    REDACT = "redact"
    """``[EMAIL_REDACTED]``: never restored."""
    MASK = "mask"
    """All but the last four letters or digits are starred."""
    HASH = "hash"
    """A keyed pseudonym, stable per tenant: ``[EMAIL:3f9ac01d]``."""
    BLOCK = "block"
    """The exchange is refused before anything leaves."""
    OBSERVE = "observe"
    """Counted and reported; the text goes on unchanged."""
    OFF = "ignore"
    """Not looked for."""


class Unscanned(StrEnum):
    """What happens to content that cannot be read as text (images, audio, opaque files)."""

    PASS = "pass"
    REFUSE = "refuse"


class Placeholders(StrEnum):
    """What tells the placeholders of one type apart."""

    NUMBERED = "numbered"
    """``[EMAIL-1]``: the order of first appearance; stable while a history only grows."""
    KEYED = "keyed"
    """``[EMAIL-K7QX2MTA]``: made from the value with a key; stable also where histories are cut or reordered."""


class FileTypes(StrEnum):
    """Which files of an upload are read, besides the text fields beside them."""

    LINES = "jsonl"
    """Batches and training data: every line is read like a request."""
    TEXT = "text"
    """Those, and files of text by their type or name."""


class StreamMode(StrEnum):
    """How long a streamed answer waits for a value that may be coming."""

    STRICT = "strict"
    """As long as one may be coming: about a word, at most some hundred characters."""
    LOW_LATENCY = "low_latency"
    """Words of letters go on at once; what of a value was sent before it showed itself stays sent."""
    BUFFER = "buffer"
    """Until the text is over; labels behind a value and headers of tables count then, too."""


class Counts(dict[str, int]):
    """Type -> different values, the same for many exchanges: nobody changes it, so what is said of it is kept with it.

    Known by identity where it is a key of a dictionary; equal to any dictionary that says the same.
    """

    __slots__ = ("header", "text")
    __hash__ = object.__hash__  # type: ignore[assignment]

    def __init__(self, counts: dict[str, int]) -> None:
        super().__init__(counts)
        self.header: str | None = None
        """As answers tell it to the caller; None: not yet written."""
        self.text: str | None = None
        """As rows keep it; None: not yet written."""


class Finding(NamedTuple):
    """One value seen in one text.

    ``start`` and ``end`` are character offsets in the text that was searched, end exclusive.
    ``kind`` is the type name in upper case (``EMAIL``); ``score`` is a confidence from 0 to 1;
    ``sub`` names the issuer of a secret or is empty.
    """

    start: int
    end: int
    kind: str
    score: float
    sub: str = ""


class CustomType(NamedTuple):
    """A type of the policy file: a linear-time pattern or a list of terms, perhaps labels and one of the validators."""

    name: str
    """In upper case, as findings name it."""
    pattern: str = ""
    labels: tuple[str, ...] = ()
    """Words of which one must stand before a value; empty: none is needed."""
    validator: str = ""
    must_match: tuple[str, ...] = ()
    must_not_match: tuple[str, ...] = ()
    score: float = 0.8
    terms: tuple[str, ...] = ()
    """Words and phrases looked for as they are, whole and in any case; instead of a pattern."""


@dataclass(frozen=True, slots=True)
class DirectionPlan:
    """What redaction does in one direction (requests or answers) of a route.

    ``actions`` maps a type name in upper case to its action; any type not in it gets ``default``. ``scores`` maps
    a type name to the confidence its findings need; any type not in it needs ``min_score``.
    """

    default: Action = Action.OFF
    actions: dict[str, Action] = field(default_factory=dict)
    allow_values: frozenset[str] = frozenset()
    allow_patterns: tuple[str, ...] = ()
    min_score: float = 0.0
    scores: dict[str, float] = field(default_factory=dict)
    allow_domains: tuple[str, ...] = ()
    """Mail domains that are nobody's business, those below them included; lower case, no leading dot."""
    allow_networks: tuple[str, ...] = ()
    """Networks (CIDR) whose addresses are nobody's business."""

    def action_for(self, kind: str) -> Action:
        """Return the action for a type name in upper case."""
        return self.actions.get(kind, self.default)

    @property
    def is_active(self) -> bool:
        """True when some type could be acted on or counted."""
        return self.default is not Action.OFF or any(a is not Action.OFF for a in self.actions.values())


@dataclass(frozen=True, slots=True)
class RedactionPlan:
    """The redaction part of a policy, compiled for one route: both directions."""

    request: DirectionPlan = DirectionPlan()
    response: DirectionPlan = DirectionPlan()
    unscanned: Unscanned = Unscanned.PASS
    stream_mode: StreamMode = StreamMode.STRICT
    files: FileTypes = FileTypes.LINES
    placeholders: Placeholders = Placeholders.NUMBERED
    keep_values_s: float | None = None
    """For how long a conversation's values are kept between its turns; None: each exchange forgets its own."""
    observe_only: bool = False
    """``mode: observe`` of the policy: decide and count, change nothing."""
    custom: tuple[CustomType, ...] = ()
    """The policy's own types, for both directions."""
