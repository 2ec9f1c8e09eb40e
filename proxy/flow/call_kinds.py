"""What all calls of one request head to one deployment have in common, worked out once and kept with the head.

A connection sends the same head again and again, so nearly every exchange finds its lines for the provider, and those
that name who answered, ready. Owns what is kept and when it holds no longer; knows no attempt and no body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from proxy.core.dialect import OTHER
from proxy.flow import headers as header_lines
from proxy.flow.booking import Plan, variant_of
from proxy.flow.catalog import Deployment
from proxy.flow.exchange import Exchange
from proxy.flow.ports import CallKind, Upstream
from proxy.flow.translating import MESSAGES_TARGET, is_translated, version_line

_KEPT_MAX: Final = 16
"""Deployments that are remembered with one head; a chain has fewer, a head that outlives reloads meets more."""
_NAMES_MAX: Final = 64


class DeploymentCall(CallKind):
    """A kind of call with what flow asks about it: all of it the same as long as model and key are."""

    __slots__ = ("deployment", "is_own_key", "named", "variant")

    deployment: Deployment
    is_own_key: bool
    """A key of ours goes to the provider."""
    named: bytes
    """The answer's lines that name policy, provider and model."""
    variant: str
    """What may fail by itself at the deployment; see ``variant_of``."""


@dataclass(slots=True)
class CallKinds:
    """Makes kinds of calls, and finds those that were made; one per process."""

    upstream: Upstream
    demands_caller_key: bool
    """The caller's credentials are for this sidecar, so no provider sees them."""

    def of(self, exchange: Exchange, plan: Plan, deployment: Deployment) -> DeploymentCall:
        """Return the kind of the call that an exchange makes at a deployment."""
        memo = exchange.inbound.head.memo
        known = memo.get(id(deployment))
        is_own_key = self.upstream.uses_own_key(deployment.endpoint)
        if (
            type(known) is DeploymentCall
            and known.deployment is deployment
            and known.is_own_key is is_own_key
            and (deployment.model is not None or known.model == (plan.request.model or ""))
        ):
            return known
        if len(memo) > _KEPT_MAX:
            for key in [key for key, kept in memo.items() if type(kept) is DeploymentCall]:
                del memo[key]
        kind = memo[id(deployment)] = self._new(exchange, plan, deployment, is_own_key)
        return kind

    def _new(self, exchange: Exchange, plan: Plan, deployment: Deployment, is_own_key: bool) -> DeploymentCall:
        head, model = exchange.inbound.head, deployment.model or plan.request.model or ""
        owned = self.upstream.owned_headers(deployment.endpoint)
        wants_identity, hides_keys = exchange.dialect is not OTHER, is_own_key or self.demands_caller_key
        target = head.target[3:]
        lines = header_lines.to_provider(head, wants_identity=wants_identity, hides_keys=hides_keys, owned=owned)
        if is_translated(exchange, deployment):
            target, lines = MESSAGES_TARGET, lines + version_line(exchange, owned)
        passes_caller_key = plan.route.passes_caller_key and not self.demands_caller_key
        kind = DeploymentCall(deployment.endpoint, head, target, lines, model, passes_caller_key=passes_caller_key)
        kind.deployment = deployment
        kind.is_own_key = is_own_key
        kind.named = _names(exchange, deployment, model)
        is_any_model = deployment.model is None
        kind.variant = variant_of(exchange.dialect, head.path, plan.request.model) if is_any_model else ""
        return kind


def _names(exchange: Exchange, deployment: Deployment, model: str) -> bytes:
    """Return the lines that name who answers; other heads meet the same deployment with the same models."""
    named = deployment.lines.get(model)
    if named is None:
        named = header_lines.naming_lines(exchange.facts.policy_revision, deployment.provider, model)
        if len(deployment.lines) < _NAMES_MAX:
            deployment.lines[model] = named
    return named
