"""The overlay of `cluster.routing: vxlan`, as flannel's vxlan backend builds it: names, numbers, addresses, sizes.

Decides: the device `flannel.1` of every node that has a podCIDR, which address it has (the first of each podCIDR), between which
addresses of nodes the packets travel (their InternalIPs, all of one family), and how large a pod's packet may be.
Refuses to know routes and operations.
"""

from netlab.model import Address, Cluster, Node

DEVICE = "flannel.1"
VNI = 1
PORT = 8472
"""Linux's own default and flannel's, older than the assigned 4789."""
LAN_MTU_BYTES = 1500
_OVERHEAD_BYTES = {4: 20 + 8 + 8 + 14, 6: 40 + 8 + 8 + 14}
"""Outer IP header, UDP, VXLAN (RFC 7348, section 5) and the frame's own Ethernet header."""


def is_used(cluster: Cluster) -> bool:
    return cluster.topology.cluster.routing == "vxlan"


def version(cluster: Cluster) -> int:
    """The family in which the packets travel between nodes: that of the first node's InternalIP."""
    return next((node.addresses[0].version for node in cluster.nodes.values() if node.addresses), 4)


def underlay(cluster: Cluster, node: Node) -> Address | None:
    """The node's end of every tunnel; None when it takes no part (no podCIDR, or no address of the family)."""
    family = version(cluster)
    return next((address for address in node.addresses if address.version == family), None) if node.pod_cidrs else None


def addresses(cluster: Cluster, node: Node) -> tuple[Address, ...]:
    """The addresses of the node's overlay device; () when it has none."""
    if not is_used(cluster) or underlay(cluster, node) is None:
        return ()
    return tuple(cidr.network_address for cidr in node.pod_cidrs)


def mtu_bytes(cluster: Cluster) -> int:
    """The MTU of pods, and of the overlay: 1450, over IPv6 1430; 1500 without an overlay."""
    return LAN_MTU_BYTES - (_OVERHEAD_BYTES[version(cluster)] if is_used(cluster) else 0)
