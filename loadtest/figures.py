"""From samples to figures: medians over rounds, ratios within a round, goal lines. Pure: no process, clock or file.

A *workload* is one kind of load; a *sample* is one gateway under one workload in one round. Machines drift, so gateways
are compared inside a round and only then is the median over the rounds taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from statistics import median

from loadtest.generator import Result
from loadtest.payloads import STREAM_EVENTS, Answer

DIRECT = "direct"
"""Name of the samples without a gateway: what provider and generator take by themselves."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One kind of load; ``rate`` above 0 is an open loop with that many requests a second."""

    name: str
    answer: Answer
    with_findings: bool
    connections: int
    rate: float = 0.0

    @property
    def per_event(self) -> bool:
        """CPU is counted per SSE event, not per request."""
        return self.answer is not Answer.PLAIN

    @property
    def shows_latency(self) -> bool:
        """The gateway is not saturated, so latency against direct means something."""
        return self.rate > 0 or self.answer is Answer.STREAM_PACED


@dataclass(frozen=True, slots=True)
class Sample:
    """One gateway under one workload in one round."""

    gateway: str
    workload: str
    round: int
    result: Result
    gateway_cpu_s: float = 0.0
    """CPU of the gateway's process tree, from the first request until it was quiet again."""
    load_cpu_s: float = 0.0
    """CPU of provider and generator together, in the same time."""
    upstream_connections: int = 0
    """Connections the gateway opened to the provider meanwhile."""
    leaks: int = 0
    """Requests that reached the provider with a value from the prompt in them."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a gateway weighs: seconds from exec to the first accepted request (median), resident megabytes."""

    started_s: float
    idle_mb: float
    loaded_mb: float


@dataclass(frozen=True, slots=True)
class Goals:
    """Lines given on the command line; None is no line."""

    max_ratio_envoy: float | None = None
    max_ratio_envoy_findings: float | None = None
    max_idle_mb: float | None = None
    max_start_s: float | None = None
    max_added_p50_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """One goal line, held against one figure (None: it could not be measured)."""

    line: str
    limit: float
    figure: float | None

    @property
    def is_met(self) -> bool:
        """A figure that could not be measured does not meet its line."""
        return self.figure is not None and self.figure <= self.limit


@dataclass(slots=True)
class Figures:
    """All samples of a run, and the numbers a report takes from them."""

    workloads: list[Workload]
    samples: list[Sample] = field(default_factory=list)
    footprints: dict[str, Footprint] = field(default_factory=dict)

    def cpu_us(self, gateway: str, workload: Workload) -> float | None:
        """CPU µs per request, or per SSE event the provider sent for streams."""
        return _median(cpu_us(sample, workload) for sample in self._of(gateway, workload))

    def per_second(self, gateway: str, workload: Workload) -> float | None:
        """Requests, or events of streams, answered a second."""
        return _median(_units(sample, workload) / sample.result.elapsed_s for sample in self._of(gateway, workload))

    def busy_ratio(self, gateway: str, workload: Workload) -> float | None:
        """Share of its core the gateway used; well below 1 in a closed loop, the load side was the limit."""
        return _median(sample.gateway_cpu_s / sample.result.elapsed_s for sample in self._of(gateway, workload))

    def events_per_read(self, gateway: str, workload: Workload) -> float | None:
        """Events per piece the caller's socket handed over: 1 is as they come, more is gathered."""
        return _median(sample.result.events / max(1, sample.result.reads) for sample in self._of(gateway, workload))

    def cpu_ratio(self, gateway: str, other: str, workload: Workload) -> float | None:
        """CPU of one gateway over that of another, taken round by round."""
        return self._paired(gateway, other, workload, lambda a, b: cpu_us(a, workload) / cpu_us(b, workload))

    def added_ms(self, gateway: str, workload: Workload, percentile: str) -> float | None:
        """What the gateway adds to the latency: of the first body byte for streams, of the whole answer otherwise."""

        def taken_ms(sample: Sample) -> float:
            times = sample.result.first_byte_ms if workload.per_event else sample.result.latency_ms
            return times.get(percentile, float("nan"))

        return self._paired(gateway, DIRECT, workload, lambda a, b: taken_ms(a) - taken_ms(b))

    def errors(self, gateway: str) -> dict[str, int]:
        """Everything that went wrong, summed up over the run; leaks of a gateway that redacts are among them."""
        total: dict[str, int] = {}
        for sample in self.samples:
            if sample.gateway == gateway:
                for what, count in sample.result.errors.items():
                    total[what] = total.get(what, 0) + count
        return total

    def answered(self, gateway: str) -> int:
        """Requests answered over the run."""
        return sum(sample.result.answered for sample in self.samples if sample.gateway == gateway)

    def _of(self, gateway: str, workload: Workload) -> list[Sample]:
        return [
            sample
            for sample in self.samples
            if sample.gateway == gateway and sample.workload == workload.name and sample.result.answered
        ]

    def _paired(
        self, gateway: str, other: str, workload: Workload, compare: Callable[[Sample, Sample], float]
    ) -> float | None:
        others = {sample.round: sample for sample in self._of(other, workload)}
        return _median(
            compare(sample, others[sample.round]) for sample in self._of(gateway, workload) if sample.round in others
        )


def cpu_us(sample: Sample, workload: Workload) -> float:
    """CPU µs of the gateway per request, or per event sent by the provider."""
    return sample.gateway_cpu_s * 1e6 / _units(sample, workload)


def _units(sample: Sample, workload: Workload) -> int:
    # Events as the provider sends them: a gateway that joins two while restoring is not charged double.
    return sample.result.answered * (STREAM_EVENTS if workload.per_event else 1)


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None


def judge(figures: Figures, goals: Goals) -> list[Verdict]:
    """Hold the figures of readygate against every line that was given."""
    verdicts = []
    for workload in figures.workloads:
        limit = goals.max_ratio_envoy_findings if workload.with_findings else goals.max_ratio_envoy
        if limit is not None and not workload.rate:
            ratio = figures.cpu_ratio("readygate", "envoy", workload)
            unit = "SSE event" if workload.per_event else "request"
            verdicts.append(Verdict(f"CPU per {unit} against Envoy's, {workload.name}", limit, ratio))
        if goals.max_added_p50_ms is not None and workload.shows_latency:
            added = figures.added_ms("readygate", workload, "p50")
            verdicts.append(Verdict(f"added p50 in ms, {workload.name}", goals.max_added_p50_ms, added))
    footprint = figures.footprints.get("readygate")
    if goals.max_idle_mb is not None:
        verdicts.append(Verdict("idle memory in MB", goals.max_idle_mb, footprint.idle_mb if footprint else None))
    if goals.max_start_s is not None:
        verdicts.append(
            Verdict("seconds from exec to accepting", goals.max_start_s, footprint.started_s if footprint else None)
        )
    return verdicts
