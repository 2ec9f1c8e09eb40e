"""The revisions of the policies in this process: which one is in force by whose word, and the admin calls about it.

Owns the pin of an older revision: it stays in force until the policy folder changes. Compiling and swapping are the
app's; texts are kept by a ``History``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from proxy.core.config.problem import Problem, has_errors
from proxy.core.policy.revisions import Activation, Kept, Pin, Step
from proxy.flow.catalog import Catalog
from proxy.flow.ports import Witness
from proxy.terms.admin import AdminAnswer, AdminCall, AdminRoute, Refused, Role

_MAX_WHY = 300
_FIELDS = {"revision", "why"}


class History(Protocol):
    """Where revisions are kept; every method but ``find``, ``all`` and ``pinned`` may raise OSError."""

    def record(
        self, revision: str, files: Sequence[tuple[str, str]], cases: Sequence[tuple[str, str]], at: Activation
    ) -> None:
        """Keep a revision that has just been put in force."""
        ...

    def find(self, revision: str) -> Kept | None:
        """Return a kept revision."""
        ...

    def all(self) -> list[Kept]:
        """Return every kept revision, the last one in force first."""
        ...

    def pin(self, pin: Pin) -> None:
        """Remember a pin over a restart."""
        ...

    def unpin(self) -> None:
        """Forget the pin."""
        ...

    def pinned(self) -> Pin | None:
        """Return the pin that is remembered."""
        ...


class PolicyLife:
    """What is in force, by whose word; one per process."""

    def __init__(
        self,
        catalog: Catalog,
        history: History,
        apply: Callable[[Kept, Pin], Awaitable[list[Problem]]],
        follow_folder: Callable[[str, str], Awaitable[list[Problem]]],
        unix_ms: Callable[[], int],
        witness: Witness,
        rollout: Callable[[], dict[str, Any]] = lambda: {"state": "none"},
    ) -> None:
        """Take what compiles and swaps: ``apply`` a kept revision, or the folder again by somebody's word and reason.

        ``rollout`` tells how the canary does, for whoever asks what is in force.
        """
        self._rollout = rollout
        self._catalog = catalog
        self._history = history
        self._apply = apply
        self._follow_folder = follow_folder
        self._unix_ms = unix_ms
        self._witness = witness
        self.pin: Pin | None = None
        self.folder_digest = ""
        """Of the policy folder as it was last read."""

    def find(self, revision: str) -> Kept | None:
        """Return a kept revision. Reads the disk."""
        return self._history.find(revision)

    async def took(
        self,
        revision: str,
        files: Sequence[tuple[str, str]],
        cases: Sequence[tuple[str, str]],
        by: str,
        why: str,
        step: Step = Step.IN_FORCE,
    ) -> None:
        """Remember a revision that was put in force; a disk that fails is told, and the revision acts all the same."""
        at = Activation(self._unix_ms(), by, why, step)
        try:
            await asyncio.to_thread(self._history.record, revision, files, cases, at)
        except OSError as exc:
            self._witness.notice("policy_history_failed", error=exc.strerror or type(exc).__name__)

    def remembered(self, digest: str) -> tuple[Kept, Pin] | None:
        """Return what was pinned before a restart, when the folder is still what it was then; else the pin is over.

        It must not come back when the folder one day holds the same again.
        """
        self.folder_digest = digest
        pin = self._history.pinned()
        if pin is None:
            return None
        kept = self._history.find(pin.revision) if pin.digest == digest else None
        if kept is not None:
            return kept, pin
        with suppress(OSError):  # then the same is found, and said, at the next start
            self._history.unpin()
        return None

    async def set_pin(self, pin: Pin | None) -> None:
        """Note what is pinned now."""
        if pin is None and self.pin is None:
            return
        self.pin = pin
        try:
            await asyncio.to_thread(self._history.unpin if pin is None else lambda: self._history.pin(pin))
        except OSError as exc:
            self._witness.notice("policy_history_failed", error=exc.strerror or type(exc).__name__)

    def routes(self) -> tuple[AdminRoute, ...]:
        """Return the admin calls."""
        return (
            AdminRoute(
                "GET", "/policy", Role.VIEWER, self._show, doc="The revision in force, the pin, and the kept revisions."
            ),
            AdminRoute(
                "POST",
                "/policy/pin",
                Role.OPERATOR,
                self._pin,
                doc="Put a kept revision in force until the policy folder changes; body: revision, why.",
            ),
            AdminRoute("DELETE", "/policy/pin", Role.OPERATOR, self._unpin, doc="Follow the policy folder again."),
        )

    def _shown(self) -> dict[str, Any]:
        snapshot, pin = self._catalog.snapshot, self.pin
        return {
            "revision": None if snapshot is None else snapshot.revision,
            "generation": self._catalog.generation,
            "pin": None if pin is None else {"revision": pin.revision, "by": pin.by, "why": pin.why},
            "rollout": self._rollout(),
        }

    async def _show(self, call: AdminCall) -> AdminAnswer:
        kept = await asyncio.to_thread(self._history.all)
        return 200, {**self._shown(), "history": [one.summary() for one in kept]}

    async def _pin(self, call: AdminCall) -> AdminAnswer:
        asked = call.body if isinstance(call.body, dict) else {}
        revision, why = asked.get("revision"), asked.get("why", "")
        if not isinstance(revision, str) or not isinstance(why, str) or asked.keys() - _FIELDS or len(why) > _MAX_WHY:
            text = f'Expected {{"revision": "12 hex digits", "why": "at most {_MAX_WHY} characters"}}.'
            return Refused(400, "invalid_request", text, "revision")
        kept = await asyncio.to_thread(self._history.find, revision)
        if kept is None:
            return Refused(404, "not_found", "No such revision is kept; GET /api/v1/policy lists them.", "revision")
        pin = Pin(revision, self.folder_digest, call.actor.name, why)
        problems = await self._apply(kept, pin)
        if has_errors(problems):
            first = next(str(problem) for problem in problems if problem.is_error)
            return Refused(409, "policy_refused", f"This revision cannot act any more: {first}", "revision")
        self._witness.notice("policy_pinned", revision=revision, actor=call.actor.name)
        return 200, self._shown()

    async def _unpin(self, call: AdminCall) -> AdminAnswer:
        if self.pin is None:
            return Refused(404, "not_found", "No revision is pinned.")
        problems = await self._follow_folder(call.actor.name, "unpinned")
        if has_errors(problems):
            first = next(str(problem) for problem in problems if problem.is_error)
            return Refused(409, "policy_refused", f"The policy folder cannot be used, so the pin stays: {first}")
        return 200, self._shown()
