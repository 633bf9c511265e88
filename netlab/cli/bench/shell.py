"""Row group `cli`: what a command takes before it does anything, beside an empty Python program."""

import subprocess
import sys
from collections.abc import Sequence

from netlab.cli.bench.labs import standing
from netlab.cli.bench.rows import Row, timed

LINES = ("--version", "--help", "probe --help", "get pods", "ls", "doctor")
FLOOR = "python -c pass"


def rows(runs: int) -> Sequence[Row]:
    with standing(10) as lab:
        named = {"get pods": ("get", "pods", "--lab", lab.name)}
        found = [Row(FLOOR, tuple(timed(lambda: _python("-c", "pass")) for _ in range(runs)))]
        for line in LINES:
            words = named.get(line, tuple(line.split()))
            seconds = tuple(timed(lambda words=words: _python("-m", "netlab", *words)) for _ in range(runs))  # type: ignore[misc]  # called at once
            found.append(Row(f"netlab {line}", seconds, "", (FLOOR,)))
    return found


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdin=subprocess.DEVNULL, capture_output=True)
