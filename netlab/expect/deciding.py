"""Which policies a node's Service proxy follows: those of today's modes (policy.py), or the old userspace proxier's."""

from netlab.expect import policy, userspace
from netlab.expect.policy import Decision, Packet
from netlab.model import Cluster, Node


def decide(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """`device` is the interface that the packet came in through; '' when the node itself sends it."""
    mode = cluster.topology.cluster.proxy.mode
    if mode == "userspace":
        return userspace.decide(cluster, node, packet, device)
    return policy.decide(cluster, node, packet, device)
