"""A new revision for a share of the exchanges first: who is among them, and whether it does worse than the one before.

Owns the arithmetic of a rollout: the lot that every sidecar draws alike, the counts of both revisions, the comparison, and
what follows from it. Knows no snapshot, no clock and no file: numbers and revisions come in.

How two revisions are compared. Both are counted over the same two spans: the step at hand, and its last minute (so that
trouble that comes late is not thinned out by a good hour). In each span the rate of errors, and apart from it that of
refusals, is bad when it is surely more than the threshold above the rate of the revision before: when the lower end of the
one-sided 99 % score interval of the difference (Newcombe 1998, method 10) is above the threshold. So strict because the
question is asked four times a second. Below ``min_exchanges`` of the new revision nothing is said. While nobody uses the
revision before, the new one is held against zero.
"""

from __future__ import annotations

import hashlib
import math
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from proxy.terms.exchange import ExchangeFacts
from proxy.terms.outcomes import Fault, Status

RECENT_S: Final = 60.0
_BUCKET_S: Final = 5.0
_Z: Final = 2.326
"""One-sided 99 %."""
_WELL: Final = (Status.SUCCESS, Status.FALLBACK, Status.RESCUED)
_NO_ROUTE_CODES: Final = ("not_found", "model_not_found", "permission_denied")


class RolloutBy(StrEnum):
    """What keeps to one revision for as long as a rollout lasts."""

    CONVERSATION = "conversation"
    USER = "user"
    APP = "app"


class AfterWatch(StrEnum):
    """What happens when the last step has been watched."""

    PROMOTE = "promote"
    WAIT = "wait"


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """How a revision comes into force."""

    shares: tuple[float, ...]
    """Parts of all exchanges, one per step, rising; above 0 and below 1."""
    by: RolloutBy = RolloutBy.CONVERSATION
    watch_s: float = 900.0
    """How long each step is watched."""
    then: AfterWatch = AfterWatch.PROMOTE
    min_exchanges: int = 50
    """Of the new revision, before anything is concluded: neither taken back nor taken further."""
    errors: float = 0.05
    """So much may the rate of errors be above that of the revision before; 0.05 is five percentage points."""
    refusals: float = 0.05

    def as_text(self) -> str:
        """Return what a record holds to know the same plan again."""
        shares = "/".join(f"{share:.6g}" for share in self.shares)
        limits = f"{self.min_exchanges} {self.errors:.6g} {self.refusals:.6g}"
        return f"{shares} {self.by} {self.watch_s:.6g} {self.then} {limits}"


# --- who is among them ----------------------------------------------------------------------------


def is_in(revision: str, key: bytes, share: float) -> bool:
    """Say whether what ``key`` names uses the new revision; nothing (an empty key) never does.

    The same in every process and after every restart; who is in at a share is in at every greater one.
    """
    if not key:
        return False
    digest = hashlib.blake2b(revision.encode() + b"\0" + key, digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2.0**64


# --- how it does ----------------------------------------------------------------------------------


class Ended(StrEnum):
    """How an exchange ended, as far as its policy is concerned."""

    WELL = "well"
    ERROR = "error"
    REFUSED = "refused"


def ended_as(facts: ExchangeFacts) -> Ended | None:
    """Return how an exchange counts; None: it says nothing of its policy.

    Errors are answers that did not come, broke off, or came from a provider as an error, and callers that left before any
    answer. Refusals are those of a policy: content, access, routes, budgets. What the caller did wrong counts as neither.
    """
    if facts.status is Status.CANCELLED:
        return Ended.ERROR if facts.policy and not facts.http_status else None
    if not facts.policy:
        return Ended.REFUSED if facts.error_code in _NO_ROUTE_CODES else None
    if facts.fault is Fault.CLIENT:
        return None
    if facts.fault is Fault.POLICY:
        return Ended.REFUSED
    return Ended.WELL if facts.status in _WELL else Ended.ERROR


class Counts(NamedTuple):
    """Exchanges of one revision in one span."""

    exchanges: int = 0
    errors: int = 0
    refusals: int = 0


class Cohort:
    """The exchanges of one revision since a step began, and those of its last minute."""

    __slots__ = ("_buckets", "_errors", "_exchanges", "_refusals")

    def __init__(self) -> None:
        self._exchanges = self._errors = self._refusals = 0
        self._buckets: deque[list[int]] = deque(maxlen=int(RECENT_S / _BUCKET_S) + 1)
        """Number of the bucket, exchanges, errors, refusals."""

    def count(self, ended: Ended, now_s: float) -> None:
        """Take one exchange."""
        number = int(now_s // _BUCKET_S)
        if not self._buckets or self._buckets[-1][0] < number:
            self._buckets.append([number, 0, 0, 0])
        bucket = self._buckets[-1]
        is_error, is_refusal = ended is Ended.ERROR, ended is Ended.REFUSED
        self._exchanges += 1
        self._errors += is_error
        self._refusals += is_refusal
        bucket[1] += 1
        bucket[2] += is_error
        bucket[3] += is_refusal

    def total(self) -> Counts:
        """Return everything since the step began."""
        return Counts(self._exchanges, self._errors, self._refusals)

    def recent(self, now_s: float) -> Counts:
        """Return the last minute, to within a bucket of 5 s."""
        oldest = int((now_s - RECENT_S) // _BUCKET_S)
        kept = [bucket for bucket in self._buckets if bucket[0] >= oldest]
        return Counts(*(sum(bucket[place] for bucket in kept) for place in (1, 2, 3)))


class Worse(NamedTuple):
    """Why a revision is taken back; rates from 0 to 1."""

    what: str
    """``errors`` or ``refusals``."""
    span: str
    canary: int
    of: int
    stable: int
    of_stable: int
    threshold: float

    def __str__(self) -> str:
        before = f"{self.stable} of {self.of_stable} ({self.stable / self.of_stable:.1%})" if self.of_stable else "none"
        now = f"{self.canary} of {self.of} ({self.canary / self.of:.1%})"
        return f"{self.what} {self.span}: {now}, revision before: {before}, allowed above that: {self.threshold:.1%}"


def find_worse(plan: RolloutPlan, canary: Cohort, stable: Cohort, now_s: float) -> Worse | None:
    """Return in what the new revision does worse than its plan allows, or None."""
    for span, new, old in (
        ("in this step", canary.total(), stable.total()),
        ("in the last minute", canary.recent(now_s), stable.recent(now_s)),
    ):
        if new.exchanges < plan.min_exchanges:
            continue
        for what, threshold, bad, base in (
            ("errors", plan.errors, new.errors, old.errors),
            ("refusals", plan.refusals, new.refusals, old.refusals),
        ):
            if is_worse(bad, new.exchanges, base, old.exchanges, threshold):
                return Worse(what, span, bad, new.exchanges, base, old.exchanges, threshold)
    return None


def is_worse(bad: int, of: int, bad_before: int, of_before: int, threshold: float) -> bool:
    """Say whether a rate is surely more than ``threshold`` above another. ``of`` is at least 1."""
    return least_difference(bad, of, bad_before, of_before) > threshold


def least_difference(bad: int, of: int, bad_before: int, of_before: int) -> float:
    """Return the lower end of the one-sided 99 % interval of the difference of two rates (Newcombe's hybrid score)."""
    rate, (lower, _) = bad / of, _wilson(bad, of)
    if not of_before:
        return lower
    before, (_, upper) = bad_before / of_before, _wilson(bad_before, of_before)
    return rate - before - math.hypot(rate - lower, upper - before)


def _wilson(bad: int, of: int) -> tuple[float, float]:
    """Return Wilson's score interval of a rate."""
    rate, z2 = bad / of, _Z * _Z
    middle, width = rate + z2 / (2 * of), _Z * math.sqrt(rate * (1 - rate) / of + z2 / (4 * of * of))
    return (max(0.0, (middle - width) / (1 + z2 / of)), min(1.0, (middle + width) / (1 + z2 / of)))


# --- what follows ---------------------------------------------------------------------------------


class Move(StrEnum):
    """What becomes of a rollout now."""

    WATCH = "watching"
    SAMPLE = "waiting for exchanges"
    """Watched long enough, and not used enough to say anything."""
    WORD = "waiting for promotion"
    """Watched to the end; ``then: wait``."""
    STEP = "next step"
    PROMOTE = "promote"


def next_move(plan: RolloutPlan, step: int, watched_s: float, exchanges: int) -> Move:
    """Say what follows for a revision that does no worse.

    Args:
        plan: How it comes into force.
        step: Which of its shares is at hand, from 0.
        watched_s: Since that step began.
        exchanges: Of the new revision in that step.
    """
    if watched_s < plan.watch_s:
        return Move.WATCH
    if exchanges < plan.min_exchanges:
        return Move.SAMPLE
    if step + 1 < len(plan.shares):
        return Move.STEP
    return Move.PROMOTE if plan.then is AfterWatch.PROMOTE else Move.WORD


class Start(StrEnum):
    """How policy texts that are good come into force."""

    WHOLE = "whole"
    CANARY = "canary"
    KEEP = "keep"
    """They are the canary already, with the same plan."""
    REFUSED = "refused"
    """They were taken back and have not changed."""


class Remembered(NamedTuple):
    """A rollout that is under way, or one that was taken back, as it outlives a restart."""

    canary: str
    stable: str
    plan: str
    """As ``RolloutPlan.as_text`` tells it."""
    is_taken_back: bool = False
    reason: str = ""
    step: int = 0

    def is_about(self, revision: str, plan: RolloutPlan | None) -> bool:
        """Say whether these are the texts it is about: comments and cases may differ, meaning and plan may not."""
        return plan is not None and (self.canary, self.plan) == (revision, plan.as_text())

    def document(self) -> dict[str, Any]:
        """Return it as plain data."""
        return self._asdict()


def remembered_from(plain: dict[str, Any]) -> Remembered | None:
    """Return what ``document`` told; None for anything else."""
    texts = [plain.get(key) for key in ("canary", "stable", "plan", "reason")]
    is_taken_back, step = plain.get("is_taken_back"), plain.get("step")
    if not all(isinstance(text, str) for text in texts) or type(is_taken_back) is not bool or type(step) is not int:
        return None
    canary, stable, plan, reason = map(str, texts)
    return Remembered(canary, stable, plan, is_taken_back, reason, max(0, step))


def decide_start(
    revision: str,
    plan: RolloutPlan | None,
    *,
    stable: str | None,
    remembered: Remembered | None,
    is_running: bool,
    was_whole: bool,
) -> Start:
    """Say how a revision comes into force that the policy folder has brought.

    Args:
        revision: What the texts mean.
        plan: Their ``rollout``; None: they have none.
        stable: The revision in force for everybody that is no canary; None: nothing is.
        remembered: The rollout under way, or the last one when it was taken back.
        is_running: A canary is in force now.
        was_whole: The revision was in force for everybody before: a way back never waits.
    """
    if plan is None or stable is None or stable == revision:
        return Start.WHOLE
    if remembered is not None and remembered.is_about(revision, plan):
        if remembered.is_taken_back:
            return Start.REFUSED
        if is_running:
            return Start.KEEP
    return Start.WHOLE if was_whole else Start.CANARY
