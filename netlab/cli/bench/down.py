"""Row group `down`: until the lab's process and its socket are gone; beside `ip netns del` and Mininet's stop."""

from collections.abc import Sequence

from netlab.cli.bench import peers
from netlab.cli.bench.labs import up_and_down
from netlab.cli.bench.rows import Row
from netlab.cli.bench.up import FABRICS, PODS, planned


def rows(runs: int, counts: Sequence[int] = PODS) -> Sequence[Row]:
    found: list[Row] = []
    for pods in counts:
        batch = peers.ip_batch(planned(pods, FABRICS[0]), min(runs, 3))
        mininet = peers.mininet(pods, 1 if pods > 100 else min(runs, 3))
        for fabric in FABRICS:
            name, others = f"netlab down, {fabric}", (f"ip netns del, {pods}", f"Mininet stop, {pods}")
            found.append(Row(f"{name}, {pods}", up_and_down(pods, fabric, runs).down, "", others, series=name, size=pods))
        note = "names only: the kernel frees the namespaces later"
        found.append(Row(f"ip netns del, {pods}", batch.down, batch.note or note, series="ip netns del", size=pods))
        found.append(Row(f"Mininet stop, {pods}", mininet.down, mininet.note, series="Mininet stop", size=pods))
    return found
