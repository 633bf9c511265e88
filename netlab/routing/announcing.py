"""How the addresses of load balancers are found on a LAN (`loadBalancer: {announce: l2}`), whatever the routing.

Decides: which node answers for which address on which LAN, as the controller chose it, that the router knows a pool that lies
in no network to be there, and that two parted machines do not meet by way of such an address. Refuses to know ARP (see
agents/speaker.py), and `announce: bgp`, where nodes tell the router.
"""

from collections.abc import Iterator
from ipaddress import summarize_address_range

from netlab import ipam
from netlab.model import Address, Cluster, Network
from netlab.ops import Announcement, Neighbour, Op, Route

ROUTER = "router/router"


def plan(cluster: Cluster) -> Iterator[Op]:
    """Nothing without a pool, and nothing when BGP announces it."""
    config = cluster.topology.cluster.load_balancer
    if config is None or config.announce != "l2":
        return
    for service in cluster.services.values():
        for name in service.announced_by:
            for ingress in service.load_balancer:
                if ingress.ip is not None and ingress.ip in config:
                    for answer in _answer(cluster, name, ingress.ip):
                        yield answer
                        if cluster.apart:
                            yield from _unheard(cluster, answer)
    yield from _at_router(cluster)


def _answer(cluster: Cluster, name: str, address: Address) -> Iterator[Announcement]:
    lan = ipam.announcing_lan(cluster.topology, address)
    netns = f"node/{name}"
    for leg in ipam.attachments(cluster.topology, cluster.nodes[name].addresses):
        source = next((own for own in leg.addresses if own.version == address.version), None)
        if lan is not None and leg.lan == lan.name and source is not None:
            yield Announcement(netns, leg.device, address, ipam.mac(netns, leg.device), source)


def _unheard(cluster: Cluster, answer: Announcement) -> Iterator[Neighbour]:
    """Machines that a fault has parted from the node that answers know a MAC of the address that nobody has, and do not ask."""
    topology = cluster.topology
    hosts = {f"host/{host.name}": host.addresses for host in topology.hosts}
    nodes = {f"node/{node.meta.name}": node.addresses for node in cluster.nodes.values()}
    lan = ipam.announcing_lan(topology, answer.address)
    for pair in sorted(pair for pair in cluster.apart if answer.netns in pair):
        (other,) = set(pair) - {answer.netns}
        for leg in ipam.attachments(topology, {**hosts, **nodes}[other]):
            if lan is not None and leg.lan == lan.name:
                yield Neighbour(other, leg.device, answer.address, ipam.NOBODY)


def networks(cluster: Cluster) -> tuple[Network, ...]:
    """The pool as networks."""
    config = cluster.topology.cluster.load_balancer
    ranges = config.pool if config is not None else ()
    return tuple(network for first, last in ranges for network in summarize_address_range(first, last))


def _at_router(cluster: Cluster) -> Iterator[Route]:
    legs = {one.lan: one for one in ipam.router_attachments(cluster.topology)}
    for network in networks(cluster):
        lan = ipam.announcing_lan(cluster.topology, network.network_address)
        inside = any(
            network.version == cidr.version and network.overlaps(cidr) for one in cluster.topology.networks for cidr in one.cidrs
        )
        if lan is not None and lan.name in legs and not inside:
            yield Route(ROUTER, network, device=legs[lan.name].device)
