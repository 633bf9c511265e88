"""The oracle and the rules, asked the same of clusters made at random: they share no code and must agree.

What is varied: modes, fabrics, detectors, nodePortAddresses, policies, conditions, hints, source ranges, odd endpoints, routes.
A seed is a cluster; a failing one is run alone with `-k`. It is asked from every kind of place to every kind of address.
"""

import random
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from netlab.expect import expect
from netlab.ipam import host_device, lan_port
from netlab.judge import disagreement
from netlab.model import (
    Address,
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
from netlab.plan import build
from netlab.trace import Tracer

SEEDS = range(40)
FLOWS = 120
NODES = {
    "node-a": (("192.168.50.10", "192.168.51.10"), "10.244.1.0/24", "zone-a"),
    "node-b": (("192.168.50.11",), "10.244.2.0/24", "zone-b"),
    "node-c": (("192.168.50.12", "198.18.0.12"), "10.244.3.0/24", "zone-b"),
}
CLIENT = ("192.168.50.100", "203.0.113.50")
FAR = ("192.168.51.101",)
VIPS = ("203.0.113.200", "203.0.113.201", "192.168.50.200", "192.0.2.33", "198.18.0.12")


def maybe(dice: random.Random, chance: float, value: Any, otherwise: Any) -> Any:
    return value if dice.random() < chance else otherwise


def topology(dice: random.Random) -> Topology:
    proxy = ProxyConfig(
        mode=dice.choice(("iptables", "nftables")),
        masquerade_all=dice.random() < 0.2,
        detect_local=dice.choice(("ClusterCIDR", "ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix", "none")),
        node_port_addresses=dice.choice(
            (None, None, "primary", (ip_network("192.168.51.0/24"),), (ip_network("0.0.0.0/0"),), (ip_network("127.0.0.0/8"),))
        ),
        localhost_node_ports=dice.random() < 0.8,
        conntrack_tcp_be_liberal=dice.random() < 0.8,
    )
    routes = tuple(
        (ip_network(text), ip_address(NODES[dice.choice(list(NODES))][0][0]))
        for text in ("10.96.0.0/16", "10.244.0.0/16", "203.0.113.200/30", "192.0.2.33/32")
        if dice.random() < 0.8
    )
    return Topology(
        "random",
        ClusterConfig((ip_network("10.244.0.0/16"),), (ip_network("10.96.0.0/16"),), proxy, dice.choice(("bridge", "routed"))),
        (
            Lan("lan-a", ip_network("192.168.50.0/24"), maybe(dice, 0.9, ip_address("192.168.50.1"), None)),
            Lan("lan-b", ip_network("192.168.51.0/24"), maybe(dice, 0.9, ip_address("192.168.51.1"), None)),
        ),
        (),
        (HostSpec("client", tuple(map(ip_address, CLIENT)), routes), HostSpec("far", tuple(map(ip_address, FAR)))),
    )


def pods(dice: random.Random) -> dict[Key, Pod]:
    found = {}
    for index, (name, (addresses, cidr, _)) in enumerate(NODES.items(), start=1):
        for number in range(dice.randint(1, 3)):
            host_network = dice.random() < 0.1
            address = addresses[0] if host_network else str(ip_network(cidr)[2 + number])
            address = f"10.250.{index}.{number + 2}" if not host_network and dice.random() < 0.1 else address
            ports = tuple(ContainerPort(8080, protocol=p) for p in (Protocol.TCP, Protocol.UDP) if dice.random() < 0.8)
            container = Container("main", ports=ports, command=maybe(dice, 0.1, ("sleep", "1000"), ()))
            key = Key("default", f"pod-{index}-{number}")
            spec = PodSpec((container,), name, host_network=host_network)
            found[key] = Pod(
                Meta(key.name, "default"), spec, name, (ip_address(address),), phase="Running", ready=True, serving=True
            )
    return found


def endpoint(dice: random.Random, pod: Pod) -> Endpoint:
    return Endpoint(
        pod.addresses,
        dice.choice((None, True, True, True, False)),
        dice.choice((None, True, False)),
        dice.choice((None, False, False, True)),
        maybe(dice, 0.95, pod.node, None),
        target=pod.ref,
        zone_hints=maybe(dice, 0.5, (dice.choice(("zone-a", "zone-b")),), ()),
        node_hints=maybe(dice, 0.3, (dice.choice(list(NODES)),), ()),
    )


def service(dice: random.Random, index: int, known: dict[Key, Pod]) -> tuple[Service, EndpointSlice]:
    kind = dice.choice((ServiceType.CLUSTER_IP, ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER))
    node_port = 30000 + index if kind is not ServiceType.CLUSTER_IP else None
    ports = [ServicePort(80, "http", node_port=node_port)]
    if dice.random() < 0.5:
        ports.append(ServicePort(80, "udp", Protocol.UDP, node_port=node_port))
    vips = iter(dice.sample(VIPS, 2)) if index == 0 else iter(())
    balanced = kind is ServiceType.LOAD_BALANCER and dice.random() < 0.9
    made = Service(
        Meta(f"s{index}", "default"),
        kind,
        (ip_address(f"10.96.0.{10 + index}"),),
        ports=tuple(ports),
        session_affinity=dice.choice(("None", "ClientIP")),
        external_traffic_policy=dice.choice(("Cluster", "Local")),
        internal_traffic_policy=dice.choice(("Cluster", "Cluster", "Local")),
        external_ips=tuple(ip_address(vip) for vip in vips) if dice.random() < 0.7 else (),
        load_balancer=(LoadBalancerIngress(ip_address(f"203.0.113.{202 + index}")),) if balanced else (),
        source_ranges=maybe(dice, 0.3, (ip_network("203.0.113.0/25"), ip_network("192.168.50.0/24")), ()),
    )
    chosen = dice.sample(sorted(known), dice.randint(0, min(4, len(known))))
    endpoints = [endpoint(dice, known[key]) for key in chosen]
    if dice.random() < 0.15:
        outside = dice.choice(("192.168.50.100", "8.8.8.8", "10.244.2.77", "192.168.50.11", "192.168.51.101"))
        endpoints.append(Endpoint((ip_address(outside),)))
    target = dice.choice((8080, 8080, 8080, 81))
    parts = (SlicePort("http", target), SlicePort("udp", target, Protocol.UDP))
    return made, EndpointSlice(Meta(f"s{index}", "default"), made.meta.key, endpoints=tuple(endpoints), ports=parts)


def cluster(dice: random.Random) -> Cluster:
    known = pods(dice)
    made = [service(dice, index, known) for index in range(dice.randint(1, 4))]
    nodes = {
        name: Node(
            Meta(name, labels={"topology.kubernetes.io/zone": zone}), tuple(map(ip_address, addresses)), (ip_network(cidr),)
        )
        for name, (addresses, cidr, zone) in NODES.items()
    }
    return Cluster(
        topology(dice),
        nodes=nodes,
        pods=known,
        services={s.meta.key: s for s, _ in made},
        slices={part.meta.key: part for _, part in made},
        links_down=faults(dice, known) if dice.random() < 0.3 else frozenset(),
    )


def faults(dice: random.Random, known: dict[Key, Pod]) -> frozenset[tuple[str, str]]:
    links = [(str(pod.ref), "eth0") for pod in known.values() if not pod.spec.host_network]
    links += [(f"node/{pod.node}", host_device(str(pod.ref))) for pod in known.values() if not pod.spec.host_network]
    links += [(f"node/{name}", "eth0") for name in NODES] + [("node/node-a", "eth1"), ("host/client", "eth0")]
    links += [("router/router", "eth0"), *(("lan/lan-a", lan_port(f"node/{name}")) for name in NODES)]
    return frozenset(dice.sample(links, 2))


def senders(world: Cluster) -> list[tuple[Ref, Address]]:
    found = [(pod.ref, pod.addresses[0]) for pod in world.pods.values()]
    found += [(Ref("node", "", name), node.addresses[0]) for name, node in world.nodes.items()]
    found += [(Ref("host", "", "client"), ip_address(address)) for address in CLIENT]
    return [*found, (Ref("host", "", "far"), ip_address(FAR[0]))]


def destinations(world: Cluster) -> list[tuple[Address, int]]:
    services = list(world.services.values())
    ports = [80, 81, 8080, *(p.node_port for s in services for p in s.ports if p.node_port)]
    addresses = [a for s in services for a in (*s.cluster_ips, *s.external_ips, *(i.ip for i in s.load_balancer if i.ip))]
    addresses += [a for node in world.nodes.values() for a in node.addresses]
    addresses += [a for pod in world.pods.values() for a in pod.addresses]
    others = ("10.244.1.1", "10.244.2.77", "10.244.77.7", "10.96.7.7", "8.8.8.8", "192.168.50.1", "192.168.50.77")
    addresses += [ip_address(text) for text in (*CLIENT, *FAR, *others)]
    return [(address, port) for address in addresses for port in ports]


def flows(dice: random.Random, world: Cluster) -> list[Flow]:
    found = []
    everywhere, somewhere = senders(world), destinations(world)
    for _ in range(FLOWS):
        (sender, source), (address, port) = dice.choice(everywhere), dice.choice(somewhere)
        protocol = dice.choice((Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.ICMP))
        found.append(Flow(sender, source, address, 0 if protocol is Protocol.ICMP else port, protocol))
    for node, port in ((Ref("node", "", name), port) for name in world.nodes for port in (30000, 30001, 22)):
        found.append(Flow(node, ip_address("127.0.0.1"), ip_address("127.0.0.1"), port))
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_oracle_and_rules_agree(seed: int) -> None:
    dice = random.Random(seed)
    world = cluster(dice)
    tracer = Tracer(build(world))
    problems = []
    for flow in flows(dice, world):
        expected, traced = expect(world, flow), tracer.trace(flow).outcome
        difference = disagreement(expected, traced)
        if difference or shown(expected) != shown(traced) or not sources_fit(expected, traced):
            problems.append(f"{flow}\n  expect {expected}\n  trace  {traced}\n  {difference}")
    assert not problems, f"{len(problems)} differ, {world.topology.cluster}\n" + "\n".join(problems[:3])


def shown(outcome: Outcome) -> tuple[Any, ...]:
    """All that a client and a receiver can tell, without the words."""
    return outcome.kind, outcome.backends, [backend.fate for backend in outcome.backends], outcome.affinity


def sources_fit(expected: Outcome, traced: Outcome) -> bool:
    """The rules' source is one of those that the oracle allows."""
    pairs = zip(expected.backends, traced.backends, strict=True)
    return all(set(theirs.sources) <= set(ours.sources) for ours, theirs in pairs if ours.fate is not OutcomeKind.DROPPED)
