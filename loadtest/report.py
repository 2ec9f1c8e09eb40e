"""The bench's report: Markdown for people, JSON for machines, an SVG plot. Owns wording and layout, measures nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from loadtest.contestants import Absent
from loadtest.figures import Figures, Verdict, Workload
from loadtest.plot import Panel, draw


@dataclass(frozen=True, slots=True)
class Report:
    """Everything a report is made from; ``gateways`` are those that ran."""

    figures: Figures
    gateways: list[str]
    verdicts: list[Verdict]
    absent: list[Absent]
    warnings: list[str]
    setting: dict[str, str]


def markdown(report: Report) -> str:
    """The whole report as Markdown."""
    parts = [
        "# Bench",
        ", ".join(f"{name} {value}" for name, value in report.setting.items())
        + ". Absolute figures drift with the machine: compare ratios within one run.",
        _cpu_table(report),
        _rate_table(report),
        _latency_table(report),
        _footprint_table(report),
        _goals(report),
        _remarks(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(title: str, head: list[str], rows: list[list[str]]) -> str:
    if not rows:
        return ""
    ruler = ["---"] + ["---:"] * (len(head) - 1)
    return f"## {title}\n\n" + "\n".join("| " + " | ".join(row) + " |" for row in [head, ruler, *rows])


def _number(value: float | None, digits: int = 1, unit: str = "") -> str:
    return "n/a" if value is None else f"{value:,.{digits}f}{unit}"


def _cpu_table(report: Report) -> str:
    figures, has_both = report.figures, {"envoy", "readygate"} <= set(report.gateways)
    rows = []
    for workload in figures.workloads:
        row = [workload.name, "event" if workload.per_event else "request"]
        row += [_number(figures.cpu_us(gateway, workload)) for gateway in report.gateways]
        if has_both:
            row.append(_number(figures.cpu_ratio("readygate", "envoy", workload), 2, "x"))
        rows.append(row)
    head = ["workload", "per", *report.gateways, *(["readygate / envoy"] if has_both else [])]
    return _table("CPU of the gateway, µs", head, rows)


def _rate_table(report: Report) -> str:
    rows = []
    for workload in report.figures.workloads:
        if workload.shows_latency:
            continue
        row = [workload.name]
        for gateway in report.gateways:
            busy = report.figures.busy_ratio(gateway, workload)
            cell = f"{_number(report.figures.per_second(gateway, workload), 0)} ({_number((busy or 0) * 100, 0)} %"
            gathered = report.figures.events_per_read(gateway, workload)
            rows_note = f", {_number(gathered)} events a read" if workload.per_event else ""
            row.append(cell + rows_note + ")")
        rows.append(row)
    title = "Requests or events a second on one core (share of the core used, late work included)"
    return _table(title, ["workload", *report.gateways], rows)


def _latency_table(report: Report) -> str:
    rows = []
    for workload in report.figures.workloads:
        if workload.shows_latency:
            row = [workload.name, "first byte" if workload.per_event else "answer"]
            for gateway in report.gateways:
                added = [report.figures.added_ms(gateway, workload, percentile) for percentile in ("p50", "p99")]
                row.append(" / ".join(_number(value, 3) for value in added))
            rows.append(row)
    return _table("Added latency against direct, ms (p50 / p99)", ["workload", "of the", *report.gateways], rows)


def _footprint_table(report: Report) -> str:
    rows = []
    for gateway, weight in report.figures.footprints.items():
        rows.append([gateway, _number(weight.idle_mb), _number(weight.loaded_mb), _number(weight.started_s, 3)])
    return _table("Memory and start", ["gateway", "idle MB", "after load MB", "s from exec to first answer"], rows)


def _goals(report: Report) -> str:
    rows = [
        [verdict.line, _number(verdict.limit, 2), _number(verdict.figure, 2), "met" if verdict.is_met else "MISSED"]
        for verdict in report.verdicts
    ]
    return _table("Goal lines", ["line", "at most", "measured", ""], rows)


def _remarks(report: Report) -> str:
    lines = [f"- could not run {absent.name}: {absent.reason}" for absent in report.absent]
    lines += [f"- {warning}" for warning in report.warnings]
    for gateway in report.gateways:
        errors = report.figures.errors(gateway)
        told = ", ".join(f"{count} x {what}" for what, count in errors.items()) or "no errors"
        lines.append(f"- {gateway}: {report.figures.answered(gateway):,} answers verified, {told}")
    lines += _keep_alive_remarks(report)
    return "## Remarks\n\n" + "\n".join(lines)


def _keep_alive_remarks(report: Report) -> list[str]:
    """Name a gateway that opened far more upstream connections than there were callers: its figures are not fair."""
    connections = {workload.name: workload.connections for workload in report.figures.workloads}
    return [
        f"- {sample.gateway} opened {sample.upstream_connections} upstream connections for "
        f"{connections[sample.workload]} callers ({sample.workload}): no keep-alive?"
        for sample in report.figures.samples
        if sample.upstream_connections > 2 * connections[sample.workload]
    ]


def as_json(report: Report) -> dict[str, object]:
    """Figures, and every sample they were made from."""
    figures = report.figures
    cells = {
        workload.name: {
            gateway: {
                "cpu_us": figures.cpu_us(gateway, workload),
                "per": "event" if workload.per_event else "request",
                "per_second": figures.per_second(gateway, workload),
                "core_ratio": figures.busy_ratio(gateway, workload),
                "cpu_ratio_envoy": figures.cpu_ratio(gateway, "envoy", workload),
                "added_p50_ms": figures.added_ms(gateway, workload, "p50"),
                "added_p99_ms": figures.added_ms(gateway, workload, "p99"),
            }
            for gateway in report.gateways
        }
        for workload in figures.workloads
    }
    return {
        "setting": report.setting,
        "cells": cells,
        "footprints": {name: asdict(weight) for name, weight in figures.footprints.items()},
        "goals": [{**asdict(verdict), "is_met": verdict.is_met} for verdict in report.verdicts],
        "absent": {absent.name: absent.reason for absent in report.absent},
        "warnings": report.warnings,
        "samples": [asdict(sample) for sample in figures.samples],
    }


def _panel(
    report: Report,
    title: str,
    show: Callable[[Workload], bool],
    value: Callable[[str, Workload], float | None],
) -> Panel | None:
    groups = {
        workload.name: {gateway: value(gateway, workload) or 0.0 for gateway in report.gateways}
        for workload in report.figures.workloads
        if show(workload)
    }
    return Panel(title, groups) if groups else None


def svg(report: Report) -> str:
    """The plot: CPU per request, CPU per event, added latency."""
    figures = report.figures
    panels = [
        _panel(report, "CPU µs per request", lambda workload: not workload.per_event, figures.cpu_us),
        _panel(report, "CPU µs per SSE event", lambda workload: workload.per_event, figures.cpu_us),
        _panel(
            report,
            "added latency p50, ms",
            lambda workload: workload.shows_latency,
            lambda gateway, workload: figures.added_ms(gateway, workload, "p50"),
        ),
    ]
    return draw([panel for panel in panels if panel is not None], report.gateways)


def write(report: Report, folder: Path) -> list[Path]:
    """Write bench.md, bench.json and bench.svg; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    contents = {
        "bench.md": markdown(report) + "\n![plot](bench.svg)\n",
        "bench.json": json.dumps(as_json(report), indent=1) + "\n",
        "bench.svg": svg(report),
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    return [folder / name for name in contents]
