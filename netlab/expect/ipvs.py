"""What kube-proxy's ipvs mode does with one packet at one node, in Kubernetes' terms; independent of the planner of that mode.

It refuses to know the rest of the lab. Endpoints, hints and terminating ones are chosen as in today's other modes (policy.py);
what is different, and why:
- Every Service address is an address of the node. What is for one but for no port of it is refused; a health check's port is let
  through to whoever listens.
- A Local policy that finds no endpoint here uses what the Cluster policy would (kubernetes/kubernetes#97081). What nobody but
  Local policies asks for has no such endpoints: refused, never dropped.
- Pods and the node itself have no short cut past externalTrafficPolicy Local: they get the node's own endpoints, and keep their
  source address.
- NodePorts are served at every address of the node but localhost.
- Source ranges are asked in INPUT, endpoints or not. The node's own packets do not pass there: of those only what has the load
  balancer's address itself as source is dropped (kubernetes/kubernetes#119656).
- An endpoint of this node that asks itself is masqueraded, one of another node is not.
- Without a detector a node's packet from a Service's own address is masqueraded.
"""

from collections.abc import Iterator
from typing import Literal

from netlab.endpoints import (
    ServiceEndpoint,
    cluster_ip,
    endpoints_of,
    external_ips,
    family_of,
    is_proxied,
    load_balancer_ips,
)
from netlab.expect import claims, policy
from netlab.expect.choice import local_endpoints, usable
from netlab.expect.policy import DELIVERED, DROPPED, NOT_HANDLED, REJECTED, Decision, Frontend, Packet
from netlab.model import Address, Backend, Cluster, Node, Protocol, Service, ServicePort


def decide(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """`device` is the interface that the packet came in through; '' when the node itself sends it."""
    asked = _frontends(cluster, node, packet)
    if not asked:
        return _unclaimed(cluster, node, packet, device)
    frontend = asked[0]
    ranged = [one.service for one in asked if one.kind == "load balancer" and one.service.source_ranges]
    guarded = bool(ranged) and (device != "" or packet.source == packet.destination)
    outside = guarded and not any(policy.in_ranges(service, node, packet.source) for service in ranged)
    why = f"{frontend.name}: {packet.source} is in none of its loadBalancerSourceRanges"
    if outside and device != "":
        return Decision(DROPPED, why=why, routed=False)
    known = endpoints_of(cluster, frontend.service, frontend.port, family_of(packet.destination))
    chosen = _chosen(node, frontend, known)
    if not chosen:
        return Decision(REJECTED, why=f"{frontend.name} has no endpoints that it could use here")
    if outside:  # what the node itself sends meets the virtual server in OUTPUT before the rules there
        return Decision(DROPPED, why=why, routed=False)
    # Rules ask sets of addresses and ports, in which the Services that share one cannot be told apart.
    masquerade = any(_masquerades(cluster, node, packet, device, one) for one in asked)

    def backend(endpoint: ServiceEndpoint) -> Backend:
        hairpin = endpoint.address == packet.source and endpoint.node == node.meta.name
        postrouting = device == "" or not policy.is_local(cluster, node, endpoint.address)
        return Backend(endpoint.address, endpoint.port, (masquerade or hairpin) and postrouting)

    affinity = frontend.service.session_affinity == "ClientIP"
    return Decision(DELIVERED, tuple(sorted(map(backend, chosen))), affinity, spread=_spread(cluster), virtual=True)


def service_addresses(cluster: Cluster, node: Node) -> frozenset[Address]:
    """What kube-ipvs0 has: the addresses of every Service that has a port, but those that are the node's own."""
    found = set()
    for service in cluster.services.values():
        for family in ("IPv4", "IPv6") if is_proxied(service) and service.ports else ():
            own = cluster_ip(service, "IPv4" if family == "IPv4" else "IPv6")
            if own is not None:
                version: Literal["IPv4", "IPv6"] = family_of(own)
                found |= {own, *external_ips(service, version), *load_balancer_ips(service, version)}
    return frozenset(address for address in found if address not in policy.local_addresses(cluster, node))


def _chosen(node: Node, frontend: Frontend, known: tuple[ServiceEndpoint, ...]) -> tuple[ServiceEndpoint, ...]:
    service = frontend.service
    inside = service.internal_traffic_policy == "Local"
    local = inside if frontend.kind == "cluster" else policy.external_local(service)
    if local and (here := local_endpoints(node, known)):
        return here
    # Nothing but the clusterIP, and that Local: nobody has looked for endpoints elsewhere.
    reached = bool(external_ips(service) or external_ips(service, "IPv6")) or any(port.node_port for port in service.ports)
    balanced = bool(load_balancer_ips(service) or load_balancer_ips(service, "IPv6"))
    return () if inside and not (reached or balanced) else usable(node, known)


def _masquerades(cluster: Cluster, node: Node, packet: Packet, device: str, frontend: Frontend) -> bool:
    if packet.source.is_loopback:
        return False
    service = frontend.service
    if _number_is_a_node_port(cluster, packet):
        return True
    if frontend.kind != "cluster":
        return not policy.external_local(service)
    if cluster.topology.cluster.proxy.masquerade_all:
        return True
    from_pod = policy.from_pod(cluster, node, packet.source, device)
    if from_pod is None:
        return packet.source == packet.destination
    return not from_pod


def _number_is_a_node_port(cluster: Cluster, packet: Packet) -> bool:
    """The sets of node ports of TCP and UDP hold numbers alone, and every Service address is an address of the node."""
    if packet.protocol is Protocol.SCTP:
        return False
    owners = [
        service
        for service in cluster.services.values()
        for port in service.ports
        if is_proxied(service) and (port.node_port, port.protocol) == (packet.port, packet.protocol)
    ]
    return bool(owners) and not any(policy.external_local(service) for service in owners)


def _frontends(cluster: Cluster, node: Node, packet: Packet) -> list[Frontend]:
    """Those at Service addresses, the first of which has the virtual server; only without any, those of NodePorts."""
    having = claims.of_address(cluster, packet.destination)
    named = [frontend for service in having for frontend in policy.by_address(service, packet)]
    if named or not policy.is_local(cluster, node, packet.destination):
        return named
    served = _serves_node_ports(cluster, node, packet.destination)
    asked = _node_ports(claims.of_node_port(cluster, packet.port), packet) if served else ()
    return [Frontend("node port", service, port) for service, port in asked]


def _node_ports(services: tuple[Service, ...], packet: Packet) -> Iterator[tuple[Service, ServicePort]]:
    for service in services:
        if cluster_ip(service, family_of(packet.destination)) is not None:
            for port in service.ports:
                if port.node_port and (port.node_port, port.protocol) == (packet.port, packet.protocol):
                    yield service, port


def _serves_node_ports(cluster: Cluster, node: Node, address: Address) -> bool:
    given = cluster.topology.cluster.proxy.node_port_addresses
    if address.is_loopback:
        return False
    if given == "primary":
        return address == next((own for own in node.addresses if own.version == address.version), None)
    networks = [network for network in given or () if network.version == address.version]
    return not networks or any(address in network for network in networks)


def _unclaimed(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """No virtual server is there for it. The rules mark the number of a NodePort at any local address, served or not."""
    if packet.destination in service_addresses(cluster, node) and not _is_health_check(cluster, packet):
        return Decision(REJECTED, why=f"{packet.destination} is a Service's address, and nothing is served at this port of it")
    sent_to_itself = device == "" and policy.is_local(cluster, node, packet.destination) and not packet.source.is_loopback
    marked = sent_to_itself and _number_is_a_node_port(cluster, packet)
    return Decision(NOT_HANDLED, why="no rule handles it", marked=marked)


def _is_health_check(cluster: Cluster, packet: Packet) -> bool:
    return packet.protocol in (Protocol.TCP, Protocol.UDP) and any(
        service.health_check_node_port == packet.port and policy.external_local(service) and is_proxied(service)
        for service in cluster.services.values()
    )


def _spread(cluster: Cluster) -> Literal["turns", "any"]:
    """Round robin takes turns; with weights, connection counts or hashes the shares depend on more than one flow."""
    return "turns" if cluster.topology.cluster.proxy.scheduler == "rr" else "any"
