"""Asks a service for the names and addresses in the texts of a request, and lets redaction act on them.

Owns the memory of answers, the breaker and the line before the service, and what becomes of a request about which the
service did not answer. Knows no HTTP: an ``Analyzer`` is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final, Protocol

from proxy.core.config.settings import NamesSettings, OnNamesFailure
from proxy.core.dialect import Dialect
from proxy.core.health.breaker import Breaker, BreakerState
from proxy.core.redaction import Blocked, Redacted, RequestRedactor, Unreadable, Untouched, Verdict
from proxy.core.redaction.names import Collector, Implausible, Question, pieces, questions, read_answer, select
from proxy.core.redaction.seen import FindingMemory
from proxy.flow.intake import takes_long
from proxy.flow.large_bodies import LargeBodies, redact_body
from proxy.terms.errors import NamesUnavailable
from proxy.terms.redaction import Finding, RedactionPlan

UNREAD: Final = "names_unread"
"""What a row notes when policy let a request pass about which the service did not answer."""
_MAX_ENTRIES: Final = 8192
_WAITING_PER_SLOT: Final = 8
"""Calls that may wait for each call that runs; what comes on top of it is not worth waiting for."""


class Analyzer(Protocol):
    """A service that finds names in free text."""

    async def analyze(self, text: str, language: str) -> Any:
        """Return its answer, parsed and unchecked.

        Raises:
            NamesUnavailable: There is none.
        """
        ...

    async def close(self) -> None:
        """Let its connections go."""
        ...


class Names:
    """The names service as requests meet it; one per process."""

    def __init__(
        self, settings: NamesSettings, analyzer: Analyzer, now_s: Callable[[], float], dice: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._analyzer = analyzer
        self._now_s = now_s
        self._dice = dice
        self._breaker = Breaker()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._calls_now = 0
        self._memory = FindingMemory[list[Finding]](_MAX_ENTRIES)
        self.calls = self.failures = self.passed = self.refused = self.remembered = 0
        self.seconds = 0.0
        """What requests have waited for the service, together."""

    @property
    def is_open(self) -> bool:
        """True while the service is left alone."""
        return self._breaker.state is not BreakerState.CLOSED

    async def close(self) -> None:
        """Let the service's connections go."""
        await self._analyzer.close()

    async def redact(
        self,
        redactor: RequestRedactor,
        plan: RedactionPlan,
        body: bytes,
        dialect: Dialect,
        content_type: bytes,
        document: Any,
        large: LargeBodies,
        notes: list[str],
    ) -> Verdict:
        """Decide what may leave in place of a body, as ``redact_body`` does, with what the service finds in it.

        Bodies that are read in a process of their own are not shown to the service and count as unscanned.

        Raises:
            RedactionFault: A detector failed, or the service did and its failures refuse; nothing may leave.
        """
        if takes_long(body):
            return _with_unscanned(await large.redact(body, dialect, content_type, plan), len(body), redactor)
        collector = Collector()
        redact_body(redactor.collecting(collector), plan, body, dialect, content_type, document)
        try:
            found, cut_bytes = await self._look_up(list(collector.texts))
        except NamesUnavailable:
            if self._settings.on_failure is OnNamesFailure.REFUSE and not redactor.only_observes_names:
                self.refused += 1
                raise
            self.passed += 1
            notes.append(UNREAD)
            found, cut_bytes = {}, 0
        if any(found.values()):
            redactor = redactor.with_names(found)
        verdict = redact_body(redactor, plan, body, dialect, content_type, document)
        return _with_unscanned(verdict, cut_bytes, redactor)

    async def _look_up(self, texts: list[str]) -> tuple[dict[str, list[Finding]], int]:
        """Return what is in each text, and how many bytes of them nobody was asked about."""
        cut_up = {text: pieces(text) for text in texts}
        wanted = dict.fromkeys(piece for parts in cut_up.values() for _, piece in parts)
        found: dict[str, list[Finding]] = {}
        for piece in wanted:
            known = self._memory.recall(FindingMemory.key_of(piece))
            if known is not None:
                found[piece] = known
                self.remembered += 1
        chosen = select([piece for piece in wanted if piece not in found], self._settings.max_text_bytes)
        if chosen.asked:
            answers = await self._ask(questions(list(dict.fromkeys(chosen.asked))))
            found |= answers
            for text, spans in answers.items():
                self._memory.keep(FindingMemory.key_of(text), spans)
        found |= {text: found[head] for text, head in chosen.shortened.items()}
        whole = {
            text: [
                finding._replace(start=finding.start + at, end=finding.end + at)
                for at, piece in parts
                for finding in found.get(piece, ())
            ]
            for text, parts in cut_up.items()
        }
        return whole, chosen.cut_bytes

    async def _ask(self, asked: list[Question]) -> dict[str, list[Finding]]:
        """Ask every question in every language, within the deadline; the breaker hears what came of it."""
        admission = self._breaker.admit(self._now_s())
        if admission.is_refused:
            raise NamesUnavailable("the names service is left alone for a while")
        wanted = [(question, language) for question in asked for language in self._settings.languages]
        is_probe = self._breaker.state is BreakerState.HALF_OPEN
        if self._calls_now + len(wanted) > self._settings.concurrency * (1 + _WAITING_PER_SLOT) and self._calls_now:
            if is_probe:
                self._breaker.cancel_probe(self._now_s())
            raise NamesUnavailable("too many wait for the names service")
        began_s, has_ended = self._now_s(), False
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                answers = await self._gathered(wanted)
            has_ended = True
        except (NamesUnavailable, TimeoutError) as exc:
            has_ended = True
            self.failures += 1
            self._breaker.fail(1.0, self._now_s(), self._dice(), is_probe=is_probe)
            raise NamesUnavailable("the names service did not answer as it should") from exc
        finally:
            self.seconds += self._now_s() - began_s
            if is_probe and not has_ended:  # the caller left
                self._breaker.cancel_probe(self._now_s())
        self._breaker.succeed(self._now_s(), is_probe=is_probe)
        found: dict[str, list[Finding]] = {}
        for spans in answers:
            for text, names in spans.items():
                found.setdefault(text, []).extend(names)
        return found

    async def _gathered(self, wanted: list[tuple[Question, str]]) -> list[dict[str, list[Finding]]]:
        if len(wanted) == 1:
            return [await self._one(*wanted[0])]
        tasks: list[asyncio.Task[dict[str, list[Finding]]]] = []
        try:
            async with asyncio.TaskGroup() as group:
                tasks += [group.create_task(self._one(question, language)) for question, language in wanted]
        except BaseExceptionGroup as exc:
            if exc.split(NamesUnavailable)[1] is not None:
                raise
            raise NamesUnavailable("a call to the names service failed") from exc
        return [task.result() for task in tasks]

    async def _one(self, question: Question, language: str) -> dict[str, list[Finding]]:
        self._calls_now += 1
        try:
            async with self._slots:
                self.calls += 1
                answer = await self._analyzer.analyze(question.text, language)
        finally:
            self._calls_now -= 1
        try:
            return question.share(read_answer(answer, question.text))
        except Implausible as exc:
            raise NamesUnavailable(f"the names service lies: {exc}") from exc


def _with_unscanned(verdict: Verdict, cut_bytes: int, redactor: RequestRedactor) -> Verdict:
    """Count what nobody was asked about as content that cannot be read."""
    if not cut_bytes or redactor.only_observes_names or isinstance(verdict, (Blocked, Unreadable)):
        return verdict
    assert isinstance(verdict, (Redacted, Untouched))
    return replace(verdict, unscanned_bytes=verdict.unscanned_bytes + cut_bytes)
