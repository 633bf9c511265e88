"""Row group `matrix`: everybody to everybody, judged; beside as many TCP connections over loopback, made by one process one by
one. And 60 x 60 among 1,000 pods, where a machine's neighbour table would overflow if it had to learn.
"""

import socket
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from netlab.cli.bench import spent
from netlab.cli.bench.labs import pod_names, standing
from netlab.cli.bench.rows import Row, timed

if TYPE_CHECKING:
    from netlab.client import Lab

PODS = (10, 50, 200)
MESH, MESH_PODS = 60, 1_000


def rows(runs: int, counts: Sequence[int] = PODS) -> Sequence[Row]:
    found: list[Row] = []
    for pods in counts:
        with standing(pods) as lab:
            found += _pair(lab, pod_names(lab), pods, min(runs, 3))
    if max(counts, default=0) >= max(PODS):
        with standing(MESH_PODS) as lab:
            step = MESH_PODS // MESH
            found += _pair(lab, pod_names(lab)[::step][:MESH], MESH, 1, f" among {MESH_PODS} pods")
    return found


def _pair(lab: "Lab", names: list[str], pods: int, runs: int, where: str = "") -> list[Row]:
    seconds: list[float] = []
    cpu: list[float] = []
    results: list[Counter[str]] = []

    def ask() -> None:
        answers = lab.matrix(names, names)
        results.append(Counter(answer.verdict for answer in answers))
        results.append(Counter({"dropped": sum(answer.outcomes["dropped"] for answer in answers)}))

    for _ in range(runs):
        before = spent.of_lab(lab.pid)
        seconds.append(timed(ask))
        cpu.append(spent.of_lab(lab.pid) - before)
    flows = pods * (pods - 1)
    total = sum(results, Counter())
    a_flow = f"{1e6 * min(seconds) / flows:.0f} us a flow at best"
    said = f"{flows} flows, {a_flow}; pass {total['pass']} of {flows * runs}, {total['dropped']} timed out"
    name, floor = f"matrix, {pods} x {pods}{where}", f"{flows} connections, loopback"
    return [
        Row(name, tuple(seconds), said, (floor,), tuple(cpu), series="" if where else "matrix", size=pods),
        Row(floor, tuple(timed(lambda: connects(flows)) for _ in range(runs)), "", series="" if where else "loopback", size=pods),
    ]


def connects(count: int) -> None:
    """So many connections to a socket of this process, each closed by a reset."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for _ in range(count):
            with socket.create_connection(listener.getsockname()) as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                listener.accept()[0].close()
