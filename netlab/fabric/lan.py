"""The machines and the LANs between them: switches, router, nodes, outside hosts, their interfaces and neighbours.

Decides: which interface stands where, with which MAC. Refuses to know: pods, and routes to anything that is not on a link.
A LAN's switch is a bridge in a namespace of its own, so that the caller's namespace never sees a frame.
"""

from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from itertools import chain

from netlab import ipam
from netlab.fabric import sysctls
from netlab.ipam import Attachment
from netlab.model import Address, Cluster
from netlab.ops import Bridge, DeviceAddress, Neighbour, Netns, Op, Sysctl, Veth

ROUTER = "router/router"


@dataclass(frozen=True, slots=True)
class Machine:
    """Anything with a leg in a LAN. `elsewhere` are its addresses that lie in no LAN: they live on `lo`."""

    netns: str
    attachments: tuple[Attachment, ...]
    elsewhere: tuple[Address, ...]
    sysctls: tuple[Sysctl, ...]


def plan(cluster: Cluster) -> Iterator[Op]:
    """The ops of switches, router, nodes and hosts."""
    machines = tuple(_machines(cluster))
    for lan in cluster.topology.networks:
        netns = f"lan/{lan.name}"
        yield Netns(netns)
        yield from sysctls.of_switch(netns)
        yield Bridge(netns, ipam.LAN_BRIDGE, ipam.mac(netns, ipam.LAN_BRIDGE))
    for machine in machines:
        yield Netns(machine.netns)
        yield from machine.sysctls
        for attachment in machine.attachments:
            yield from _leg(cluster, machine.netns, attachment)
        for address in machine.elsewhere:
            yield DeviceAddress(machine.netns, "lo", address, address.max_prefixlen)
    if cluster.topology.cluster.neighbours == "permanent":
        yield from _neighbours(machines, cluster.apart)


def _machines(cluster: Cluster) -> Iterator[Machine]:
    topology = cluster.topology
    ipv6 = sysctls.speaks_ipv6(cluster)
    routed = ipam.router_attachments(topology)
    if routed:
        yield Machine(ROUTER, routed, (), sysctls.of_router(ROUTER, ipv6))
    for node in cluster.nodes.values():
        netns = f"node/{node.meta.name}"
        settings = sysctls.of_node(netns, ipv6, topology.cluster.proxy.conntrack_tcp_be_liberal)
        yield Machine(netns, ipam.attachments(topology, node.addresses), ipam.off_lan(topology, node.addresses), settings)
    for host in topology.hosts:
        netns = f"host/{host.name}"
        settings = sysctls.of_host(netns, ipv6)
        yield Machine(netns, ipam.attachments(topology, host.addresses), ipam.off_lan(topology, host.addresses), settings)


def _leg(cluster: Cluster, netns: str, attachment: Attachment) -> Iterator[Op]:
    switch, port = f"lan/{attachment.lan}", ipam.lan_port(netns)
    yield Veth(
        netns,
        attachment.device,
        ipam.mac(netns, attachment.device),
        switch,
        port,
        ipam.mac(switch, port),
        peer_master=ipam.LAN_BRIDGE,
        up=(netns, attachment.device) not in cluster.links_down,
        peer_up=(switch, port) not in cluster.links_down,
    )
    if any(network.version == 6 for network in attachment.networks):
        yield Sysctl(netns, f"net/ipv6/conf/{attachment.device}/disable_ipv6", "0")
    for network in attachment.networks:
        for address in attachment.addresses:
            if address in network:
                yield DeviceAddress(netns, attachment.device, address, network.prefixlen)


def _neighbours(machines: Iterable[Machine], apart: Set[tuple[str, str]]) -> Iterator[Op]:
    """On each LAN everyone knows everyone: nothing waits for ARP, and the machine's own neighbour table stays empty.

    Two machines that a fault has parted know a MAC of each other that nobody has.
    """
    legs = [(machine.netns, attachment) for machine in machines for attachment in machine.attachments]
    by_lan: dict[str, list[tuple[str, Attachment, str]]] = {}
    for netns, attachment in legs:
        by_lan.setdefault(attachment.lan, []).append((netns, attachment, ipam.mac(netns, attachment.device)))
    for netns, attachment in legs:
        for other, theirs, mac in by_lan[attachment.lan]:
            if apart and tuple(sorted((netns, other))) in apart:
                mac = ipam.NOBODY
            if other != netns:
                yield from (Neighbour(netns, attachment.device, address, mac) for address in theirs.addresses)


def names_of(cluster: Cluster) -> tuple[str, ...]:
    """The namespaces of the machines that speak IP: router, nodes, hosts."""
    nodes = (f"node/{name}" for name in cluster.nodes)
    hosts = (f"host/{host.name}" for host in cluster.topology.hosts)
    return tuple(chain((ROUTER,) if ipam.router_attachments(cluster.topology) else (), nodes, hosts))
