"""Counters on the request path, families at the scrape."""

from __future__ import annotations

import json
import logging
import math

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from proxy.telemetry.log import JsonLines, PlainLines
from proxy.telemetry.metrics import OWN_BOUNDS_S, Histogram, Metrics
from proxy.telemetry.witness import Telemetry
from proxy.terms.exchange import AttemptFacts, ExchangeFacts, Usage
from proxy.terms.outcomes import Fault, Outcome, Status
from proxy.terms.redaction import Counts


def exchange(**changes: object) -> ExchangeFacts:
    facts = ExchangeFacts("id", 0, route="r", provider="p", latency_ms=120.0, upstream_ms=119.0)
    facts.attempts.append(AttemptFacts("p", "m", 0.0))
    for name, value in changes.items():
        setattr(facts, name, value)
    return facts


def scraped(metrics: Metrics) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    return generate_latest(registry).decode()


def test_one_exchange_is_counted_everywhere_once() -> None:
    """Exchange, attempt, tokens, findings and both times."""
    metrics = Metrics()
    metrics.exchange_ended(
        exchange(usage=Usage(7, 3), findings={"EMAIL": 2, "CPF": 1}, sanitized={"EMAIL": 2}, first_token_ms=40.0)
    )
    text = scraped(metrics)

    for line in (
        'readygate_exchanges_total{provider="p",route="r",status="success"} 1.0',
        'readygate_attempts_total{outcome="ok",provider="p"} 1.0',
        'readygate_tokens_total{kind="input",provider="p"} 7.0',
        'readygate_tokens_total{kind="output",provider="p"} 3.0',
        'readygate_findings_total{action="replaced",direction="request",type="email"} 2.0',
        'readygate_findings_total{action="seen",direction="request",type="cpf"} 1.0',
        'readygate_exchange_seconds_count{provider="p"} 1.0',
        'readygate_first_token_seconds_count{provider="p"} 1.0',
        'readygate_own_seconds_bucket{le="0.001"} 1.0',
    ):
        assert line in text, line


def test_findings_that_exchanges_share_are_counted_like_those_of_one() -> None:
    """They are known by what they are, and not by what they say."""
    metrics, shared = Metrics(), Counts({"EMAIL": 1, "CPF": 1})
    for _ in range(2):
        metrics.exchange_ended(exchange(findings=shared, sanitized=shared))
    metrics.exchange_ended(exchange(findings={"EMAIL": 1}, sanitized={}))
    text = scraped(metrics)

    assert 'readygate_findings_total{action="replaced",direction="request",type="email"} 2.0' in text
    assert 'readygate_findings_total{action="replaced",direction="request",type="cpf"} 2.0' in text
    assert 'readygate_findings_total{action="seen",direction="request",type="email"} 1.0' in text


def test_refusals_are_counted_by_code_and_fault() -> None:
    """What an alert wants to know."""
    metrics = Metrics()
    metrics.exchange_ended(exchange(status=Status.BLOCKED, error_code="content_policy_violation", fault=Fault.POLICY))

    assert 'readygate_refusals_total{code="content_policy_violation",fault="policy"} 1.0' in scraped(metrics)
    assert {"blocked": 1} == metrics.totals()


def test_attempts_are_counted_each_with_its_outcome() -> None:
    """A fallback is one exchange and two attempts."""
    metrics = Metrics()
    facts = exchange(status=Status.FALLBACK)
    facts.attempts.insert(0, AttemptFacts("q", "m", 0.0, Outcome.UPSTREAM_5XX))
    metrics.exchange_ended(facts)

    assert 'readygate_attempts_total{outcome="upstream_5xx",provider="q"} 1.0' in scraped(metrics)


def test_histogram_counts_into_cumulative_buckets() -> None:
    """A value on a bound belongs to that bound."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)

    assert [("1.0", 2.0), ("2.0", 3.0), ("+Inf", 4.0)] == histogram.buckets()
    assert 12.0 == histogram.sum


def test_own_quantile_is_an_upper_bound() -> None:
    """0 before anything was seen; never less than the truth."""
    metrics = Metrics()
    assert 0.0 == metrics.own_quantile_ms(0.95)
    for _ in range(99):
        metrics.exchange_ended(exchange(upstream_ms=119.8))
    metrics.exchange_ended(exchange(upstream_ms=20.0))

    assert 0.25 == metrics.own_quantile_ms(0.95)
    assert math.isclose(100.0, metrics.own_quantile_ms(1.0))
    assert OWN_BOUNDS_S[-1] * 1000 > metrics.own_quantile_ms(1.0)


def test_gauges_are_read_when_scraped() -> None:
    """State has one owner; the scrape asks it."""
    metrics, state = Metrics(), {"now": 1.0}
    metrics.add_gauges("live", "Now.", (), lambda: [((), state["now"])])
    metrics.add_gauges("kept", "Ever.", ("kind",), lambda: [(("x",), 5.0)], is_counter=True)
    state["now"] = 3.0
    text = scraped(metrics)

    assert "readygate_live 3.0" in text
    assert 'readygate_kept_total{kind="x"} 5.0' in text


def test_quiet_unless_the_gateway_is_at_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A log line per request would cost more than the request."""
    telemetry = Telemetry(Metrics())
    with caplog.at_level(logging.INFO, logger="readygate"):
        telemetry.exchange_ended(exchange())
        telemetry.exchange_ended(exchange(fault=Fault.CLIENT))
        telemetry.exchange_ended(exchange(fault=Fault.GATEWAY, error_code="audit_backpressure"))
        telemetry.fault("relay", at="x.py:1")

    assert ["exchange_refused", "relay"] == [record.message for record in caplog.records]
    assert 'readygate_faults_total{where="relay"} 1.0' in scraped(telemetry.metrics)


def record(message: str, fields: dict[str, object], error: BaseException | None = None) -> logging.LogRecord:
    made = logging.LogRecord("readygate", logging.WARNING, "x.py", 1, message, None, None)
    made.fields = fields
    if error is not None:
        made.exc_info = (type(error), error, error.__traceback__)
    return made


@pytest.mark.parametrize("formatter", [JsonLines(), PlainLines()])
def test_no_value_can_forge_a_line(formatter: logging.Formatter) -> None:
    """A path with a line break stays within its line."""
    line = formatter.format(record("event\nforged", {"path": '/v1\n{"level":"error"}\x1b[31m'}))

    assert 1 == len(line.splitlines())
    assert "\x1b" not in line


def test_errors_are_logged_by_type_and_place_never_by_text() -> None:
    """An exception's message may quote the prompt it choked on."""
    try:
        raise ValueError("secret prompt")
    except ValueError as exc:
        line = JsonLines().format(record("broke", {}, exc))

    row = json.loads(line)
    assert "ValueError" == row["error"]
    assert row["at"].startswith("test_metrics_counts.py:")
    assert "secret" not in line
