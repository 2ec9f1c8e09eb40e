"""The admin calls about a rollout: how it does, promote it, take it back.

Owns the questions that a call is asked before it acts. The rollout itself belongs to ``rollouts``.
"""

from __future__ import annotations

from typing import Final

from proxy.flow.rollouts import Rollouts
from proxy.terms.admin import AdminAnswer, AdminCall, AdminRoute, Refused, Role

_MAX_WHY: Final = 300
_FIELDS: Final = {"revision", "why"}


class RolloutCalls:
    """What people say about the canary."""

    def __init__(self, rollouts: Rollouts) -> None:
        self._rollouts = rollouts

    def routes(self) -> tuple[AdminRoute, ...]:
        """Return the admin calls."""
        return (
            AdminRoute(
                "GET",
                "/policy/rollout",
                Role.VIEWER,
                self._show,
                doc="The canary, its share and its figures beside those of the revision before it.",
            ),
            AdminRoute(
                "POST",
                "/policy/rollout/promote",
                Role.OPERATOR,
                self._promote,
                doc="Put the canary in force for everybody now; body: revision (it must be that one), why.",
            ),
            AdminRoute(
                "POST",
                "/policy/rollout/take-back",
                Role.OPERATOR,
                self._take_back,
                doc="Take the canary back now, until its texts change; body: revision (it must be that one), why.",
            ),
        )

    async def _show(self, call: AdminCall) -> AdminAnswer:
        return 200, self._rollouts.document()

    async def _promote(self, call: AdminCall) -> AdminAnswer:
        why = self._why(call)
        if isinstance(why, Refused):
            return why
        self._rollouts.promote(call.actor.name, why or "promoted")
        await self._rollouts.keep()
        return 200, self._rollouts.document()

    async def _take_back(self, call: AdminCall) -> AdminAnswer:
        why = self._why(call)
        if isinstance(why, Refused):
            return why
        self._rollouts.take_back(call.actor.name, f"{call.actor.name}: {why}" if why else f"by {call.actor.name}")
        await self._rollouts.keep()
        return 200, self._rollouts.document()

    def _why(self, call: AdminCall) -> str | Refused:
        """Return the reason that was given, when there is a canary and it is the one that is meant."""
        asked = {} if call.body is None else call.body
        if not isinstance(asked, dict) or asked.keys() - _FIELDS:
            return Refused(400, "invalid_request", 'Expected {"revision": "12 hex digits", "why": "a reason"}.', "body")
        why, revision = asked.get("why", ""), asked.get("revision")
        if not isinstance(why, str) or len(why) > _MAX_WHY:
            return Refused(400, "invalid_request", f"`why` takes at most {_MAX_WHY} characters.", "why")
        canary = self._rollouts.canary
        if canary is None:
            return Refused(409, "no_rollout", "No rollout is under way; GET /api/v1/policy/rollout tells of the last.")
        if revision is not None and revision != canary:
            return Refused(409, "other_revision", f"The canary is {canary}.", "revision")
        return why
