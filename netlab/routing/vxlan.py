"""Routing `vxlan`: nodes carry each other's pods through an overlay, and the LAN never sees a pod's address.

Decides: the overlay device of each node, and for each other node a route to its podCIDRs, a permanent neighbour entry and a
permanent forwarding entry, so that nothing is learned and nothing flooded (flannel's vxlan backend, as of its version 0.7).
Everything else is routed as in `static`: between LANs too, so that nodes which share no LAN do reach each other's pods.
"""

from collections.abc import Iterator

from netlab import ipam, overlay
from netlab.errors import InputError
from netlab.model import Address, Cluster, Network, Node, Ref
from netlab.ops import DeviceAddress, Forwarding, Neighbour, Op, Route, Vxlan
from netlab.routing import static

NAME = "vxlan"


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """The static routes but those to pods, then the overlay. Raises: InputError when a node has no address for it."""
    return (*static.plan(cluster, pods=False), *_overlay(cluster))


def _overlay(cluster: Cluster) -> Iterator[Op]:
    members = {name: node for name, node in cluster.nodes.items() if node.pod_cidrs}
    ends = {name: _end(cluster, node) for name, node in members.items()}
    networks = static.pod_networks(cluster)
    for name, node in members.items():
        netns = f"node/{name}"
        yield Vxlan(netns, overlay.DEVICE, _mac(name), overlay.VNI, ends[name], overlay.PORT, overlay.mtu_bytes(cluster))
        for address in overlay.addresses(cluster, node):
            yield DeviceAddress(netns, overlay.DEVICE, address, address.max_prefixlen)
        for other in members:
            if other != name:
                yield Forwarding(netns, overlay.DEVICE, _mac(other), ends[other])
                yield from _to(cluster, netns, members[other], networks[other])


def _end(cluster: Cluster, node: Node) -> Address:
    end = overlay.underlay(cluster, node)
    if end is None:
        family = f"IPv{overlay.version(cluster)}"
        raise InputError(f"routing vxlan: node {node.meta.name} has no {family} address, and the overlay runs over {family}")
    return end


def _to(cluster: Cluster, netns: str, node: Node, networks: tuple[Network, ...]) -> Iterator[Op]:
    """What one node needs to reach the pods of another."""
    owner = Ref("node", "", node.meta.name)
    for gateway in overlay.addresses(cluster, node):
        yield Neighbour(netns, overlay.DEVICE, gateway, _mac(node.meta.name))
        for network in networks:
            if network.version == gateway.version:
                yield Route(netns, network, gateway, overlay.DEVICE, onlink=True, owner=owner)


def _mac(name: str) -> str:
    return ipam.mac(f"node/{name}", overlay.DEVICE)
