"""Bar charts as SVG text, with no library. Owns colours and geometry; knows no bench."""

from __future__ import annotations

from dataclasses import dataclass
from xml.sax.saxutils import escape

_COLOURS = ("#4c8c4a", "#8a5fb0", "#d9762b", "#5b7fa6")
_WIDTH, _LABEL_WIDTH, _VALUE_WIDTH = 900, 250, 80
_BAR, _GAP, _HEAD = 16, 12, 34


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: group name → series name → value (below 0 is drawn as 0)."""

    title: str
    groups: dict[str, dict[str, float]]


def draw(panels: list[Panel], series: list[str]) -> str:
    """Draw the panels under each other, horizontal bars, one colour a series, each panel on its own scale from 0."""
    body = [_legend(series)]
    top = 40.0
    for panel in panels:
        drawn, height = _draw_panel(panel, series, top)
        body += drawn
        top += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top:.0f}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _legend(series: list[str]) -> str:
    parts = []
    for index, name in enumerate(series):
        left = _LABEL_WIDTH + index * 120
        parts.append(f'<rect x="{left}" y="14" width="12" height="12" fill="{_colour(index)}"/>')
        parts.append(f'<text x="{left + 18}" y="24">{escape(name)}</text>')
    return "\n".join(parts)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]


def _draw_panel(panel: Panel, series: list[str], top: float) -> tuple[list[str], float]:
    largest = max((value for group in panel.groups.values() for value in group.values()), default=0.0)
    scale = (_WIDTH - _LABEL_WIDTH - _VALUE_WIDTH) / largest if largest > 0 else 0.0
    lines = [f'<text x="10" y="{top + 20:.0f}" font-weight="bold" font-size="14">{escape(panel.title)}</text>']
    at = top + _HEAD
    for name, group in panel.groups.items():
        lines.append(f'<text x="{_LABEL_WIDTH - 8}" y="{at + _BAR * 0.8:.0f}" text-anchor="end">{escape(name)}</text>')
        for index, one in enumerate(series):
            value = group.get(one, 0.0)
            length = max(0.0, value) * scale
            colour = _colour(index)
            lines.append(
                f'<rect x="{_LABEL_WIDTH}" y="{at:.1f}" width="{length:.1f}" height="{_BAR - 2}" fill="{colour}"/>'
            )
            lines.append(f'<text x="{_LABEL_WIDTH + length + 5:.1f}" y="{at + _BAR * 0.75:.1f}">{value:.4g}</text>')
            at += _BAR
        at += _GAP
    return lines, at - top
