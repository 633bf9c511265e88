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
    peers: tuple[str, ...] = ()
    """The rows that this one is compared with, by name."""

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    def json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "median_s": self.median,
            "seconds": list(self.seconds),
            "peers": list(self.peers),
            "note": self.note,
        }


def table(rows: Sequence[Row]) -> str:
    medians = {row.name: row.median for row in rows}
    lines = [["WHAT", "MEDIAN", "BEST", "WORST", "RUNS", "RATIO", "NOTE"]]
    for row in rows:
        if row.median is None:
            lines.append([row.name, "-", "-", "-", "0", "-", row.note])
            continue
        others = ((peer, medians.get(peer)) for peer in row.peers)
        ratio = ", ".join(f"{row.median / other:.2f} x {peer}" for peer, other in others if other) or "-"
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
