"""Metrics, kept as plain numbers on the request path and turned into Prometheus families when scraped.

Owns every series. Label values come from configuration or from enumerations only (providers, routes,
outcomes, types of findings): a caller's input can never make a new series.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from proxy.core.routing.problems import Code
from proxy.terms.exchange import ExchangeFacts
from proxy.terms.outcomes import OK
from proxy.terms.redaction import Counts

LATENCY_BOUNDS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
OWN_BOUNDS_S: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5)

_OUR_CODES: Final = frozenset(code.value for code in Code)

Labels = tuple[str, ...]
Sample = tuple[Labels, float]
GaugeSource = Callable[[], Iterable[Sample]]


class Histogram:
    """Counts per bucket and a sum, for one label set."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return cumulative buckets in Prometheus form."""
        total = 0
        rows = []
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            rows.append((bound, float(total)))
        return rows


_MAX_TOGETHER = 1024


class _Ends:
    """What is counted for every exchange of one route, provider and status, found by one look-up."""

    __slots__ = ("count", "good_attempts", "input_tokens", "latency", "output_tokens")

    def __init__(self, latency: Histogram) -> None:
        self.count = 0
        self.good_attempts = 0
        """Exchanges whose one attempt, at this provider, went well."""
        self.input_tokens = 0
        self.output_tokens = 0
        self.latency = latency


class Metrics:
    """The process's counters; also a Prometheus collector."""

    def __init__(self) -> None:
        self._ends: dict[Labels, _Ends] = {}
        self._attempts: defaultdict[Labels, int] = defaultdict(int)
        self._findings: dict[Labels, int] = {}
        self._found_together: dict[Counts | tuple[str, tuple[tuple[str, int], ...], tuple[str, ...]], int] = {}
        self._refusals: dict[Labels, int] = {}
        self._injected: defaultdict[Labels, int] = defaultdict(int)
        self._faults: dict[Labels, int] = {}
        self._unscanned_bytes = 0
        self._latency: dict[Labels, Histogram] = {}
        self._first_token: dict[Labels, Histogram] = {}
        self._own = Histogram(OWN_BOUNDS_S)
        self._gauges: list[tuple[str, str, tuple[str, ...], GaugeSource, bool]] = []

    def exchange_ended(self, facts: ExchangeFacts) -> None:
        """Count one exchange; about two microseconds."""
        ends = self._ends.get((facts.route, facts.provider, facts.status))
        if ends is None:
            ends = self._begin_to_count(facts.route, facts.provider, facts.status)
        ends.count += 1
        latency_ms, latency = facts.latency_ms, ends.latency
        latency_s = latency_ms / 1000.0
        latency.counts[bisect_left(LATENCY_BOUNDS_S, latency_s)] += 1
        latency.sum += latency_s
        own, own_s = self._own, (latency_ms - facts.upstream_ms) / 1000.0
        own.counts[bisect_left(OWN_BOUNDS_S, own_s)] += 1
        own.sum += own_s
        attempts = facts.attempts
        if len(attempts) == 1 and attempts[0].outcome is OK:
            ends.good_attempts += 1
        else:
            for attempt in attempts:
                self._attempts[attempt.provider, attempt.outcome] += 1
        usage = facts.usage
        if usage is not None:
            ends.input_tokens += usage.input_tokens
            ends.output_tokens += usage.output_tokens
        if facts.first_token_ms is not None or facts.findings or facts.response_findings or facts.fault is not None:
            self._count_the_rest(facts)
        self._unscanned_bytes += facts.unscanned_bytes

    def _begin_to_count(self, route: str, provider: str, status: str) -> _Ends:
        latency = self._latency.get((provider,))
        if latency is None:
            latency = self._latency[(provider,)] = Histogram(LATENCY_BOUNDS_S)
        ends = self._ends[route, provider, status] = _Ends(latency)
        return ends

    def _count_the_rest(self, facts: ExchangeFacts) -> None:
        """Count what most exchanges do not have."""
        if facts.first_token_ms is not None:
            first = self._first_token.get((facts.provider,))
            if first is None:
                first = self._first_token[(facts.provider,)] = Histogram(LATENCY_BOUNDS_S)
            first.observe(facts.first_token_ms / 1000.0)
        if facts.findings:
            self._found("request", facts.findings, facts.sanitized)
        if facts.response_findings:
            self._found("response", facts.response_findings, facts.response_sanitized or {})
        if facts.fault is not None:
            # A provider's own code is any text it likes; only codes of ours may become a series.
            code = facts.error_code if facts.error_code in _OUR_CODES else "other"
            key: Labels = (code, facts.fault.value)
            self._refusals[key] = self._refusals.get(key, 0) + 1

    def _found(self, direction: str, found: dict[str, int], replaced: dict[str, int]) -> None:
        """Note findings as they came together: exchanges resemble one another, and adding up can wait."""
        key: Counts | tuple[str, tuple[tuple[str, int], ...], tuple[str, ...]]
        if replaced is found and type(found) is Counts:
            key = found  # of a request, for only there everything can be known to be replaced
        else:
            key = (direction, tuple(found.items()), tuple(replaced))
        together = self._found_together
        together[key] = together.get(key, 0) + 1
        if len(together) > _MAX_TOGETHER:
            self._add_up()

    def _add_up(self) -> None:
        """Make the series of findings of what was noted."""
        for key, times in self._found_together.items():
            direction, found, replaced = ("request", key.items(), key) if isinstance(key, Counts) else key
            for kind, count in found:
                labels: Labels = (kind.lower(), direction, "replaced" if kind in replaced else "seen")
                self._findings[labels] = self._findings.get(labels, 0) + count * times
        self._found_together.clear()

    def fault_injected(self, kind: str, provider: str) -> None:
        """Count an attempt that was made to fail."""
        self._injected[kind, provider] += 1

    def fault(self, where: str) -> None:
        """Count one failure of ours."""
        self._faults[(where,)] = self._faults.get((where,), 0) + 1

    def add_gauges(
        self, name: str, documentation: str, labels: tuple[str, ...], source: GaugeSource, *, is_counter: bool = False
    ) -> None:
        """Ask ``source`` for samples at every scrape (state that somebody else owns)."""
        self._gauges.append((name, documentation, labels, source, is_counter))

    def collect(self) -> Iterator[Metric]:
        """Yield every family; called by the exposition, off the request path."""
        self._add_up()
        exchanges, attempts, tokens = self._summed()
        counters: tuple[tuple[str, str, tuple[str, ...], Mapping[Labels, int]], ...] = (
            ("exchanges", "Exchanges ended.", ("route", "provider", "status"), exchanges),
            ("attempts", "Attempts at providers.", ("provider", "outcome"), attempts),
            ("findings", "Values found by redaction.", ("type", "direction", "action"), self._findings),
            ("refusals", "Answers of our own making.", ("code", "fault"), self._refusals),
            ("tokens", "Tokens as the providers counted them.", ("provider", "kind"), tokens),
            ("faults", "Failures of the sidecar itself.", ("where",), self._faults),
            ("injected_faults", "Faults injected for rehearsal.", ("kind", "provider"), self._injected),
        )
        for name, documentation, labels, values in counters:
            counter = CounterMetricFamily(f"readygate_{name}", documentation, labels=labels)
            for key, value in values.items():
                counter.add_metric(key, float(value))
            yield counter
        unscanned = CounterMetricFamily("readygate_unscanned_bytes", "Bytes that policy could not read.")
        unscanned.add_metric((), float(self._unscanned_bytes))
        yield unscanned
        yield from self._histograms()
        yield from self._asked()

    def _summed(self) -> tuple[dict[Labels, int], dict[Labels, int], dict[Labels, int]]:
        """Return exchanges, attempts and tokens by their labels."""
        exchanges: dict[Labels, int] = {}
        attempts, tokens = self._attempts.copy(), defaultdict[Labels, int](int)
        for labels, ends in self._ends.items():
            provider = labels[1]
            exchanges[labels] = ends.count
            if ends.good_attempts:
                attempts[provider, OK] += ends.good_attempts
            if ends.input_tokens or ends.output_tokens:
                tokens[provider, "input"] += ends.input_tokens
                tokens[provider, "output"] += ends.output_tokens
        return exchanges, attempts, tokens

    def _histograms(self) -> Iterator[Metric]:
        rows: tuple[tuple[str, str, dict[Labels, Histogram]], ...] = (
            ("exchange_seconds", "Whole exchange, first byte in to last byte out.", self._latency),
            ("first_token_seconds", "First content of a stream.", self._first_token),
        )
        for name, documentation, values in rows:
            family = HistogramMetricFamily(f"readygate_{name}", documentation, labels=("provider",))
            for key, histogram in values.items():
                family.add_metric(key, histogram.buckets(), histogram.sum)
            yield family
        own = HistogramMetricFamily("readygate_own_seconds", "Time of an exchange not spent waiting for a provider.")
        own.add_metric((), self._own.buckets(), self._own.sum)
        yield own

    def _asked(self) -> Iterator[Metric]:
        for name, documentation, labels, source, is_counter in self._gauges:
            family: CounterMetricFamily | GaugeMetricFamily
            if is_counter:
                family = CounterMetricFamily(f"readygate_{name}", documentation, labels=labels)
            else:
                family = GaugeMetricFamily(f"readygate_{name}", documentation, labels=labels)
            for key, value in source():
                family.add_metric(key, value)
            yield family

    def describe(self) -> Iterable[Metric]:
        """Nothing is described ahead; the registry then does not call collect at registration."""
        return ()

    def own_quantile_ms(self, ratio: float) -> float:
        """Return an upper bound of a quantile of our own time, in milliseconds; 0 when nothing was seen."""
        counts = self._own.counts
        total = sum(counts)
        if not total:
            return 0.0
        seen = 0
        for bound, count in zip((*OWN_BOUNDS_S, float("inf")), counts, strict=True):
            seen += count
            if seen >= ratio * total:
                return bound * 1000.0
        return float("inf")

    def totals(self) -> dict[str, int]:
        """Return exchanges per status, for the status page."""
        totals: dict[str, int] = {}
        for (_, _, status), ends in self._ends.items():
            # Counted under the enum's member, shown under its word: JSON takes no member for a key.
            totals[str(status)] = totals.get(str(status), 0) + ends.count
        return totals
