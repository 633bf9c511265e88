"""Row group `change`: one endpoint added or removed, from the request to the answer (the kernels of all nodes have it then).

First among few Services, with connections being made meanwhile; then among 10, 1,000 and 10,000 Services of two endpoints each,
in a lab of three nodes, with layout maps in one of twelve, too, which tells what a node costs; then a Deployment scaled by one
pod among 10, 100 and 1,000 pods in ten nodes.
"""

import json
import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from netlab.cli.bench import spent
from netlab.cli.bench.labs import standing
from netlab.cli.bench.rows import Row, timed

if TYPE_CHECKING:
    from netlab.client import Lab

SERVICES = (10, 1_000, 10_000)
PODS = (10, 100, 1_000)
WAYS: Mapping[str, str] = {
    "nftables, maps": "{mode: nftables, layout: maps}",
    "nftables": "{mode: nftables}",
    "iptables, legacy": "{mode: iptables, backend: legacy}",
}
NODES, MORE_NODES = 3, 12
SLOW_ABOVE = {"nftables": 1_000}
"""`nftables` loads 10,000 Services in the better part of a minute for three nodes."""
FIRST = IPv4Address("10.64.0.1")
SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "bench"},
    "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
}
PODS_OF_BENCH = [
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "main", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}]},
    }
    for name in ("client", "one", "two", "three")
]


def rows(runs: int, counts: Sequence[int] = SERVICES) -> Sequence[Row]:
    most = max(counts)
    found = _with_connections(runs)
    for way, proxy in WAYS.items():
        for count in counts:
            name = f"one endpoint, {way}"
            if count > SLOW_ABOVE.get(way, most):
                found.append(Row(f"{name}, {count} Services", note=f"not measured above {SLOW_ABOVE[way]}: see `services`"))
                continue
            found.append(_among(name, proxy, count, NODES, runs))
        if way == "nftables, maps":
            found.append(_a_node(found[-1], _among(f"one endpoint, {way}", proxy, most, MORE_NODES, runs)))
    for pods in (pods for pods in PODS if pods <= most):
        with standing(pods) as lab:
            replicas = iter(range(1, runs + 3))
            scale: Callable[[], object] = lambda lab=lab, numbers=replicas: lab.scale("deploy", "web-0", 10 + next(numbers) % 2)  # type: ignore[misc]  # noqa: E731
            found.append(_timed(lab, f"one pod more or less, {pods} pods", scale, runs, "one pod more or less", pods))
    return found


def _with_connections(runs: int) -> list[Row]:
    import netlab

    found: list[Row] = []
    for mode in ("iptables", "nftables"):
        with netlab.up(name=f"bench-{os.getpid()}-{mode}", proxy=mode) as lab:
            lab.apply([SERVICE, *PODS_OF_BENCH])
            addresses = [lab.get("pods", name)[0]["status"]["podIP"] for name in ("one", "two", "three")]
            lab.apply([endpoints("bench", addresses[:2])])
            done = threading.Event()
            lost: list[int] = []
            thread = threading.Thread(target=connect, args=(lab, done, lost))
            thread.start()
            try:
                ways = (addresses[: 3 - n % 2] for n in range(runs))
                seconds = tuple(timed(partial(lab.apply, [endpoints("bench", way)])) for way in ways)
            finally:
                done.set()
                thread.join()
            note = f"{len(lost)} probes meanwhile, {sum(lost)} connections failed"
            found.append(
                Row(f"one endpoint, {mode}, probed", seconds, note, ("one endpoint, iptables, probed",) if found else ())
            )
    return found


def _a_node(few: Row, many: Row) -> Row:
    """The row of many nodes, saying what each of them costs beyond what the change costs once."""
    assert few.cpu_median is not None and many.cpu_median is not None
    each = (many.cpu_median - few.cpu_median) / (MORE_NODES - NODES)
    return replace(many, name=f"{many.name}, {MORE_NODES} nodes", note=f"{1000 * each:.1f} ms of CPU a node", series="")


def _among(name: str, proxy: str, count: int, nodes: int, runs: int) -> Row:
    """One Service in the middle gets another second endpoint."""
    import netlab

    topology = f"""apiVersion: netlab/v1
kind: Topology
name: bench
cluster: {{podCIDR: 10.0.0.0/9, serviceCIDR: 10.128.0.0/12, dns: false, proxy: {proxy}}}
nodes: {nodes}
"""
    objects = [one for number in range(count) for one in (service(number), endpoints(f"s{number}", _pair(2 * number)))]
    with tempfile.TemporaryDirectory(prefix="netlab-bench-") as directory:
        files = Path(directory) / "topology.yaml", Path(directory) / "manifest.yaml"
        files[0].write_text(topology)
        files[1].write_text("".join(f"---\n{json.dumps(one)}\n" for one in objects))
        with netlab.up(files[0], [files[1]], name=f"bench-{os.getpid()}-{count}") as lab:
            fresh = iter(range(2 * count, 2 * count + 2 * runs + 10, 2))

            def change() -> None:
                lab.apply([endpoints(f"s{count // 2}", (_pair(count)[0], _pair(next(fresh))[1]))])

            return _timed(lab, f"{name}, {count} Services", change, runs, name, count)


def _timed(lab: "Lab", name: str, change: Callable[[], object], runs: int, series: str, size: int) -> Row:
    for _ in range(2):  # the first ones find caches empty
        change()
    before = spent.of_lab(lab.pid)
    seconds = tuple(timed(change) for _ in range(runs))
    return Row(name, seconds, "", (), ((spent.of_lab(lab.pid) - before) / runs,), series=series, size=size)


def _pair(number: int) -> tuple[str, str]:
    return str(FIRST + number), str(FIRST + number + 1)


def service(number: int) -> dict[str, Any]:
    ports = [{"port": 80, "targetPort": 8080}]
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{number}"}, "spec": {"ports": ports}}


def endpoints(name: str, addresses: Sequence[str]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
    }


def connect(lab: "Lab", done: threading.Event, lost: list[int]) -> None:
    """Connect to the Service until `done`; one number a probe: how many connections failed."""
    while not done.is_set():
        result = lab.probe("pod/client", "svc/bench", count=10)
        lost.append(result.sent - result.outcomes["delivered"])
