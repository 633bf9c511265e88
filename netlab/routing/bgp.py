"""Routing `bgp`: every node and the LANs' router run BIRD, and tell each other what is behind them.

Decides: who talks to whom (each node with the router of its first LAN that has one, over each family that both speak, as with a
top-of-rack router; nodes do not talk to each other), who announces what, and which routes are expected to be learned. A node
announces its podCIDRs, the service CIDRs and the load balancers' addresses that it serves. The router believes that, has one
equal-cost route over all nodes where several announce the same, and passes podCIDRs on; nodes believe nothing else, because
Services they serve themselves. Between nodes of one LAN a packet goes straight (the router passes the next hop on unchanged,
RFC 4271 5.1.3), between LANs through the router.

What a Service address does not claim would go from node to router and back until its TTL ends: a rule on every node drops it
when it is forwarded (as Calico's serviceLoopPrevention does). Everything else is routed as in `static`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from netlab import ipam
from netlab.errors import InputError
from netlab.ipam import Attachment
from netlab.model import Address, Cluster, Network, Node
from netlab.ops import Daemon, Learned, Op, Ruleset, Sysctl
from netlab.rendering import bird
from netlab.routing import announcing, static
from netlab.ruleset import Base, Chain, Destination, Drop, Family, Hook, Rule, Table
from netlab.ruleset import Ruleset as RulesetValue

NAME = "bgp"
ROUTER_AS, FIRST_NODE_AS, LAST_AS = 64512, 64513, 65534
"""Numbers for private use (RFC 6996). Each node has one of its own, or it would not believe what another announced."""
_HASH_POLICY = {4: "net/ipv4/fib_multipath_hash_policy", 6: "net/ipv6/fib_multipath_hash_policy"}
_AFTER_THE_PROXY = 10


@dataclass(frozen=True, slots=True)
class _Peering:
    """A node and the router as neighbours on one LAN, in one family. `up`: nothing of the links between them is set down."""

    node: Node
    number: int
    lan: str
    device: str
    address: Address
    router_device: str
    router: Address
    up: bool

    @property
    def version(self) -> int:
        return self.address.version


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """The static routes but those to pods, the daemons, and what they will have learned. Raises: InputError."""
    if len(cluster.nodes) > LAST_AS - FIRST_NODE_AS:
        raise InputError(f"routing bgp: there are private AS numbers for {LAST_AS - FIRST_NODE_AS} nodes only")
    peerings = tuple(_peerings(cluster))
    pods = static.pod_networks(cluster)
    return (
        *static.plan(cluster, pods=False),
        *_daemons(cluster, peerings, pods),
        *(Sysctl(static.ROUTER, _HASH_POLICY[version], "1") for version in sorted({one.version for one in peerings})),
        *_at_router(cluster, peerings, pods),
        *_at_nodes(peerings, pods),
        *_loop_guards(cluster),
    )


def _peerings(cluster: Cluster) -> Iterator[_Peering]:
    routers = {one.lan: one for one in ipam.router_attachments(cluster.topology)}
    for number, node in enumerate(cluster.nodes.values()):
        own = ipam.attachments(cluster.topology, node.addresses)
        found = [peering for version in (4, 6) for peering in _of(cluster, node, number, own, routers, version)[:1]]
        if not found:
            raise InputError(
                f"routing bgp: node {node.meta.name} is in no network with a router, to which it could announce anything"
            )
        yield from found


def _of(
    cluster: Cluster, node: Node, number: int, own: tuple[Attachment, ...], routers: dict[str, Attachment], version: int
) -> list[_Peering]:
    """Every LAN in which node and router have addresses of the family, in the topology's order."""
    found = []
    for one in own:
        there = routers.get(one.lan)
        address = next((address for address in one.addresses if address.version == version), None)
        router = next((address for address in there.addresses if address.version == version), None) if there else None
        if address is not None and there is not None and router is not None:
            ends = ((f"node/{node.meta.name}", one.device), (static.ROUTER, there.device))
            ports = tuple((f"lan/{one.lan}", ipam.lan_port(end)) for end, _ in ends)
            up = not cluster.links_down.intersection((*ends, *ports))
            found.append(_Peering(node, number, one.lan, one.device, address, there.device, router, up))
    return found


# ---------------------------------------------------------------- what is told


def _announced(cluster: Cluster, node: Node, pods: dict[str, tuple[Network, ...]]) -> tuple[Network, ...]:
    return (*pods[node.meta.name], *cluster.topology.cluster.service_cidrs, *_balanced(cluster, node.meta.name))


def _balanced(cluster: Cluster, name: str) -> tuple[Network, ...]:
    """The load balancers' addresses that the node announces."""
    config = cluster.topology.cluster.load_balancer
    if config is None or config.announce != "bgp":
        return ()
    served = (service for service in cluster.services.values() if name in service.announced_by)
    return tuple(ipam.host_route(one.ip) for service in served for one in service.load_balancer if one.ip in config and one.ip)


def _daemons(cluster: Cluster, peerings: tuple[_Peering, ...], pods: dict[str, tuple[Network, ...]]) -> Iterator[Daemon]:
    inside = _pod_networks(cluster, pods)
    everything = (*inside, *cluster.topology.cluster.service_cidrs, *announcing.networks(cluster))
    at_router = tuple(_session(one, inside, everything, to_node=True) for one in peerings)
    yield _daemon(static.ROUTER, (), at_router, peerings[0].router if peerings else None, 0)
    for number, (name, node) in enumerate(cluster.nodes.items(), 1):
        own = [one for one in peerings if one.node.meta.name == name]
        announced = _announced(cluster, node, pods)
        sessions = tuple(_session(one, announced, inside, to_node=False) for one in own)
        yield _daemon(f"node/{name}", announced, sessions, own[0].address, number)


def _pod_networks(cluster: Cluster, pods: dict[str, tuple[Network, ...]]) -> tuple[Network, ...]:
    """What covers every pod: the cluster's podCIDRs, and what lies outside them (nodes and pods of a dump)."""
    whole = cluster.topology.cluster.pod_cidrs
    outside = (
        network
        for networks in pods.values()
        for network in networks
        if not any(network.version == one.version and network.network_address in one for one in whole)
    )
    return (*whole, *dict.fromkeys(outside))


def _session(one: _Peering, sends: tuple[Network, ...], accepts: tuple[Network, ...], to_node: bool) -> bird.Session:
    of_family = tuple(tuple(net for net in networks if net.version == one.version) for networks in (accepts, sends))
    node_as = FIRST_NODE_AS + one.number
    if to_node:
        name = f"node{one.number}_ipv{one.version}"
        return bird.Session(name, one.router, ROUTER_AS, one.address, node_as, of_family[0], of_family[1], passive=True)
    return bird.Session(f"router_ipv{one.version}", one.address, node_as, one.router, ROUTER_AS, of_family[0], of_family[1])


def _daemon(
    netns: str, announced: tuple[Network, ...], sessions: tuple[bird.Session, ...], address: Address | None, number: int
) -> Daemon:
    router_id = address if isinstance(address, IPv4Address) else IPv4Address("0.0.0.1") + number
    text = bird.config(router_id, announced, sessions)
    return Daemon(netns, "bird", bird.COMMAND, ((bird.CONFIG, text),), ready=bird.SOCKET)


# ---------------------------------------------------------------- what is learned


def _at_router(cluster: Cluster, peerings: tuple[_Peering, ...], pods: dict[str, tuple[Network, ...]]) -> Iterator[Learned]:
    hops: dict[Network, list[tuple[Address, str]]] = {}
    for one in peerings:
        for network in _announced(cluster, one.node, pods) if one.up else ():
            if network.version == one.version:
                hops.setdefault(network, []).append((one.address, one.router_device))
    for network, ways in hops.items():
        yield Learned(static.ROUTER, network, tuple(ways))


def _at_nodes(peerings: tuple[_Peering, ...], pods: dict[str, tuple[Network, ...]]) -> Iterator[Learned]:
    alive = [one for one in peerings if one.up]
    for own in alive:
        for other in alive:
            if other.node.meta.name == own.node.meta.name or other.version != own.version:
                continue
            gateway = other.address if other.lan == own.lan else own.router
            for network in pods[other.node.meta.name]:
                if network.version == own.version:
                    yield Learned(f"node/{own.node.meta.name}", network, ((gateway, own.device),))


# ---------------------------------------------------------------- what goes round in circles


def _loop_guards(cluster: Cluster) -> Iterator[Ruleset]:
    """Behind the proxy's own rules, which refuse what has no endpoints."""
    families: tuple[tuple[Family, int], ...] = (("ip", 4), ("ip6", 6))
    networks = (*cluster.topology.cluster.service_cidrs, *announcing.networks(cluster))
    tables = []
    for family, version in families:
        own = tuple(network for network in networks if network.version == version)
        if own:
            tables.append(Table(family, "netlab-routing", (_guard(own),)))
    for name in cluster.nodes:
        yield Ruleset(f"node/{name}", RulesetValue("nftables", tuple(tables)))


def _guard(networks: tuple[Network, ...]) -> Chain:
    rule = Rule((Destination(networks),), (Drop(),), "no Service took it: it would come back for ever")
    return Chain("forward", (rule,), Base(Hook.FORWARD, "filter", _AFTER_THE_PROXY))
