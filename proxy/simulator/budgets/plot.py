"""Lines over time as SVG text, with no library: one panel a scenario, one line a number of sidecars.

Owns colours and geometry; knows no world.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from proxy.simulator.budgets.figures import Figures

_COLOURS = ("#4c8c4a", "#8a5fb0", "#d9762b", "#3f7fb5", "#b5443f", "#666666")
_WIDTH, _HEIGHT = 420, 150
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 30, 14, 26
_COLUMNS = 2


def draw(figures: Sequence[Figures]) -> str:
    """Draw the use of every window, as a ratio of the limit, over time.

    The limit is the dashed line at 1; the shaded third is where things break.
    """
    panels: dict[str, list[Figures]] = {}
    for one in figures:
        panels.setdefault(one.scenario, []).append(one)
    sizes = sorted({one.sidecars for one in figures})
    colours = {size: _COLOURS[n % len(_COLOURS)] for n, size in enumerate(sizes)}
    rows = -(-len(panels) // _COLUMNS)
    height = 34 + rows * (_HEIGHT + _TOP + _BOTTOM)
    body = [_legend(colours)]
    for index, (name, lines) in enumerate(panels.items()):
        left = _LEFT + (index % _COLUMNS) * (_WIDTH + _LEFT + _RIGHT)
        top = 34 + _TOP + (index // _COLUMNS) * (_HEIGHT + _TOP + _BOTTOM)
        body += _panel(name, lines, colours, left, top)
    width = min(_COLUMNS, max(1, len(panels))) * (_WIDTH + _LEFT + _RIGHT)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _legend(colours: dict[int, str]) -> str:
    parts = ['<text x="44" y="22" font-size="13">use in the window that ends here, as a part of the limit</text>']
    for index, (size, colour) in enumerate(colours.items()):
        left = 400 + index * 110
        parts.append(f'<rect x="{left}" y="16" width="14" height="3" fill="{colour}"/>')
        parts.append(f'<text x="{left + 19}" y="22">{size:,} sidecars</text>')
    return "\n".join(parts)


def _panel(name: str, lines: Sequence[Figures], colours: dict[int, str], left: float, top: float) -> list[str]:
    longest_s = max((line.line[-1][0] for line in lines if line.line), default=1.0)
    highest = max(1.1, *(ratio for line in lines for _, ratio in line.line)) if any(x.line for x in lines) else 1.1

    def x(at_s: float) -> float:
        return left + at_s / longest_s * _WIDTH

    def y(ratio: float) -> float:
        return top + _HEIGHT - ratio / highest * _HEIGHT

    worst = max(line.worst_window_ratio for line in lines)
    drawn = [
        f'<rect x="{x(longest_s / 3):.1f}" y="{top}" width="{_WIDTH / 3:.1f}" height="{_HEIGHT}" fill="#f3f0ea"/>',
        f'<text x="{left}" y="{top - 8}"><tspan font-weight="bold">{escape(name)}</tspan>: worst {worst:.3f}</text>',
        f'<rect x="{left}" y="{top}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#bbb"/>',
        f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y(1):.1f}" y2="{y(1):.1f}" stroke="#333" stroke-dasharray="5 3"/>',
    ]
    drawn += [f'<text x="{left - 6}" y="{y(r) + 4:.1f}" text-anchor="end">{r:g}</text>' for r in (0.0, 0.5, 1.0)]
    drawn += [
        f'<text x="{x(at_s):.1f}" y="{top + _HEIGHT + 14}" text-anchor="middle">{at_s:.0f} s</text>'
        for at_s in (longest_s * part / 3 for part in range(4))
    ]
    for line in lines:
        points = " ".join(f"{x(at_s):.1f},{y(ratio):.1f}" for at_s, ratio in line.line)
        drawn.append(f'<polyline points="{points}" fill="none" stroke="{colours[line.sidecars]}" stroke-width="1.4"/>')
    return drawn
