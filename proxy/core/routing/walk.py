"""The walk along a chain: whom to try, when to hand an answer on, when to give up and what to show.

Owns one exchange's progress as a small machine. Knows no provider names, breakers or budgets: the flow
asks those and records what came of it, also when a target was passed over.

    step = walk.next(now_s)              # Try, or GiveUp when the deadline has passed
    ...                                  # wait_s, reserve, admit, send
    walk.record(outcome, now_s, ...)     # TryNext: ask next again; Commit: hand on; GiveUp: tell the caller

Every ``record`` uses up an attempt, a target or the one fresh-connection repeat of a target, so a walk
ends after at most ``max_attempts`` attempts, not counting those repeats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple, assert_never

from proxy.core.routing.problems import Code, Problem, Retry, problem
from proxy.core.routing.table import RULES, OutcomeRule, SameTarget
from proxy.terms.outcomes import Fault, Outcome

MAX_SAME_TARGET_WAIT_S = 1.0
"""A provider that asks for more is not waited for within an exchange."""


@dataclass(frozen=True, slots=True)
class Try:
    """Try this target, after ``wait_s`` seconds.

    ``is_retry``: it is a second try there, which spends retry budget. ``must_be_fresh``: not over a pooled
    connection. ``is_only_target``: the chain has no other. ``is_last_resort``: the others of the chain were
    all passed over. The fleet is lenient with both.
    """

    target_index: int
    is_retry: bool
    wait_s: float
    must_be_fresh: bool
    is_only_target: bool
    is_last_resort: bool = False


class TryNext(NamedTuple):
    """Go on: ask ``next``."""


class Commit(NamedTuple):
    """Hand this answer to the caller; from its first byte on there is no other."""


class GiveUp(NamedTuple):
    """The caller gets an error.

    ``outcome``, ``target_index`` and ``http_status`` are those of the most useful failure, not of the
    last. ``pass_through``: show that provider's own answer, sanitised, instead of a problem of ours.
    ``is_committed``: the caller has had bytes already, so the error goes in-band.
    """

    outcome: Outcome
    code: Code
    target_index: int | None
    http_status: int
    pass_through: bool
    attempts: int
    retry_after_s: float | None
    is_committed: bool = False


Step = TryNext | Commit | GiveUp

TRY_NEXT = TryNext()
COMMIT = Commit()


class _Failure(NamedTuple):
    rank: int
    outcome: Outcome
    code: Code
    target_index: int
    http_status: int
    back_at_s: float | None


_BUDGET_RANKS = {
    Code.RATE_LIMIT_EXCEEDED: 12,
    Code.INSUFFICIENT_QUOTA: 11,
    Code.BUDGET_REQUEST_TOO_LARGE: 10,
    Code.UNKNOWN_PRICE: 9,
}
"""Among budgets that all said no, the one that will open again soonest is worth telling."""


class Course:
    """What every walk along one route's chain shares."""

    __slots__ = ("changed_rules", "first", "max_attempts", "may_retry", "retried_statuses", "targets")

    def __init__(
        self,
        targets: int,
        max_attempts: int,
        may_retry_same_target: bool = True,
        retried_statuses: frozenset[int] | None = None,
        changed_rules: Mapping[Outcome, OutcomeRule] | None = None,
    ) -> None:
        """Describe a chain.

        Args:
            targets: Length of the chain, at least 1.
            max_attempts: Attempts of a whole exchange, at least 1.
            may_retry_same_target: Policy allows a second try at one target. A pooled connection that had
                died is repeated in any case: that request never reached the provider.
            retried_statuses: Statuses that may be tried again at the same target; None: as the table says.
            changed_rules: Rows of the table that policy has changed; None: none.
        """
        self.targets = targets
        self.max_attempts = max_attempts
        self.may_retry = may_retry_same_target
        self.retried_statuses = retried_statuses
        self.changed_rules = changed_rules
        self.first = Try(0, False, 0.0, False, targets == 1)


class Walk:
    """One exchange's way along its chain."""

    # What most walks never need stands here and not in ``__init__``: the first target's answer ends them.
    _attempts = 0
    _counted = 0
    _repeats_here = 0
    _was_fresh = False
    _passed_over: set[Outcome] | None = None
    _best: _Failure | None = None
    _broken: Outcome | None = None
    _soonest_s: float | None = None

    def __init__(self, course: Course, deadline_s: float) -> None:
        """Start at the first target. After ``deadline_s`` (monotonic) nothing new is tried."""
        self._course = course
        self._deadline_s = deadline_s
        self._pending = course.first

    @property
    def attempts(self) -> int:
        """Attempts recorded so far; targets passed over are none."""
        return self._attempts

    @property
    def is_last(self) -> bool:
        """Nothing else would be tried if the attempt at hand failed for good: its target is the last one."""
        course = self._course
        return self._pending.target_index + 1 >= course.targets or self._counted + 1 >= course.max_attempts

    def next(self, now_s: float) -> Try | GiveUp:
        """Say whom to try; the same answer until something is recorded."""
        if now_s >= self._deadline_s:
            if self._best is None:
                rule = RULES[Outcome.TOTAL_TIMEOUT]
                self._best = _Failure(rule.rank, Outcome.TOTAL_TIMEOUT, rule.code, self._pending.target_index, 0, None)
            return self._give_up(now_s)
        return self._pending

    def record(
        self,
        outcome: Outcome,
        now_s: float,
        *,
        http_status: int = 0,
        retry_after_s: float | None = None,
        is_begun: bool = False,
        may_spend_retry: bool = True,
        jitter: float = 0.5,
        code: Code | None = None,
    ) -> Step:
        """Take what came of the target that ``next`` named, and say how to go on.

        Args:
            outcome: How it ended; ``BREAKER_OPEN`` and ``BUDGET_DENIED`` when it was passed over.
            now_s: Monotonic seconds.
            http_status: Of the provider's answer, 0 when there was none.
            retry_after_s: When this target may be asked again, if known: from the provider, breaker or budget.
            is_begun: The caller has had content of this answer, so another has to go on behind it. From then on
                every failure moves on, and giving up shows the first break.
            may_spend_retry: The target's retry budget has room.
            jitter: A random number from 0 to 1, for the wait before a second try.
            code: Why a budget said no, when not for its rate: ``INSUFFICIENT_QUOTA`` or
                ``BUDGET_REQUEST_TOO_LARGE``.
        """
        if outcome is Outcome.OK:
            self._attempts += 1
            return COMMIT
        if outcome is Outcome.STALE_CONNECTION and self._was_fresh:
            outcome = Outcome.NO_RESPONSE
        rule = RULES[outcome]
        if self._course.changed_rules is not None:
            rule = self._course.changed_rules.get(outcome, rule)
        self._count(outcome, rule)
        self._remember(outcome, rule, now_s, http_status, retry_after_s, code)
        if is_begun:
            if self._broken is None:
                self._broken = outcome
            return self._rescue(now_s, may_spend_retry)
        may_walk = rule.may_walk or (self._broken is not None and outcome is Outcome.UPSTREAM_4XX)
        if not may_walk or now_s >= self._deadline_s:
            return self._give_up(now_s)
        wait_s = self._repeat_wait_s(rule, now_s, http_status, retry_after_s, may_spend_retry, jitter)
        if wait_s is not None:
            self._repeat(rule, wait_s)
            return TRY_NEXT
        return self._move_on(now_s)

    def ask_again(self) -> Step:
        """Ask the same target once more: it refused only what we had added to the request."""
        self._attempts += 1
        self._pending = replace(self._pending, is_retry=False, wait_s=0.0)
        return TRY_NEXT

    def _count(self, outcome: Outcome, rule: OutcomeRule) -> None:
        if not rule.is_attempt:
            if self._passed_over is None:
                self._passed_over = set()
            self._passed_over.add(outcome)
            return
        self._attempts += 1
        if outcome is not Outcome.STALE_CONNECTION:
            self._counted += 1

    def _remember(
        self,
        outcome: Outcome,
        rule: OutcomeRule,
        now_s: float,
        http_status: int,
        retry_after_s: float | None,
        code: Code | None,
    ) -> None:
        back_at_s = None if retry_after_s is None else now_s + retry_after_s
        if back_at_s is not None and (rule.cools or not rule.is_attempt):
            self._soonest_s = back_at_s if self._soonest_s is None else min(self._soonest_s, back_at_s)
        failure = _Failure(rule.rank, outcome, code or rule.code, self._pending.target_index, http_status, back_at_s)
        best = self._best
        if best is None or _helps_more(failure, best):
            self._best = failure

    def _repeat_wait_s(
        self,
        rule: OutcomeRule,
        now_s: float,
        http_status: int,
        retry_after_s: float | None,
        may_spend_retry: bool,
        jitter: float,
    ) -> float | None:
        """Seconds to wait before trying the same target again; None when it is not to be tried again."""
        if rule.same_target is SameTarget.ONCE_FRESH:
            return None if self._was_fresh else 0.0
        course = self._course
        if not (course.may_retry and may_spend_retry) or self._repeats_here:
            return None
        is_chosen = course.changed_rules is not None and rule in course.changed_rules.values()
        statuses = None if is_chosen else course.retried_statuses
        if http_status and statuses is not None and http_status not in statuses:
            return None
        left, others = course.max_attempts - self._counted, course.targets - self._pending.target_index - 1
        if not _is_worth_repeating(rule.same_target, left, others, retry_after_s is not None):
            return None
        wait_s = max(jitter * rule.retry_base_s, retry_after_s or 0.0)
        return wait_s if wait_s <= MAX_SAME_TARGET_WAIT_S and now_s + wait_s < self._deadline_s else None

    def _repeat(self, rule: OutcomeRule, wait_s: float) -> None:
        is_fresh = rule.same_target is SameTarget.ONCE_FRESH
        if is_fresh:
            self._was_fresh = True
        else:
            self._repeats_here += 1
        self._pending = replace(self._pending, is_retry=not is_fresh, wait_s=wait_s, must_be_fresh=is_fresh)

    def _move_on(self, now_s: float) -> Step:
        index = self._pending.target_index + 1
        if index >= self._course.targets or self._counted >= self._course.max_attempts:
            return self._give_up(now_s)
        self._repeats_here = 0
        self._was_fresh = False
        self._pending = Try(index, False, 0.0, False, False, index + 1 == self._course.targets and not self._attempts)
        return TRY_NEXT

    def _rescue(self, now_s: float, may_spend_retry: bool) -> Step:
        """Go on with a stream that broke: at the next target, or where there is none, once more at this one."""
        if now_s >= self._deadline_s or self._counted >= self._course.max_attempts:
            return self._give_up(now_s)
        if self._pending.target_index + 1 < self._course.targets:
            return self._move_on(now_s)
        if not (self._course.may_retry and may_spend_retry) or self._repeats_here:
            return self._give_up(now_s)
        self._repeats_here += 1
        self._pending = replace(self._pending, is_retry=True, wait_s=0.0, must_be_fresh=True)
        return TRY_NEXT

    def _give_up(self, now_s: float) -> GiveUp:
        if self._broken is not None:
            return self._give_up_committed(self._broken, RULES[self._broken])
        best = self._best
        if best is None:
            raise AssertionError("a walk gives up on something that was recorded")
        rule = RULES[best.outcome]
        outcome, code, back_at_s = best.outcome, best.code, best.back_at_s
        if rule.cools or not rule.is_attempt:
            back_at_s = self._soonest_s
        if not rule.is_attempt and self._passed_over and len(self._passed_over) > 1:
            outcome, code = Outcome.BREAKER_OPEN, Code.ALL_TARGETS_UNAVAILABLE
        is_alone = self._attempts == 1 and (self._course.targets == 1 or not self._passed_over)
        is_final_word = outcome in (Outcome.UPSTREAM_4XX, Outcome.CONTEXT_TOO_LONG, Outcome.OWN_KEY_REFUSED)
        return GiveUp(
            outcome,
            code,
            best.target_index,
            best.http_status,
            rule.passes_body and best.http_status >= 400 and (is_alone or is_final_word),
            self._attempts,
            None if back_at_s is None else max(0.0, back_at_s - now_s),
        )

    def _give_up_committed(self, outcome: Outcome, rule: OutcomeRule) -> GiveUp:
        return GiveUp(outcome, rule.code, self._pending.target_index, 0, False, self._attempts, None, True)


_PHASES: dict[Outcome, str] = {
    Outcome.CONNECT_TIMEOUT: "No connection to the provider could be made in time.",
    Outcome.TTFB_TIMEOUT: "The provider did not begin to answer in time.",
    Outcome.FIRST_TOKEN_TIMEOUT: "The provider's first token did not come in time.",
    Outcome.TOTAL_TIMEOUT: "The request was not answered within its total time.",
    Outcome.RATE_LIMITED: "The provider is limiting the rate of requests.",
    Outcome.UPSTREAM_CONFLICT: "The provider asked to try again, and did so again.",
    Outcome.ANSWER_BLOCKED: "The model's answer holds content that policy blocks. It was not passed on.",
}


def problem_of_break(outcome: Outcome) -> Problem:
    """Say to the caller why a stream ends that it has seen the beginning of."""
    return problem(RULES[outcome].code, _PHASES.get(outcome))


def problem_of(give_up: GiveUp) -> Problem:
    """Say to the caller what a walk came to; use it unless ``pass_through`` is set.

    A caller is told to try again only where waiting helps (rate limits, overload, open breakers) or where
    we have not tried again ourselves.
    """
    rule = RULES[give_up.outcome]
    message = _PHASES.get(give_up.outcome) or None
    was_repeated = give_up.attempts > 1 and rule.is_attempt
    base = problem(give_up.code, message, retry_after_s=give_up.retry_after_s)
    if was_repeated:
        base = base._replace(message=f"{base.message} {give_up.attempts} attempts were made.")
        if not rule.cools and base.retry is Retry.YES:
            base = base._replace(retry=Retry.NO, retry_after_s=None)
    if give_up.code is Code.UPSTREAM_ERROR:
        is_busy = give_up.http_status == 503 or give_up.outcome is Outcome.UPSTREAM_CONFLICT
        base = base._replace(status=503 if is_busy else 502)
    if give_up.outcome in (Outcome.UPSTREAM_4XX, Outcome.CONTEXT_TOO_LONG) and give_up.http_status >= 400:
        base = base._replace(status=give_up.http_status)
    if give_up.outcome is Outcome.RATE_LIMITED:
        base = base._replace(fault=Fault.PROVIDER)
    return base


def _is_worth_repeating(same_target: SameTarget, left: int, others: int, has_named_wait: bool) -> bool:
    """Weigh a second try here against ``left`` attempts and ``others``, the targets not yet tried."""
    match same_target:
        case SameTarget.NEVER:
            return False
        case SameTarget.ONCE | SameTarget.ONCE_FRESH:
            return left > others
        case SameTarget.ONCE_IF_ALONE:
            return left > 0 and others == 0
        case SameTarget.AFTER_WAIT:
            return left > 0 and others == 0 and has_named_wait
    assert_never(same_target)


def _helps_more(new: _Failure, old: _Failure) -> bool:
    """Higher rank wins; among equals the first stands, except budgets, where the better-natured one does."""
    if new.outcome is Outcome.BUDGET_DENIED and old.outcome is Outcome.BUDGET_DENIED:
        return _BUDGET_RANKS.get(new.code, 0) > _BUDGET_RANKS.get(old.code, 0)
    return new.rank > old.rank
