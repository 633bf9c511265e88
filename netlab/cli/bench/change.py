"""Row group `change`: one endpoint of a Service added or removed, from the request to the answer (the kernel has it then)."""

import os
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from netlab.cli.bench.rows import Row, timed

if TYPE_CHECKING:
    from netlab.client import Lab

SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "bench"},
    "spec": {"ports": [{"port": 80, "targetPort": 8080}]},
}
PODS = [
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "main", "image": "luksa/kubia", "ports": [{"containerPort": 8080}]}]},
    }
    for name in ("client", "one", "two", "three")
]


def rows(runs: int) -> Sequence[Row]:
    import netlab

    found: list[Row] = []
    for mode in ("iptables", "nftables"):
        with netlab.up(name=f"bench-{os.getpid()}-{mode}", proxy=mode) as lab:
            lab.apply([SERVICE, *PODS])
            addresses = [lab.get("pods", name)[0]["status"]["podIP"] for name in ("one", "two", "three")]
            lab.apply([endpoints(addresses[:2])])
            done = threading.Event()
            lost: list[int] = []
            thread = threading.Thread(target=connect, args=(lab, done, lost))
            thread.start()
            try:
                seconds = tuple(timed(partial(lab.apply, [endpoints(addresses[: 3 - n % 2])])) for n in range(runs))
            finally:
                done.set()
                thread.join()
            note = f"{len(lost)} probes meanwhile, {sum(lost)} connections failed"
            found.append(Row(f"one endpoint, {mode}", seconds, note, ("one endpoint, iptables",) if found else ()))
    return found


def endpoints(addresses: Sequence[str]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "bench-1", "labels": {"kubernetes.io/service-name": "bench"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
    }


def connect(lab: "Lab", done: threading.Event, lost: list[int]) -> None:
    """Connect to the Service until `done`; one number a probe: how many connections failed."""
    while not done.is_set():
        result = lab.probe("pod/client", "svc/bench", count=10)
        lost.append(result.sent - result.outcomes["delivered"])
