"""Which policies a node's Service proxy follows: today's (policy.py), those of ipvs, or of the old userspace proxier."""

from netlab.expect import ipvs, policy, userspace
from netlab.expect.policy import Decision, Packet
from netlab.model import Cluster, Node


def decide(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """`device` is the interface that the packet came in through; '' when the node itself sends it."""
    match cluster.topology.cluster.proxy.mode:
        case "userspace":
            return userspace.decide(cluster, node, packet, device)
        case "ipvs":
            return ipvs.decide(cluster, node, packet, device)
        case _:
            return policy.decide(cluster, node, packet, device)
