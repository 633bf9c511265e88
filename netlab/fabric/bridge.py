"""Fabric `bridge`: the pods of a node are ports of its bridge `cni0`, whose address is their gateway.

A pod has its podCIDR's prefix length but no connected route: also its neighbours on the bridge are reached through the node's
IP stack. A reply that went straight across the bridge would miss the node's un-DNAT, as on real nodes without br_netfilter.
"""

from collections.abc import Iterator, Mapping
from itertools import chain

from netlab import ipam, overlay
from netlab.fabric import lan, pods, sysctls
from netlab.memory import kept_for_each
from netlab.model import Address, Cluster, Network, Node, Pod
from netlab.ops import Bridge, DeviceAddress, Neighbour, Op, Route

NAME = "bridge"


def plan(cluster: Cluster) -> tuple[Op, ...]:
    """The namespaces and links of machines, node bridges and pods."""
    ops: list[Op] = list(lan.plan(cluster))
    mtu_bytes = overlay.mtu_bytes(cluster)
    for node in cluster.nodes.values():
        ops.extend(_node_bridge(node, mtu_bytes))
    learned = cluster.topology.cluster.neighbours == "learned"
    rest = (cluster.nodes, cluster.links_down, sysctls.speaks_ipv6(cluster), learned, mtu_bytes)
    return (*ops, *chain.from_iterable(_pod_ops(pods.wired(cluster), rest)))


@kept_for_each
def _pod_ops(pod: Pod, rest: tuple[Mapping[str, Node], frozenset[tuple[str, str]], bool, bool, int]) -> tuple[Op, ...]:
    nodes, links_down, ipv6, learned, mtu_bytes = rest
    node = nodes[pod.node]
    gateways = pods.gateways(pod, node)
    if len(gateways) == len(pod.addresses):
        inside = pods.namespace(pod, node, links_down, ipv6, ipam.NODE_BRIDGE, mtu_bytes)
        return (*inside, *_addresses(pod, node, gateways, learned))
    return (*pods.namespace(pod, node, links_down, ipv6, "", mtu_bytes), *pods.routed_addresses(pod, node))


def _node_bridge(node: Node, mtu_bytes: int) -> Iterator[Op]:
    if not node.pod_cidrs:
        return
    netns = f"node/{node.meta.name}"
    yield Bridge(netns, ipam.NODE_BRIDGE, ipam.mac(netns, ipam.NODE_BRIDGE), mtu_bytes)
    for network in node.pod_cidrs:
        gateway = network[1] if network.num_addresses > 2 else network[0]
        yield DeviceAddress(netns, ipam.NODE_BRIDGE, gateway, network.prefixlen)


def _addresses(pod: Pod, node: Node, gateways: dict[Address, tuple[Network, Address]], learned: bool) -> Iterator[Op]:
    netns, node_ns, device = str(pod.ref), f"node/{node.meta.name}", ipam.POD_DEVICE
    mac, bridge_mac = ipam.mac(netns, device), ipam.mac(node_ns, ipam.NODE_BRIDGE)
    for address, (network, gateway) in gateways.items():
        yield DeviceAddress(netns, device, address, network.prefixlen, prefix_route=False)
        yield Route(netns, ipam.host_route(gateway), device=device)
        yield Route(netns, network, gateway=gateway, device=device)
        yield Route(netns, pods.EVERYWHERE[address.version], gateway=gateway, device=device)
        if not learned:
            yield Neighbour(netns, device, gateway, bridge_mac)
            yield Neighbour(node_ns, ipam.NODE_BRIDGE, address, mac)
