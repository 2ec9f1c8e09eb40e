"""Two thousand requests of every kind, fifty at a time, callers leaving at random: one row each, nothing mixed up, nothing left."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from proxy.simulator import Entry
from tests.support.simulator import Simulator
from tests.support.wire import (
    Message,
    Sidecar,
    chat,
    eventually,
    message_of,
    request,
    sidecar_for,
    stream_text,
    threaded_simulator,
)

pytestmark = pytest.mark.integration

POLICY = """
version: 1
policy: default
redaction: {request: {default: "off", rules: [{types: [email], action: restore}, {types: [credit_card], action: block}]}}
budgets: [{provider: main, concurrent: 500, requests_per_minute: 100000}]
routes:
  - {name: plain, match: {models: ["gpt-4o-mini"]}, chain: [{provider: main}], retries: once}
  - {name: failing, match: {models: ["err-*"]}, chain: [{provider: errors}], retries: none}
  - {name: broken, match: {models: ["broken"]}, chain: [{provider: errors, model: broken-served}], broken_stream: event, retries: none}
  - name: chain
    match: {models: ["chain"]}
    chain: [{provider: errors, model: always-503}, {provider: main, model: gpt-4o-mini}]
    retries: once
  - {name: files, match: {paths: ["/files*"]}, chain: [{provider: main}], retries: none}
"""

KINDS = (
    ["plain"] * 24 + ["stream"] * 24 + ["leaver"] * 16 + ["chain"] * 8 + ["chain-stream"] * 4 + ["error"] * 6
    + ["broken"] * 4 + ["upload"] * 6 + ["blocked"] * 2 + ["no-model"] * 2 + ["bad-json"] * 2 + ["no-path"] * 1 + ["half"] * 1
)  # fmt: skip
FAULTS = ("400", "404", "422", "429", "500", "503")


@dataclass(slots=True)
class Asked:
    """One request and what its caller saw of the answer."""

    number: int
    kind: str
    data: bytes = b""
    leaves_after: int | None = None
    """Bytes of answer after which the caller goes; 0: right after sending."""
    sends: int | None = None
    """How many bytes of the request are sent; None: all."""
    got: bytes = b""
    answer: Message | None = None
    trouble: str = ""

    @property
    def marker(self) -> str:
        return f"mark-{self.number:05d}-end"

    @property
    def email(self) -> str:
        return f"person.{self.number:05d}@example.com"


def make(number: int, dice: random.Random) -> Asked:
    """Build one request; its marker goes into a header for the journal, the row and the text."""
    asked = Asked(number, dice.choice(KINDS))
    tags = {"x-marker": asked.marker, "x-readygate-conversation": asked.marker, "x-readygate-user": f"u-{number % 7}"}
    text = f"echo: {asked.marker} writes to {asked.email} " + "word " * dice.randrange(20)
    pace = {"x-sim-speech": f"rate={dice.choice((200, 500))},split={dice.choice((0, 0, 7))}"}
    match asked.kind:
        case "plain":
            asked.data = chat(text, tags)
        case "stream":
            asked.data = chat(text, {**tags, **(pace if dice.random() < 0.4 else {})}, stream=True)
        case "leaver":
            asked.data = chat(text + "more " * 60, {**tags, **pace}, stream=dice.random() < 0.8)
            asked.leaves_after = dice.choice((0, 1, 400, 1500, 4000))
        case "half":
            asked.data = chat(text, tags)
            asked.sends = dice.randrange(20, len(asked.data) - 1)
            asked.leaves_after = 0
        case "chain" | "chain-stream":
            asked.data = chat(text, tags, model="chain", stream=asked.kind == "chain-stream")
        case "error":
            asked.data = chat(text, {**tags, "x-sim-fault": dice.choice(FAULTS)}, model=f"err-{number % 3}")
        case "broken":
            asked.data = chat(text, {**tags, "x-sim-fault": f"{dice.choice(('cut', 'reset'))}:after=4", "x-sim-speech": "rate=300"},
                              model="broken", stream=True)  # fmt: skip
        case "upload":
            file = dice.randbytes(dice.randrange(1, 300_000)).replace(b"--cut", b"")
            part = b'--cut\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
            body = part % (b"purpose", b"", b"batch") + part % (b"file", b'; filename="f"', file) + b"--cut--\r\n"
            asked.data = request(
                "POST", "/v1/files", body, {**tags, "Content-Type": "multipart/form-data; boundary=cut"}
            )
        case "blocked":
            asked.data = chat(f"{asked.marker} pays with 4111 1111 1111 1111", tags)
        case "no-model":
            asked.data = chat(text, tags, model="nobody-has-this")
        case "bad-json":
            asked.data = request(
                "POST", "/v1/chat/completions", b'{"model": ', {**tags, "Content-Type": "application/json"}
            )
        case "no-path":
            asked.data = request("GET", "/v1/nothing/here", headers=tags)
    return asked


@dataclass(slots=True)
class Caller:
    """One caller with one connection at a time, kept open as long as the other side does."""

    port: int
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    done: list[Asked] = field(default_factory=list)

    async def ask(self, asked: Asked, dice: random.Random) -> None:
        if self.writer is None or self.reader is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        data = asked.data if asked.sends is None else asked.data[: asked.sends]
        cut = dice.randrange(len(data))
        try:
            self.writer.write(data[:cut])
            if dice.random() < 0.2:
                await asyncio.sleep(0.001)
            self.writer.write(data[cut:])
            await self.writer.drain()
            await self._read(asked, self.reader)
        except (ConnectionError, TimeoutError) as exc:
            asked.trouble = type(exc).__name__
        is_over = asked.answer is None or asked.answer.ended != "whole" or asked.answer.get("connection") == "close"
        if is_over:
            self.leave()

    async def _read(self, asked: Asked, reader: asyncio.StreamReader) -> None:
        while True:
            if asked.leaves_after is not None and len(asked.got) >= asked.leaves_after:
                return
            async with asyncio.timeout(10):
                piece = await reader.read(65536)
            asked.got += piece
            if not piece or asked.got.endswith((b"}", b"\r\n\r\n", b"\n")) or len(asked.got) > 200:
                answer = message_of(asked.got)
                if not piece or answer.ended == "whole":
                    asked.answer = answer
                    return

    def leave(self) -> None:
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


WARM_UP_FROM = 90_000
"""Numbers from here on belong to warm-ups and are left out of the accounts."""


async def run_all(port: int, total: int, at_once: int, seed: int, first: int = 0) -> list[Asked]:
    """Send ``total`` requests through ``at_once`` callers and return them with what they saw."""
    dice = random.Random(seed)
    waiting = [make(number, dice) for number in range(first, first + total)]
    everything = list(waiting)

    async def work(seed: int) -> None:
        own = random.Random(seed)
        caller = Caller(port)
        while waiting:
            await caller.ask(waiting.pop(), own)
        caller.leave()

    async with asyncio.TaskGroup() as tasks:
        for index in range(at_once):
            tasks.create_task(work(seed + index), name=f"caller-{index}")
    return everything


# ---------------------------------------------------------------- what must hold


def text_of(asked: Asked) -> str:
    """All text of an answer, plain or streamed."""
    answer = asked.answer
    assert answer is not None
    if answer.get("content-type") == "application/json":
        choices = answer.json().get("choices")
        return "".join(choice["message"]["content"] for choice in choices) if choices else ""
    return stream_text(answer)


def check_answers(everything: list[Asked]) -> None:
    """Each caller saw its own answer and nothing of anybody else's."""
    for asked in everything:
        got = asked.got.decode("utf-8", "replace")
        others = set(re.findall(r"mark-\d{5}-end", got)) - {asked.marker}
        people = set(re.findall(r"person\.\d{5}@example\.com", got)) - {asked.email}
        assert (set(), set()) == (others, people), f"{asked.kind} {asked.marker} saw somebody else's text"
        if asked.leaves_after is not None:
            continue
        assert asked.answer is not None, f"{asked.kind} {asked.marker} got no answer: {asked.trouble}"
        assert asked.answer.has("x-readygate-id"), asked.answer.first_line
        if asked.answer.status == 200 and asked.kind in ("plain", "stream", "chain", "chain-stream"):
            assert "whole" == asked.answer.ended
            assert text_of(asked).startswith(f"{asked.marker} writes to {asked.email}"), text_of(asked)


def check_statuses(everything: list[Asked]) -> None:
    """Each kind ended as it should; a breaker that has opened may refuse what fails on purpose."""
    expected: dict[str, set[int]] = {
        "plain": {200}, "stream": {200}, "chain": {200}, "chain-stream": {200}, "upload": {200}, "blocked": {400},
        "no-model": {404}, "bad-json": {400}, "no-path": {404}, "broken": {200, 502, 503},
        "error": {400, 404, 422, 429, 500, 503},
    }  # fmt: skip
    seen: dict[str, Counter[int]] = {}
    for asked in everything:
        if asked.answer is not None and asked.leaves_after is None:
            seen.setdefault(asked.kind, Counter())[asked.answer.status] += 1
    wrong = {kind: counts for kind, counts in seen.items() if set(counts) - expected[kind]}
    assert {} == wrong


def check_rows(everything: list[Asked], rows: list[dict[str, Any]]) -> None:
    """One row per request that got a byte, at most one for the others, and none says what its caller did not see."""
    by_marker = Counter(row["conversation"] for row in rows if row["conversation"])
    by_id = {row["id"]: row for row in rows}
    assert len(rows) == len(by_id)
    assert {} == {marker: count for marker, count in by_marker.items() if count != 1}
    own = {row["conversation"]: row for row in rows}
    for asked in everything:
        row = own.get(asked.marker)
        if not asked.got:
            assert row is None or row["status"] in ("cancelled", "success", "fallback", "error"), asked
            continue
        assert row is not None, f"no row for {asked.kind} {asked.marker}, which saw {asked.got[:60]!r}"
        _agrees(asked, row)


def _agrees(asked: Asked, row: dict[str, Any]) -> None:
    shown = f"{asked.kind} {asked.marker}: {row['status']} {row['http_status']} {row['error_code']}"
    head = re.match(rb"HTTP/1.1 (\d{3})", asked.got)
    if head is not None:
        assert int(head[1]) == row["http_status"], shown
    found = re.search(rb"x-readygate-id: ([0-9a-f-]{36})", asked.got)
    if found is not None:
        assert found[1].decode() == row["id"], shown
    if asked.answer is None:
        assert row["status"] in ("cancelled", "success", "fallback"), shown
        return
    if asked.answer.ended != "whole":
        assert "error" == row["status"], shown
    elif asked.answer.status == 200:
        # The chain's first target never serves: whoever answered is a fallback, also when a breaker left it out.
        assert ("fallback" if asked.kind.startswith("chain") else "success") == row["status"], shown
    else:
        assert row["status"] in ("error", "rate_limited", "blocked"), shown
        assert (asked.answer.status == 429) == (row["status"] == "rate_limited"), shown


def check_attempts(rows: list[dict[str, Any]], entries: list[Entry]) -> None:
    """Every request the provider saw is an attempt of a row, and the other way round."""
    seen = Counter(entry.header("x-marker") for entry in entries)
    for row in rows:
        attempts = [attempt["outcome"] for attempt in json.loads(row["attempts"])]
        assert len(attempts) == row["attempt_count"]
        sent = sum(outcome != "stale_connection" for outcome in attempts)
        arrived = seen.pop(row["conversation"], 0)
        if row["status"] == "cancelled":  # it may have left before its request was on the wire
            assert sent - 1 <= arrived <= sent, row
        else:
            assert sent == arrived, row
    assert Counter() == seen, "the provider was asked by exchanges that have no row"
    text = b"".join(entry.body for entry in entries if entry.path.endswith("completions"))
    assert not re.search(rb"person\.\d{5}@", text), "an address reached the provider"


GAUGES = (
    "readygate_live_exchanges",
    "readygate_caller_connections",
    "readygate_provider_connections",
    "readygate_open_reservations",
)


def is_quiet(sidecar: Sidecar) -> bool:
    """Nothing is running and nothing is held."""
    return all(sidecar.metric(name) == 0 for name in GAUGES) and sidecar.metric("readygate_audit_waiting_rows") == 0


def config_for(provider: Simulator, store: str) -> str:
    return f"""
providers:
  main: {{base_url: "{provider.base_url}", keepalive: 300ms}}
  errors: {{base_url: "{provider.origin}/errors/v1", keepalive: 300ms}}
audit: {{store: {store}, spool: spool, batch_wait: 50ms}}
"""


def whole_run(sidecar: Sidecar, provider: Simulator, total: int, at_once: int, seed: int) -> list[Asked]:
    """Warm up, run, wait until all is quiet, and hold descriptors, faults and rows-kept to what they were."""
    asyncio.run(run_all(sidecar.data_port, 60, 50, seed, WARM_UP_FROM))
    eventually(lambda: is_quiet(sidecar), "the warm-up does not end", 10)
    kept = sidecar.metric("readygate_audit_rows_kept_total")
    descriptors = sidecar.descriptors()
    provider.journal.reset()

    everything = asyncio.run(run_all(sidecar.data_port, total, at_once, seed))

    eventually(lambda: is_quiet(sidecar), "connections, tasks or reservations are left over", 15)
    # The process that reads large bodies starts with the first of them and keeps two pipes.
    eventually(lambda: sidecar.descriptors() <= descriptors + 2, "descriptors are left over", 5)
    assert 0 == sidecar.metric("readygate_faults_total"), sidecar.log()[-2000:]
    assert 0 == sidecar.metric("readygate_audit_rows_shed_total")
    assert sidecar.metric("readygate_audit_rows_kept_total") - kept >= sum(bool(asked.got) for asked in everything)
    return everything


def check_all(everything: list[Asked], rows: list[dict[str, Any]], entries: list[Entry]) -> None:
    rows = [row for row in rows if not row["conversation"].startswith(f"mark-{WARM_UP_FROM // 10_000}")]
    markers = {asked.marker for asked in everything}
    early = [row for row in rows if row["conversation"] not in markers]
    assert [] == early, f"{len(early)} rows belong to no request of this run: {early[:3]}"
    check_answers(everything)
    check_statuses(everything)
    check_rows(everything, rows)
    check_attempts(rows, entries)


def test_two_thousand_mixed_requests_leave_one_row_each(tmp_path: Path) -> None:
    """The promise of the record, under everything callers and providers do at once (AU-01)."""
    with threaded_simulator() as provider:
        provider.fault_for_model("always-503", "503")
        with sidecar_for(tmp_path, config_for(provider, "'sqlite:///audit.db'"), POLICY) as sidecar:
            everything = whole_run(sidecar, provider, total=2000, at_once=50, seed=20261121)

            check_all(everything, sidecar.rows(), provider.entries)


def test_mixed_run_into_postgres_leaves_one_row_each(tmp_path: Path, database_url: str) -> None:
    """The same promise with the store of production (AU-01)."""
    with threaded_simulator() as provider:
        provider.fault_for_model("always-503", "503")
        config = config_for(provider, "{env: AUDIT_URL}")
        with sidecar_for(tmp_path, config, POLICY, env={"AUDIT_URL": database_url}) as sidecar:
            everything = whole_run(sidecar, provider, total=300, at_once=30, seed=7)

            check_all(everything, asyncio.run(_rows_of(database_url)), provider.entries)


async def _rows_of(url: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch("SELECT * FROM audit ORDER BY ts, id")
    finally:
        await connection.close()
    return [{**dict(row), "id": str(row["id"])} for row in found]
