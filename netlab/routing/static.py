"""Routing `static`: every route is written down, as the field's articles do with `ip route add`.

Decides: the routes of router, nodes and hosts. A node reaches another's podCIDR through that node's address in a LAN that
both are in; addresses of a host that lie in no LAN are reached through the node that is the host's own gateway, if it has
one. Nodes that share no LAN do not reach each other's pods, because the router knows no pod network. The router silently
drops what it does not know, as a real network does: what no rule handles then ends in silence, not in "network is
unreachable".
"""

from collections.abc import Iterator
from dataclasses import dataclass

from netlab import ipam
from netlab.errors import InputError
from netlab.ipam import Attachment
from netlab.model import Address, Cluster, HostSpec, Network, Node, Ref, Topology
from netlab.ops import Op, Route

NAME = "static"
ROUTER = "router/router"


@dataclass(frozen=True, slots=True)
class _Machine:
    """`behind` are the networks that are reached through this machine: its podCIDRs, and the addresses that lie in no LAN."""

    ref: Ref
    attachments: tuple[Attachment, ...]
    elsewhere: tuple[Network, ...]
    pods: tuple[Network, ...] = ()


def plan(cluster: Cluster, pods: bool = True) -> tuple[Op, ...]:
    """The routes, in an order in which each gateway is reachable. The first route to a destination wins.

    `pods` False: without those from one node to another's pods, which another routing then makes in its own way.
    """
    routes: dict[tuple[str, Network], Route] = {}
    for route in _routes(cluster, pods):
        routes.setdefault((route.netns, route.destination), route)
    return tuple(routes.values())


def _routes(cluster: Cluster, pods: bool) -> Iterator[Route]:
    topology = cluster.topology
    networks = pod_networks(cluster) if pods else {}
    nodes = [_node(topology, node, networks.get(node.meta.name, ())) for node in cluster.nodes.values()]
    hosts = [_host(topology, host) for host in topology.hosts]
    router = ipam.router_attachments(topology)
    if router:
        for machine in (*nodes, *hosts):
            yield from _through(ROUTER, router, machine, machine.elsewhere)
        for network in _defaults(topology):
            yield Route(ROUTER, network, type="blackhole")
    for node in nodes:
        for other in nodes:
            if other.ref != node.ref:
                yield from _through(str(node.ref), node.attachments, other, (*other.pods, *other.elsewhere))
        for spec, host in zip(topology.hosts, hosts, strict=True):
            gateway = next((one for one in nodes if one.ref == _way_in(spec, nodes)), None)
            through = host if gateway is None or gateway.ref == node.ref else gateway
            yield from _through(str(node.ref), node.attachments, through, host.elsewhere)
        yield from _default(topology, node)
    for spec, host in zip(topology.hosts, hosts, strict=True):
        yield from _own_routes(spec, host)
        yield from _default(topology, host)


def _way_in(spec: HostSpec, nodes: list[_Machine]) -> Ref | None:
    """The node through which all routes of a host lead. What the host sends from an address of no LAN is answered that way,
    too: the node that rewrote a packet must see the answer, or the client is answered by a stranger."""
    gateways = {gateway for _, gateway in spec.routes}
    for node in nodes:
        if gateways and gateways <= {address for one in node.attachments for address in one.addresses}:
            return node.ref
    return None


def _node(topology: Topology, node: Node, behind: tuple[Network, ...]) -> _Machine:
    elsewhere = tuple(map(ipam.host_route, ipam.off_lan(topology, node.addresses)))
    attachments = ipam.attachments(topology, node.addresses)
    return _Machine(Ref("node", "", node.meta.name), attachments, elsewhere, behind)


def _host(topology: Topology, host: HostSpec) -> _Machine:
    elsewhere = tuple(map(ipam.host_route, ipam.off_lan(topology, host.addresses)))
    return _Machine(Ref("host", "", host.name), ipam.attachments(topology, host.addresses), elsewhere)


def pod_networks(cluster: Cluster) -> dict[str, tuple[Network, ...]]:
    """Behind which networks each node's pods are: its podCIDRs, and a host route for each pod whose address lies outside."""
    found = {name: node.pod_cidrs for name, node in cluster.nodes.items()}
    for pod in cluster.pods.values():
        node = cluster.nodes.get(pod.node)
        if node is None or pod.spec.host_network or pod.phase in ("Succeeded", "Failed"):
            continue
        for address in pod.addresses:
            if not any(address in network for network in node.pod_cidrs):
                found[pod.node] = (*found[pod.node], ipam.host_route(address))
    return found


def _through(netns: str, own: tuple[Attachment, ...], machine: _Machine, networks: tuple[Network, ...]) -> Iterator[Route]:
    """Routes in `netns` to `networks` through the machine, by the first LAN in which both are."""
    if not networks:
        return
    for attachment in own:
        theirs = next((there for there in machine.attachments if there.lan == attachment.lan), None)
        if theirs is None:
            continue
        for network in networks:
            gateway = _of_family(theirs.addresses, network)
            if gateway is not None and attachment.network_of(gateway):
                yield Route(netns, network, gateway, attachment.device, owner=machine.ref)


def _own_routes(spec: HostSpec, host: _Machine) -> Iterator[Route]:
    for network, gateway in spec.routes:
        device = next((attachment.device for attachment in host.attachments if attachment.network_of(gateway)), None)
        if device is None:
            raise InputError(f"host {spec.name}: the gateway {gateway} of its route to {network} is in none of its networks")
        yield Route(str(host.ref), network, gateway, device, owner=host.ref)


def _default(topology: Topology, machine: _Machine) -> Iterator[Route]:
    """A default route through the router of the first LAN that has one."""
    routers = {(lan.name, router.version): router for lan in topology.networks for router in lan.routers}
    for network in _defaults(topology):
        for attachment in machine.attachments:
            router = routers.get((attachment.lan, network.version))
            if router is not None and attachment.network_of(router):
                yield Route(str(machine.ref), network, router, attachment.device)
                break


def _defaults(topology: Topology) -> tuple[Network, ...]:
    """0.0.0.0/0, ::/0: those whose family some LAN speaks."""
    versions = {cidr.version: cidr for lan in topology.networks for cidr in lan.cidrs}
    return tuple(cidr.supernet(new_prefix=0) for _, cidr in sorted(versions.items()))


def _of_family(addresses: tuple[Address, ...], network: Network) -> Address | None:
    return next((address for address in addresses if address.version == network.version), None)
