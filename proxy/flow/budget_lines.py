"""The lines of the account book: each limit of each rule, for each one it is counted by.

Owns every counter of this process, keyed by rule and partition, so that a policy reload changes limits and
never sums. Knows no exchange and no store.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from proxy.core.budget.calendar import Calendar, CalendarCounter, WallClock
from proxy.core.budget.central import CentralCounter
from proxy.core.budget.dimensions import SHAPES, UNITS, Dimension, Unit
from proxy.core.budget.ledger import Meter
from proxy.core.budget.limit_view import LimitView
from proxy.core.budget.shares import Shares
from proxy.core.budget.window import SlotCounter, SlotView, WindowCounter
from proxy.core.policy.model import BudgetRule, Scope
from proxy.flow.verdicts import BudgetView, DimensionView, Partition, Who

MAX_PARTITIONS = 20_000
"""Partitions with counters of their own. When all of them are in use, newcomers share one: fewer may pass, not more."""
OVERFLOW = "(others)"


class Line:
    """One limit with its counter here and, where sidecars share, the description of the shared one."""

    __slots__ = (
        "central",
        "central_left",
        "central_reset_s",
        "closed_amount",
        "closed_until_s",
        "limit",
        "meter",
        "scope",
    )

    def __init__(self, meter: Meter, limit: int, partition: Partition) -> None:
        self.meter = meter
        self.scope = (meter.budget_id, partition)
        self.limit = limit
        """The whole limit, of which the counter here may hold a slice only."""
        self.central: CentralCounter | None = None
        self.central_left = 0
        """What the shared counter had left when it was last heard of."""
        self.central_reset_s = 0.0
        self.closed_amount = 0
        self.closed_until_s = 0.0


class Lines:
    """All lines, found by rule and partition."""

    def __init__(self, shares: Shares | None, wall: WallClock, started_s: float) -> None:
        self._shares = shares
        self._wall = wall
        self._started_s = started_s
        self._is_boosted = False
        self.evictions = 0
        """How often partitions were dropped: whoever remembers counters has to look them up anew."""
        self._by_key: dict[tuple[str, Partition], dict[Dimension, Line]] = {}

    def of(self, rule: BudgetRule, partition: Partition, now_s: float) -> list[Line]:
        """Return the rule's lines with its limits set, made where they are missing."""
        key = (rule.id, partition)
        known = self._by_key.get(key)
        if known is None:
            if partition and len(self._by_key) >= MAX_PARTITIONS and not self.forget_idle(now_s):
                return self.of(rule, tuple((name, OVERFLOW) for name, _ in partition), now_s)
            known = self._by_key[key] = {}
        lines: list[Line] = []
        for dimension, limit in rule.limits:
            line = known.get(dimension)
            if line is None:
                line = known[dimension] = self._new(rule, dimension, limit, partition)
            self._set_limit(line, rule, partition, limit)
            lines.append(line)
        return lines

    def beside(self, rule: BudgetRule, known: BudgetRule | None, partition: Partition, now_s: float) -> list[Line]:
        """Return the lines of a canary's rule: the counters of the rule of that id in force, under limits of its own.

        ``known`` is the rule in force; None: only the canary has it, and its counters begin with it.
        """
        if known is None or known == rule or known.per != rule.per:
            return self.of(rule, partition, now_s)
        theirs = {line.meter.dimension: line for line in self.of(known, partition, now_s)}
        more = tuple((dimension, limit) for dimension, limit in rule.limits if dimension not in theirs)
        lines = self.of(replace(rule, limits=more), partition, now_s) if more else []
        for dimension, limit in rule.limits:
            line = theirs.get(dimension)
            if line is not None:
                lines.append(line if line.limit == limit else self._view_of(line, rule, partition, limit))
        return lines

    def _view_of(self, base: Line, rule: BudgetRule, partition: Partition, limit: int) -> Line:
        """Return a line with a limit of its own on the charges of another. Calendar days stay those of the other."""
        dimension, counter = base.meter.dimension, base.meter.counter
        if isinstance(counter, SlotCounter):
            view: LimitView | SlotView = SlotView(counter, limit)
        else:
            assert not isinstance(counter, LimitView)
            view = LimitView(counter, limit)
        line = Line(Meter(rule.id, dimension, view), limit, partition)
        self._set_limit(line, rule, partition, limit)
        if line.central is not None and base.central is not None:
            line.central = line.central._replace(zone=base.central.zone)
            line.central_left = max(0, line.central.limit - (base.central.limit - base.central_left))
        return line

    def _new(self, rule: BudgetRule, dimension: Dimension, limit: int, partition: Partition) -> Line:
        counter = _counter(dimension, rule.time_zone, self._wall)
        line = Line(Meter(rule.id, dimension, counter), limit, partition)
        if self._shares is not None and not isinstance(counter, SlotCounter):
            # Whoever ran here before may have used the slice: it opens only when that has left the window.
            counter.advance(self._started_s)
            line.closed_amount = self._shares.split(limit).slice
            counter.charge(line.closed_amount)
            line.closed_until_s = self._started_s + counter.reset_s(self._started_s)
        return line

    def _set_limit(self, line: Line, rule: BudgetRule, partition: Partition, limit: int) -> None:
        line.limit = limit
        counter = line.meter.counter
        if isinstance(counter, CalendarCounter):
            counter.zone = rule.time_zone
        if self._shares is None:
            counter.limit = limit
            return
        split = self._shares.split(limit)
        counter.limit = split.boosted if self._is_boosted else split.slice
        dimension = line.meter.dimension
        before = 0 if line.central is None else line.central.limit
        if line.central is None or (line.central.limit, line.central.zone) != (split.central, rule.time_zone):
            whose = whose_text(partition)
            line.central = CentralCounter(
                rule.id, whose, dimension, SHAPES.get(dimension), rule.time_zone, split.central
            )
            line.central_left += split.central - before

    def wait_s(self, scope: tuple[str, Partition], dimension: Dimension, ahead: int, now_s: float) -> float:
        """Return how long it takes until ``ahead`` more requests and one of ours have room in a limit of requests."""
        line = self._by_key.get(scope, {}).get(dimension)
        if line is None or UNITS[dimension] is not Unit.REQUESTS or isinstance(line.meter.counter, SlotCounter):
            return 0.0
        return line.meter.counter.wait_s(min(ahead + 1, line.meter.counter.limit), now_s)

    def boost(self, is_boosted: bool) -> bool:
        """Grow or shrink every slice; True when that is a change."""
        if self._shares is None or is_boosted == self._is_boosted:
            return False
        self._is_boosted = is_boosted
        for line in self.all():
            split = self._shares.split(line.limit)
            line.meter.counter.limit = split.boosted if is_boosted else split.slice
        return True

    def forget(self, in_force: set[str], now_s: float) -> None:
        """Drop the lines of rules that are no longer named and hold nothing."""
        for key in [key for key in self._by_key if key[0] not in in_force]:
            if not any(_in_use(line, now_s) for line in self._by_key[key].values()):
                del self._by_key[key]

    def forget_idle(self, now_s: float) -> bool:
        """Drop partitions that hold nothing; True when there is room again."""
        self.evictions += 1
        for key in [key for key in self._by_key if key[1]]:
            if not any(_in_use(line, now_s) for line in self._by_key[key].values()):
                del self._by_key[key]
        return len(self._by_key) < MAX_PARTITIONS

    def views(self, rule: BudgetRule, now_s: float) -> Iterator[BudgetView]:
        """Yield the rule's budgets as they stand, one per partition met so far."""
        end = str(rule.when_exhausted)
        if not rule.per:
            lines = self.of(rule, (), now_s)
            yield BudgetView(rule.id, rule.provider, end, tuple(self._view(line, now_s) for line in lines))
            return
        for (rule_id, partition), known in list(self._by_key.items()):
            if rule_id == rule.id:
                views = tuple(self._view(line, now_s) for line in known.values())
                yield BudgetView(rule.id, rule.provider, end, views, partition)

    def _view(self, line: Line, now_s: float) -> DimensionView:
        counter = line.meter.counter
        reset_s = 0.0 if isinstance(counter, SlotCounter) else counter.reset_s(now_s)
        used = counter.used - (line.closed_amount if now_s < line.closed_until_s else 0)
        if line.central is not None:
            used += line.central.limit - line.central_left
            reset_s = max(reset_s, line.central_reset_s)
        return DimensionView(line.meter.dimension, line.limit, used, max(0, line.limit - used), reset_s)

    def named(self) -> Iterator[tuple[str, Partition, Line]]:
        """Yield every line with its rule and partition."""
        for (rule_id, partition), known in self._by_key.items():
            for line in known.values():
                yield rule_id, partition, line

    def all(self) -> Iterator[Line]:
        for known in self._by_key.values():
            yield from known.values()


def whose_text(partition: Partition) -> str:
    """Return a partition as the shared counters call it: different ones never alike, whatever callers call themselves."""
    return "&".join(f"{name}={value.replace('%', '%25').replace('&', '%26')}" for name, value in partition)


def asks_who(rule: BudgetRule) -> bool:
    """Say whether a rule depends on more than provider and route."""
    named = (rule.model, rule.app, rule.caller, rule.user)
    return any(name is not None for name in named) or any(scope is not Scope.PROVIDER for scope in rule.per)


def partition_of(rule: BudgetRule, provider: str, who: Who) -> Partition:
    """Return whose counters of a rule an exchange is charged to."""
    if not rule.per:
        return ()
    return tuple((s.value, provider if s is Scope.PROVIDER else getattr(who, s.value)) for s in rule.per)


def _in_use(line: Line, now_s: float) -> bool:
    counter = line.meter.counter
    if not isinstance(counter, SlotCounter):
        counter.advance(now_s)
    return counter.used > 0


def _counter(dimension: Dimension, zone: str, wall: WallClock) -> WindowCounter | CalendarCounter | SlotCounter:
    shape = SHAPES.get(dimension)
    if shape is None:
        return SlotCounter(0)
    if isinstance(shape, Calendar):
        return CalendarCounter(shape, zone, 0, wall)
    return WindowCounter(shape, 0)
