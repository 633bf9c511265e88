"""Which policies a node's Service proxy follows: today's (policy.py), those of ipvs, or of the old userspace proxier."""

from netlab.expect import host_ports, ipvs, policy, userspace
from netlab.expect.policy import Decision, Packet
from netlab.model import Cluster, Node, OutcomeKind


def decide(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """`device` is the interface that the packet came in through; '' when the node itself sends it."""
    decision = _by_services(cluster, node, packet, device)
    # The guard of localhost (policy.py) is in the filter table, behind the rewriting.
    unhandled = decision.kind is OutcomeKind.NOT_HANDLED or (
        decision.kind is OutcomeKind.DROPPED and packet.destination.is_loopback
    )
    return (unhandled and host_ports.decide(cluster, node, packet)) or decision


def _by_services(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    match cluster.topology.cluster.proxy.mode:
        case "userspace":
            return userspace.decide(cluster, node, packet, device)
        case "ipvs":
            return ipvs.decide(cluster, node, packet, device)
        case _:
            return policy.decide(cluster, node, packet, device)
