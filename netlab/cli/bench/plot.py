"""Rows of a benchmark as a picture: series over their sizes, both axes logarithmic; rows without sizes as bars. SVG, by hand.

Decides scales and places only. Bars show the median, and a thin line from the best to the worst run.
"""

import math
from collections.abc import Iterator, Sequence
from html import escape

from netlab.cli.bench.rows import Row, growth, shown_as

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 900, 460, 80, 40, 330, 50
COLOURS = ("#0b62a4", "#d1495b", "#2e8b57", "#edae49", "#7b4fa3", "#00798c", "#8d6e63", "#555555")
LINE = 22


def svg(title: str, rows: Sequence[Row]) -> str:
    """The picture. Rows that were not measured are left out of it (the table names them)."""
    measured = [row for row in rows if row.median and row.median > 0]
    series: dict[str, list[Row]] = {}
    for row in measured:
        if row.series and row.size:
            series.setdefault(row.series, []).append(row)
    lines = {name: some for name, some in series.items() if len({row.size for row in some}) > 1}
    if lines:
        return _document(title, HEIGHT, _lines(lines))
    return _document(title, TOP + LINE * len(measured) + BOTTOM, _bars(measured))


def _document(title: str, height: int, body: Iterator[str]) -> str:
    style = "text{font:12px sans-serif}.axis{stroke:#999}.grid{stroke:#e5e5e5}"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">'
    top = f'<style>{style}</style><rect width="100%" height="100%" fill="white"/>'
    return "\n".join((head, top, f'<text x="{LEFT}" y="22" font-weight="bold">{escape(title)}</text>', *body, "</svg>", ""))


def _lines(series: dict[str, list[Row]]) -> Iterator[str]:
    every = [row for rows in series.values() for row in rows]
    sizes = sorted({row.size for row in every if row.size})
    values = [value for row in every for value in row.seconds if value > 0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)

    def x(size: float) -> float:
        spread = math.log(sizes[-1] / sizes[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(size / sizes[0]) / spread

    def y(value: float) -> float:
        above = math.log10(max(value, 10.0**low)) - low  # of what may be less than nothing (memory), the axis shows the end
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * above / (high - low)

    for power in range(low, high + 1):
        at = y(10**power)
        yield f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{shown_as(every[0].unit, 10.0**power)}</text>'
    for size in sizes:
        yield f'<line class="grid" x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>'
        yield f'<text x="{x(size):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{size:,}</text>'
    exponents = growth(every)
    for number, (name, rows) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        dashes = "" if number < len(COLOURS) else ' stroke-dasharray="5 3"'
        points = [(x(row.size), y(row.median), row) for row in rows if row.size and row.median]
        path = " ".join(f"{across:.1f},{up:.1f}" for across, up, _ in points)
        yield f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{path}"{dashes}/>'
        for across, up, row in points:
            yield f'<circle cx="{across:.1f}" cy="{up:.1f}" r="3" fill="{colour}"/>'
            yield _whisker(across, across, y(min(row.seconds)), y(max(row.seconds)), colour)
        at = TOP + LINE * number + 6
        yield f'<line x1="{WIDTH - RIGHT + 14}" x2="{WIDTH - RIGHT + 34}" y1="{at}" y2="{at}" stroke="{colour}"{dashes}/>'
        said = escape(f"{name} (size^{exponents[name]:.2f})")
        yield f'<text x="{WIDTH - RIGHT + 40}" y="{at + 4}">{said}</text>'


def _bars(rows: Sequence[Row]) -> Iterator[str]:
    for unit in dict.fromkeys(row.unit for row in rows):
        largest = max(max(row.seconds) for row in rows if row.unit == unit)
        room = WIDTH - LEFT - 2 * RIGHT
        for number, row in enumerate(rows):
            if row.unit != unit or row.median is None:
                continue
            at, left = TOP + LINE * number, LEFT + RIGHT - 40
            length = room * row.median / largest
            yield f'<text x="{left - 8}" y="{at + 12}" text-anchor="end">{escape(row.name)}</text>'
            yield f'<rect x="{left}" y="{at}" width="{length:.1f}" height="{LINE - 6}" fill="{COLOURS[0]}"/>'
            ends = (left + room * min(row.seconds) / largest, left + room * max(row.seconds) / largest)
            yield _whisker(*ends, at + LINE / 2 - 3, at + LINE / 2 - 3, "#222")
            yield f'<text x="{left + room + 12}" y="{at + 12}">{shown_as(unit, row.median)}</text>'


def _whisker(x1: float, x2: float, y1: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1:.1f}" x2="{x2:.1f}" y1="{y1:.1f}" y2="{y2:.1f}" stroke="{colour}"/>'
