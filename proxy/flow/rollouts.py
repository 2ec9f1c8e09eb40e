"""The rollout of this process: a canary from its first exchange until it is promoted, taken back or replaced.

Owns the rollout under way, the counts of both revisions and the memory of one that was taken back. Everything that changes
what exchanges use is done in one step without awaiting; what outlives a restart is written behind it. Each sidecar judges by
what it has carried itself. The arithmetic is ``core.policy.rollout``'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

from proxy.core.policy.revisions import Activation, Kept, Step
from proxy.core.policy.rollout import (
    Cohort,
    Counts,
    Move,
    Remembered,
    RolloutPlan,
    Start,
    decide_start,
    ended_as,
    find_worse,
    next_move,
)
from proxy.flow.budgets import Budgets
from proxy.flow.catalog import Catalog, Snapshot
from proxy.flow.exchange import Exchange
from proxy.flow.fleet import Fleet
from proxy.flow.ports import Witness
from proxy.flow.reload import put_alone, put_beside, put_in_force
from proxy.flow.trial import Trial

LOOK_EVERY_S: Final = 0.25
BY: Final = "rollout"
"""Who acts when the figures do."""


class RolloutHistory(Protocol):
    """Where revisions and the rollout under way are kept; ``note`` and ``keep_rollout`` may raise OSError."""

    def find(self, revision: str) -> Kept | None:
        """Return a kept revision."""
        ...

    def last_whole(self) -> str | None:
        """Return the revision that was put in force for everybody last."""
        ...

    def note(self, revision: str, at: Activation) -> None:
        """Write down what became of a kept revision."""
        ...

    def keep_rollout(self, rollout: Remembered | None) -> None:
        """Remember a rollout over a restart; None: forget it."""
        ...

    def rollout(self) -> Remembered | None:
        """Return the rollout that is remembered."""
        ...


class Past(NamedTuple):
    """What the history says about texts from the policy folder."""

    was_whole: bool = False
    """They were in force for everybody at some time."""
    base: str | None = None
    """The kept revision that has to be in force before they may be a canary. After a restart nothing is in force yet, and
    after a pin it is the pinned one. None: none has to be, or it is."""


class _Run:
    """What is known of the rollout under way."""

    __slots__ = ("began_s", "canary", "counts", "move", "plan", "since_ms", "snapshot", "stable", "step", "step_s")

    def __init__(self, snapshot: Snapshot, plan: RolloutPlan, stable: Snapshot, now_s: float, unix_ms: int) -> None:
        self.snapshot = snapshot
        self.plan = plan
        self.stable = stable
        self.began_s = now_s
        self.since_ms = unix_ms
        self.begin_step(0, now_s)

    def begin_step(self, step: int, now_s: float) -> None:
        self.step = min(step, len(self.plan.shares) - 1)
        self.step_s = now_s
        self.move = Move.WATCH
        self.counts = {self.snapshot.revision: Cohort(), self.stable.revision: Cohort()}

    @property
    def share(self) -> float:
        return self.plan.shares[self.step]

    def cohorts(self) -> tuple[Cohort, Cohort]:
        """Return the counts of the canary and of the revision before it."""
        return self.counts[self.snapshot.revision], self.counts[self.stable.revision]


class Rollouts:
    """Puts good policy texts in force, whole or for a share first; one per process."""

    def __init__(
        self,
        catalog: Catalog,
        budgets: Budgets,
        fleet: Fleet,
        history: RolloutHistory,
        witness: Witness,
        now_s: Callable[[], float],
        unix_ms: Callable[[], int],
    ) -> None:
        self._catalog = catalog
        self._budgets = budgets
        self._fleet = fleet
        self._history = history
        self._witness = witness
        self._now_s = now_s
        self._unix_ms = unix_ms
        self._run: _Run | None = None
        self._begun = asyncio.Event()
        self._unwritten: list[tuple[str, Activation]] = []
        self._written = history.rollout()
        self._writing = asyncio.Lock()
        self._last: dict[str, Any] = {}
        """The figures at the end of the last one."""
        self.remembered: Remembered | None = self._written
        """The rollout under way, or the one whose texts are in the policy folder and were taken back."""
        self.results = {"started": 0, "promoted": 0, "taken_back": 0, "replaced": 0}
        self.heed: Callable[[bool], None] = lambda _: None
        """Called with True when the ends of exchanges have to be told to ``ended``, with False when not any more."""

    @property
    def trouble(self) -> str:
        """Why the texts in the policy folder are not in force; empty when they are, or on their way."""
        memory, current = self.remembered, self._catalog.snapshot
        if memory is None or not memory.is_taken_back or (current is not None and current.revision == memory.canary):
            return ""  # somebody may have pinned it after all
        return f"revision {memory.canary} was taken back: {memory.reason}"

    # --- what comes from the policy folder --------------------------------------------------------

    def look_back(self, snapshot: Snapshot, *, is_pinned: bool) -> Past:
        """Return what the history says about texts that ``accept`` is about to decide on. Reads the disk."""
        plan = snapshot.policies.rollout
        if is_pinned or plan is None:
            return Past()
        kept = self._history.find(snapshot.revision)
        was_whole = kept is not None and kept.was_whole
        memory, current = self.remembered, self._catalog.snapshot
        wanted: str | None = None
        if memory is not None and memory.is_about(snapshot.revision, plan):
            wanted = memory.stable
        elif current is None and not was_whole:
            wanted = self._history.last_whole()
        is_there = wanted == snapshot.revision or (current is not None and current.revision == wanted)
        return Past(was_whole, None if is_there else wanted)

    def accept(
        self, snapshot: Snapshot, base: Snapshot | None, *, was_whole: bool = False, is_pinned: bool, by: str
    ) -> Start:
        """Put good texts in force, whole or as a canary, or neither, and say which.

        Args:
            snapshot: The texts, compiled.
            base: The base of ``look_back``, compiled; None: nothing was wanted, or it cannot be used.
            was_whole: What ``look_back`` said.
            is_pinned: They are an older revision that somebody pinned: for everybody, whatever they say.
            by: Who brought them.
        """
        if base is not None:
            self._take_down()
            put_in_force(base, self._catalog, self._budgets, self._fleet)
            self._tell_in_force(base)
        stable, plan = self._catalog.snapshot, snapshot.policies.rollout
        start = Start.WHOLE
        if not is_pinned:
            start = decide_start(
                snapshot.revision,
                plan,
                stable=None if stable is None else stable.revision,
                remembered=self.remembered,
                is_running=self._run is not None,
                was_whole=was_whole,
            )
        if start is Start.CANARY and stable is not None and plan is not None:
            self._begin(snapshot, plan, stable, by)
        elif start is Start.WHOLE:
            if plan is not None and stable is None and not is_pinned and not was_whole:
                why = "no revision before it is kept here, or none that can be used"
                self._witness.notice("policy_rollout_skipped", revision=snapshot.revision, why=why)
            self._put_whole(snapshot, is_pinned=is_pinned, by=by)
            self._tell_in_force(snapshot)
        else:
            what = "policy_still_taken_back" if start is Start.REFUSED else "policy_rollout_goes_on"
            self._witness.notice(what, revision=snapshot.revision)
        return start

    def _tell_in_force(self, snapshot: Snapshot) -> None:
        self._witness.notice("policy_in_force", revision=snapshot.revision, generation=self._catalog.generation)

    def _begin(self, snapshot: Snapshot, plan: RolloutPlan, stable: Snapshot, by: str) -> None:
        memory = self.remembered
        self._replace(by)
        run = self._run = _Run(snapshot, plan, stable, self._now_s(), self._unix_ms())
        if memory is not None and memory.is_about(snapshot.revision, plan):
            run.begin_step(memory.step, self._now_s())
        self.results["started"] += 1
        self._show(run)
        self.heed(True)
        self._begun.set()
        self._tell("policy_rollout_started", run, by=by, share=run.share, watch_s=plan.watch_s)

    def _show(self, run: _Run) -> None:
        """Let exchanges meet the canary at the share of this step."""
        canary = run.snapshot.apart_from(run.stable)
        put_beside(canary, run.stable, self._budgets, self._fleet)
        self._catalog.trial = Trial(canary, run.stable, run.share, run.plan.by)
        self.remembered = Remembered(run.snapshot.revision, run.stable.revision, run.plan.as_text(), step=run.step)

    def _put_whole(self, snapshot: Snapshot, *, is_pinned: bool, by: str) -> None:
        run = self._run
        if run is not None and run.snapshot.revision == snapshot.revision:
            self._end("promoted", run, by, "pinned" if is_pinned else "its texts have no rollout any more")
        else:
            self._replace(by, "an older revision was pinned" if is_pinned else "other texts came")
        self._take_down()
        put_in_force(snapshot, self._catalog, self._budgets, self._fleet)
        memory = self.remembered
        if not (is_pinned and memory is not None and memory.is_taken_back):
            self.remembered = None  # a pin says nothing of the texts in the folder: what was taken back stays so

    def _replace(self, by: str, why: str = "other texts came") -> None:
        run = self._run
        if run is not None:
            self._end("replaced", run, by, why)
            self._note(run.snapshot.revision, Step.REPLACED, by, why)
            self._take_down()

    # --- how it goes ------------------------------------------------------------------------------

    def ended(self, exchange: Exchange) -> bool:
        """Count an exchange that has ended; True when the revision before decided it. Called for every exchange of a rollout."""
        run, facts = self._run, exchange.facts
        if run is None or exchange.arrived_s < run.step_s:
            return run is None or facts.policy_revision != run.snapshot.revision
        cohort = run.counts.get(facts.policy_revision)
        how = None if cohort is None else ended_as(facts)
        if cohort is not None and how is not None:
            cohort.count(how, self._now_s())
        return facts.policy_revision != run.snapshot.revision

    async def run(self) -> None:
        """Judge the rollout under way, for ever; sleeps while there is none."""
        while True:
            await self._begun.wait()
            await asyncio.sleep(LOOK_EVERY_S)
            self.judge(self._now_s())
            await self.keep()

    def judge(self, now_s: float) -> None:
        """Take the canary back, take it further, or leave it."""
        run = self._run
        if run is None:
            return
        canary, stable = run.cohorts()
        worse = find_worse(run.plan, canary, stable, now_s)
        if worse is not None:
            self.take_back(BY, str(worse))
            return
        run.move = next_move(run.plan, run.step, now_s - run.step_s, canary.total().exchanges)
        if run.move is Move.PROMOTE:
            self.promote(BY, f"watched for {now_s - run.began_s:.0f} s")
        elif run.move is Move.STEP:
            run.begin_step(run.step + 1, now_s)
            self._show(run)
            self._tell("policy_rollout_step", run, share=run.share)

    def promote(self, by: str, why: str) -> None:
        """Put the canary in force for everybody."""
        run = self._run
        assert run is not None
        self._end("promoted", run, by, why)
        self._note(run.snapshot.revision, Step.IN_FORCE, by, why)
        self._take_down()
        put_in_force(run.snapshot, self._catalog, self._budgets, self._fleet)
        self._tell_in_force(run.snapshot)
        self.remembered = None

    def take_back(self, by: str, why: str) -> None:
        """Let the revision before decide every exchange again; the same texts are not begun anew."""
        run = self._run
        assert run is not None
        self._end("taken_back", run, by, why)
        self._note(run.snapshot.revision, Step.TAKEN_BACK, by, why)
        self._take_down()
        put_alone(run.stable, self._budgets, self._fleet)
        self.remembered = Remembered(
            run.snapshot.revision, run.stable.revision, run.plan.as_text(), True, why, run.step
        )

    def _take_down(self) -> None:
        """No exchange that begins from now on meets a canary."""
        self._run = self._catalog.trial = None
        self._begun.clear()
        self.heed(False)

    def _end(self, result: str, run: _Run, by: str, why: str) -> None:
        self.results[result] += 1
        self._last = self._figures(run)
        canary, stable = (cohort.total()._asdict() for cohort in run.cohorts())
        self._tell(f"policy_{result}", run, by=by, why=why, canary_counts=canary, stable_counts=stable)

    def _tell(self, what: str, run: _Run, **fields: object) -> None:
        self._witness.notice(what, revision=run.snapshot.revision, stable=run.stable.revision, **fields)

    # --- what outlives a restart ------------------------------------------------------------------

    def _note(self, revision: str, step: Step, by: str, why: str) -> None:
        self._unwritten.append((revision, Activation(self._unix_ms(), by, why, step)))

    async def keep(self) -> None:
        """Write down what has changed; a disk that fails is told, and the change acts all the same."""
        async with self._writing:
            notes, self._unwritten = self._unwritten, []
            memory = self.remembered
            if not notes and memory == self._written:
                return
            try:
                await asyncio.to_thread(self._write, notes, memory)
            except OSError as exc:
                self._witness.notice("policy_history_failed", error=exc.strerror or type(exc).__name__)
            self._written = memory

    def _write(self, notes: list[tuple[str, Activation]], memory: Remembered | None) -> None:
        self._history.keep_rollout(memory)
        for revision, at in notes:
            self._history.note(revision, at)

    # --- what is shown ----------------------------------------------------------------------------

    def document(self) -> dict[str, Any]:
        """Return the rollout under way, or how the last one ended, as plain data."""
        run, memory = self._run, self.remembered
        if run is not None:
            return {"state": run.move.value, **self._figures(run), "reason": ""}
        if memory is not None and memory.is_taken_back:
            figures = self._last or {"canary": memory.canary, "stable": memory.stable}
            return {"state": Step.TAKEN_BACK.value, **figures, "reason": memory.reason}
        return {"state": "none", "last": self._last or None}

    def _figures(self, run: _Run) -> dict[str, Any]:
        now_s, plan = self._now_s(), run.plan
        canary, stable = run.cohorts()
        return {
            "canary": run.snapshot.revision,
            "stable": run.stable.revision,
            "share": run.share,
            "step": run.step + 1,
            "shares": list(plan.shares),
            "by": plan.by.value,
            "since_ms": run.since_ms,
            "watched_s": round(now_s - run.step_s, 1),
            "watch_s": plan.watch_s,
            "then": plan.then.value,
            "min_exchanges": plan.min_exchanges,
            "allowed": {"errors": plan.errors, "refusals": plan.refusals},
            "counts": {"canary": canary.total()._asdict(), "stable": stable.total()._asdict()},
            "last_minute": {"canary": canary.recent(now_s)._asdict(), "stable": stable.recent(now_s)._asdict()},
        }

    @property
    def canary(self) -> str | None:
        """The revision of the canary; None without one."""
        return None if self._run is None else self._run.snapshot.revision

    @property
    def summary(self) -> str:
        """One line about the rollout under way; empty without one."""
        run = self._run
        return (
            "" if run is None else f"canary {run.snapshot.revision}: {run.share * 100:.3g} % of exchanges, {run.move}"
        )

    @property
    def share(self) -> float:
        """The share that the canary has now; 0 without one."""
        return 0.0 if self._run is None else self._run.share

    def counts(self) -> dict[str, Counts]:
        """Return the counts of this step by whose they are; empty without a rollout."""
        if self._run is None:
            return {}
        canary, stable = self._run.cohorts()
        return {"canary": canary.total(), "stable": stable.total()}
