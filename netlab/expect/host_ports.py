"""hostPort, as its users understand it: a port of a node that leads to a pod which runs there.

Decides whom it leads to and whose address the pod sees. A Service that has the same port of the node comes first. Refuses to know
how packets travel.
"""

from netlab.expect.policy import Decision, Packet, is_local
from netlab.model import Backend, Cluster, ContainerPort, Node, OutcomeKind, Pod


def decide(cluster: Cluster, node: Node, packet: Packet) -> Decision | None:
    """None where no pod of this node has that port."""
    if not is_local(cluster, node, packet.destination):
        return None
    for pod in reversed(list(cluster.pods.values())):  # the newest wins
        if pod.node == node.meta.name and not pod.spec.host_network and pod.phase in ("Pending", "Running"):
            for port in (port for container in pod.all_containers for port in container.ports if port.host_port):
                if _asks_for(packet, port):
                    return _to(cluster, node, packet, pod, port)
    return None


def _asks_for(packet: Packet, port: ContainerPort) -> bool:
    same = (packet.port, packet.protocol) == (port.host_port, port.protocol)
    return same and port.host_ip in (None, packet.destination)


def _to(cluster: Cluster, node: Node, packet: Packet, pod: Pod, port: ContainerPort) -> Decision | None:
    """With iptables all of the pod's neighbours on the bridge are masqueraded, with nftables only the pod itself."""
    for address in pod.addresses:
        if address.version == packet.destination.version:
            near = packet.source == address or packet.source.is_loopback
            config = cluster.topology.cluster
            if config.proxy.mode != "nftables" and config.fabric == "bridge":
                own = next((cidr for cidr in node.pod_cidrs if address in cidr), None)
                near = near or (own is not None and packet.source in own)
            return Decision(OutcomeKind.DELIVERED, (Backend(address, port.port, near),), why=f"hostPort of {pod.ref}")
    return None
