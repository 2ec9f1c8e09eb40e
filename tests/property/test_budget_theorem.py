"""The theorem of the two-tier window: whatever is cut off, dies or steps its clock, no window passes the limit.

A state machine plays the shared counter and the sidecars' slices; the oracle is the list of what was admitted, with
true times, added up by brute force. It shares no code with the counters.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from proxy.core.budget.dimensions import Dimension
from proxy.core.budget.ledger import Account, Ledger, Meter, Reservation
from proxy.core.budget.shares import Shares
from proxy.core.budget.window import TEN_SECONDS, WindowCounter

WINDOW_S = 10.0
SIDECARS = 3
WHO = st.integers(0, SIDECARS - 1)


@dataclass
class Counter:
    """The shared counter or a slice, with the clock it is read by."""

    limit: int
    offset_s: float = 0.0
    closed_until_s: float = -1.0
    ledger: Ledger = field(default_factory=Ledger)
    account: Account = field(init=False)

    def __post_init__(self) -> None:
        window = WindowCounter(TEN_SECONDS, self.limit)
        self.account = Account([Meter("b", Dimension.TOKENS_PER_10S, window)])

    def acquire(self, tokens: int, true_s: float, rid: str) -> Reservation | None:
        # At the very end it is closed yet: the intervals of the theorem are closed at both ends.
        if true_s <= self.closed_until_s or tokens > self.limit:
            return None
        return self.ledger.acquire(self.account, tokens, max(0.0, true_s + self.offset_s), rid)


@dataclass
class Admitted:
    """One admission in true time. While it runs it may still come to use all it reserved."""

    at_s: float
    cost: int
    sidecar: int
    counter: Counter
    held: Reservation
    is_open: bool = True


class TwoTiers(RuleBasedStateMachine):
    """What may happen to a fleet."""

    @initialize(limit=st.integers(30, 60), share=st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0]))
    def start(self, limit: int, share: float) -> None:
        self.now_s = 1000.0
        self.limit = limit
        self.split = Shares(SIDECARS, share).split(limit)
        self.shared = Counter(self.split.central)
        self.slices = [Counter(self.split.slice) for _ in range(SIDECARS)]
        self.cut = [False] * SIDECARS
        self.log: list[Admitted] = []
        self.orphans: list[tuple[Counter, Reservation]] = []
        self.numbers = 0

    def _rid(self) -> str:
        self.numbers += 1
        return str(self.numbers)

    @rule(step_s=st.one_of(st.floats(0.0, 3.0), st.sampled_from([0.001, 0.999, 1.0, 9.0, 9.999, 10.0, 10.001, 11.0])))
    def time_passes(self, step_s: float) -> None:
        self.now_s += step_s

    @rule(first=WHO, tokens=st.sampled_from([1, 2, 5, 13]))
    def everybody_asks_until_refused(self, first: int, tokens: int) -> None:
        """Demand beyond the limit meets every edge there is."""
        for who in [*range(first, SIDECARS), *range(first)]:
            for _ in range(self.limit // tokens + 1):
                if not self.ask(who, tokens, False):
                    break

    @rule(who=WHO, tokens=st.integers(0, 40), loses_reply=st.sampled_from([False] * 5 + [True]))
    def one_asks(self, who: int, tokens: int, loses_reply: bool) -> None:
        self.ask(who, tokens, loses_reply)

    def ask(self, who: int, tokens: int, loses_reply: bool) -> bool:
        """Ask the shared counter, then the slice; True when one of them had room."""
        counter, held = self.shared, None
        if not self.cut[who]:
            held = self.shared.acquire(tokens, self.now_s, self._rid())
            if held is not None and loses_reply:
                self.orphans.append((self.shared, held))
                held = None
        if held is None:
            counter = self.slices[who]
            held = counter.acquire(tokens, self.now_s, self._rid())
        if held is not None:
            self.log.append(Admitted(self.now_s, tokens, who, counter, held))
        return held is not None

    def _running(self, pick: int) -> Admitted | None:
        running = [a for a in self.log if a.is_open and not (self.cut[a.sidecar] and a.counter is self.shared)]
        return running[pick % len(running)] if running else None

    @rule(pick=st.integers(0, 10**6), part=st.floats(0.0, 1.0), is_cancelled=st.booleans(), is_lost=st.booleans())
    def one_ends(self, pick: int, part: float, is_cancelled: bool, is_lost: bool) -> None:
        one = self._running(pick)
        if one is not None:
            self.end(one, part, is_cancelled, is_lost)

    @rule(part=st.floats(0.0, 1.0), is_cancelled=st.booleans())
    def all_end(self, part: float, is_cancelled: bool) -> None:
        """Refunds may come long after the charge has left the window."""
        while (one := self._running(0)) is not None:
            self.end(one, part, is_cancelled, False)

    def end(self, one: Admitted, part: float, is_cancelled: bool, is_lost: bool) -> None:
        one.is_open = False
        tokens = 0 if is_cancelled else int(one.cost * part)
        one.cost = tokens
        now_s = max(0.0, self.now_s + one.counter.offset_s)
        if is_lost:
            return
        if is_cancelled:
            one.counter.ledger.cancel(one.held, now_s)
        else:
            one.counter.ledger.settle(one.held, tokens, now_s)

    @rule(pick=st.integers(0, 10**6))
    @precondition(lambda self: self.orphans)
    def lost_acquisition_is_cancelled(self, pick: int) -> None:
        counter, held = self.orphans.pop(pick % len(self.orphans))
        counter.ledger.cancel(held, max(0.0, self.now_s + counter.offset_s))

    @rule(who=WHO)
    def line_breaks_or_heals(self, who: int) -> None:
        self.cut[who] = not self.cut[who]

    @rule(who=WHO)
    def sidecar_dies_and_is_back(self, who: int) -> None:
        """What it ran may use up to its reservation; its slice stays closed for a window."""
        for one in self.log:
            if one.sidecar == who:
                one.is_open = False
        self.slices[who] = Counter(self.split.slice, closed_until_s=self.now_s + WINDOW_S)

    @rule()
    def shared_counter_forgets_everything(self) -> None:
        self.shared = Counter(self.split.central, self.shared.offset_s, self.now_s + WINDOW_S)

    @rule(back_s=st.sampled_from([0.5, 1.0, 5.0, 100.0]), who=st.integers(-1, SIDECARS - 1))
    def clock_steps_back(self, back_s: float, who: int) -> None:
        (self.shared if who < 0 else self.slices[who]).offset_s -= back_s

    @invariant()
    def no_window_passes_the_limit(self) -> None:
        last_s = getattr(self, "now_s", 0.0)
        held = [one for one in getattr(self, "log", []) if one.at_s >= last_s - 2 * WINDOW_S]
        for first in held:
            window = sum(one.cost for one in held if first.at_s <= one.at_s <= first.at_s + WINDOW_S)
            assert window <= self.limit, f"{window} of {self.limit} from {first.at_s}"


TestTwoTiers = TwoTiers.TestCase
TestTwoTiers.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
