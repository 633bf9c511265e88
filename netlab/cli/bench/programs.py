"""Row group `exec`: `true` in a pod, from Python and from the shell, beside `true` without a lab and `python -c pass`."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from netlab.cli.bench.labs import command, pod_names, standing
from netlab.cli.bench.rows import Row, timed

if TYPE_CHECKING:
    from netlab.client import Lab

PODS = (10, 100, 1_000)


def rows(runs: int, counts: Sequence[int] = PODS) -> Sequence[Row]:
    found = [
        _row("true, without a lab", runs, lambda: subprocess.run(["true"], check=True)),
        _row("python -c pass", runs, lambda: subprocess.run([sys.executable, "-c", "pass"], check=True)),
    ]
    for pods in counts:
        with standing(pods) as lab:
            found += _in(lab, pods, runs)
    return found


def _in(lab: "Lab", pods: int, runs: int) -> list[Row]:
    pod = pod_names(lab)[0]

    def from_python() -> None:
        lab.exec(pod, ["true"], check=True)

    def from_shell() -> None:
        command("exec", "--lab", lab.name, pod, "--", "true")

    from_python()
    return [
        _row("lab.exec(pod, [true])", runs, from_python, "true, without a lab", pods),
        _row("netlab exec pod -- true", runs, from_shell, "python -c pass", pods),
    ]


def _row(name: str, runs: int, call: Callable[[], object], peer: str = "", size: int | None = None) -> Row:
    seconds = tuple(timed(call) for _ in range(runs))
    if size is None:
        return Row(name, seconds)
    return Row(f"{name}, {size} pods", seconds, "", (peer,), series=name, size=size)
