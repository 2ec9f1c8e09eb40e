"""One case played through the real relay: scripted providers, a clock that jumps, and a caller that only listens.

Owns the stand-ins for sockets and time; every decision is made by the rooms that make it in service, so a case cannot
pass here and fail there. Nothing leaves the process and nobody waits: time is virtual.
"""

from __future__ import annotations

import asyncio
import re
import selectors
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

import orjson

from proxy.core.budget.calendar import WallClock
from proxy.core.budget.ledger import Amounts
from proxy.core.budget.prices import PriceTable
from proxy.core.config.settings import Settings, WhenFull
from proxy.core.dialect import Dialect, dialect_of
from proxy.core.policy.cases import Case, Reply
from proxy.core.policy.model import BudgetRule
from proxy.flow.attempts import Attempts
from proxy.flow.audit_ports import Spool
from proxy.flow.budgets import Budgets, Who
from proxy.flow.callers import CallerBook
from proxy.flow.catalog import Catalog, Snapshot
from proxy.flow.delivering import Delivery
from proxy.flow.fleet import Fleet
from proxy.flow.large_bodies import InPlace
from proxy.flow.outbox import Outbox
from proxy.flow.ports import Answer, AttemptFailed, BodySink, Call, Inbound
from proxy.flow.pricing import Pricing
from proxy.flow.relay import Relay
from proxy.flow.reload import put_in_force
from proxy.flow.waiting import WaitingLines
from proxy.terms.exchange import ExchangeFacts
from proxy.terms.http import AnswerHead, RequestHead
from proxy.terms.outcomes import Outcome

_START_MS: Final = 1_767_225_600_000
"""When every rehearsal begins: 2026-01-01, so that two runs say the same."""
_FAILURES_TO_OPEN: Final = 64
_MODEL_KEY = re.compile(r'"model"\s*:\s*"((?:[^"\\]|\\.)*)"')
_TEXT_KEY = re.compile(r'"content"\s*:\s*"((?:[^"\\]|\\.)*)"')


@dataclass(slots=True)
class Sent:
    """What left for one provider, once."""

    deployment: str
    body: bytes


@dataclass(slots=True)
class Rehearsed:
    """How one case ended."""

    facts: ExchangeFacts
    status: int
    headers: dict[str, str]
    body: bytes
    sent: list[Sent] = field(default_factory=list)
    is_cut: bool = False
    """The answer was broken off."""

    @property
    def error_code(self) -> str:
        """The code of the error document the app got, or empty."""
        found = re.search(rb'"code"\s*:\s*"([^"]*)"', self.body) if b'"error"' in self.body else None
        return found[1].decode() if found is not None else ""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer instead of passing."""

    def __init__(self) -> None:
        self.jumped_s = 0.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return virtual seconds, beginning near 0."""
        return self.jumped_s


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is not None and timeout > 0:
            self._loop.jumped_s += timeout
        elif not ready and timeout is None:
            ready = super().select(None)
        return ready


class Rehearsal:
    """Plays cases against one snapshot. Each case meets fresh budgets, fresh breakers and its own clock."""

    def __init__(
        self, settings: Settings, snapshot: Snapshot, spool: Callable[[], Spool], prices: PriceTable | None = None
    ) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._spool = spool
        self._prices = prices

    def play(self, case: Case) -> Rehearsed:
        """Play one case to its end. Call it outside of a running event loop."""
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(self._play(case))

    async def _play(self, case: Case) -> Rehearsed:
        clock, ear = _Clock(asyncio.get_running_loop()), _Ear()
        budgets, fleet = Budgets(wall=WallClock(_START_MS / 1000.0)), Fleet(lambda: 0.5)
        catalog = Catalog(self._settings.providers)
        put_in_force(self._snapshot, catalog, budgets, fleet)
        callers = CallerBook(self._settings.callers, demands_key=self._settings.knows_callers)
        # A case names the caller, not the key: nobody should write keys into case files.
        caller = callers.named(case.app, case.user, case.conversation, case.groups)
        self._spend(case, budgets, caller.key_name if callers.demands_key else "")
        for deployment in case.open_breakers:
            for _ in range(_FAILURES_TO_OPEN):
                fleet.record(deployment, Outcome.CONNECT_ERROR, clock.monotonic_s(), 0.0)
        upstream = _Script(case.replies, self._settings)
        outbox = Outbox(self._spool(), WhenFull.REFUSE, clock.unix_ms)
        max_bytes = self._settings.server.max_body_bytes
        large = InPlace()
        delivery = Delivery(upstream, outbox, clock.monotonic_s, callers.demands_key, False, max_bytes, _at_once, large)
        lines = WaitingLines(clock.monotonic_s)
        pricing = None if self._prices is None else Pricing(self._prices)
        attempts = Attempts(fleet, budgets, upstream, delivery, clock, ear, lambda: 0.5, max_bytes, lines, pricing)
        relay = Relay(catalog, callers, attempts, outbox, clock, ear, large)
        listener = _Listener()
        head = _head_of(case)
        if callers.demands_key:
            head.memo["caller"] = caller
        await relay.handle(Inbound(head, case.body, clock.monotonic_s(), "127.0.0.1"), listener)
        assert ear.facts is not None
        return Rehearsed(
            ear.facts,
            listener.status,
            _fields(listener.headers),
            b"".join(listener.pieces),
            upstream.sent,
            is_cut=listener.is_cut,
        )

    def _spend(self, case: Case, budgets: Budgets, key_name: str) -> None:
        """Leave nothing of the named budgets: their limits become one, and that one is taken."""
        rules = self._snapshot.policies.budgets
        spent = {rule.id for rule in rules if rule.id in case.spent or rule.id.rpartition("/")[2] in case.spent}
        if not spent:
            return
        in_force = [_least(rule) if rule.id in spent else rule for rule in rules]
        budgets.apply(in_force)
        asked = _MODEL_KEY.search(case.body.decode("utf-8", "replace"))
        for rule in in_force:
            if rule.id in spent:
                self._take(rule, case, key_name, asked[1] if asked is not None else "", budgets)

    def _take(self, rule: BudgetRule, case: Case, key_name: str, asked: str, budgets: Budgets) -> None:
        """Use up a rule's every counter that the case could meet: a rule may count each route and model apart."""
        for route in self._snapshot.all_routes():
            for deployment in route.deployments:
                who = Who(deployment.model or asked, route.plan.name, case.app, key_name, case.user)
                rid = f"spent:{rule.id}:{route.plan.policy}:{route.plan.name}:{deployment.name}"
                budgets.reserve((rule,), deployment.provider, 1, 0.0, rid, who=who, amounts=Amounts(1, 1, 1))


def _least(rule: BudgetRule) -> BudgetRule:
    return replace(rule, limits=tuple((dimension, 1) for dimension, _ in rule.limits))


async def _at_once(work: Callable[[], Any]) -> Any:
    return work()


def _head_of(case: Case) -> RequestHead:
    headers = [(b"host", b"127.0.0.1:8080"), (b"content-type", b"application/json")]
    identity = {
        "x-readygate-app": case.app,
        "x-readygate-user": case.user,
        "x-readygate-conversation": case.conversation,
    }
    for name, value in ({name: value for name, value in identity.items() if value} | dict(case.headers)).items():
        headers.append((name.encode("latin-1", "replace"), value.encode("utf-8")))
    if case.body:
        headers.append((b"content-length", b"%d" % len(case.body)))
    fields = {name.lower(): value for name, value in headers}
    target = case.path.encode("ascii", "replace")
    path = case.path.partition("?")[0]
    return RequestHead(case.method, target, path, headers, fields, content_length=len(case.body) or None)


def _fields(block: bytes) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in block.split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if colon:
            fields[name.decode("latin-1").lower()] = value.strip().decode("latin-1")
    return fields


class _Clock:
    """Implements ``flow.ports.Clock`` over the loop's virtual time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ids = 0

    def monotonic_s(self) -> float:
        return self._loop.time()

    def unix_ms(self) -> int:
        return _START_MS + int(self._loop.time() * 1000)

    def stamp(self) -> tuple[str, int]:
        self._ids += 1
        now_ms = self.unix_ms()
        stamp = f"{now_ms:012x}"
        return f"{stamp[:8]}-{stamp[8:]}-7000-8000-{self._ids:012x}", now_ms


class _Ear:
    """Implements ``flow.ports.Witness``: keeps the facts of the exchange."""

    def __init__(self) -> None:
        self.facts: ExchangeFacts | None = None

    def exchange_ended(self, facts: ExchangeFacts) -> None:
        self.facts = facts

    def fault(self, what: str, **fields: object) -> None:
        """A fault shows in the answer and the row."""

    def notice(self, what: str, **fields: object) -> None:
        """Nobody is to be told."""


class _Listener:
    """Implements ``flow.ports.Responder``: keeps what the app would have got."""

    def __init__(self) -> None:
        self.has_started = False
        self.is_cut = False
        self.status = 0
        self.headers = b""
        self.pieces: list[bytes] = []

    def send_whole(self, status: int, reason: bytes, headers: bytes, body: bytes) -> None:
        self.start(status, reason, headers, len(body))
        self.pieces.append(body)

    def send_head(self, status: int, reason: bytes, headers: bytes) -> None:
        self.start(status, reason, headers, 0)

    def start(self, status: int, reason: bytes, headers: bytes, length: int | None) -> None:
        self.has_started = True
        self.status, self.headers = status, headers

    def write(self, data: bytes) -> None:
        self.pieces.append(data)

    def finish(self) -> None:
        """The answer ended in order."""

    def abort(self) -> None:
        self.is_cut = True

    def bind(self, live: object) -> None:
        """There is no back-pressure from somebody who only listens."""

    def tunnel(self, head: bytes, live: object) -> None:
        self.has_started = True

    def tunnel_write(self, data: bytes) -> None:
        self.pieces.append(data)


class _Script:
    """Implements ``flow.ports.Upstream``: providers that answer as the case says."""

    def __init__(self, replies: Mapping[str, tuple[Reply, ...]], settings: Settings) -> None:
        self._replies = {name: list(lines) for name, lines in replies.items()}
        self._settings = settings
        self.sent: list[Sent] = []

    async def send(self, call: Call) -> Answer:
        body = call.body if isinstance(call.body, bytes) else b""
        kind = call.kind
        self.sent.append(Sent(f"{kind.provider}:{kind.model or '*'}", body))
        lines = self._replies.get(kind.provider)
        reply = Reply() if not lines else lines.pop(0) if len(lines) > 1 else lines[0]
        if reply.fails is not None:
            raise AttemptFailed(reply.fails)
        dialect = dialect_of(kind.head.path) if kind.head.method == "POST" else Dialect.OTHER
        is_stream = reply.status == 200 and b'"stream":true' in body.replace(b" ", b"")
        text = reply.text if reply.text is not None else _last_words(body)
        content = _events(text, kind.model) if is_stream else _document(reply, text, kind.model, dialect)
        lines_out = b"\r\ncontent-type: " + (b"text/event-stream" if is_stream else b"application/json")
        if reply.retry_after_s is not None:
            lines_out += b"\r\nretry-after: %d" % -(-reply.retry_after_s // 1)
        head = AnswerHead(reply.status, b"", lines_out)
        return Answer(head, None, _Played(content)) if is_stream else Answer(head, content)

    def lacks_key(self, provider: str) -> bool:
        return False

    def uses_own_key(self, provider: str) -> bool:
        return self._settings.providers[provider].api_key is not None

    def mask(self, provider: str, data: bytes) -> bytes:
        return data

    def owned_headers(self, provider: str) -> frozenset[bytes]:
        return frozenset()

    async def refresh_credential(self, provider: str) -> bool:
        return False


class _Played:
    """Implements ``flow.ports.LiveBody``: a stream that arrives in one piece."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._is_over = False

    def attach(self, sink: BodySink) -> None:
        asyncio.get_running_loop().call_soon(self._deliver, sink)

    def _deliver(self, sink: BodySink) -> None:
        if not self._is_over:
            sink.on_body(self._content)
            sink.on_end(Outcome.OK)

    def pause(self) -> None:
        """It has all arrived."""

    def resume(self) -> None:
        """It has all arrived."""

    def abort(self) -> None:
        self._is_over = True

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def throttle(self, pause: Callable[[], None], resume: Callable[[], None]) -> None:
        """It never fills."""

    def close(self) -> None:
        self._is_over = True


def _last_words(body: bytes) -> str:
    """Return what the model was told last, so that a case sees placeholders come back."""
    found = _TEXT_KEY.findall(body.decode("utf-8", "replace"))
    return cast("str", orjson.loads(f'"{found[-1]}"')) if found else "ok"


def _document(reply: Reply, text: str, model: str, dialect: Dialect) -> bytes:
    if reply.status >= 400:
        kind = "rate_limit_error" if reply.status == 429 else "invalid_request_error"
        error = {"message": reply.text or "scripted", "type": kind, "param": None, "code": reply.code}
        return orjson.dumps({"error": error})
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    if dialect is Dialect.EMBEDDINGS:
        data = [{"object": "embedding", "index": 0, "embedding": [0.0]}]
        return orjson.dumps({"object": "list", "data": data, "model": model, "usage": usage})
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return orjson.dumps(
        {"id": "case", "object": "chat.completion", "created": 0, "model": model, "choices": [choice], "usage": usage}
    )


def _events(text: str, model: str) -> bytes:
    envelope = {"id": "case", "object": "chat.completion.chunk", "created": 0, "model": model}
    deltas: list[tuple[dict[str, str], str | None]] = [
        ({"role": "assistant"}, None),
        ({"content": text}, None),
        ({}, "stop"),
    ]
    events = [
        orjson.dumps({**envelope, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]})
        for delta, finish in deltas
    ]
    return b"".join(b"data: " + event + b"\n\n" for event in [*events, b"[DONE]"])
