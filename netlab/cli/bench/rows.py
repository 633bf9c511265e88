"""A row of a benchmark, and the table of rows. Pure but for `timed`."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from netlab.cli.tables import align


@dataclass(frozen=True, slots=True)
class Row:
    """One thing measured. `seconds` in order of the runs; empty when it could not be run, then `note` says why."""

    name: str
    seconds: tuple[float, ...] = ()
    note: str = ""
    peer: str = ""
    """The row that this one is compared with, by name."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    def json(self) -> dict[str, Any]:
        return {"name": self.name, "median_s": self.median, "seconds": list(self.seconds), "peer": self.peer, "note": self.note}


def table(rows: Sequence[Row]) -> str:
    medians = {row.name: row.median for row in rows}
    lines = [["WHAT", "MEDIAN", "BEST", "WORST", "RUNS", "RATIO", "NOTE"]]
    for row in rows:
        if row.median is None:
            lines.append([row.name, "-", "-", "-", "0", "-", row.note])
            continue
        other = medians.get(row.peer)
        ratio = f"{row.median / other:.2f} x {row.peer}" if other else "-"
        lines.append(
            [row.name, *map(span, (row.median, min(row.seconds), max(row.seconds))), str(len(row.seconds)), ratio, row.note]
        )
    return "".join(line.rstrip() + "\n" for line in align(lines).splitlines())


def span(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds >= 0.001 else f"{seconds * 1e6:.0f} us"


def timed(call: Callable[[], object]) -> float:
    """Wall time of one call, in seconds."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun
