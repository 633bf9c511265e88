"""The oracle's answer for the whole lab: the way there, who answers, and the way back. Node policies are in test_expect_spec.py.

The lab is the default topology with one more host (`stranger`, no routes of its own) and an address far away (203.0.113.50).
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netlab.expect import expect, expect_at
from netlab.ipam import host_device, lan_port
from netlab.model import (
    Cluster,
    ClusterConfig,
    Container,
    ContainerPort,
    Endpoint,
    EndpointSlice,
    Flow,
    HostSpec,
    Key,
    Lan,
    LoadBalancerIngress,
    Meta,
    Node,
    Outcome,
    OutcomeKind,
    Pod,
    PodSpec,
    Protocol,
    ProxyConfig,
    Ref,
    Service,
    ServicePort,
    ServiceType,
    SlicePort,
    Topology,
)

DELIVERED, REJECTED, DROPPED, NOT_HANDLED = OutcomeKind
TCP, UDP, SCTP, ICMP = Protocol
MODES = ("iptables", "nftables")

POD, NODE, GATEWAY_NODE = Ref("pod", "default", "client"), Ref("node", "", "node-170"), Ref("node", "", "node-169")
HOST, STRANGER = Ref("host", "", "client"), Ref("host", "", "stranger")
A, B = Ref("pod", "default", "a"), Ref("pod", "default", "b")
NODES = {"node-169": "10.244.0.0/24", "node-170": "10.244.1.0/24", "node-171": "10.244.2.0/24"}
ADDRESSES = {
    POD: "10.244.1.2", A: "10.244.1.3", B: "10.244.2.3", NODE: "192.168.0.170", GATEWAY_NODE: "192.168.0.169",
    HOST: "192.168.0.100", STRANGER: "192.168.0.101",
}  # fmt: skip


def pod(name: str, node: str, address: str, *ports: int, **given: Any) -> Pod:
    containers = (Container("main", ports=tuple(ContainerPort(p) for p in ports), command=given.pop("command", ())),)
    spec = PodSpec(containers, node, host_network=given.pop("host_network", False))
    return Pod(Meta(name, "default", deleted=given.pop("deleted", None)), spec, node, (ip_address(address),), **given)


PODS = (
    pod("client", "node-170", "10.244.1.2", phase="Running", ready=True, serving=True),
    pod("a", "node-170", "10.244.1.3", 8080, phase="Running", ready=True, serving=True),
    pod("b", "node-171", "10.244.2.3", 8080, phase="Running", ready=True, serving=True),
    pod("program", "node-171", "10.244.2.4", 8080, phase="Running", ready=True, serving=True, command=("nginx",)),
    pod("agent", "node-171", "192.168.0.171", 9100, phase="Running", ready=True, serving=True, host_network=True),
)


def service(name: str, address: str, *endpoints: str, **given: Any) -> tuple[Service, EndpointSlice | None]:
    node_port = given.pop("node_port", None)
    made = Service(
        Meta(name, "default"), cluster_ips=(ip_address(address),), ports=(ServicePort(80, node_port=node_port),), **given
    )
    if not endpoints:
        return made, None
    by_port: dict[int, list[Endpoint]] = {}
    for text in endpoints:
        where, _, node = text.partition("@")
        ip, _, port = where.partition(":")
        by_port.setdefault(int(port), []).append(Endpoint((ip_address(ip),), node_name=node or None))
    (port_number, members), *_ = by_port.items()
    return made, EndpointSlice(
        Meta(name, "default"), Key("default", name), endpoints=tuple(members), ports=(SlicePort("", port_number),)
    )


EAST_WEST = ("10.244.1.3:8080@node-170", "10.244.2.3:8080@node-171")
LB = (LoadBalancerIngress(ip_address("203.0.113.200")),)
SERVICES = (
    service("web", "10.96.0.80", *EAST_WEST, type=ServiceType.NODE_PORT, node_port=30080),
    service("local", "10.96.0.81", *EAST_WEST, type=ServiceType.LOAD_BALANCER, node_port=30081, load_balancer=LB,
            external_traffic_policy="Local"),
    service("far", "10.96.0.82", EAST_WEST[1], type=ServiceType.NODE_PORT, node_port=30082, external_traffic_policy="Local"),
    service("self", "10.96.0.83", "10.244.1.2:8080@node-170"),
    service("none", "10.96.0.84", type=ServiceType.LOAD_BALANCER, node_port=30084,
            load_balancer=(LoadBalancerIngress(ip_address("203.0.113.201")),)),
    service("sticky", "10.96.0.85", *EAST_WEST, session_affinity="ClientIP"),
    service("outside", "10.96.0.86", "192.168.0.100:5432", "8.8.8.8:5432"),
    service("closed", "10.96.0.87", "10.244.1.3:81@node-170"),
    service("gone", "10.96.0.88", "10.244.1.77:8080@node-170"),
    service("half", "10.96.0.89", "10.244.1.3:8080@node-170", "10.244.1.77:8080@node-170", "10.244.1.2:8080@node-170"),
    service("agents", "10.96.0.90", "192.168.0.171:9100@node-171", type=ServiceType.NODE_PORT, node_port=30090),
    service("program", "10.96.0.91", "10.244.2.4:8080@node-171"),
    service("unsaid", "10.96.0.92", "10.244.1.2:8080"),
)  # fmt: skip


def cluster(
    mode: str = "iptables",
    pods: Iterable[Pod] = PODS,
    down: frozenset[tuple[str, str]] = frozenset(),
    router: str | None = "192.168.0.1",
    fabric: str = "bridge",
    **proxy: Any,
) -> Cluster:
    routes = tuple(
        (ip_network(text), ip_address("192.168.0.169")) for text in ("10.96.0.0/12", "10.244.0.0/16", "203.0.113.200/30")
    )
    hosts = (
        HostSpec("client", (ip_address("192.168.0.100"), ip_address("203.0.113.50")), routes),
        HostSpec("stranger", (ip_address("192.168.0.101"),)),
    )
    lan = Lan("lan", ip_network("192.168.0.0/24"), ip_address(router) if router else None)
    return Cluster(
        Topology(cluster=ClusterConfig(proxy=ProxyConfig(mode=mode, **proxy), fabric=fabric), networks=(lan,), hosts=hosts),
        nodes={n: Node(Meta(n), (ip_address("192.168.0." + n[-3:]),), (ip_network(cidr),)) for n, cidr in NODES.items()},
        pods={one.meta.key: one for one in pods},
        services={made.meta.key: made for made, _ in SERVICES},
        slices={part.meta.key: part for _, part in SERVICES if part is not None},
        links_down=down,
    )


def flow(sender: Ref, to: str, protocol: Protocol = TCP, source: str = "") -> Flow:
    address, _, port = to.partition(":")
    return Flow(sender, ip_address(source or ADDRESSES[sender]), ip_address(address), int(port or 0), protocol)


def said(outcome: Outcome) -> str:
    """`delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080 rejected`: each backend, the source it sees, and a bad fate."""
    words = []
    for backend in outcome.backends:
        seen = "|".join(map(str, backend.sources)) if backend.masqueraded else ""
        fate = "" if backend.fate is DELIVERED else " unknown" if backend.fate is None else f" {backend.fate}"
        words.append(f"{backend.address}:{backend.port}{' as ' + seen if seen else ''}{fate}")
    return f"{outcome.kind}{': ' if words else ''}{', '.join(words)}"


@dataclass(frozen=True)
class Row:
    sender: Ref
    to: str
    iptables: str
    nftables: str = ""
    source: str = ""
    protocol: Protocol = TCP


BOTH = "delivered: 10.244.1.3:8080, 10.244.2.3:8080"
ROWS = {
    # --- without Services
    "pod to pod of its node": Row(POD, "10.244.1.3:8080", "delivered: 10.244.1.3:8080"),
    "pod to pod of another node": Row(POD, "10.244.2.3:8080", "delivered: 10.244.2.3:8080"),
    "pod to a closed port of a pod": Row(POD, "10.244.2.3:81", "rejected: 10.244.2.3:81 rejected"),
    "pod to the port of another protocol": Row(POD, "10.244.2.3:8080", "rejected: 10.244.2.3:8080 rejected", protocol=UDP),
    "pod to itself": Row(A, "10.244.1.3:8080", "delivered: 10.244.1.3:8080"),
    "pod to its loopback": Row(A, "127.0.0.1:8080", "delivered: 127.0.0.1:8080", source="127.0.0.1"),
    "pod to its loopback, nobody listens": Row(POD, "127.0.0.1:8080", "rejected: 127.0.0.1:8080 rejected", source="127.0.0.1"),
    "pod to a pod address that nobody has": Row(POD, "10.244.1.77:8080", "dropped"),
    "pod to a far pod address that nobody has": Row(POD, "10.244.2.77:8080", "dropped"),
    "pod to a pod network that no node has": Row(POD, "10.244.77.2:8080", "dropped"),
    "pod to a pod that runs a program": Row(POD, "10.244.2.4:8080", "delivered: 10.244.2.4:8080 unknown"),
    "pod to its node": Row(POD, "192.168.0.170:22", "rejected: 192.168.0.170:22 rejected"),
    "pod to its gateway": Row(POD, "10.244.1.1:22", "rejected: 10.244.1.1:22 rejected"),
    "pod to another node": Row(POD, "192.168.0.171:22", "rejected: 192.168.0.171:22 rejected"),
    "pod to a hostNetwork pod": Row(POD, "192.168.0.171:9100", "delivered: 192.168.0.171:9100"),
    "pod to a host that knows the way back": Row(POD, "192.168.0.100:22", "rejected: 192.168.0.100:22 rejected"),
    "pod to a host that does not": Row(POD, "192.168.0.101:22", "dropped: 192.168.0.101:22 dropped"),
    "pod to an address far away": Row(POD, "203.0.113.50:22", "rejected: 203.0.113.50:22 rejected"),
    "pod to the router": Row(POD, "192.168.0.1:22", "dropped: 192.168.0.1:22 dropped"),
    "pod to the internet": Row(POD, "8.8.8.8:53", "dropped"),
    "pod to a LAN address that nobody has": Row(POD, "192.168.0.77:22", "dropped"),
    "node to its pod": Row(NODE, "10.244.1.3:8080", "delivered: 10.244.1.3:8080"),
    "node to another's pod": Row(NODE, "10.244.2.3:8080", "delivered: 10.244.2.3:8080"),
    "node to another node": Row(NODE, "192.168.0.169:22", "rejected: 192.168.0.169:22 rejected"),
    "node to the router": Row(NODE, "192.168.0.1:22", "rejected: 192.168.0.1:22 rejected"),
    "host to a pod, by its route": Row(HOST, "10.244.2.3:8080", "delivered: 10.244.2.3:8080"),
    "host to a pod, from far away": Row(HOST, "10.244.2.3:8080", "delivered: 10.244.2.3:8080", source="203.0.113.50"),
    "host to a pod, without a route": Row(STRANGER, "10.244.2.3:8080", "dropped"),
    "host to a node": Row(HOST, "192.168.0.171:22", "rejected: 192.168.0.171:22 rejected"),
    "host to a host": Row(STRANGER, "192.168.0.100:22", "rejected: 192.168.0.100:22 rejected"),
    "host to a host's far address, by the router": Row(STRANGER, "203.0.113.50:22", "rejected: 203.0.113.50:22 rejected"),
    "ping a pod": Row(POD, "10.244.2.3", "delivered: 10.244.2.3:0", protocol=ICMP),
    "ping a node": Row(POD, "192.168.0.171", "delivered: 192.168.0.171:0", protocol=ICMP),
    "ping a host": Row(NODE, "192.168.0.101", "delivered: 192.168.0.101:0", protocol=ICMP),
    "ping nobody": Row(POD, "10.244.2.77", "dropped", protocol=ICMP),
    # --- ClusterIP
    "pod to a clusterIP": Row(POD, "10.96.0.80:80", BOTH),
    "node to a clusterIP": Row(
        NODE, "10.96.0.80:80", "delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080 as 192.168.0.170"
    ),
    "host to a clusterIP, by the gateway node": Row(
        HOST, "10.96.0.80:80", "delivered: 10.244.1.3:8080 as 192.168.0.169, 10.244.2.3:8080 as 192.168.0.169"
    ),
    "host to a clusterIP, without a route": Row(STRANGER, "10.96.0.80:80", "dropped"),
    "hairpin": Row(A, "10.96.0.80:80", "delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080"),
    "hairpin to a slice that names no node": Row(
        POD, "10.96.0.92:80", "rejected: 10.244.1.2:8080 as 10.244.1.1 rejected", "dropped: 10.244.1.2:8080 dropped"
    ),
    "ping a clusterIP": Row(POD, "10.96.0.80", "dropped", "rejected", protocol=ICMP),
    "ping a clusterIP from its node": Row(NODE, "10.96.0.80", "dropped", "rejected", protocol=ICMP),
    "ping an address that no Service has": Row(POD, "10.96.7.7", "dropped", protocol=ICMP),
    "undeclared port": Row(POD, "10.96.0.80:81", "dropped", "rejected"),
    "undeclared protocol": Row(POD, "10.96.0.80:80", "dropped", "rejected", protocol=UDP),
    "no endpoints": Row(POD, "10.96.0.84:80", "rejected"),
    "endpoint with a closed port": Row(POD, "10.96.0.87:80", "rejected: 10.244.1.3:81 rejected"),
    "endpoint that does not exist": Row(POD, "10.96.0.88:80", "dropped: 10.244.1.77:8080 dropped"),
    "endpoints of three fates": Row(
        B, "10.96.0.89:80", "delivered: 10.244.1.2:8080 rejected, 10.244.1.3:8080, 10.244.1.77:8080 dropped"
    ),
    "endpoints outside of the cluster": Row(
        POD, "10.96.0.86:80", "rejected: 8.8.8.8:5432 dropped, 192.168.0.100:5432 rejected"
    ),
    "endpoint that runs a program": Row(POD, "10.96.0.91:80", "delivered: 10.244.2.4:8080 unknown"),
    "endpoint in the node's own network": Row(POD, "10.96.0.90:80", "delivered: 192.168.0.171:9100"),
    # --- NodePort
    "host to a NodePort": Row(
        HOST, "192.168.0.170:30080", "delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080 as 192.168.0.170"
    ),
    "host to a NodePort of a node without pods": Row(
        HOST, "192.168.0.169:30080", "delivered: 10.244.1.3:8080 as 192.168.0.169, 10.244.2.3:8080 as 192.168.0.169"
    ),
    "host without routes to a NodePort": Row(
        STRANGER, "192.168.0.170:30080", "delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080 as 192.168.0.170"
    ),
    "pod to a NodePort of another node": Row(
        POD, "192.168.0.171:30080", "delivered: 10.244.1.3:8080 as 192.168.0.171, 10.244.2.3:8080 as 10.244.2.1"
    ),
    "pod to a NodePort at its gateway": Row(
        POD, "10.244.1.1:30080", "delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080 as 192.168.0.170",
        "rejected: 10.244.1.1:30080 rejected",
    ),
    "node to its NodePort": Row(
        NODE, "192.168.0.170:30080", "delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080 as 192.168.0.170"
    ),
    "node to another's NodePort": Row(
        NODE, "192.168.0.171:30080", "delivered: 10.244.1.3:8080 as 192.168.0.171, 10.244.2.3:8080 as 10.244.2.1"
    ),
    "node to its NodePort at localhost": Row(
        NODE, "127.0.0.1:30080", "delivered: 10.244.1.3:8080 as 10.244.1.1, 10.244.2.3:8080 as 192.168.0.170",
        "rejected: 127.0.0.1:30080 rejected", source="127.0.0.1",
    ),
    "node to its localhost from a LAN address": Row(NODE, "127.0.0.1:22", "dropped", "rejected: 127.0.0.1:22 rejected"),
    "NodePort without endpoints": Row(HOST, "192.168.0.170:30084", "rejected"),
    "NodePort number that nobody has": Row(HOST, "192.168.0.170:30999", "rejected: 192.168.0.170:30999 rejected"),
    "hostNetwork endpoint through its own node sees the client": Row(
        HOST, "192.168.0.171:30090", "delivered: 192.168.0.171:9100"
    ),
    "hostNetwork endpoint through another node": Row(
        HOST, "192.168.0.170:30090", "delivered: 192.168.0.171:9100 as 192.168.0.170"
    ),
    # --- externalTrafficPolicy Local: the source is kept, so the answer must come back the same way
    "host to a local NodePort": Row(HOST, "192.168.0.170:30081", "delivered: 10.244.1.3:8080"),
    "host to a local NodePort of a node without endpoints": Row(HOST, "192.168.0.170:30082", "dropped"),
    "pod to a local NodePort of its node": Row(POD, "192.168.0.170:30081", BOTH),
    "pod to a local NodePort of another node: only there the answer is recognised": Row(
        POD, "192.168.0.171:30081", "delivered: 10.244.1.3:8080 dropped, 10.244.2.3:8080"
    ),
    "pod to itself through another node": Row(
        A, "192.168.0.171:30081", "delivered: 10.244.1.3:8080 as 192.168.0.171, 10.244.2.3:8080",
        "delivered: 10.244.1.3:8080 dropped, 10.244.2.3:8080",
    ),
    "node to another's local NodePort": Row(NODE, "192.168.0.171:30081", "delivered: 10.244.2.3:8080"),
    "pod to a load balancer": Row(POD, "203.0.113.200:80", BOTH),
    "host to a load balancer, through a node without endpoints": Row(HOST, "203.0.113.200:80", "dropped"),
    "pod to a load balancer without endpoints": Row(POD, "203.0.113.201:80", "rejected"),
    "node to a load balancer without endpoints: OUTPUT refuses nothing": Row(NODE, "203.0.113.201:80", "dropped", "rejected"),
    "ping a load balancer": Row(POD, "203.0.113.200", "dropped", protocol=ICMP),
}  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ROWS)
def test_row(name: str, mode: str) -> None:
    row = ROWS[name]
    outcome = expect(cluster(mode), flow(row.sender, row.to, row.protocol, row.source))
    assert said(outcome) == (row.nftables if mode == "nftables" and row.nftables else row.iptables), outcome.why
    assert bool(outcome.why) == (outcome.kind is not DELIVERED or any(b.fate is not DELIVERED for b in outcome.backends))


def test_an_unhandled_packet_is_said_to_end_at_the_router() -> None:
    assert expect(cluster(), flow(POD, "10.96.0.80:81")).why == "no rule handles it; dropped at the router"
    assert "unallocated" in expect(cluster("nftables"), flow(POD, "10.96.7.7:80")).why
    assert "cannot tell" in expect(cluster(), flow(POD, "192.168.0.171:30081")).why
    assert "whether it listens is not known" in expect(cluster(), flow(POD, "10.244.2.4:8080")).why


@pytest.mark.parametrize("mode", MODES)
def test_affinity_is_told(mode: str) -> None:
    assert expect(cluster(mode), flow(POD, "10.96.0.85:80")).affinity
    assert not expect(cluster(mode), flow(POD, "10.96.0.80:80")).affinity
    assert expect_at(cluster(mode), "node-170", flow(POD, "10.96.0.85:80"), "pod").affinity


LINKS = {
    "the sender's, its own end: it is told at once": ({("pod/default/client", "eth0")}, "rejected"),
    "the sender's, the node's end": ({("node/node-170", host_device("pod/default/client"))}, "dropped"),
    "a backend's": (
        {("pod/default/a", "eth0")}, "delivered: 10.244.1.3:8080 dropped, 10.244.2.3:8080",
    ),
    "the other node's": ({("node/node-171", "eth0")}, "delivered: 10.244.1.3:8080, 10.244.2.3:8080 dropped"),
    "its own node's: the node says so": ({("node/node-170", "eth0")}, "delivered: 10.244.1.3:8080, 10.244.2.3:8080 rejected"),
    "its own node's, the switch's end": (
        {("lan/lan", lan_port("node/node-170"))}, "delivered: 10.244.1.3:8080, 10.244.2.3:8080 dropped",
    ),
    "the switch's port": ({("lan/lan", lan_port("node/node-171"))}, "delivered: 10.244.1.3:8080, 10.244.2.3:8080 dropped"),
    "one that is not on the way": ({("node/node-169", "eth0"), ("host/client", "eth0")}, BOTH),
}  # fmt: skip


@pytest.mark.parametrize("name", LINKS)
def test_a_link_that_is_down(name: str) -> None:
    down, expected = LINKS[name]
    assert said(expect(cluster(down=frozenset(down)), flow(POD, "10.96.0.80:80"))) == expected


def test_the_answers_way_counts_too() -> None:
    """The host's packet enters by node-169, but the answer of a pod with the source kept does not pass it."""
    to_pod = flow(HOST, "10.244.2.3:8080")
    assert said(expect(cluster(), to_pod)) == "delivered: 10.244.2.3:8080"
    unmasked = expect(cluster(detect_local="none"), flow(HOST, "10.96.0.80:80"))
    assert said(unmasked) == "dropped: 10.244.1.3:8080 dropped, 10.244.2.3:8080 dropped"
    assert "does not pass node/node-169" in unmasked.why


@pytest.mark.parametrize(
    ("mode", "protocol", "expected"),
    [("iptables", TCP, "dropped: 10.244.2.3:8080 dropped"), ("nftables", TCP, "delivered: 10.244.2.3:8080")],
)
def test_a_node_that_sees_one_direction_breaks_tcp_unless_conntrack_is_liberal(
    mode: str, protocol: Protocol, expected: str
) -> None:
    strict = cluster(mode, conntrack_tcp_be_liberal=False)
    assert said(expect(strict, flow(HOST, "10.244.2.3:8080", protocol))) == expected
    # What only passes nodes that see both directions is not harmed.
    assert said(expect(strict, flow(POD, "10.96.0.80:80"))) == BOTH
    assert expect(strict, flow(HOST, "192.168.0.170:30080")).kind is DELIVERED
    assert {b.fate for b in expect(strict, flow(HOST, "192.168.0.170:30080")).backends} == {DELIVERED}


@pytest.mark.parametrize("mode", MODES)
def test_without_a_router_the_sender_is_told(mode: str) -> None:
    routerless = cluster(mode, router=None)
    assert said(expect(routerless, flow(POD, "8.8.8.8:53"))) == "rejected"
    assert said(expect(routerless, flow(NODE, "8.8.8.8:53"))) == "rejected"
    assert said(expect(routerless, flow(POD, "10.96.0.80:80"))) == BOTH
    # A node's own packet is routed before OUTPUT could rewrite it: no route to the clusterIP, no Service.
    assert said(expect(routerless, flow(NODE, "10.96.0.80:80"))) == "rejected"


LISTENING: dict[str, tuple[dict[str, Any], str]] = {
    "running": ({}, "delivered"),
    "running, not ready": ({"ready": False, "serving": False}, "delivered"),
    "terminating, still serving": ({"deleted": 1.0}, "delivered"),
    "terminating, not ready": ({"deleted": 1.0, "ready": False, "serving": False}, "delivered"),
    "pending": ({"phase": "Pending"}, "rejected"),
    "succeeded": ({"phase": "Succeeded"}, "dropped"),
    "failed": ({"phase": "Failed"}, "dropped"),
}


@pytest.mark.parametrize("name", LISTENING)
def test_who_listens(name: str) -> None:
    given, expected = LISTENING[name]
    state: dict[str, Any] = {"phase": "Running", "ready": True, "serving": True, **given}
    world = cluster(pods=(PODS[0], pod("b", "node-171", "10.244.2.3", 8080, **state)))
    assert expect(world, flow(POD, "10.244.2.3:8080")).kind == expected


def test_routed_pods_have_no_gateway_address() -> None:
    """MASQUERADE takes any address of the node there; and no node has an address of its podCIDR."""
    routed = cluster(fabric="routed")
    assert said(expect(routed, flow(POD, "10.96.0.80:80"))) == BOTH
    assert said(expect(routed, flow(A, "10.96.0.80:80"))) == "delivered: 10.244.1.3:8080 as 192.168.0.170, 10.244.2.3:8080"
    assert said(expect(routed, flow(POD, "10.244.1.1:22"))) == "dropped"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("fabric", "detect", "pods_are_told_apart"),
    [
        ("bridge", {"detect_local": "NodeCIDR"}, True),
        ("bridge", {"detect_local": "BridgeInterface"}, True),
        ("bridge", {"detect_local": "BridgeInterface", "bridge_interface": "docker0"}, False),
        ("bridge", {"detect_local": "InterfaceNamePrefix"}, False),  # the node's stack sees cni0, not the veth
        ("bridge", {"detect_local": "InterfaceNamePrefix", "interface_name_prefix": "cni"}, True),
        ("routed", {"detect_local": "InterfaceNamePrefix"}, True),
        ("routed", {"detect_local": "BridgeInterface"}, False),
    ],
)
def test_detectors(mode: str, fabric: str, detect: dict[str, Any], pods_are_told_apart: bool) -> None:
    world = cluster(mode, fabric=fabric, **detect)
    masqueraded = {b.masqueraded for b in expect_at(world, "node-170", flow(POD, "10.96.0.80:80"), "pod").backends}
    assert masqueraded == {not pods_are_told_apart}
    from_node = expect_at(world, "node-170", flow(NODE, "10.96.0.80:80"), "node")
    assert {b.masqueraded for b in from_node.backends} == {True}
    from_outside = expect_at(world, "node-170", flow(HOST, "10.96.0.80:80"), "external")
    assert {b.masqueraded for b in from_outside.backends} == {True}


NETWORK = {"lan": (ip_network("192.168.0.0/24"),), "all": (ip_network("0.0.0.0/0"),), "loopback": (ip_network("127.0.0.0/8"),),
           "elsewhere": (ip_network("10.9.0.0/16"),), "other family": (ip_network("fd00::/8"),)}  # fmt: skip
PLACES = ("192.168.0.170", "10.244.1.1", "127.0.0.1", "127.0.0.2")
SERVED = {
    # setting: (places served by iptables, by nftables), each as a string of 0 and 1 in the order of PLACES
    None: ("1111", "1000"),
    "primary": ("1000", "1000"),
    "lan": ("1000", "1000"),
    "all": ("1111", "1100"),
    "loopback": ("0010", "0000"),
    "elsewhere": ("0000", "0000"),
    "other family": ("1111", "1100"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("setting", SERVED)
def test_node_port_addresses(mode: str, setting: str | None) -> None:
    given = NETWORK.get(setting, setting) if setting else None
    world = cluster(mode, node_port_addresses=given)
    served = ""
    for place in PLACES:
        source = "127.0.0.1" if place.startswith("127") else ADDRESSES[NODE]
        outcome = expect_at(world, "node-170", flow(NODE, f"{place}:30080", source=source), "node")
        served += "1" if outcome.kind is DELIVERED else "0"
    assert served == SERVED[setting][MODES.index(mode)]


def test_localhost_node_ports_can_be_switched_off() -> None:
    world = cluster(localhost_node_ports=False)
    at_localhost = flow(NODE, "127.0.0.1:30080", source="127.0.0.1")
    assert expect_at(world, "node-170", at_localhost, "node").kind is NOT_HANDLED
    assert said(expect(world, at_localhost)) == "rejected: 127.0.0.1:30080 rejected"


@pytest.mark.parametrize(("mode", "unserved"), [("iptables", REJECTED), ("nftables", NOT_HANDLED)])
def test_iptables_refuses_a_node_port_without_endpoints_at_every_address(mode: str, unserved: OutcomeKind) -> None:
    """Its rule in KUBE-EXTERNAL-SERVICES asks for a local address, not for one of nodePortAddresses."""
    world = cluster(mode, node_port_addresses="primary")
    assert expect_at(world, "node-170", flow(HOST, "192.168.0.170:30084"), "external").kind is REJECTED
    assert expect_at(world, "node-170", flow(HOST, "10.244.1.1:30084"), "external").kind is unserved


def test_senders_that_cannot_be() -> None:
    for sender in (Ref("pod", "default", "nobody"), Ref("node", "", "nobody"), Ref("host", "", "nobody")):
        with pytest.raises(KeyError):
            expect(cluster(), replace(flow(POD, "10.96.0.80:80"), sender=sender))
    unplaced = Pod(Meta("new", "default"), PodSpec((Container("main"),)))
    with pytest.raises(KeyError, match="no address yet"):
        expect(cluster(pods=(*PODS, unplaced)), replace(flow(POD, "10.96.0.80:80"), sender=unplaced.ref))


def test_a_host_network_pod_sends_as_its_node() -> None:
    agent = replace(flow(POD, "10.96.0.80:80"), sender=Ref("pod", "default", "agent"), source=ip_address("192.168.0.171"))
    assert said(expect(cluster(), agent)) == "delivered: 10.244.1.3:8080 as 192.168.0.171, 10.244.2.3:8080 as 10.244.2.1"


def test_the_oracle_knows_no_planner_and_no_tracer() -> None:
    import ast
    from pathlib import Path

    import netlab.endpoints
    import netlab.expect

    files = [*Path(netlab.expect.__file__).parent.glob("*.py"), Path(netlab.endpoints.__file__)]
    assert len(files) == 11
    allowed = {
        "netlab.model",
        "netlab.memory",
        "netlab.endpoints",
        "netlab.ipam",
        "netlab.overlay",
        "netlab.images",
        "netlab.ingresses",
    }
    for file in files:
        for tree in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(tree, ast.ImportFrom) and (tree.module or "").startswith("netlab"):
                names = {f"netlab.{alias.name}" for alias in tree.names} if tree.module == "netlab" else {tree.module or ""}
                assert all(name in allowed or name.startswith("netlab.expect") for name in names), (file.name, names)
