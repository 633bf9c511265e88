"""Routing `vxlan` offline: oracle and tracer agree on every flow, and broken overlays are caught by the tracer."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, ip_address

import pytest

from netlab import plan
from netlab.errors import InputError
from netlab.expect import expect
from netlab.model import Cluster, Flow, Lan, OutcomeKind, Ref
from netlab.ops import DeviceAddress, Forwarding, Neighbour, Op, Route, Veth, Vxlan
from netlab.plan import build, diff, plan_of
from netlab.trace import trace
from tests import clusters

FAR = Lan("far", IPv4Network("192.168.1.0/24"), IPv4Address("192.168.1.1"))


def cluster(mode: str = "iptables", fabric: str = "bridge", apart: bool = False) -> Cluster:
    """Three nodes; `apart`: the last is in a network of its own, behind the router."""
    made = clusters.default(mode=mode, fabric=fabric)
    topology = replace(made.topology, cluster=replace(made.topology.cluster, routing="vxlan"))
    if not apart:
        return made.with_(topology=topology)
    nodes = dict(made.nodes)
    nodes["node-171"] = replace(nodes["node-171"], addresses=(ip_address("192.168.1.171"),))
    return made.with_(topology=replace(topology, networks=(*topology.networks, FAR)), nodes=nodes)


def flow(sender: str, source: str, to: str, port: int) -> Flow:
    kind, *rest = sender.split("/")
    ref = Ref(kind, rest[0] if len(rest) == 2 else "", rest[-1])
    return Flow(ref, ip_address(source), ip_address(to), port)


FLOWS = {
    "pod to a pod of another node": (flow("pod/default/client", "10.244.1.2", "10.244.2.2", 8080), "delivered"),
    "node to a pod of another node": (flow("node/node-169", "10.244.0.0", "10.244.2.2", 8080), "delivered"),
    "outside host to a pod": (flow("host/client", "192.168.0.100", "10.244.2.2", 8080), "delivered"),
    "pod to another node's end of the overlay": (flow("pod/default/client", "10.244.1.2", "10.244.2.0", 80), "rejected"),
    "pod to a port where nobody listens": (flow("pod/default/client", "10.244.1.2", "10.244.2.2", 81), "rejected"),
    "pod to an address that no pod has": (flow("pod/default/client", "10.244.1.2", "10.244.2.99", 8080), "dropped"),
    "pod to the router": (flow("pod/default/client", "10.244.1.2", "192.168.0.1", 80), "dropped"),
}


@pytest.mark.parametrize("apart", [False, True], ids=["one LAN", "two LANs"])
@pytest.mark.parametrize("fabric", ["bridge", "routed"])
@pytest.mark.parametrize("name", FLOWS)
def test_oracle_and_tracer_agree(name: str, fabric: str, apart: bool) -> None:
    """Also between LANs: with static routes the router, which knows no pod, is the end of it."""
    one, fate = FLOWS[name]
    made = cluster(fabric=fabric, apart=apart)
    expected, traced = expect(made, one), trace(build(made), one).outcome
    assert (expected.kind, expected.backends) == (traced.kind, traced.backends)
    assert expected.kind == fate, (expected.why, traced.why)


def test_without_the_overlay_nodes_of_two_lans_do_not_reach_each_others_pods() -> None:
    made = cluster(apart=True)
    static = made.with_(topology=replace(made.topology, cluster=replace(made.topology.cluster, routing="static")))
    one, _ = FLOWS["pod to a pod of another node"]
    assert expect(static, one).kind is trace(build(static), one).outcome.kind is OutcomeKind.DROPPED


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_what_is_masqueraded_on_its_way_into_the_overlay_gets_its_address(mode: str) -> None:
    made = cluster(mode)
    endpoints = made.slices  # a Service without slices: the backend is reached by a pod's address, so masquerade is a NodePort's
    assert endpoints == {}
    one = flow("node/node-169", "192.168.0.169", "10.244.2.2", 8080)
    assert expect(made, one).kind is OutcomeKind.DELIVERED
    way = [hop.route for path in trace(build(made), one).paths for hop in path.hops]
    assert "10.244.2.0/24 via 10.244.2.0 dev flannel.1 (inside UDP from 192.168.0.169 to 192.168.0.171:8472)" in way


def test_the_lan_routes_no_pod_network() -> None:
    routes = [op for op in build(cluster()).ops.values() if isinstance(op, Route) and op.destination.subnet_of(POD_CIDR)]  # type: ignore[arg-type]
    assert routes and all(not op.device.startswith("eth") or op.netns.startswith(("pod/", "host/")) for op in routes)


POD_CIDR = IPv4Network("10.244.0.0/16")


def test_everything_of_a_pod_fits_into_what_carries_it() -> None:
    ops = build(cluster()).ops.values()
    assert {op.mtu_bytes for op in ops if isinstance(op, Vxlan)} == {1450}
    assert {op.mtu_bytes for op in ops if isinstance(op, Veth) and op.netns.startswith("pod/")} == {1450}
    assert {op.mtu_bytes for op in ops if isinstance(op, Veth) and not op.netns.startswith("pod/")} == {1500}


def without(kind: type[Op]) -> Callable[[Op], list[Op]]:
    return lambda op: [] if isinstance(op, kind) and getattr(op, "device", "") == "flannel.1" else [op]


def misled(op: Op) -> list[Op]:
    return [replace(op, remote=ip_address("192.168.0.169"))] if isinstance(op, Forwarding) else [op]


BROKEN: dict[str, Callable[[Op], list[Op]]] = {
    "no forwarding entry": without(Forwarding),
    "no neighbour entry": without(Neighbour),
    "no route into the overlay": without(Route),
    "frames go to the wrong machine": misled,
    "the far end has another number": lambda op: (
        [replace(op, vni=2)] if isinstance(op, Vxlan) and op.netns == "node/node-171" else [op]
    ),
    "the far end listens elsewhere": lambda op: (
        [replace(op, port=4789)] if isinstance(op, Vxlan) and op.netns == "node/node-171" else [op]
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_overlay_is_seen_by_the_tracer(name: str) -> None:
    one, _ = FLOWS["pod to a pod of another node"]
    whole = build(cluster())
    assert trace(whole, one).outcome.kind is OutcomeKind.DELIVERED
    broken = plan_of(kept for op in whole.ops.values() for kept in BROKEN[name](op))
    assert trace(broken, one).outcome.kind is OutcomeKind.DROPPED


def test_a_node_without_an_address_of_the_overlays_family_is_named() -> None:
    made = cluster()
    nodes = {**made.nodes, "node-171": replace(made.nodes["node-171"], addresses=(ip_address("fd00::171"),))}
    with pytest.raises(InputError, match=r"node node-171 has no IPv4 address"):
        build(made.with_(nodes=nodes))


def test_a_changed_device_takes_what_lives_on_it_along() -> None:
    old = build(cluster())
    new = plan_of(replace(op, vni=7) if isinstance(op, Vxlan) and op.netns == "node/node-170" else op for op in old.ops.values())
    added = {type(op) for op in diff(old, new).added}
    assert added == {Vxlan, DeviceAddress, Route, Neighbour, Forwarding}


def test_the_text_reads_as_its_tools_do() -> None:
    text = plan.text(build(cluster()))
    assert "vxlan flannel.1 address 02:" in text and "id 1 local 192.168.0.169 dstport 8472 nolearning mtu 1450" in text
    assert "route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink" in text
    assert "dev flannel.1 dst 192.168.0.170 permanent" in text
