"""The line before the names service: how many calls run, what is remembered, and what a caller that leaves costs."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from proxy.core.config.settings import NamesSettings
from proxy.core.dialect import Dialect
from proxy.core.redaction import Redacted, RequestRedactor, Untouched, Verdict
from proxy.core.redaction.detect import build_detector
from proxy.flow.large_bodies import InPlace
from proxy.flow.names import Names
from proxy.terms.errors import NamesUnavailable
from proxy.terms.redaction import Action, DirectionPlan, RedactionPlan
from tests.support.names_service import honest

PLAN = RedactionPlan(DirectionPlan(Action.RESTORE, {"PERSON": Action.RESTORE}))
REDACTOR = RequestRedactor(PLAN, build_detector())


class Slow:
    """An analyzer that answers when it is let."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.languages: list[str] = []
        self.lets = asyncio.Event()
        self.fails = False

    async def analyze(self, text: str, language: str) -> Any:
        self.languages.append(language)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.lets.wait()
        finally:
            self.running -= 1
        if self.fails:
            raise NamesUnavailable
        return honest(text)

    async def close(self) -> None: ...


def service(analyzer: Slow, **more: Any) -> Names:
    loop = asyncio.get_running_loop()
    return Names(NamesSettings("http://127.0.0.1", **more), analyzer, loop.time, lambda: 0.0)


async def judge(names: Names, text: str) -> Verdict:
    body = b'{"messages":[{"content":"%b"}]}' % text.encode()
    return await names.redact(REDACTOR, PLAN, body, Dialect.CHAT, b"", None, InPlace(), [])


async def outcome(work: Coroutine[Any, Any, Verdict]) -> Verdict | NamesUnavailable:
    try:
        return await work
    except NamesUnavailable as exc:
        return exc


async def test_no_more_calls_run_than_allowed_and_the_line_is_short() -> None:
    """Who comes when nine times as many calls are there is told at once, and nobody's health suffers."""
    analyzer = Slow()
    names = service(analyzer, concurrency=2, timeout_s=5.0)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(judge(names, f"Ana Silva {number}"))) for number in range(20)]
        await asyncio.sleep(0.01)
        turned_away = [task for task in tasks if task.done()]
        analyzer.lets.set()
    done = [task.result() for task in tasks]

    assert (2, 2) == (analyzer.most, len(turned_away))
    assert [18, 2] == [sum(isinstance(d, kind) for d in done) for kind in (Redacted, NamesUnavailable)]
    assert (0, False) == (names.failures, names.is_open)


async def test_each_language_and_each_long_text_is_a_call_of_its_own() -> None:
    """Side by side, and what one of them finds counts."""
    analyzer = Slow()
    analyzer.lets.set()
    names = service(analyzer, languages=("en", "pt"), max_text_bytes=1 << 16)
    verdict = await judge(names, "Ana Silva " + " ".join(f"word{number}" for number in range(2200)))

    assert ["en", "en", "pt", "pt"] == sorted(analyzer.languages)
    assert isinstance(verdict, Redacted)
    assert {"PERSON": 1} == verdict.sanitized


async def test_document_longer_than_the_limit_is_read_further_with_every_turn() -> None:
    """What was read is remembered piece by piece, so that nothing new is starved by it."""
    analyzer = Slow()
    analyzer.lets.set()
    names = service(analyzer, max_text_bytes=8192)
    document = " ".join(f"word{number}" for number in range(1900)) + " Ana Silva"
    turns = [await judge(names, document) for _ in range(3)]

    assert [True, False, False] == [
        turn.unscanned_bytes > 0 for turn in turns if isinstance(turn, (Redacted, Untouched))
    ]
    assert [Untouched, Redacted, Redacted] == [type(turn) for turn in turns]
    assert 2 == names.calls


async def test_one_failed_call_of_several_is_one_failure_and_stops_the_others() -> None:
    """Nobody waits for answers that no longer matter."""
    analyzer = Slow()
    analyzer.fails = True
    analyzer.lets.set()
    names = service(analyzer, languages=("en", "pt"))
    with pytest.raises(NamesUnavailable):
        await judge(names, "Ana Silva")

    assert (1, 0) == (names.failures, analyzer.running)


async def test_caller_that_leaves_frees_its_place_and_its_probe() -> None:
    """The next one is the probe then, and closes the breaker."""
    analyzer = Slow()
    analyzer.fails = True
    analyzer.lets.set()
    names = service(analyzer)
    for number in range(5):
        with pytest.raises(NamesUnavailable):
            await judge(names, f"Ana Silva {number}")
    assert names.is_open
    names._breaker.invite(asyncio.get_running_loop().time())
    analyzer.fails = False
    analyzer.lets.clear()
    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(judge(names, "Ana Silva goes"))
        await asyncio.sleep(0.01)
        leaving.cancel()
    analyzer.lets.set()
    verdict = await judge(names, "Ana Silva stays")

    assert isinstance(verdict, Redacted)
    assert (0, False) == (analyzer.running, names.is_open)


async def test_large_bodies_are_not_shown_and_count_as_unscanned() -> None:
    """They are read in another process, by the built-in detectors alone."""
    analyzer = Slow()
    names = service(analyzer)
    verdict = await judge(names, "Ana Silva ana@example.com " + "x " * 150_000)

    assert isinstance(verdict, Redacted)
    assert ({"EMAIL": 1}, []) == (verdict.sanitized, analyzer.languages)
    assert verdict.unscanned_bytes > 300_000
