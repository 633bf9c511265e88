"""A row of a benchmark, the table of rows, and how a series of sizes grows. Pure but for `timed`."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from netlab.cli.tables import align

Unit = Literal["s", "B"]


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured. `seconds` (bytes where the unit is B) in order of the runs; empty when it could not be run, then
    `note` says why. `cpu`: the CPU seconds of each run, of all processes that took part, where they can be counted.
    """

    name: str
    seconds: tuple[float, ...] = ()
    note: str = ""
    peers: tuple[str, ...] = ()
    """The rows that this one is compared with, by name."""
    cpu: tuple[float, ...] = ()
    unit: Unit = "s"
    series: str = ""
    """What is measured, the same in rows that differ in `size` only."""
    size: int | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def cpu_median(self) -> float | None:
        return statistics.median(self.cpu) if self.cpu else None


def document(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as JSON: all values, the ratio to each peer, the growth exponent of their series."""
    exponents = growth(rows)
    return [
        {
            "name": row.name,
            "series": row.series,
            "size": row.size,
            "unit": row.unit,
            "median": row.median,
            "values": list(row.seconds),
            "cpu_s": list(row.cpu),
            "ratios": ratios(row, rows),
            "growth": exponents.get(row.series),
            "note": row.note,
        }
        for row in rows
    ]


def ratios(row: Row, rows: Iterable[Row]) -> dict[str, float]:
    """Peer -> median of the row / median of the peer."""
    medians = {other.name: other.median for other in rows}
    own = row.median
    if own is None:
        return {}
    return {peer: own / median for peer in row.peers if (median := medians.get(peer))}


def growth(rows: Iterable[Row]) -> Mapping[str, float]:
    """Series -> the exponent b of size**b that fits its medians best (least squares of the logarithms): 1 is linear."""
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        if row.series and row.size and row.median and row.median > 0:  # other work may free more than a small lab takes
            points.setdefault(row.series, []).append((math.log(row.size), math.log(row.median)))
    fits = {name: some for name, some in points.items() if len({x for x, _ in some}) > 1}
    return {name: statistics.linear_regression(*zip(*some, strict=True)).slope for name, some in fits.items()}


def table(rows: Sequence[Row]) -> str:
    lines = [["WHAT", "MEDIAN", "BEST", "WORST", "CPU", "RUNS", "RATIO", "NOTE"]]
    for row in rows:
        if row.median is None:
            lines.append([row.name, "-", "-", "-", "-", "0", "-", row.note])
            continue
        ratio = ", ".join(f"{value:.2f} x {peer}" for peer, value in ratios(row, rows).items()) or "-"
        shown = [shown_as(row.unit, value) for value in (row.median, min(row.seconds), max(row.seconds))]
        cpu = span(row.cpu_median) if row.cpu_median is not None else "-"
        lines.append([row.name, *shown, cpu, str(len(row.seconds)), ratio, row.note])
    text = "".join(line.rstrip() + "\n" for line in align(lines).splitlines())
    return text + "".join(f"{name}: grows with size^{exponent:.2f}\n" for name, exponent in growth(rows).items())


def shown_as(unit: Unit, value: float) -> str:
    return span(value) if unit == "s" else f"{value / 1e6:.1f} MB"


def span(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} us"


def timed(call: Callable[[], object]) -> float:
    """Wall time of one call, in seconds."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
