"""Row group `services`: rules of one node for 10, 1,000 and 10,000 Services of two endpoints, in every mode and layout.

Rows: the plan made from nothing; load (rules written out and put into an empty kernel, with what the mode makes beside them:
virtual servers, a proxy process); change (one endpoint becomes another: planned, written out and in the kernel); the first packet
of a connection through the first and the last Service, until it is answered (by the proxy process in mode userspace). Beside them
`nft -f` of the very same texts; beside a change in legacy iptables its floor, the kernel reading and replacing a table of that
size (legacy_floor.py). Load and change have their CPU time: other work on the machine makes the wait longer, but hardly that.

Each mode and size is measured by this module run again in namespaces of its own (`python -m netlab.cli.bench.services MODE COUNT
RUNS`): a client, the node and a namespace that answers for every endpoint.
"""

import json
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network
from typing import TYPE_CHECKING, Literal

from netlab.cli.bench import peers, spent
from netlab.cli.bench.rows import Row, span, timed
from netlab.kernel import tools

if TYPE_CHECKING:
    from netlab.kernel.apply import Kernel
    from netlab.model import Cluster, Service
    from netlab.ops import Op
    from netlab.ruleset import Ruleset

COUNTS = (10, 1_000, 10_000)
CONNECTIONS = 200
"""Per Service whose latency is measured, first and last in turn."""
FIRST_SERVICE, FIRST_ENDPOINT, CLIENT = IPv4Address("10.64.0.1"), IPv4Address("10.128.0.1"), IPv4Address("10.255.0.2")
ENDPOINTS, PODS = IPv4Network("10.128.0.0/10"), IPv4Network("10.128.0.0/9")
NODE = "node/node-0"
FLOOR = "the kernel alone, table read and replaced"
CPU = ", CPU"
"""What was measured has, under its name and this, the CPU time of this process and of those that it started."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to have the rules. `most`: the largest number of Services that is worth the wait."""

    name: str
    mode: Literal["nftables", "iptables", "userspace", "ipvs"]
    layout: Literal["chains", "maps"] = "chains"
    backend: Literal["nft", "legacy"] = "nft"
    most: int = 10_000


WAYS = {
    "nftables-maps": Way("nftables, layout maps", "nftables", "maps"),
    "nftables-chains": Way("nftables", "nftables"),
    "iptables-legacy": Way("iptables, backend legacy", "iptables", backend="legacy"),
    "iptables-nft": Way("iptables", "iptables", most=1_000),
    "userspace": Way("userspace", "userspace", most=1_000),
    "ipvs": Way("ipvs", "ipvs"),
}


def rows(runs: int, counts: Sequence[int] = COUNTS, ways: Mapping[str, Way] = WAYS) -> Sequence[Row]:
    found: list[Row] = []
    least: dict[tuple[str, str], float] = {}
    for key, way in ways.items():
        if why := tools.why_not(way.mode):
            found.append(Row(way.name, note=f"not measured: {why}"))
            continue
        for count in counts:
            if count > way.most:
                found.append(Row(f"{way.name}, {count}", note=f"not measured above {way.most}: it takes minutes"))
                continue
            done = peers.unshared([sys.executable, "-m", "netlab.cli.bench.services", key, str(count), str(runs)])
            if done.returncode:
                words = (done.stderr.strip().splitlines() or ["failed"])[-1]
                found.append(Row(f"{way.name}, {count}", note=f"not measured: {words}"))
                continue
            measured = json.loads(done.stdout.splitlines()[-1])
            for what, seconds in measured.items():
                if not what.endswith(CPU):
                    row = _row(way, count, what, tuple(seconds), least)
                    found.append(replace(row, cpu=tuple(measured.get(what + CPU, ())), series=f"{way.name}: {what}", size=count))
    return found


def _row(way: Way, count: int, what: str, seconds: tuple[float, ...], least: dict[tuple[str, str], float]) -> Row:
    """With its growth since the smallest number of Services."""
    name = f"{way.name}, {count}: "
    peer = {"load": "nft -f load", "change": "nft -f change", "last Service": "first Service"}.get(what)
    if way.backend == "legacy" and what == "change":
        peer = FLOOR
    row = Row(name + what, seconds, peers=(name + peer,) if peer is not None else ())
    assert row.median is not None
    if (way.name, what) not in least:
        least[way.name, what] = row.median
        return row
    first = least[way.name, what]
    return replace(row, note=f"{row.median / first:.1f} x {span(first)}")


# ---------------------------------------------------------------- a cluster


def cluster(way: Way, count: int) -> "Cluster":
    """So many Services of one port and two endpoints, which are pods of other nodes."""
    from netlab import model

    config = model.ClusterConfig(
        pod_cidrs=(PODS,),
        service_cidrs=(IPv4Network("10.64.0.0/10"),),
        proxy=model.ProxyConfig(mode=way.mode, layout=way.layout, backend=way.backend),
    )
    services: dict[model.Key, model.Service] = {}
    slices: dict[model.Key, model.EndpointSlice] = {}
    for number in range(count):
        key = model.Key("default", f"service-{number:05}")
        address = FIRST_SERVICE + number
        services[key] = model.Service(model.Meta(key.name, "default"), cluster_ips=(address,), ports=(model.ServicePort(80),))
        endpoints = tuple(
            model.Endpoint((FIRST_ENDPOINT + 2 * number + which,), node_name=f"node-{1 + number // 100}") for which in (0, 1)
        )
        meta = model.Meta(f"{key.name}-1", "default")
        slices[meta.key] = model.EndpointSlice(meta, key, endpoints=endpoints, ports=(model.SlicePort("", 8080),))
    node = model.Node(model.Meta("node-0"), (IPv4Address("192.168.0.10"),), (IPv4Network("10.255.0.0/24"),))
    return model.Cluster(model.Topology(cluster=config), nodes={"node-0": node}, services=services, slices=slices)


def changed(before: "Cluster", number: int) -> "Cluster":
    """One Service's second endpoint is another one."""
    key = list(before.slices)[(len(before.slices) * 2 // 3 + 37 * number) % len(before.slices)]
    one = before.slices[key]
    other = replace(one.endpoints[1], addresses=(IPv4Address("10.160.0.1") + number,))
    return before.with_(slices={**before.slices, key: replace(one, endpoints=(one.endpoints[0], other))})


def planned(given: "Cluster") -> "tuple[tuple[Op, ...], Ruleset]":
    """What its mode makes on its one node, and the rules of that."""
    from netlab import ops
    from netlab.proxy import iptables, ipvs, nftables, userspace

    modes = {one.NAME: one for one in (iptables, ipvs, nftables, userspace)}
    found = modes[given.topology.cluster.proxy.mode].plan(given, given.nodes["node-0"])
    return found, next(op.value for op in found if isinstance(op, ops.Ruleset))


def ruleset(given: "Cluster") -> "Ruleset":
    return planned(given)[1]


# ---------------------------------------------------------------- inside the namespaces


def inside(key: str, count: int, runs: int) -> Mapping[str, Sequence[float]]:
    """Seconds by what was measured. Call it in a network namespace that nobody else needs."""
    from netlab.cli.bench.beside import Beside
    from netlab.kernel.apply import Kernel
    from netlab.kernel.rules import Loader
    from netlab.memory import collect_less
    from netlab.rendering import nftables

    way, kernel, loader = WAYS[key], Kernel(), Loader()
    kernel.apply((), _wires())
    _answer_for_all(kernel.fds["pods"])
    node = kernel.fds[NODE]
    seconds: dict[str, list[float]] = {what: [] for what in ("plan", "load", "load" + CPU, "change", "change" + CPU)}
    planned(cluster(way, 1))  # what is imported late is imported now
    rest = Beside(kernel, NODE)
    now = cluster(way, count)
    began = time.perf_counter()
    ops, rules = planned(now)
    seconds["plan"].append(time.perf_counter() - began)
    empty = replace(rules, tables=(), ipsets=())

    def load() -> None:
        rest.make(ops)
        loader.load(node, "node", rules, None)

    # The slowest take minutes to load: once is enough to know it.
    for _ in range(runs if count < 1_000 or way.layout == "maps" or way.backend == "legacy" else 1):
        loader.load(node, "node", empty, None)
        loader.forget("node")
        rest.forget()
        used = _cpu()
        seconds["load"].append(timed(load))
        seconds["load" + CPU].append(_cpu() - used)
    if way.mode == "nftables":
        text = nftables.text(rules)
        seconds["nft -f load"] = [_program(kernel.fds["other"], text) for _ in seconds["load"]]
    texts: list[str] = []
    collect_less()  # as the holder of a lab does
    for number in range(2 + 5 * runs):
        now = changed(now, number)
        before, began, used = rules, time.perf_counter(), _cpu()
        ops, rules = planned(now)
        rest.make(ops)
        loader.load(node, "node", rules, before)
        took, used = time.perf_counter() - began, _cpu() - used
        texts.append(nftables.text(rules, before) if way.mode == "nftables" else "")
        if number > 1:  # the first ones find the caches of libnftables and of the planner empty
            seconds["change"].append(took)
            seconds["change" + CPU].append(used)
    if way.mode == "nftables":
        seconds["nft -f change"] = [_program(kernel.fds["other"], text) for text in texts][2:]
    if way.backend == "legacy":
        seconds[FLOOR], seconds[FLOOR + CPU] = _floor(node, runs)
    services = list(now.services.values())
    seconds["first Service"], seconds["last Service"] = _latency(kernel, services[0], services[-1])
    return seconds


def _cpu() -> float:
    """Of this process and its children, those included that stay."""
    return spent.children() + spent.running_children()


def _floor(node: int, runs: int) -> tuple[list[float], list[float]]:
    """What the kernel alone needs to have its table replaced, and the CPU of it."""
    from netlab.cli.bench.legacy_floor import replace_with_itself
    from netlab.kernel.namespaces import entered

    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(3 * runs):
        before = _cpu()
        with entered(node):
            found[0].append(timed(replace_with_itself))
        found[1].append(_cpu() - before)
    return found


def _wires() -> "list[Op]":
    from netlab.ops import DeviceAddress, Netns, Route, Sysctl, Veth

    default = IPv4Network("0.0.0.0/0")
    towards_client, towards_pods = IPv4Address("10.255.0.1"), IPv4Address("10.254.0.1")
    pods = IPv4Address("10.254.0.2")
    return [
        *(Netns(name) for name in (NODE, "client", "pods", "other")),
        Sysctl(NODE, "net/ipv4/ip_forward", "1"),
        Veth(NODE, "client", "02:00:00:00:00:01", "client", "eth0", "02:00:00:00:00:02"),
        Veth(NODE, "pods", "02:00:00:00:00:03", "pods", "eth0", "02:00:00:00:00:04"),
        DeviceAddress(NODE, "client", towards_client, 24),
        DeviceAddress("client", "eth0", CLIENT, 24),
        DeviceAddress(NODE, "pods", towards_pods, 24),
        DeviceAddress("pods", "eth0", pods, 24),
        Route(NODE, ENDPOINTS, pods, "pods"),
        Route("client", default, towards_client, "eth0"),
        Route("pods", default, towards_pods, "eth0"),
    ]


def _answer_for_all(fd: int) -> None:
    """Every endpoint's address is one of this namespace's own."""
    from netlab.kernel.namespaces import entered

    with entered(fd):
        subprocess.run(["ip", "route", "add", "local", str(ENDPOINTS), "dev", "lo"], check=True)


def _program(fd: int, text: str) -> float:
    """The time that `nft -f` takes for this text, in that namespace."""
    from netlab.kernel.namespaces import entered

    with entered(fd):
        return timed(lambda: subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True))


def _latency(kernel: "Kernel", first: "Service", last: "Service") -> tuple[list[float], list[float]]:
    """How long `connect` takes through each: from the first packet until its answer. In turn: both meet the same noise."""
    from netlab.kernel.namespaces import entered

    with entered(kernel.fds["pods"]):
        listener = socket.create_server(("0.0.0.0", 8080), backlog=16)
    listener.settimeout(5)
    found: tuple[list[float], list[float]] = ([], [])
    for number in range(2 * CONNECTIONS + 20):
        service = (first, last)[number % 2]
        with entered(kernel.fds["client"]):
            sock = socket.socket()
        with sock:
            sock.settimeout(5)
            address = (str(service.cluster_ips[0]), 80)
            took = timed(lambda sock=sock, address=address: sock.connect(address))  # type: ignore[misc]  # bound at once
            listener.accept()[0].close()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if number >= 20:  # neighbours are learned by then
            found[number % 2].append(took)
    listener.close()
    return found


if __name__ == "__main__":
    print(json.dumps(inside(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
    sys.stdout.flush()
    os._exit(0)  # 10,000 Services take a while to be forgotten one by one
