"""Row group `probe`: how long a probe takes in labs of 10, 100 and 1,000 pods, beside `curl` run in the same pod.

A flow that was asked about before is sent and watched anew, but what must become of it is known; so one row asks about another
pair of pods each time.
"""

from collections.abc import Callable, Sequence
from itertools import cycle, permutations
from typing import TYPE_CHECKING

from netlab.cli.bench import spent
from netlab.cli.bench.labs import pod_names, standing
from netlab.cli.bench.rows import Row, timed

if TYPE_CHECKING:
    from netlab.client import Lab

PODS = (10, 100, 1_000)


def rows(runs: int, counts: Sequence[int] = PODS) -> Sequence[Row]:
    found: list[Row] = []
    for pods in counts:
        with standing(pods) as lab:
            found += _in(lab, pods, runs)
    return found


def _in(lab: "Lab", pods: int, runs: int) -> list[Row]:
    pod, *others = pod_names(lab)
    pairs = cycle(permutations((pod, *others[:100]), 2))
    address = lab.get("services", "web-0")[0]["spec"]["clusterIP"]

    def row(name: str, call: Callable[[], object], note: str = "") -> Row:
        call()
        before = spent.of_lab(lab.pid)
        seconds = tuple(timed(call) for _ in range(runs))
        cpu = (spent.of_lab(lab.pid) - before) / runs
        peers = () if name == "curl" else (f"curl, {pods} pods",)
        return Row(f"{name}, {pods} pods", seconds, note, peers, (cpu,), series=name, size=pods)

    curl = ["curl", "-s", "-o", "/dev/null", f"http://{address}/"]
    return [
        row("probe, 1 flow", lambda: lab.probe(pod, "svc/web-0")),
        row("probe, 1 flow, another pair of pods each time", lambda: lab.probe(*next(pairs))),
        row("probe, 300 flows", lambda: lab.probe(pod, "svc/web-0", count=300)),
        row("curl", lambda: lab.exec(pod, curl, check=True), "through the lab's exec"),
    ]
