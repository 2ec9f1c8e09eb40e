"""Past exchanges against the budgets of other policies, on virtual time and through the same counters.

Owns the play: exchanges begin when they began, hold what they may have used, and give back what they used when they ended. The
counters are ``Budgets`` itself, one for each sidecar (or one for all, where they share a store). What a provider answered then it answers
again; a target that was not asked then is taken to answer, with the tokens of the row, or of others like it. Health, announced limits and other sidecars' slices
are not played.

Two plays run side by side, of the policies of then and of those in question. What both come to alike, and the record does not, is a limit of the
play and no change: such exchanges are counted as ``unsure``.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from proxy.core.budget.dimensions import UNITS, Unit, window_s
from proxy.core.budget.estimate import measure, output_tokens, prompt_tokens
from proxy.core.budget.ledger import NO_AMOUNTS, Amounts
from proxy.core.budget.prices import PriceTable
from proxy.core.dialect import Dialect, dialect_of
from proxy.core.policy.model import BudgetRule, RoutePlan, Target
from proxy.core.policy.policy_set import PolicySet
from proxy.core.policy.replay import BUDGET_CODES, Played
from proxy.core.routing.problems import Code
from proxy.core.routing.walk import GiveUp, Walk
from proxy.flow.booking import NOT_ACCEPTED
from proxy.flow.budget_binding import UNLIMITED
from proxy.flow.budgets import Ask, Budgets, Denied, Granted, TooLarge, Unpriced
from proxy.flow.catalog import course_of
from proxy.flow.intake import read_json
from proxy.flow.verdicts import Who
from proxy.terms.exchange import Usage
from proxy.terms.outcomes import Outcome

LONGEST_WARM_UP_S: Final = 31 * 86400.0
_MAX_TYPICAL: Final = 4096
_ASSUMED_S: Final = 1.0
"""How long a target takes that was not asked then, in an exchange of which nobody knows how long it took."""
_Way = Generator[float, float, Played]
"""The way of one exchange: yields when it wants to go on, gets the time; returns what it came to."""


class Need(NamedTuple):
    """What an exchange may use, bounded as it was when it began."""

    tokens: int
    output: int
    is_explicit: bool
    is_known: bool
    """False: no body, so its length in the row stands in for it."""


def need_of(row: Mapping[str, Any], plan: RoutePlan, body: bytes | None) -> Need:
    """Bound the tokens of an exchange, from its body where somebody still has it."""
    dialect = dialect_of(str(row["path"])) if row["method"] == "POST" else Dialect.OTHER
    if dialect is Dialect.OTHER:
        return Need(0, 0, False, True)
    cap = None if plan.observe_only else plan.output_cap
    size, images, messages, longest, choices, is_explicit = row["request_bytes"], 0, 1, None, 1, False
    request = read_json(body, dialect) if body else None
    is_known = request is not None and hasattr(request, "choices")
    if body and is_known:
        size, images = measure(body)
        messages, longest, choices = request.messages, request.max_tokens, request.choices  # type: ignore[union-attr]
        is_explicit = longest is not None
    if cap is not None:
        longest = cap if longest is None else min(longest, cap)
    if dialect is Dialect.EMBEDDINGS:
        longest = 0
    output = output_tokens(longest, choices)
    return Need(prompt_tokens(size, messages, images) + output, output, is_explicit, is_known)


def warm_up_s(rules: tuple[BudgetRule, ...]) -> float:
    """Return how long before the first exchange in question the counters have to be fed."""
    spans = [window_s(dimension) for rule in rules for dimension, _ in rule.limits]
    return min(max(spans, default=0.0), LONGEST_WARM_UP_S)


class Typical:
    """What the exchanges of an app with a model use on average, so far."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, str], tuple[int, int, int]] = {}
        self.assumed = 0
        """Exchanges whose use nobody knows, and that were taken to be like those."""

    def note(self, key: tuple[str, str], usage: Usage) -> None:
        """Add one."""
        count, told, said = self._sums.get(key, (0, 0, 0))
        if count or len(self._sums) < _MAX_TYPICAL:
            self._sums[key] = (count + 1, told + usage.input_tokens, said + usage.output_tokens)

    def of(self, key: tuple[str, str]) -> Usage | None:
        """Return the average; None while there is none: then what was reserved stays."""
        self.assumed += 1
        count, told, said = self._sums.get(key, (0, 0, 0))
        return Usage(round(told / count), round(said / count), is_estimated=True) if count else None


class World:
    """The budgets of one line of revisions; one ``Budgets`` for each who counts."""

    def __init__(self, prices: PriceTable | None, *, is_shared: bool) -> None:
        self._prices = prices
        self._is_shared = is_shared
        self._budgets: dict[tuple[Any, ...], tuple[str, Budgets]] = {}
        self.typical = Typical()

    def budgets_of(self, row: Mapping[str, Any], policies: PolicySet) -> Budgets:
        """Return the counters that a row's exchange is charged to, under these policies."""
        key = () if self._is_shared else (row["writer"], row["epoch"])
        revision, budgets = self._budgets.get(key, ("", None))
        if budgets is None:
            budgets = Budgets()
        if revision != policies.revision:
            budgets.apply(policies.budgets)
            self._budgets[key] = (policies.revision, budgets)
        return budgets

    def way(
        self, row: Mapping[str, Any], policies: PolicySet, plan: RoutePlan, need: Need, now_s: float, *, enforce: bool
    ) -> _Way:
        """Return the way of one exchange through the budgets of a route."""
        budgets = self.budgets_of(row, policies)
        return _Exchange(budgets, self._prices, self.typical, row, plan, need, enforce).way(now_s)


@dataclass(slots=True)
class _Exchange:
    """One exchange in one world."""

    budgets: Budgets
    prices: PriceTable | None
    typical: Typical
    row: Mapping[str, Any]
    plan: RoutePlan
    need: Need
    enforce: bool
    now_s: float = 0.0
    """When the last wait was over."""

    def way(self, now_s: float) -> _Way:
        row, plan = self.row, self.plan
        chain = _in_order_of(plan, row)
        walk = Walk(course_of(plan, len(chain)), now_s + plan.total_s)
        then = _attempts_of(row)
        passed = _passed_over(row)
        denials: list[str] = []
        while True:
            step = walk.next(now_s)
            if isinstance(step, GiveUp):
                return self._ended(step, denials)
            if step.wait_s:
                now_s = yield now_s + step.wait_s
            target = chain[step.target_index]
            name = f"{target.provider}:{target.model or row['model_asked']}"
            if target.provider in passed and not then.get(name):
                ended = walk.record(Outcome.BREAKER_OPEN, now_s)
            else:
                verdict = yield from self._room(target, now_s, f"{row['id']}:{walk.attempts}:{step.target_index}")
                now_s = max(now_s, self.now_s)
                if not isinstance(verdict, Granted):
                    denials.append(_budget_of(verdict))
                    if verdict.when_exhausted == "refuse":
                        return Played(_code_of(verdict), because=denials[-1])
                    wait_s = verdict.retry_after_s if isinstance(verdict, Denied) else None
                    code = Code(_code_of(verdict))
                    ended = walk.record(Outcome.BUDGET_DENIED, now_s, retry_after_s=wait_s, code=code)
                else:
                    outcome, took_s, http_status = _next_of(then, name, row)
                    now_s = yield now_s + took_s
                    self._close(verdict, outcome, http_status, now_s, target)
                    if outcome in (Outcome.OK, Outcome.CLIENT_CANCELLED):
                        return Played(served=name, because=", ".join(dict.fromkeys(denials)))
                    ended = walk.record(outcome, now_s, http_status=http_status)
            if isinstance(ended, GiveUp):
                return self._ended(ended, denials)

    def _room(self, target: Target, now_s: float, rid: str) -> Generator[float, float, Any]:
        """Reserve; wait where a budget says so. Returns the verdict."""
        self.now_s = now_s
        row, plan, need = self.row, self.plan, self.need
        model = target.model or row["model_asked"]
        who = Who(model, plan.name, row["app"], row["caller"], row["user_id"])
        until_s = None
        while True:
            verdict = self.budgets.reserve(
                plan.budgets, target.provider, need.tokens, self.now_s, rid, is_explicit=need.is_explicit, who=who,
                amounts=self._amounts(target.provider, model),
            )  # fmt: skip
            assert not isinstance(verdict, Ask)
            if isinstance(verdict, Granted):
                return verdict
            if plan.observe_only and not self.enforce:
                return UNLIMITED
            if not isinstance(verdict, Denied) or verdict.when_exhausted != "wait":
                return verdict
            rule = self.budgets.waits_before(plan.budgets, target.provider, who, self.now_s).get(verdict.scope)
            if rule is None:
                return verdict
            until_s = self.now_s + rule.wait_s if until_s is None else until_s
            again_s = self.now_s + max(verdict.retry_after_s, 0.001)
            if again_s > until_s:
                return verdict
            self.now_s = yield again_s

    def _amounts(self, provider: str, model: str) -> Amounts:
        need = self.need
        if not any(rule.counts(Unit.COST, Unit.INPUT_TOKENS, Unit.OUTPUT_TOKENS) for rule in self.plan.budgets):
            return NO_AMOUNTS
        price = None if self.prices is None else self.prices.find(provider, model)
        cost = -1 if price is None else price.at_most(need.tokens - need.output, need.output)
        return Amounts(need.tokens - need.output, need.output, cost)

    def _close(self, granted: Granted, outcome: Outcome, http_status: int, now_s: float, target: Target) -> None:
        """Give back what was not used, as the end of an attempt does."""
        row, budgets = self.row, self.budgets
        if outcome in NOT_ACCEPTED:
            budgets.cancel(granted.reservation, now_s)
            return
        usage = None
        if outcome in (Outcome.OK, Outcome.CLIENT_CANCELLED):
            usage = self._usage()
        if usage is not None:
            price = (
                None if self.prices is None else self.prices.find(target.provider, target.model or row["model_asked"])
            )
            amounts = Amounts(usage.input_tokens, usage.output_tokens, 0 if price is None else price.of(usage))
            budgets.settle(granted.reservation, usage.input_tokens + usage.output_tokens, now_s, amounts)
        elif 400 <= http_status < 500:
            budgets.settle(granted.reservation, 0, now_s, NO_AMOUNTS)
        else:
            budgets.settle(granted.reservation, None, now_s)

    def _usage(self) -> Usage | None:
        """Return what the row says was used; what was not served then uses what its app's others did."""
        row = self.row
        key = (row["app"], row["model_asked"])
        if row["tokens_in"] is None or row["tokens_out"] is None:
            return self.typical.of(key)
        usage = Usage(row["tokens_in"], row["tokens_out"], row["tokens_cached"] or 0, row["tokens_reasoning"] or 0)
        self.typical.note(key, usage)
        return usage

    @staticmethod
    def _ended(step: GiveUp, denials: list[str]) -> Played:
        if not denials:
            return Played(health=step.outcome.value)
        return Played(step.code.value, because=", ".join(dict.fromkeys(denials)))


def _budget_of(verdict: Denied | TooLarge | Unpriced) -> str:
    dimension = "" if isinstance(verdict, Unpriced) else f" {verdict.dimension.value}"
    return f"budget {verdict.budget_id}{dimension}"


def _code_of(verdict: Denied | TooLarge | Unpriced) -> str:
    if isinstance(verdict, Unpriced):
        return Code.UNKNOWN_PRICE.value
    if isinstance(verdict, TooLarge):
        return Code.BUDGET_REQUEST_TOO_LARGE.value
    return (Code.INSUFFICIENT_QUOTA if verdict.is_quota else Code.RATE_LIMIT_EXCEEDED).value


def _attempts_of(row: Mapping[str, Any]) -> dict[str, deque[Mapping[str, Any]]]:
    found: dict[str, deque[Mapping[str, Any]]] = {}
    for attempt in row["attempts"]:
        found.setdefault(f"{attempt['provider']}:{attempt['model']}", deque()).append(attempt)
    return found


def _next_of(
    then: dict[str, deque[Mapping[str, Any]]], name: str, row: Mapping[str, Any]
) -> tuple[Outcome, float, int]:
    """Return what the target answered then, how long it took, and its status; what was not asked then answers."""
    attempts = then.get(name)
    if attempts:
        one = attempts.popleft()
        took_s = max(0.0, (one["ended_ms"] or one["started_ms"]) - one["started_ms"]) / 1000.0
        return Outcome(one["outcome"]), took_s, one["http_status"]
    took_ms = row["latency_ms"] if row["attempt_count"] else None
    return Outcome.OK, _ASSUMED_S if took_ms is None else took_ms / 1000.0, 200


def _passed_over(row: Mapping[str, Any]) -> frozenset[str]:
    """Return the providers that were passed over for what is not the budgets' doing: health, a key, what they can read."""
    skipped = [note.split(":", 2) for note in row["notes"] if note.startswith("skipped:") and note.count(":") >= 2]
    return frozenset(provider for _, provider, why in skipped if not why.startswith(("budget", "unpriced")))


def _in_order_of(plan: RoutePlan, row: Mapping[str, Any]) -> list[Target]:
    """Return the chain, members of a shared step in the order in which they were asked then."""
    asked = {f"{one['provider']}:{one['model']}": -number for number, one in enumerate(reversed(row["attempts"]))}
    chain = list(plan.chain)
    for share in plan.shares:
        members = chain[share.start : share.stop]
        names = {id(one): f"{one.provider}:{one.model or row['model_asked']}" for one in members}
        chain[share.start : share.stop] = sorted(members, key=lambda one: asked.get(names[id(one)], 1))
    return chain


def recorded(row: Mapping[str, Any]) -> Played:
    """Return what the budgets of then came to, as the row tells."""
    skipped = any(note.startswith("skipped:") and ":budget:" in note for note in row["notes"])
    is_ours = row["fault"] == "policy" and row["error_code"] in BUDGET_CODES
    if is_ours or (skipped and row["error_code"] == Code.ALL_TARGETS_UNAVAILABLE):
        return Played(row["error_code"])
    served = f"{row['provider']}:{row['model_served']}" if row["attempt_count"] else ""
    return Played(served=served)


class BudgetPlay:
    """Both worlds on one clock. Offer exchanges in the order in which they began, then ``finish``."""

    def __init__(self, prices: PriceTable | None, *, is_shared: bool, enforce: bool = False) -> None:
        """``is_shared``: sidecars share their counters; else each has its own, and loses them when it ends."""
        self._old = World(prices, is_shared=is_shared)
        self._new = World(prices, is_shared=is_shared)
        self._enforce = enforce
        self._ways: list[tuple[float, int, _Way, Callable[[Played], None]]] = []
        self._number = 0
        self.played = 0
        """Exchanges that met a budget in either world."""
        self.estimated = 0
        """Of these, those whose body nobody has: reserved by their length, with an assumed answer."""
        self.unsure = 0
        """Exchanges whose record the budgets of then do not reproduce: changes there are not told."""

    def offer(
        self,
        row: Mapping[str, Any],
        then: tuple[PolicySet, RoutePlan] | None,
        now: tuple[PolicySet, RoutePlan] | None,
        body: bytes | None,
        done: Callable[[Played, Played], None],
    ) -> None:
        """Play one exchange; ``done`` hears what the budgets came to: recorded, and in question.

        Args:
            row: Its audit row, JSON columns parsed.
            then: The policies that decided it and their route; None: not known, or they refused it.
            now: The policies in question and their route; None: they refuse it.
            body: What was asked, where somebody still has it.
            done: Called once, when both worlds are through with it.
        """
        began_s = row["ts"].timestamp()
        self._advance(began_s)
        told = recorded(row)
        counted = [world for world in (then, now) if world is not None and world[1].budgets]
        if not counted:
            done(told, Played() if told.refusal else told)
            return
        self.played += 1
        outcomes: dict[str, Played] = {}
        worlds = {"old": (self._old, then, False), "new": (self._new, now, self._enforce)}
        running = {name for name, (_, one, _) in worlds.items() if one is not None}

        def ended(name: str, played: Played) -> None:
            outcomes[name] = played
            if len(outcomes) == len(running):
                done(*self._judged(told, outcomes.get("old"), outcomes.get("new")))

        is_known = True
        for name, (world, one, enforce) in worlds.items():
            if one is None:
                continue
            policies, plan = one
            need = need_of(row, plan, body)
            is_known = is_known and (need.is_known or not _counts_tokens(plan))
            way = world.way(row, policies, plan, need, began_s, enforce=enforce)
            self._begin(way, began_s, partial(ended, name))
        self.estimated += not is_known

    def _judged(self, told: Played, old: Played | None, new: Played | None) -> tuple[Played, Played]:
        if new is None or new.health:
            return told, Played()
        is_same = new.refusal == told.refusal and (bool(new.refusal) or not told.served or new.served == told.served)
        if is_same:
            return told, told
        if old is not None and (old.refusal, old.served) == (new.refusal, new.served):
            self.unsure += 1
            return told, told
        if not told.refusal and not new.refusal and old is None:
            return told, told  # another target, for reasons that nobody can tell apart
        return told, new

    @property
    def assumed(self) -> int:
        """Exchanges of which nobody knows what they would have used: taken to be like others of their app and model."""
        return self._new.typical.assumed

    def finish(self) -> None:
        """Play everything to its end."""
        self._advance(float("inf"))

    def _begin(self, way: _Way, now_s: float, ended: Callable[[Played], None]) -> None:
        try:
            again_s = next(way)
        except StopIteration as stop:
            ended(stop.value)
            return
        self._queue(max(again_s, now_s), way, ended)

    def _queue(self, at_s: float, way: _Way, ended: Callable[[Played], None]) -> None:
        self._number += 1
        heapq.heappush(self._ways, (at_s, self._number, way, ended))

    def _advance(self, until_s: float) -> None:
        while self._ways and self._ways[0][0] <= until_s:
            at_s, _, way, ended = heapq.heappop(self._ways)
            try:
                again_s = way.send(at_s)
            except StopIteration as stop:
                ended(stop.value)
                continue
            self._queue(max(again_s, at_s), way, ended)


def _counts_tokens(plan: RoutePlan) -> bool:
    units = {UNITS[dimension] for rule in plan.budgets for dimension, _ in rule.limits}
    return not units <= {Unit.REQUESTS, Unit.CONCURRENT}
