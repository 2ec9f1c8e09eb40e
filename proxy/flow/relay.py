"""The story of one exchange, from its request to the last byte of its answer.

Read ``Relay.handle`` top to bottom: who calls, what may leave, the row's beginning, the walk along the chain,
the answer, the row's end. Owns nothing that outlives the exchange; the owners of live state are its
colleagues. Knows no socket: bytes come as an ``Inbound`` and go to a ``Responder``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from proxy.core.dialect import OTHER
from proxy.core.policy.applies import Subject
from proxy.core.policy.model import NoRoute, NoRouteReason
from proxy.core.redaction import Blocked, Redacted, Unreadable, Untouched, Verdict
from proxy.core.redaction.request import NOTHING, UNSCANNED_KIND
from proxy.core.routing.problems import Code, Problem, problem, problem_of_fault
from proxy.flow.access import may_ask
from proxy.flow.attempts import Attempts
from proxy.flow.booking import Plan
from proxy.flow.callers import Caller, CallerBook
from proxy.flow.catalog import Catalog, Route, Snapshot
from proxy.flow.content import ContentDraft, ContentSpool
from proxy.flow.exchange import Exchange
from proxy.flow.fitting import ASKS_USAGE
from proxy.flow.headers import our_lines
from proxy.flow.intake import (
    AT_ONCE_BYTES,
    MULTIPART_PEEK_BYTES,
    OFFLOAD_ABOVE_BYTES,
    Large,
    Request,
    model_in_multipart,
    parsed,
    read_json,
    takes_long,
)
from proxy.flow.kept_values import KeptValues, may_name_history
from proxy.flow.large_bodies import FitJob, LargeBodies, redact_body
from proxy.flow.live_answers import is_draining
from proxy.flow.metering import plan_of
from proxy.flow.models import list_models
from proxy.flow.nowhere import NOWHERE
from proxy.flow.outbox import Outbox, Refused
from proxy.flow.ports import BodySource, Clock, Inbound, Responder, Witness
from proxy.flow.synced_tail import SyncedTail
from proxy.flow.uploads import gather
from proxy.terms.errors import ProxyError, RedactionFault
from proxy.terms.http import RequestHead
from proxy.terms.outcomes import Outcome
from proxy.terms.redaction import Unscanned

if TYPE_CHECKING:
    from proxy.flow.names import Names


@dataclass(slots=True)
class Relay:
    """Carries exchanges; one per process."""

    catalog: Catalog
    callers: CallerBook
    attempts: Attempts
    outbox: Outbox
    clock: Clock
    witness: Witness
    large: LargeBodies
    is_fsync: bool = False
    """The end of an answer waits until its row is synced."""
    contents: ContentSpool | None = None
    """Where words wait that policy has kept."""
    ended: Callable[[Exchange], object] | None = None
    """Is told of every exchange that has ended: a candidate, a rollout; None: nobody is."""
    values: KeptValues | None = None
    """Keeps the values of conversations between turns, where policy asks; None: nobody does, in rehearsals."""
    names: Names | None = None
    """Finds names in free text; None: no service is configured."""

    async def handle(self, inbound: Inbound, responder: Responder) -> None:
        """Carry one exchange; see ``server.door.ExchangeHandler``."""
        tail = SyncedTail(responder, self.outbox) if self.is_fsync else None
        exchange = Exchange(inbound, tail or responder, self.clock, self.outbox, self.witness)
        if tail is not None:
            tail.is_sealed = lambda: exchange.is_sealed
        try:
            prepared = await self._prepare(exchange)
            refusal = await self.attempts.walk(exchange, prepared) if isinstance(prepared, Plan) else prepared
            if refusal is not None:
                self._refuse(exchange, refusal)
        except asyncio.CancelledError as exc:
            if is_draining(exc) and not responder.has_started:
                self._refuse(exchange, problem(Code.SHUTTING_DOWN))
            elif is_draining(exc) and exchange.stream is not None:
                self.attempts.delivery.live.end_broken(exchange, Outcome.SHUTTING_DOWN, problem(Code.SHUTTING_DOWN))
            else:
                exchange.cancelled()
        except ProxyError as exc:
            self.witness.fault(exc.code, id=exchange.facts.id)
            self._refuse(exchange, problem_of_fault(exc))
        except Exception as exc:  # noqa: BLE001 - a bug of ours must still end as one honest answer and one row
            self.witness.fault("relay", id=exchange.facts.id, error=type(exc).__name__, at=_place(exc))
            self._refuse(exchange, problem(Code.INTERNAL_ERROR))
        finally:
            exchange.close()
            if self.ended is not None:
                self.ended(exchange)
        if tail is not None:
            await tail.settled()

    @staticmethod
    def _refuse(exchange: Exchange, refusal: Problem) -> None:
        if exchange.responder.has_started:
            exchange.note_refusal(refusal)
            exchange.responder.abort()
        else:
            exchange.refuse(refusal)

    async def _prepare(self, exchange: Exchange) -> Plan | Problem | None:  # noqa: C901, PLR0912 - the order of the steps is the point
        """Do everything up to the first attempt; return what they share, why there are none, or None: answered already."""
        inbound, facts = exchange.inbound, exchange.facts
        head = inbound.head
        snapshot = self.catalog.snapshot
        if snapshot is None:
            return problem(Code.NOT_READY)
        caller = self.callers.identify(head) or await self.callers.identify_late(head)
        if caller is None:
            return problem(Code.INVALID_API_KEY)
        facts.app, facts.user, facts.conversation = caller.app, caller.user, caller.conversation
        facts.caller, facts.groups = caller.key_name, caller.groups
        facts.policy_revision = snapshot.revision
        if head.path == "/v1/models" and head.method == "GET" and await self._is_listed(exchange, snapshot, caller):
            return None
        body, is_known = inbound.body, exchange.dialect is not OTHER
        if is_known and type(body) is bytes and 0 < len(body) <= OFFLOAD_ABOVE_BYTES:
            request = read_json(body, exchange.dialect)
        else:
            request = await self._read(exchange)
        if not isinstance(request, Request):
            return request
        facts.model_asked = request.model or ""
        facts.is_stream = request.is_stream
        facts.user = facts.user or request.user
        if self.catalog.trial is not None:
            snapshot = await self.catalog.trial.choose(snapshot, exchange, request, self.attempts.delivery.offload)
        if snapshot.asks_more:
            route = _route_for(snapshot, exchange, caller, request)
        else:
            route = snapshot.route(caller.app, request.model, head.subpath)
        if isinstance(route, NoRoute):
            return _no_route(route, request.model)
        facts.route, facts.policy = route.plan.name, route.plan.policy
        access = route.plan.access
        if access is not None:
            denial = await may_ask(exchange, route, access, request, self.attempts.delivery.offload)
            if denial is not None:
                return denial
        if route.redactor is not None or route.content is not None:
            refusal = (
                _redact_at_once(exchange, route, request)
                if self._is_redacted_at_once(exchange, route, request)
                else await self._redact(exchange, route, request)
            )
            if refusal is not None:
                return refusal
        if (
            request.document is None
            and request.body
            and exchange.dialect is not OTHER
            and route.reads_documents(is_stream=request.is_stream)
        ):
            await self._look_into(exchange, route, request)
        admission = self.outbox.begin(facts)
        if type(admission) is Refused and route.plan.audit.required:
            exchange.forgo_row()
            return problem(Code(admission.code))
        exchange.is_begun = True
        return plan_of(exchange, route, request)

    async def _look_into(self, exchange: Exchange, route: Route, request: Request) -> None:
        """Parse a body that routing reads after all; one that is only to be fitted to a budget is fitted apart."""
        large, is_stream = request.large, request.is_stream
        if large is None or route.reads_more_than_fits(is_stream=is_stream):
            request.document = await self.attempts.delivery.offload(partial(parsed, request.body))
            return
        cap = None if route.plan.observe_only else route.plan.output_cap
        asks_usage = route.asks_usage and is_stream and exchange.dialect in ASKS_USAGE
        if cap is None and not asks_usage:
            return
        job = FitJob(exchange.dialect, cap, asks_usage, request.max_tokens)
        large.fitted, request.body = await self.large.fit(request.body, job)

    async def _is_listed(self, exchange: Exchange, snapshot: Snapshot, caller: Caller) -> bool:
        """Answer with the models of the caller's routes; False: only the provider can tell, or nobody may."""
        if self.catalog.trial is not None:
            offload = self.attempts.delivery.offload
            snapshot = await self.catalog.trial.choose(snapshot, exchange, Request(b""), offload)
        subject = Subject(
            caller.app, caller.key_name, caller.user, "", "/models", exchange.inbound.head.fields, caller.groups
        )
        listing = list_models(snapshot, subject)
        if listing is None:
            return False
        exchange.answer_json(listing)
        return True

    async def _read(self, exchange: Exchange) -> Request | Problem:
        """Read what routing needs of any other body; large bodies are parsed in a worker thread."""
        body = exchange.inbound.body
        head = exchange.inbound.head
        if not isinstance(body, bytes):
            return await self._peek(head, body)
        if not body and not head.has_body and exchange.dialect is OTHER:
            return Request(body)
        if not body and head.method in ("GET", "HEAD", "DELETE", "OPTIONS"):
            return Request(body)
        content_type = head.fields.get(b"content-type", b"")
        if exchange.dialect is OTHER and b"json" not in content_type.lower():
            return Request(body)
        if len(body) > OFFLOAD_ABOVE_BYTES:
            return await self.large.read(body, exchange.dialect)
        return read_json(body, exchange.dialect)

    @staticmethod
    async def _peek(head: RequestHead, body: BodySource) -> Request:
        """Look for the model in the beginning of an upload, without holding the upload up for more."""
        request = Request(b"")
        content_type = head.fields.get(b"content-type", b"").lower()
        peek = getattr(body, "peek_until", None)
        if peek is not None and content_type.startswith(b"multipart/form-data"):
            held = await peek(lambda data: model_in_multipart(data) is not None, MULTIPART_PEEK_BYTES)
            request.model = model_in_multipart(held)
        return request

    def _is_redacted_at_once(self, exchange: Exchange, route: Route, request: Request) -> bool:
        """True for the common request, in which nothing but JSON has to be read and nobody else is asked."""
        return (
            exchange.dialect is not OTHER
            and 0 < len(request.body) <= AT_ONCE_BYTES
            and route.content is None
            and route.keep_values_s is None
            and request.body is exchange.inbound.body
            and (self.names is None or route.redactor is None or not route.redactor.name_kinds)
        )

    async def _redact(self, exchange: Exchange, route: Route, request: Request) -> Problem | None:
        """Apply the policy's request rules; after this ``request.body`` is what may leave."""
        carry_out = self._redact_only if route.content is None else self._redact_and_keep
        refusal = await carry_out(exchange, route, request)
        keep_s, values = route.keep_values_s, self.values
        if refusal is None and keep_s is not None and values is not None and exchange.dialect is not OTHER:
            await self._join_history(exchange, values, keep_s, request)
        return refusal

    async def _join_history(self, exchange: Exchange, values: KeptValues, keep_s: float, request: Request) -> None:
        """Know the values of earlier turns, and let later ones know those of this."""
        document, body = request.document, request.body
        if document is None and may_name_history(exchange, body):
            is_large = len(body) > OFFLOAD_ABOVE_BYTES
            document = await self.attempts.delivery.offload(partial(parsed, body)) if is_large else parsed(body)
        await values.join(exchange, keep_s, document)

    async def _redact_only(self, exchange: Exchange, route: Route, request: Request) -> Problem | None:
        redactor = route.redactor
        if redactor is None:
            return None
        content_type = b"" if exchange.dialect is not OTHER else exchange.inbound.head.fields.get(b"content-type", b"")
        is_form = exchange.dialect is OTHER and content_type[:20].lower().startswith(b"multipart/form-data")
        source = exchange.inbound.body
        if is_form and not isinstance(source, bytes):
            refusal = await self._gather(exchange.inbound, source, request)
            if refusal is not None:
                return refusal
        elif type(source) is not bytes or exchange.inbound.head.is_websocket:
            return _unscanned(exchange, route)
        body = request.body
        if not body:
            return _unscanned(exchange, route) if request.upload is not None else None
        plan = route.plan.redaction
        if self.names is not None and redactor.name_kinds:
            result = await self.names.redact(
                redactor, plan, body, exchange.dialect, content_type, request.document, self.large, exchange.facts.notes
            )
        elif takes_long(body):
            try:
                result = await self.large.redact(body, exchange.dialect, content_type, plan)
            except RedactionFault:
                if not redactor.is_observing:
                    raise
                result = Untouched(unscanned_bytes=len(body))
        else:
            result = redact_body(redactor, plan, body, exchange.dialect, content_type, request.document)
        return _settle(exchange, route, request, result)

    async def _redact_and_keep(self, exchange: Exchange, route: Route, request: Request) -> Problem | None:
        """Redact, and begin to gather the words of the exchange: as they came, or as they may leave."""
        refusal = await self._redact_only(exchange, route, request)
        rule, came = route.content, exchange.inbound.body
        if rule is not None and self.contents is not None and exchange.dialect is not OTHER:
            sent = None if refusal is not None else request.body
            body = came if rule.is_full and isinstance(came, bytes) else sent
            exchange.content = ContentDraft(self.contents, rule, body or None)
        return refusal

    async def _gather(self, inbound: Inbound, source: BodySource, request: Request) -> Problem | None:
        """Hold an upload that policy wants to read; one that is too large passes unread."""
        try:
            body = await gather(source, inbound.head.content_length, self.attempts.collect_max_bytes)
        except ConnectionError:
            return source.refusal or problem(Code.CLIENT_CLOSED_REQUEST)
        if isinstance(body, bytes):
            request.body = body
            if len(body) > OFFLOAD_ABOVE_BYTES:
                request.large = Large((len(body), 0))
        else:
            request.upload = body
        return None

    # --- before an exchange -----------------------------------------------------------------------

    def preflight(self, head: RequestHead) -> Problem | None:
        """Say from the head alone why this request would be refused."""
        snapshot = self.catalog.snapshot
        if snapshot is None:
            return problem(Code.NOT_READY)
        caller = self.callers.identify(head)
        if caller is None:
            return None if self.callers.may_learn(head) else problem(Code.INVALID_API_KEY)
        # Which of two revisions will decide it is not known from the head alone.
        return self._spent(snapshot, caller.app) if self.catalog.trial is None else None

    def _spent(self, snapshot: Snapshot, app: str) -> Problem | None:
        """Refuse ahead when no route of the app has a provider left with budget for one more request."""
        if snapshot.asks_more:
            return None  # whose policy it is depends on what has not been read yet
        policy = snapshot.policies.policy_of(app)
        routes = [route for route in snapshot.all_routes() if route.plan.policy == policy]
        if not routes:
            return None
        return self.attempts.spent_everywhere(routes)

    def refused_early(self, head: RequestHead | None, refusal: Problem, target: bytes) -> tuple[str, bytes]:
        """Record a request that never became an exchange; return its id and our header lines."""
        if head is None:
            path = target.split(b"?", 1)[0][:2048].decode("ascii", "replace")
            head = RequestHead("", target, path, [], {})
        inbound = Inbound(head, b"", self.clock.monotonic_s())
        exchange = Exchange(inbound, NOWHERE, self.clock, self.outbox, self.witness)
        exchange.note_refusal(refusal)
        facts = exchange.facts
        facts.http_status = refusal.status
        snapshot = self.catalog.snapshot
        if snapshot is not None:
            facts.policy_revision = snapshot.revision
        exchange.seal()
        return facts.id, our_lines(facts, exchange.elapsed_ms(), False)


def _route_for(snapshot: Snapshot, exchange: Exchange, caller: Caller, request: Request) -> Route | NoRoute:
    """Return the route where it depends on more than app, path and model."""
    facts, head = exchange.facts, exchange.inbound.head
    subject = Subject(
        caller.app, caller.key_name, facts.user, facts.model_asked, head.subpath, head.fields, caller.groups
    )
    return snapshot.route_for(subject, request.model)


def _no_route(answer: NoRoute, model: str | None) -> Problem:
    match answer.reason:
        case NoRouteReason.NO_POLICY:
            return problem(Code.PERMISSION_DENIED, "No policy applies to this app, so nothing is allowed.")
        case NoRouteReason.UNKNOWN_PATH:
            return problem(Code.NOT_FOUND, "No route takes this path, and there is no default provider.")
        case NoRouteReason.UNKNOWN_MODEL:
            known = ", ".join(answer.known_models[:12])
            return problem(
                Code.MODEL_NOT_FOUND,
                f"No route takes the model {(model or '')[:100]!r}. Known models: {known or 'none'}.",
                param="model",
            )


def _redact_at_once(exchange: Exchange, route: Route, request: Request) -> Problem | None:
    """Do what ``Relay._redact`` does, where nothing has to be waited for."""
    redactor = route.redactor
    if redactor is None:
        return None
    verdict = redactor.redact(request.body, exchange.dialect, request.document)
    return None if verdict is NOTHING else _settle(exchange, route, request, verdict)


def _settle(exchange: Exchange, route: Route, request: Request, result: Verdict) -> Problem | None:
    """Put a verdict into the request and the facts; return the refusal it comes to."""
    facts = exchange.facts
    match result:
        case Redacted():
            facts.findings, facts.sanitized = result.findings, result.sanitized
            facts.unscanned_bytes = result.unscanned_bytes
            request.body = result.body
            request.document = result.document
            exchange.vault = result.vault
        case Untouched():
            facts.findings = dict(result.findings)
            facts.unscanned_bytes = result.unscanned_bytes
        case Blocked():
            facts.findings = dict.fromkeys(result.kinds, 1)
            return _blocked(result)
        case Unreadable():
            return problem(Code.BODY_UNREADABLE)
    if facts.unscanned_bytes:
        return _unscanned(exchange, route)
    return None


def _blocked(result: Blocked) -> Problem:
    if result.kinds == (UNSCANNED_KIND,):
        return problem(Code.UNSCANNED_CONTENT, param=result.where[0] if result.where else None)
    kinds = ", ".join(kind.lower() for kind in result.kinds)
    places = ", ".join(result.where[:5])
    return problem(
        Code.CONTENT_POLICY_VIOLATION,
        f"Policy blocks this content: {kinds} in {places}. Nothing was sent to a provider.",
        param=result.where[0] if result.where else None,
    )


def _unscanned(exchange: Exchange, route: Route) -> Problem | None:
    """Count what could not be read, and refuse it when policy says so."""
    facts = exchange.facts
    if not facts.unscanned_bytes:
        body = exchange.inbound.body
        facts.unscanned_bytes = len(body) if isinstance(body, bytes) else exchange.inbound.head.content_length or 1
    facts.notes.append("unscanned")
    plan = route.plan.redaction
    if plan.unscanned is Unscanned.REFUSE and not plan.observe_only:
        return problem(Code.UNSCANNED_CONTENT)
    return None


def _place(exc: BaseException) -> str:
    """Return file:line of the innermost frame, for the log: never the message, which may quote a body."""
    traceback = exc.__traceback__
    place = ""
    while traceback is not None:
        place = f"{traceback.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return place
