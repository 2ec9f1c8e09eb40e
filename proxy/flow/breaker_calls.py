"""The admin calls about breakers: list them, reset one.

Owns no state: breakers belong to ``Fleet``. Knows no HTTP; the admin door turns answers into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from proxy.flow.fleet import Fleet
from proxy.flow.ports import Witness
from proxy.terms.admin import AdminAnswer, AdminCall, AdminRoute, Refused, Role


def breaker_routes(
    fleet: Fleet, deployments: Callable[[], list[dict[str, Any]]], witness: Witness, now_s: Callable[[], float]
) -> tuple[AdminRoute, ...]:
    """Return the calls. ``deployments`` tells every breaker as it stands, as ``/providers`` shows it."""

    async def list_breakers(call: AdminCall) -> AdminAnswer:
        return 200, {"breakers": deployments()}

    async def reset(call: AdminCall) -> AdminAnswer:
        name = call.params["name"]
        if not fleet.reset(name, now_s()):
            return Refused(404, "not_found", "No breaker has this name; GET /api/v1/breakers lists them.", "name")
        witness.notice("breaker_reset", deployment=name, actor=call.actor.name)
        return 200, next(row for row in deployments() if row["deployment"] == name)

    return (
        AdminRoute(
            "GET",
            "/breakers",
            Role.VIEWER,
            list_breakers,
            doc="Every breaker as it stands, each model's own after its target's.",
        ),
        AdminRoute(
            "POST",
            "/breakers/{name}/reset",
            Role.OPERATOR,
            reset,
            shown=("name",),
            doc="Close a breaker and forget its failures.",
        ),
    )
