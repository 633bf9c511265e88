"""What the old userspace proxier does with one packet at one node: taken by the proxy process, or left alone.

Independent of the planner of that mode. What the old proxier never learned does not count here: traffic policies, source ranges,
topology hints, endpoints that serve while terminating, nodePortAddresses, SCTP. It refuses to know the rest of the lab.
"""

from collections.abc import Iterator

from netlab.endpoints import cluster_ip, endpoints_of, external_ips, family_of, load_balancer_ips
from netlab.expect import claims
from netlab.expect.policy import DELIVERED, DROPPED, NOT_HANDLED, REJECTED, Decision, Packet, is_local
from netlab.model import Backend, Cluster, Node, Protocol, Service, ServicePort


def decide(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """`device` is the interface that the packet came in through; '' when the node itself sends it."""
    if packet.protocol not in (Protocol.TCP, Protocol.UDP):
        return Decision(NOT_HANDLED, why=f"the userspace proxy knows no {packet.protocol}")
    own_address = is_local(cluster, node, packet.destination)
    having = claims.of_address(cluster, packet.destination)
    named = [found for service in having for found in _by_address(service, packet, device != "" or own_address)]
    if not named and own_address:
        asked = claims.of_node_port(cluster, packet.port)
        named = [found for service in asked for found in _by_node_port(service, packet)]
    if not named:
        return Decision(NOT_HANDLED, why="no rule handles it")
    service, port = named[0]
    ready = [endpoint for endpoint in endpoints_of(cluster, service, port, family_of(packet.destination)) if endpoint.ready]
    if ready:
        backends = tuple(Backend(endpoint.address, endpoint.port, True) for endpoint in ready)
        return Decision(DELIVERED, backends, service.session_affinity == "ClientIP", relayed=True)
    if packet.protocol is Protocol.TCP:
        return Decision(REJECTED, why=f"{service.ref} has no endpoints: accepted and closed", relayed=True)
    return Decision(DROPPED, why=f"{service.ref} has no endpoints: the proxy process drops datagrams", relayed=True)


def _by_address(service: Service, packet: Packet, external: bool) -> Iterator[tuple[Service, ServicePort]]:
    """`external`: its externalIPs count. What a node sends to an externalIP that is not its own is left alone."""
    family = family_of(packet.destination)
    own = cluster_ip(service, family)
    if own is None:
        return
    addresses = {own, *load_balancer_ips(service, family), *(external_ips(service, family) if external else ())}
    if packet.destination in addresses:
        for port in service.ports:
            if (port.port, port.protocol) == (packet.port, packet.protocol):
                yield service, port


def _by_node_port(service: Service, packet: Packet) -> Iterator[tuple[Service, ServicePort]]:
    for port in service.ports if cluster_ip(service, family_of(packet.destination)) is not None else ():
        if port.node_port and (port.node_port, port.protocol) == (packet.port, packet.protocol):
            yield service, port
