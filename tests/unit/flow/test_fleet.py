"""The owner of health: outcomes become verdicts, and the view tells the truth."""

from __future__ import annotations

import pytest

from proxy.core.health.breaker import BreakerState
from proxy.flow.fleet import ADMIT, PROBE, Fleet, Reason, Verdict
from proxy.terms.outcomes import Outcome

NAME = "openai/gpt-4o-mini"
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


def fleet() -> Fleet:
    """Return a fleet whose dice always show zero."""
    return Fleet(lambda: 0.0)


def opened(at_s: float = 0.0) -> Fleet:
    """Return a fleet whose one deployment has failed five times."""
    built = fleet()
    for _ in range(5):
        built.record(NAME, Outcome.UPSTREAM_5XX, at_s, 5.0)
    return built


def test_unknown_deployment_is_admitted_and_watched_from_then_on() -> None:
    """Nothing has to be registered before traffic may flow."""
    built = fleet()

    assert built.admit(NAME, 0.0) is ADMIT
    assert [NAME] == [view.deployment for view in built.view(0.0)]


def test_five_failures_open_it_and_telemetry_hears_once() -> None:
    """BR-01: the change is an event, not a log line per request."""
    built = fleet()

    changes = [built.record(NAME, Outcome.CONNECT_ERROR, 10.0, 1.0) for _ in range(6)]

    assert [None, None, None, None] == changes[:4]
    assert changes[4] is not None
    assert (changes[4].was, changes[4].now, changes[4].retry_at_s) == (CLOSED, OPEN, 11.0)
    assert changes[5] is None


def test_callers_leaving_and_their_own_errors_keep_it_closed() -> None:
    """BR-03: two hundred cancels and four hundreds."""
    built = fleet()
    for _ in range(100):
        built.record(NAME, Outcome.CLIENT_CANCELLED, 0.0, 1.0)
        built.record(NAME, Outcome.UPSTREAM_4XX, 0.0, 1.0)

    assert built.admit(NAME, 0.0) is ADMIT
    assert built.view(0.0)[0].consecutive_failures == 0


def test_probe_success_closes_and_is_announced() -> None:
    """The way back in."""
    built = opened()
    admission = built.admit(NAME, 1.0)
    change = built.record(NAME, Outcome.OK, 1.2, 200.0, admission=admission)

    assert admission is PROBE
    assert change is not None
    assert (change.was, change.now, change.retry_at_s) == (HALF_OPEN, CLOSED, None)
    assert built.admit(NAME, 1.3) is ADMIT


def test_first_verdict_in_half_open_is_the_probes_unless_told_otherwise() -> None:
    """A stream that began before the outage and ends well now is not the probe."""
    built = opened()
    built.admit(NAME, 1.0)
    built.record(NAME, Outcome.OK, 1.1, 9000.0, admission=ADMIT)
    still = built.view(1.1)[0].state
    built.record(NAME, Outcome.OK, 1.2, 10.0)

    assert (still, built.view(1.2)[0].state) == (HALF_OPEN, CLOSED)


def test_probe_whose_caller_left_frees_the_place() -> None:
    """Neither good nor bad: the next one asks again."""
    built = opened()
    admission = built.admit(NAME, 1.0)
    built.record(NAME, Outcome.CLIENT_CANCELLED, 1.1, 1.0, admission=admission)

    assert built.admit(NAME, 1.1) is PROBE


def test_probe_that_was_never_sent_can_be_handed_back() -> None:
    """The relay may fail between admission and sending."""
    built = opened()
    built.admit(NAME, 1.0)
    built.cancel_probe(NAME, 1.0)
    built.cancel_probe("never heard of", 1.0)

    assert built.admit(NAME, 1.0) is PROBE


def test_rate_limit_cools_until_its_time_and_is_no_failure() -> None:
    """UF-05: away for two seconds, breaker untouched."""
    built = fleet()
    built.record(NAME, Outcome.RATE_LIMITED, 10.0, 5.0, 2.0)
    refused = built.admit(NAME, 11.9)
    view = built.view(11.0)[0]

    assert (refused.verdict, refused.reason, refused.until_s) == (Verdict.REFUSED, Reason.COOLING, 12.0)
    assert built.admit(NAME, 12.0) is ADMIT
    assert (view.state, view.last_429_s, view.retry_at_s, view.cooling_until_s) == (CLOSED, 10.0, 12.0, 12.0)
    assert view.consecutive_failures == 0


def test_rate_limit_without_a_time_cools_for_a_second() -> None:
    """No time named is not no limit."""
    built = fleet()
    built.record(NAME, Outcome.RATE_LIMITED, 10.0, 5.0)

    assert built.admit(NAME, 10.9).until_s == 11.0
    assert built.admit(NAME, 11.0) is ADMIT


def test_overload_cools_and_counts_half() -> None:
    """529: leave it alone for a moment, and do not call it dead yet."""
    built = fleet()
    for _ in range(9):
        built.record(NAME, Outcome.OVERLOADED, 10.0, 5.0, 3.0)
    view = built.view(10.0)[0]

    assert (view.state, view.consecutive_failures, view.cooling_until_s) == (CLOSED, 4.5, 13.0)


@pytest.mark.parametrize("outcome", [Outcome.OWN_KEY_REFUSED, Outcome.REDIRECT])
def test_dead_credential_alarms_once_until_it_works_again(outcome: Outcome) -> None:
    """No waiting heals it, so someone has to hear; but not a hundred times a second."""
    built = fleet()
    first = built.record(NAME, outcome, 0.0, 5.0)
    second = built.record(NAME, outcome, 0.0, 5.0)
    alarm = built.view(0.0)[0].alarm
    built.record(NAME, Outcome.OK, 1.0, 5.0)
    healed = built.view(1.0)[0].alarm
    third = built.record(NAME, outcome, 2.0, 5.0)

    assert first is not None
    assert first.is_alarm is True
    assert second is None
    assert (alarm, healed) == (outcome, None)
    assert third is not None
    assert third.is_alarm is True


def test_retry_budget_is_a_fifth_of_the_attempts_and_three() -> None:
    """BR-04: an outage must not be answered with twice the load."""
    built = fleet()
    for i in range(50):
        built.record(NAME, Outcome.OK, 10.0 + i * 0.1, 5.0)
    retries = 0
    while built.may_retry(NAME, 15.0):
        built.admit(NAME, 15.0, is_retry=True)
        retries += 1
        built.record(NAME, Outcome.OK, 15.0, 5.0)

    assert retries == 13
    assert built.may_retry(NAME, 50.0) is True


def test_unknown_deployment_has_its_retry_floor() -> None:
    """The first failure ever may be repeated."""
    assert fleet().may_retry(NAME, 0.0) is True


def test_refused_retry_spends_no_budget() -> None:
    """Only what is sent counts."""
    built = opened(at_s=0.0)
    for _ in range(10):
        built.admit(NAME, 0.1, is_retry=True)

    assert built.may_retry(NAME, 0.1) is True


def test_targets_passed_over_leave_no_trace() -> None:
    """Nothing was sent, so nothing was learned."""
    built = fleet()
    built.admit(NAME, 0.0)
    built.record(NAME, Outcome.BUDGET_DENIED, 0.0, 0.0)
    built.record(NAME, Outcome.BREAKER_OPEN, 0.0, 0.0)

    assert built.view(0.0)[0].last_outcome is None


def test_stale_pooled_connection_is_neutral() -> None:
    """The provider closed an idle socket, as it may."""
    built = fleet()
    for _ in range(20):
        built.record(NAME, Outcome.STALE_CONNECTION, 0.0, 0.0)

    assert built.view(0.0)[0].consecutive_failures == 0


def test_view_tells_ratio_quantiles_and_origins() -> None:
    """What ``/providers`` and ``/health`` show."""
    built = fleet()
    for i in range(8):
        built.record(NAME, Outcome.OK, 5.0, 100.0 + i)
    built.record(NAME, Outcome.DNS_ERROR, 6.0, 1.0)
    built.record(NAME, Outcome.TTFB_TIMEOUT, 7.0, 20000.0)
    (view,) = built.view(8.0)

    assert view.attempts == 10
    assert view.success_ratio == pytest.approx(0.8)
    assert (view.p50_ms, view.p95_ms) == (104.0, 107.0)
    assert (view.local_failures, view.upstream_failures) == (1, 1)
    assert (view.last_outcome, view.last_outcome_s) == (Outcome.TTFB_TIMEOUT, 7.0)
    assert (view.state, view.opened_count, view.retry_at_s) == (CLOSED, 0, None)


def test_view_of_an_unused_deployment_claims_nothing() -> None:
    """Unknown is not healthy and not sick."""
    built = fleet()
    built.apply([NAME])
    (view,) = built.view(5.0)

    assert (view.attempts, view.success_ratio, view.p50_ms, view.last_outcome_s) == (0, None, None, None)


def test_reload_keeps_what_is_known_of_deployments_that_stay() -> None:
    """A policy edit must not send traffic back to a dead provider."""
    built = opened()
    built.apply(["groq/llama", NAME])
    stayed = [(v.deployment, v.state) for v in built.view(0.1)]
    built.apply(["groq/llama"])

    assert [("groq/llama", CLOSED), (NAME, OPEN)] == stayed
    assert ["groq/llama"] == [v.deployment for v in built.view(0.1)]


def test_operator_resets_a_breaker_by_name() -> None:
    """And learns when the name is wrong."""
    built = opened()

    assert (built.reset(NAME, 0.1), built.reset("gpt", 0.1)) == (True, False)
    assert built.admit(NAME, 0.1) is ADMIT


def test_single_target_under_steady_failure_is_asked_once_a_second() -> None:
    """Sixty seconds of outage, fifty requests a second, no one else to ask: paced, not hammered, not shut."""
    built = fleet()
    sent = 0
    for tick in range(60 * 50):
        now_s = tick / 50
        admission = built.admit(NAME, now_s, is_only_target=True)
        if not admission.is_refused:
            sent += 1
            built.record(NAME, Outcome.UPSTREAM_5XX, now_s, 1.0, admission=admission)

    assert 55 <= sent <= 66


ANY = "openai:*"


def failing(
    built: Fleet, model: str, outcome: Outcome = Outcome.UPSTREAM_5XX, times: int = 5, at_s: float = 0.0
) -> None:
    for _ in range(times):
        built.record(ANY, outcome, at_s, 5.0, variant=model)


def test_one_broken_model_leaves_the_others_open() -> None:
    """A route that takes any model must not lose all of them to one."""
    built = fleet()
    failing(built, "broken")

    assert Verdict.REFUSED is built.admit(ANY, 0.5, variant="broken").verdict
    assert Verdict.ADMIT is built.admit(ANY, 0.5, variant="well").verdict
    assert [(ANY, CLOSED, ""), ("openai:broken", OPEN, ANY)] == [
        (view.deployment, view.state, view.variant_of) for view in built.view(0.5)
    ]


def test_broken_model_gets_one_probe_of_its_own_and_comes_back() -> None:
    """BR-01 and BR-02 hold for a model as for a deployment."""
    built = fleet()
    failing(built, "broken")
    admissions = [built.admit(ANY, 1.5, variant="broken") for _ in range(3)]
    change = built.record(ANY, Outcome.OK, 1.6, 5.0, admission=admissions[0], variant="broken")

    assert [Verdict.PROBE, Verdict.REFUSED, Verdict.REFUSED] == [a.verdict for a in admissions]
    assert change is not None
    assert ("openai:broken", HALF_OPEN, CLOSED) == (change.deployment, change.was, change.now)
    assert Verdict.ADMIT is built.admit(ANY, 1.7, variant="broken").verdict


@pytest.mark.parametrize(
    "outcome", [Outcome.CONNECT_ERROR, Outcome.DNS_ERROR, Outcome.TLS_ERROR, Outcome.OWN_KEY_REFUSED]
)
def test_provider_that_is_away_shuts_every_model(outcome: Outcome) -> None:
    """What fails before the provider's software, or for our key, is not about a model."""
    built = fleet()
    failing(built, "one", outcome)

    assert Verdict.REFUSED is built.admit(ANY, 0.5, variant="another").verdict


def test_failures_of_several_models_shut_the_deployment() -> None:
    """A provider whose every model fails is down, whatever its software says."""
    built = fleet()
    for number in range(12):
        failing(built, f"model-{number % 4}", times=1)

    assert Verdict.REFUSED is built.admit(ANY, 0.5, variant="never-asked").verdict


def test_rate_limit_of_one_model_cools_that_model() -> None:
    """Providers limit by model."""
    built = fleet()
    built.record(ANY, Outcome.RATE_LIMITED, 0.0, 5.0, 20.0, variant="busy")

    assert (Verdict.REFUSED, Reason.COOLING) == built.admit(ANY, 1.0, variant="busy")[::2][:2]
    assert Verdict.ADMIT is built.admit(ANY, 1.0, variant="free").verdict


def test_models_with_a_breaker_of_their_own_are_few() -> None:
    """Callers name models: ten thousand of them must not be ten thousand breakers."""
    built = fleet()
    for number in range(10_000):
        built.record(ANY, Outcome.UPSTREAM_5XX, 0.0, 5.0, variant=f"m{number}")
        built.record(ANY, Outcome.OK, 0.0, 5.0, variant="good")
    failing(built, "x" * 5000)

    assert len(built.view(0.0)) <= 17


def test_reset_finds_a_models_breaker_by_its_shown_name() -> None:
    """What the list shows, the operator can reset."""
    built = fleet()
    failing(built, "broken")

    assert built.reset("openai:broken", 0.5)
    assert Verdict.ADMIT is built.admit(ANY, 0.6, variant="broken").verdict
    assert not built.reset("openai:unheard-of", 0.6)


def test_invited_provider_is_probed_before_its_back_off_has_passed() -> None:
    """A free check that succeeds is a reason to try at once, where the provider could not be reached."""
    built = fleet()
    for _ in range(5):
        built.record("a:m", Outcome.CONNECT_ERROR, 0.0, 1.0)
        built.record("b:m", Outcome.UPSTREAM_5XX, 0.0, 1.0)
    for name in ("a", "b"):
        built.invite(name, 0.2)

    assert Verdict.PROBE is built.admit("a:m", 0.2).verdict
    assert Verdict.REFUSED is built.admit("b:m", 0.2).verdict
