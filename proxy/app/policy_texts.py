"""Policy texts on their way into force: read, compiled off the loop, proved by their cases, handed to who owns revisions.

Owns the order of that, and that one set of texts is looked at at a time. What becomes of a compiled revision is the
affair of ``rollouts``, what was in force before that of ``life``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from proxy.core.config.problem import CASE_FAILED, Problem, has_errors
from proxy.core.config.settings import Settings
from proxy.core.policy.revisions import Kept, Pin, Step
from proxy.core.policy.rollout import Start
from proxy.core.redaction.detect import KNOWN_KINDS
from proxy.flow.catalog import Snapshot
from proxy.flow.ports import Witness
from proxy.flow.pricing import Pricing
from proxy.flow.redactors import Redactors
from proxy.flow.reload import compile_snapshot
from proxy.flow.rollouts import Past, Rollouts
from proxy.sources.files import FolderSnapshot, read_policies, watch_policies
from proxy.stores.memory import MemorySpool

if TYPE_CHECKING:
    from proxy.flow.policy_life import PolicyLife
    from proxy.flow.shadow import Shadow

LOOK_EVERY_S: Final = 0.5


class PolicyTexts:
    """Puts policy texts in force: those of the folder, or those of a kept revision."""

    life: PolicyLife
    """Which revisions there have been; joined by whoever makes both."""

    def __init__(
        self,
        settings: Settings,
        start: FolderSnapshot,
        redactors: Redactors,
        pricing: Pricing | None,
        rollouts: Rollouts,
        witness: Witness,
        on_trouble: Callable[[str], None],
    ) -> None:
        """``start`` is what the folder held when the process began; ``on_trouble`` hears why texts are refused, or ""."""
        self._settings = settings
        self._start = start
        self._redactors = redactors
        self._pricing = pricing
        self._rollouts = rollouts
        self._witness = witness
        self._on_trouble = on_trouble
        self._loading = asyncio.Lock()

    async def load(
        self, folder: FolderSnapshot, pin: Pin | None = None, by: str = "folder", why: str = ""
    ) -> list[Problem]:
        """Compile policy texts and put them in force; on any error the last good ones stay.

        ``pin`` says that these are the texts of an older revision rather than those of the policy folder.
        """
        async with self._loading:
            snapshot, problems, past, base = await asyncio.to_thread(self._compile_with_base, folder, pin)
            if snapshot is None:
                errors = _causes_first(problems)
                if pin is None:
                    self._on_trouble(errors[0] if errors else "no policy")
                self._witness.notice("policy_refused", problems=errors[:5], more=max(0, len(errors) - 5))
                return problems
            start = self._rollouts.accept(snapshot, base, was_whole=past.was_whole, is_pinned=pin is not None, by=by)
            self._on_trouble("")
            failed = [str(problem) for problem in problems if problem.code == CASE_FAILED]
            if failed:
                self._witness.notice("policy_case_failed", problems=failed[:5], more=max(0, len(failed) - 5))
            await self.life.set_pin(pin)
            if start in (Start.WHOLE, Start.CANARY):
                step = Step.CANARY if start is Start.CANARY else Step.IN_FORCE
                await self.life.took(snapshot.revision, folder.files, folder.cases, by, why, step)
            await self._rollouts.keep()
            return problems

    async def load_first(self) -> list[Problem]:
        """Put in force what was pinned before a restart, else what the policy folder holds."""
        remembered = await asyncio.to_thread(self.life.remembered, self._start.digest)
        if remembered is not None:
            problems = await self.apply_kept(*remembered)
            if not has_errors(problems):
                return problems
        return await self.load(self._start, why="start")

    async def apply_kept(self, kept: Kept, pin: Pin) -> list[Problem]:
        """Put an older revision in force in place of what the policy folder holds."""
        return await self.load(self._kept_folder(kept, pin.digest), pin, pin.by, pin.why or "pinned")

    async def follow(self, by: str, why: str) -> list[Problem]:
        """Put in force what the policy folder holds now."""
        folder = await asyncio.to_thread(read_policies, self._settings.policies)
        return await self.load(folder, None, by, why)

    async def watch(self) -> None:
        """Follow the policy folder for ever."""
        async for folder in watch_policies(self._settings.policies, LOOK_EVERY_S, self._start.digest):
            self.life.folder_digest = folder.digest
            await self.load(folder)

    async def watch_candidate(self, shadow: Shadow) -> None:
        """Follow the folder of the candidate that only watches, for ever."""
        folder = self._settings.shadow
        assert folder is not None
        async for found in watch_policies(folder, LOOK_EVERY_S):
            snapshot, problems = await asyncio.to_thread(self._compile, found)
            if snapshot is None:
                errors = _causes_first(problems)
                shadow.trouble = errors[0] if errors else "no policy"
                self._witness.notice("shadow_refused", problems=errors[:5], more=max(0, len(errors) - 5))
            else:
                shadow.accept(snapshot)
                self._witness.notice("shadow_compared", revision=snapshot.revision)

    def _compile_with_base(
        self, folder: FolderSnapshot, pin: Pin | None
    ) -> tuple[Snapshot | None, list[Problem], Past, Snapshot | None]:
        """Compile texts, and the kept revision that has to stand behind them where they are a canary."""
        snapshot, problems = self._compile(folder)
        past = Past() if snapshot is None else self._rollouts.look_back(snapshot, is_pinned=pin is not None)
        if past.base is None:
            return snapshot, problems, past, None
        kept = self.life.find(past.base)
        # Its cases held when it was put in force; one that depends on the day must not leave everybody to the canary.
        base, found = (None, []) if kept is None else self._compile(replace(self._kept_folder(kept, ""), cases=()))
        if base is None:
            errors = _causes_first(found) or ["its texts are not kept"]
            self._witness.notice("policy_base_refused", revision=past.base, problems=errors[:5])
        return snapshot, problems, past, base

    def _kept_folder(self, kept: Kept, digest: str) -> FolderSnapshot:
        shown = f"{self._settings.history_folder.name}/{kept.revision}"
        files, cases = ([(f"{shown}/{name}", text) for name, text in part] for part in (kept.files, kept.cases))
        return FolderSnapshot(tuple(files), digest, (), tuple(cases))

    def _compile(self, folder: FolderSnapshot) -> tuple[Snapshot | None, list[Problem]]:
        settings, made, pricing = self._settings, self._redactors, self._pricing
        snapshot, problems = compile_snapshot(
            folder.files, folder.problems, settings, KNOWN_KINDS, made.build, made.build_answers
        )
        if snapshot is not None and folder.cases:
            from proxy.flow.self_test import prove  # noqa: PLC0415 - only who has cases pays for the stage

            table = None if pricing is None else pricing.table
            problems += prove(settings, snapshot, folder.cases, MemorySpool, table)
        return (None if has_errors(problems) else snapshot), problems


def _causes_first(problems: list[Problem]) -> list[str]:
    """Return the errors; what is missing is often the consequence of what is misspelt, so that is named first."""
    return [str(p) for p in sorted(problems, key=lambda p: not p.code.startswith("unknown")) if p.is_error]
