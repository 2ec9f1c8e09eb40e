"""Whatever happens in whatever order: one probe at a time, and always a way back."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.core.health.breaker import ADMIT, PROBE, Breaker, BreakerSettings, BreakerState, Verdict

SETTINGS = BreakerSettings()
JITTER = st.sampled_from([0.0, 0.3, 1.0])


class BreakerMachine(RuleBasedStateMachine):
    """A breaker beside a naive account of who is out on a probe."""

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(SETTINGS)
        self.now_s = 1000.0
        self.probe_until_s: float | None = None
        """Deadline of the probe that is out."""
        self.ordinary = 0

    @property
    def is_probe_out(self) -> bool:
        return self.probe_until_s is not None and self.now_s < self.probe_until_s

    @rule(step_s=st.sampled_from([0.0, 0.001, 0.5, 1.0, 1.25, 5.0, 9.999, 10.0, 31.0, 61.0, 80.0, 301.0]))
    def wait(self, step_s: float) -> None:
        self.now_s += step_s

    @rule(only=st.booleans(), last=st.booleans())
    def ask(self, only: bool, last: bool) -> None:
        was = self.breaker.state
        is_open_to_all = self.now_s >= self.breaker.admits_from_s
        admission = self.breaker.admit(self.now_s, is_only_target=only, is_last_resort=last)
        if is_open_to_all or not (only or was is not BreakerState.CLOSED):
            assert is_open_to_all is (admission is ADMIT), "one comparison says what the whole breaker says"
        if admission is PROBE:
            assert not self.is_probe_out, "two probes in flight"
            assert was is not BreakerState.CLOSED
            self.probe_until_s = self.now_s + SETTINGS.probe_deadline_s
        elif admission is ADMIT:
            assert was is BreakerState.CLOSED
            self.ordinary += 1
        else:
            assert admission.verdict is Verdict.REFUSED
            assert self.now_s < admission.until_s <= self.now_s + 300.0

    @precondition(lambda self: self.is_probe_out)
    @rule(ending=st.sampled_from(["good", "answered", "bad", "cancelled"]), jitter=JITTER)
    def end_probe(self, ending: str, jitter: float) -> None:
        self.probe_until_s = None
        if ending == "good":
            self.breaker.succeed(self.now_s, is_probe=True)
        elif ending == "answered":
            self.breaker.answer(self.now_s, is_probe=True)
        elif ending == "bad":
            self.breaker.fail(1.0, self.now_s, jitter, is_probe=True)
        else:
            self.breaker.cancel_probe(self.now_s)
        expected = BreakerState.CLOSED if ending in ("good", "answered") else BreakerState.OPEN
        assert self.breaker.state is expected

    @precondition(lambda self: self.ordinary > 0)
    @rule(weight=st.sampled_from([0.0, 0.5, 1.0]), jitter=JITTER, times=st.integers(1, 6))
    def end_ordinary(self, weight: float, jitter: float, times: int) -> None:
        was = self.breaker.state
        for _ in range(min(times, self.ordinary)):
            self.ordinary -= 1
            if weight:
                self.breaker.fail(weight, self.now_s, jitter)
            else:
                self.breaker.succeed(self.now_s)
        if was is not BreakerState.CLOSED:
            assert self.breaker.state is was, "only the probe moves a breaker that is not closed"

    @rule(wait_s=st.sampled_from([0.0, 1.0, 20.0, 1e6]))
    def cool(self, wait_s: float) -> None:
        self.breaker.cool(self.now_s + wait_s, self.now_s)

    @invariant()
    def there_is_always_a_way_back(self) -> None:
        retry_at_s = self.breaker.retry_at_s(self.now_s)
        assert retry_at_s is None or retry_at_s <= self.now_s + 300.0


TestBreakerMachine = BreakerMachine.TestCase
TestBreakerMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
