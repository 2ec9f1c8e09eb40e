"""The words of an exchange, where policy has them kept: gathered beside their way, sealed, and brought to the store.

Owns one exchange's ``ContentDraft`` and the delivery. Knows disk and store by Protocols; both only ever see what is
sealed. Nothing here holds up an exchange or its row: what cannot be kept is counted, and the row says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from proxy.core.audit.content import ANSWER, REQUEST, Content, Part, StreamText, part_of
from proxy.core.audit.payload import MAX_TEXT_BYTES
from proxy.core.audit.sanitise import clean_text
from proxy.core.dialect import Dialect
from proxy.core.policy.model import ContentRule
from proxy.core.redaction import AnswerRedactor, StreamRestorer, Vault
from proxy.flow.ports import Clock, Witness
from proxy.flow.stream_parts import Transform
from proxy.terms.errors import ProxyError, SinkUnavailable
from proxy.terms.exchange import ExchangeFacts

LOST: Final = "content_lost"
"""The note of a row whose content could not be kept."""
_BATCH: Final = 16
"""Opened at a stretch: about a millisecond of the event loop."""
_LOOK_EVERY_S: Final = 0.25
_RETRY_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class ContentState:
    """Kept content at one moment; the counters only ever rise."""

    kept: int
    lost: int
    waiting: int
    waiting_bytes: int
    unreadable: int
    """Sealed with another key, or damaged: left where it is."""


class ContentSpool(Protocol):
    """Where sealed content waits on disk."""

    def keep(self, content: Content) -> bool:
        """Seal and write; False when that failed (it has been counted). Raises nothing."""
        ...

    def lose(self) -> None:
        """Count content that could not be put together."""
        ...

    def read(self, max_items: int) -> list[Content]:
        """Return the oldest that wait."""
        ...

    def forget(self, ids: Sequence[str]) -> None:
        """These are in the store, or may not be."""
        ...

    def state(self) -> ContentState: ...


Pieces = dict[str, dict[str, Any]]
"""Part -> ``mode``, ``cut`` and ``text``; or ``sealed: true`` without the key."""


class ContentStore(Protocol):
    """Sealed content beside the rows. Both raise SinkUnavailable."""

    async def insert(self, contents: Sequence[Content], now_ms: int) -> None:
        """Seal for each person and store; repeats change nothing, erased and expired ones are left out."""
        ...

    async def read(self, ids: Sequence[str]) -> Mapping[str, Pieces]:
        """Return what is kept of these exchanges, opened as far as the key opens it."""
        ...


class ContentDraft:
    """The words of one running exchange."""

    __slots__ = ("_answer", "_request", "_rule", "_spool", "_stream")

    def __init__(self, spool: ContentSpool, rule: ContentRule, request: bytes | None) -> None:
        self._spool = spool
        self._rule = rule
        self._request = request
        self._answer: bytes | None = None
        self._stream: StreamText | None = None

    def take_redacted(self, body: bytes) -> None:
        """Take a whole answer before the exchange's own values are put back."""
        if not self._rule.is_full:
            self._answer = body

    def take_answer(self, body: bytes) -> None:
        """Take a whole answer as the caller gets it; where only what is redacted may be kept, unless that came before."""
        if self._rule.is_full or self._answer is None:
            self._answer = body

    def beside(
        self, transforms: tuple[Transform, ...], answers: AnswerRedactor | None, dialect: Dialect
    ) -> tuple[Transform, ...]:
        """Return the codecs of a stream with one that gathers its words; an attempt anew begins anew."""
        text = self._stream = StreamText()
        if self._rule.is_full:
            return (*transforms, _Tap(text))
        # What the caller sees has their own values in it again; this reads the provider's words, redacted alone.
        reader = StreamRestorer(Vault(), dialect, answers.marks()) if answers and not answers.is_observing else None
        return (_Tap(text, reader), *transforms)

    def seal(self, facts: ExchangeFacts) -> None:
        """Keep what there is, before the row of the exchange. Raises nothing: the row has to be written."""
        try:
            content = self._gathered(facts)
        except Exception:  # noqa: BLE001 - whatever a provider sent, the row comes first; what is lost is counted
            self._spool.lose()
            facts.notes.append(LOST)
            return
        if content.parts and not self._spool.keep(content):
            facts.notes.append(LOST)

    def _gathered(self, facts: ExchangeFacts) -> Content:
        mode = "full" if self._rule.is_full else "redacted"
        parts = []
        if self._request is not None:
            parts.append(part_of(REQUEST, mode, self._request))
        if self._answer is not None:
            parts.append(part_of(ANSWER, mode, self._answer))
        elif self._stream is not None:
            parts.append(Part(ANSWER, mode, self._stream.is_cut, self._stream.text))
        user, _ = clean_text(facts.user, MAX_TEXT_BYTES)  # as the row has it
        expires = facts.ts_ms + int(self._rule.retention_s * 1000)
        return Content(facts.id, facts.ts_ms, user, expires, tuple(parts))


class _Tap:
    """A codec that changes nothing and hears everything, through a reader of its own where there is one."""

    __slots__ = ("_reader", "_text")

    def __init__(self, text: StreamText, reader: StreamRestorer | None = None) -> None:
        self._text = text
        self._reader = reader

    def feed(self, data: bytes) -> bytes:
        if not self._text.is_cut:
            self._hear(data)
        return data

    def finish(self, broken: bool = False) -> bytes:
        if self._reader is not None and not self._text.is_cut:
            try:
                self._text.feed(self._reader.finish(broken))
            except ProxyError:
                self._text.is_cut = True
        return b""

    def _hear(self, data: bytes) -> None:
        try:
            self._text.feed(data if self._reader is None else self._reader.feed(data))
        except ProxyError:  # blocked or unreadable: the stream's own codec says so to the caller
            self._text.is_cut = True


class ContentDelivery:
    """Brings kept content to the store; one per process."""

    def __init__(self, spool: ContentSpool, store: ContentStore, clock: Clock, witness: Witness) -> None:
        self._spool = spool
        self._store = store
        self._clock = clock
        self._witness = witness
        self._is_away = False

    async def run(self) -> None:
        """Deliver for ever; a store that is away is asked again."""
        while True:  # noqa: ASYNC110 - files are what is waited for, and they tell nobody
            await asyncio.sleep(_LOOK_EVERY_S if await self.flush() else _RETRY_S)

    async def flush(self) -> bool:
        """Deliver what waits; False when the store would not take it."""
        while contents := self._spool.read(_BATCH):
            try:
                await self._store.insert(contents, self._clock.unix_ms())
            except SinkUnavailable as exc:
                if not self._is_away:
                    self._witness.notice("audit_content_waits", reason=str(exc))
                self._is_away = True
                return False
            self._is_away = False
            self._spool.forget([content.id for content in contents])
        return True
