"""What one target of a chain gets of a request, and why it may get nothing.

Owns the checks that belong to a target (what it can take, what policy lets it have) and the request's form there:
model, prefill, parameters left out or renamed, another dialect. Called for every attempt whose target asks for more
than another model name; nothing is dropped without a note in the row.
"""

from __future__ import annotations

from typing import Final

from proxy.core.dialect.modalities import modalities_of
from proxy.core.policy.model import FirstTokenFor, PersonalData, Timeouts
from proxy.flow.booking import Plan
from proxy.flow.catalog import Deployment
from proxy.flow.exchange import Exchange
from proxy.flow.fleet import Fleet
from proxy.flow.forms import Form, in_form
from proxy.flow.intake import Request, with_model
from proxy.flow.large_bodies import LargeBodies, Renamings
from proxy.flow.ports import BodySource
from proxy.flow.translating import is_translated

_BYTES_PER_TOKEN: Final = 4


def body_for(exchange: Exchange, plan: Plan, deployment: Deployment) -> bytes | BodySource:
    """Return the body for this target: its model, or what is still to be said of a stream that broke."""
    request, body = plan.request, plan.body
    if exchange.stream is not None and exchange.stream.record is not None:
        return exchange.stream.body_of_rest(request, deployment)
    if type(body) is bytes and deployment.model is not None and deployment.model != request.model:
        if plan.renamings is not None:
            return plan.renamings.body_for(deployment.model)
        return with_model(body, request.document, deployment.model)
    return body


def hurried(exchange: Exchange, plan: Plan, index: int, now_s: float, fleet: Fleet) -> Timeouts:
    """Return a stream's deadlines, with the wait for its first token limited unless nobody else could do better."""
    deployment = plan.deployments[index]
    timeouts = deployment.target.timeouts
    if plan.route.plan.first_token_for is not FirstTokenFor.ALL:
        others = plan.deployments[index + 1 :] if exchange.may_go_on else ()
        if not any(fleet.is_ready(other.name, now_s) for other in others):
            return timeouts
    if timeouts.first_token_s is not None:
        exchange.first_token_by_s = now_s + timeouts.first_token_s
    return deployment.hasty or timeouts


def is_shaped(exchange: Exchange, plan: Plan, deployment: Deployment) -> bool:
    """Put the body for a particular target into ``exchange.shaped``; False, with a note, when it is passed over."""
    why = _shape(exchange, plan, deployment)
    if why:
        exchange.facts.notes.append(f"skipped:{deployment.provider}:{why}")
    return not why


def _shape(exchange: Exchange, plan: Plan, deployment: Deployment) -> str:
    why = _why_not(exchange, plan, deployment)
    if why:
        return why
    form = form_of(exchange, plan, deployment)
    if form is None:
        exchange.shaped = body_for(exchange, plan, deployment)
        return ""
    if plan.renamings is not None and not _is_rest(exchange):
        shaped, exchange.shaped = plan.renamings.form_for(form)
    else:
        body = body_for(exchange, plan, deployment)
        if type(body) is not bytes:
            return "not_readable"
        shaped, exchange.shaped = in_form(form, body)
    for what, names in shaped.notes:
        _note(exchange, what, deployment, names)
    return shaped.why


def form_of(exchange: Exchange, plan: Plan, deployment: Deployment) -> Form | None:
    """Return the form a target wants besides its own model name; None: the request's own."""
    target, is_other = deployment.target, is_translated(exchange, deployment)
    if not (is_other or target.drop_params or target.rename_params):
        return None
    renamed = deployment.model if deployment.model != plan.request.model else None
    model = deployment.model or plan.request.model or ""
    return Form(model, renamed, tuple(target.drop_params), tuple(target.rename_params.items()), is_other)


def _is_rest(exchange: Exchange) -> bool:
    """True when only the rest of a broken stream is asked for: nobody could prepare that."""
    return exchange.stream is not None and exchange.stream.record is not None


async def made_ready(exchange: Exchange, plan: Plan, deployment: Deployment, large: LargeBodies) -> None:
    """Have a large body ready in the form a target wants, made where nobody waits; before the attempt.

    Raises:
        RedactionFault: It could not be done.
    """
    if type(plan.body) is not bytes or _is_rest(exchange):
        return
    if plan.renamings is None:
        plan.renamings = Renamings(large)
    form = form_of(exchange, plan, deployment)
    if form is not None:
        await plan.renamings.prepare_form(plan.body, form)
    elif deployment.model is not None and deployment.model != plan.request.model:
        await plan.renamings.prepare(plan.body, deployment.model)


def _why_not(exchange: Exchange, plan: Plan, deployment: Deployment) -> str:
    """Say in a word what this target cannot take, or may not have."""
    target, facts = deployment.target, exchange.facts
    over = exchange.context_over
    if over is not None and (target.context is None or target.context <= over):
        return "context"
    if target.context is not None and len(plan.request.body) > target.context * _BYTES_PER_TOKEN:
        return "context"
    if target.modalities is not None and not _modalities(plan.request) <= target.modalities:
        return "modality"
    if target.personal_data is PersonalData.NONE:
        shown = {kind for kind, count in facts.findings.items() if count > facts.sanitized.get(kind, 0)}
        if shown or facts.unscanned_bytes:
            return "personal_data"
    return ""


def _modalities(request: Request) -> frozenset[str]:
    return modalities_of(request.document) if request.large is None else request.large.modalities


def _note(exchange: Exchange, what: str, deployment: Deployment, names: tuple[str, ...]) -> None:
    notes = exchange.facts.notes
    for name in names[:20]:
        note = f"{what}:{deployment.provider}:{name[:40]}"
        if note not in notes:
            notes.append(note)
