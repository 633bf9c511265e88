"""What one node's Service proxy does with one packet: the policies of Services, in Kubernetes' terms.

It refuses to know the rest of the lab: whether an endpoint exists, and how packets travel.

Where the modes differ, they differ as kube-proxy's modes do (v1.36), for reasons of netfilter that a client can see:
- nftables refuses everything else to a known clusterIP (undeclared ports, ICMP echo) and drops everything to the rest of the
  service CIDR, but only what would be forwarded or was sent by the node. iptables has no such rule: the LAN's router drops it.
- NodePorts: every local address with iptables, 127.0.0.0/8 among them; with nftables the primary address, and never localhost.
- nftables masquerades hairpin traffic only to endpoints of its own node; iptables does it to every endpoint.
- iptables hangs "no endpoints" for external addresses on INPUT and FORWARD, not on OUTPUT: a node's own packet to a load
  balancer's address is not refused but goes out. Its refusal of NodePorts looks at no nodePortAddresses.
- Source ranges of a Service without endpoints: nftables drops, iptables refuses.
- iptables drops what goes to 127.0.0.0/8 from elsewhere, because route_localnet let it in (kubernetes/kubernetes#90259).
Masquerade happens in POSTROUTING, which a packet from outside to a local address does not meet: a backend in the node's own
network namespace (hostNetwork) sees the client's address, whatever the policy.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple, assert_never

from netlab import ipam
from netlab.endpoints import (
    ServiceEndpoint,
    cluster_ip,
    endpoints_of,
    external_ips,
    family_of,
    load_balancer_ips,
)
from netlab.expect import claims
from netlab.expect.choice import last_resort, local_endpoints, usable
from netlab.model import Address, Backend, Cluster, Network, Node, OutcomeKind, Protocol, Service, ServicePort, ServiceType

DELIVERED, REJECTED, DROPPED, NOT_HANDLED = OutcomeKind


@dataclass(frozen=True, slots=True)
class Packet:
    source: Address
    destination: Address
    port: int
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Decision:
    """`routed`: taken at a hook that a packet only meets once a route was found for it. `virtual`: IPVS sends it on.
    `marked`: not handled, but masqueraded all the same.
    """

    kind: OutcomeKind
    backends: tuple[Backend, ...] = ()
    affinity: bool = False
    why: str = ""
    routed: bool = True
    relayed: bool = False
    spread: Literal["random", "turns", "any"] = "random"
    virtual: bool = False
    marked: bool = False


UNCLAIMED = Decision(NOT_HANDLED, why="no rule handles it")


@dataclass(frozen=True, slots=True)
class Frontend:
    """One address and port under which a ServicePort is reached. `unlisted`: a NodePort on an address that does not serve it."""

    kind: Literal["cluster", "external", "load balancer", "node port"]
    service: Service
    port: ServicePort
    unlisted: bool = False

    @property
    def name(self) -> str:
        return f"{self.service.ref}:{self.port.name or self.port.port}"


class _Asked(NamedTuple):
    """A frontend that the packet may be for, with its endpoints."""

    frontend: Frontend
    endpoints: tuple[ServiceEndpoint, ...]

    @property
    def anywhere(self) -> bool:
        """Whether some node has an endpoint that may be used."""
        return any(endpoint.ready or last_resort(endpoint) for endpoint in self.endpoints)


def decide(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """`device` is the interface that the packet came in through; '' when the node itself sends it."""
    if claims.is_nobodys(cluster, packet.destination) and packet.destination not in claims.own_addresses(cluster, node).all:
        return UNCLAIMED
    decision = _decide(cluster, node, packet, device)
    # What the node itself sends meets the guard in OUTPUT, before a refusal for want of endpoints, which hangs on INPUT.
    unguarded = decision.kind is NOT_HANDLED or (decision.kind is REJECTED and device == "")
    if unguarded and packet.destination.is_loopback and not packet.source.is_loopback and _localnet(cluster):
        return Decision(DROPPED, why=f"to {packet.destination} from {packet.source}: blocked, because route_localnet is on")
    return decision


def _decide(cluster: Cluster, node: Node, packet: Packet, device: str) -> Decision:
    """In the order in which a packet meets them: nftables' firewall, the rewriting, iptables' firewall, the refusals.

    Several Services may have one external address and port. A packet is asked of all of them at each stage, so that one which
    has no endpoints leaves it to another that has some.
    """
    family = family_of(packet.destination)
    asked = [_Asked(one, endpoints_of(cluster, one.service, one.port, family)) for one in _frontends(cluster, node, packet)]
    if not asked:
        return _unclaimed(cluster, node, packet)
    if _nftables(cluster):
        first = [one for one in asked if _is_filtered(one.frontend, packet)][:1]
        # Its map of verdicts sends the packet to one Service; another that has the same key is not asked.
        found = _blocked(node, packet, first, False) or _rewritten(cluster, node, packet, device, _with_element(node, asked))
        return found or _refused(cluster, node, packet, device, _in_front(asked, "node port"))
    passing = [one for one in asked if not _is_blocked(one.frontend, node, packet)]
    found = _rewritten(cluster, node, packet, device, passing)
    found = found or _blocked(node, packet, [one for one in asked if one.anywhere], True)
    return found or _refused(cluster, node, packet, device, _in_front(asked, "cluster"))


def _in_front(asked: list[_Asked], kind: str) -> list[_Asked]:
    """The order of refusals: those of this kind come first."""
    return sorted(asked, key=lambda one: one.frontend.kind != kind)


def _is_filtered(frontend: Frontend, packet: Packet) -> bool:
    return frontend.kind == "load balancer" and bool(_ranges(frontend.service, packet.source.version))


def _is_blocked(frontend: Frontend, node: Node, packet: Packet) -> bool:
    return frontend.kind == "load balancer" and not in_ranges(frontend.service, node, packet.source)


def _blocked(node: Node, packet: Packet, asked: list[_Asked], routed: bool) -> Decision | None:
    """What loadBalancerSourceRanges drop."""
    name = next((one.frontend.name for one in asked if _is_blocked(one.frontend, node, packet)), None)
    if name is None:
        return None
    return Decision(DROPPED, why=f"{name}: {packet.source} is in none of its loadBalancerSourceRanges", routed=routed)


def _with_element(node: Node, asked: list[_Asked]) -> list[_Asked]:
    """The first that nftables' maps of verdicts know."""

    def has(one: _Asked) -> bool:
        inside = one.frontend.kind == "cluster" and one.frontend.service.internal_traffic_policy == "Local"
        return bool(local_endpoints(node, one.endpoints)) if inside else one.anywhere

    return [one for one in asked if has(one)][:1]


def _rewritten(cluster: Cluster, node: Node, packet: Packet, device: str, asked: list[_Asked]) -> Decision | None:
    """What the first does that has an endpoint for this packet."""
    for one in asked:
        decision = _by_policy(cluster, node, packet, device, one) if one.anywhere else None
        if decision is not None and decision.kind is DELIVERED:
            return decision
    return None


def _refused(cluster: Cluster, node: Node, packet: Packet, device: str, asked: list[_Asked]) -> Decision:
    """What was not rewritten is refused by the first that says so."""
    left = UNCLAIMED
    for one in asked:
        of_one = _by_policy if one.anywhere else _endless
        decision = of_one(cluster, node, packet, device, one)
        if decision.kind in (REJECTED, DROPPED):
            return decision
        if decision.kind is NOT_HANDLED:
            left = decision
    return left


def _by_policy(cluster: Cluster, node: Node, packet: Packet, device: str, one: _Asked) -> Decision:
    of_kind = _internal if one.frontend.kind == "cluster" else _external
    return of_kind(cluster, node, packet, device, one.frontend, one.endpoints)


def _endless(cluster: Cluster, node: Node, packet: Packet, device: str, one: _Asked) -> Decision:
    """No endpoint is there at all."""
    own = device == "" and not is_local(cluster, node, packet.destination)
    if own and not _nftables(cluster) and one.frontend.kind in ("external", "load balancer"):
        why = f"{one.frontend.name} has no endpoints, and no rule refuses what the node itself sends"
        return Decision(NOT_HANDLED, why=why)
    return Decision(REJECTED, why=f"{one.frontend.name} has no endpoints")


def _internal(
    cluster: Cluster, node: Node, packet: Packet, device: str, frontend: Frontend, endpoints: tuple[ServiceEndpoint, ...]
) -> Decision:
    """Traffic to the clusterIP."""
    here_only = frontend.service.internal_traffic_policy == "Local"
    chosen = local_endpoints(node, endpoints) if here_only else usable(node, endpoints)
    if not chosen:
        return Decision(DROPPED, why=f"{frontend.name}: internalTrafficPolicy Local, and no endpoint on {node.meta.name}")
    return _delivered(cluster, node, packet, device, frontend, chosen, _comes_from_outside(cluster, node, packet, device))


def _comes_from_outside(cluster: Cluster, node: Node, packet: Packet, device: str) -> bool:
    """What is masqueraded on its way to a clusterIP."""
    return cluster.topology.cluster.proxy.masquerade_all or from_pod(cluster, node, packet.source, device) is False


def _external(
    cluster: Cluster, node: Node, packet: Packet, device: str, frontend: Frontend, endpoints: tuple[ServiceEndpoint, ...]
) -> Decision:
    """Traffic to a NodePort, an externalIP or a load balancer's address."""
    here = local_endpoints(node, endpoints)
    none_here = Decision(DROPPED, why=f"{frontend.name}: externalTrafficPolicy Local, and no endpoint on {node.meta.name}")
    local_policy = external_local(frontend.service)
    if frontend.unlisted:
        unlisted = Decision(NOT_HANDLED, why=f"{packet.destination} is not among the nodePortAddresses")
        return none_here if local_policy and not here else unlisted
    if not local_policy:
        return _delivered(cluster, node, packet, device, frontend, usable(node, endpoints), True)
    # nftables marks by the address alone, whichever Service has it as its clusterIP.
    having = claims.of_address(cluster, packet.destination) if _nftables(cluster) else ()
    internal = any(one.ports and packet.destination in one.cluster_ips for one in having)
    marked = internal and _comes_from_outside(cluster, node, packet, device)
    if from_pod(cluster, node, packet.source, device):
        return _delivered(cluster, node, packet, device, frontend, usable(node, endpoints), marked)
    if device == "" or is_local(cluster, node, packet.source):
        return _delivered(cluster, node, packet, device, frontend, usable(node, endpoints), True)
    return _delivered(cluster, node, packet, device, frontend, here, marked) if here else none_here


def _delivered(
    cluster: Cluster,
    node: Node,
    packet: Packet,
    device: str,
    frontend: Frontend,
    chosen: tuple[ServiceEndpoint, ...],
    masquerade: bool,
) -> Decision:
    def backend(endpoint: ServiceEndpoint) -> Backend:
        own = endpoint.node == node.meta.name
        hairpin = endpoint.address == packet.source and (own or not _nftables(cluster))
        postrouting = device == "" or not is_local(cluster, node, endpoint.address)
        return Backend(endpoint.address, endpoint.port, (masquerade or hairpin) and postrouting)

    affinity = frontend.service.session_affinity == "ClientIP"
    return Decision(DELIVERED, tuple(sorted(backend(endpoint) for endpoint in chosen)), affinity)


def _unclaimed(cluster: Cluster, node: Node, packet: Packet) -> Decision:
    """No Service has this address, protocol and port."""
    destination = packet.destination
    if _nftables(cluster) and not is_local(cluster, node, destination):
        family = family_of(destination)
        having = claims.of_address(cluster, destination)
        owner = next((s for s in having if s.ports and cluster_ip(s, family) == destination), None)
        if owner is not None:
            return Decision(REJECTED, why=f"{destination} is the clusterIP of {owner.ref}, which has no such port")
        if any(destination in cidr for cidr in cluster.topology.cluster.service_cidrs):
            return Decision(DROPPED, why=f"{destination} is an unallocated address of the service CIDR")
    return UNCLAIMED


def _frontends(cluster: Cluster, node: Node, packet: Packet) -> list[Frontend]:
    """The frontends that the packet may be for, in the order of rules: Service addresses before NodePorts, by Service name."""
    having = claims.of_address(cluster, packet.destination)
    found = [frontend for service in having for frontend in by_address(service, packet)]
    if is_local(cluster, node, packet.destination):
        served = _serves_node_ports(cluster, node, packet.destination)
        if served or not _nftables(cluster):
            asked = claims.of_node_port(cluster, packet.port)
            found += (frontend for service in asked for frontend in _by_node_port(service, packet, not served))
    return found


def by_address(service: Service, packet: Packet) -> Iterator[Frontend]:
    """One address may be of several kinds."""
    family = family_of(packet.destination)
    own = cluster_ip(service, family)
    for port in service.ports:
        if own is not None and (port.port, port.protocol) == (packet.port, packet.protocol):
            if packet.destination == own:
                yield Frontend("cluster", service, port)
            if packet.destination in external_ips(service, family):
                yield Frontend("external", service, port)
            if packet.destination in load_balancer_ips(service, family):
                yield Frontend("load balancer", service, port)


def _by_node_port(service: Service, packet: Packet, unlisted: bool) -> Iterator[Frontend]:
    if cluster_ip(service, family_of(packet.destination)) is not None:
        for port in service.ports:
            if port.node_port and (port.node_port, port.protocol) == (packet.port, packet.protocol):
                yield Frontend("node port", service, port, unlisted)


def external_local(service: Service) -> bool:
    """externalTrafficPolicy Local, which counts only for a Service that can be reached from outside."""
    reachable = service.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER) or bool(service.external_ips)
    return reachable and service.external_traffic_policy == "Local"


def _ranges(service: Service, version: int) -> list[Network]:
    """loadBalancerSourceRanges of that family; none where they leave nobody out."""
    ranges = [network for network in service.source_ranges if network.version == version]
    return [] if any(network.prefixlen == 0 for network in ranges) else ranges


def in_ranges(service: Service, node: Node, source: Address) -> bool:
    ranges = _ranges(service, source.version)
    if not ranges or any(source in network for network in ranges):
        return True
    # Where the node has the address itself, its own packet to it comes from that very address.
    primary = _primary(node, source.version)
    node_allowed = primary is not None and any(primary in network for network in ranges)
    return node_allowed and source in load_balancer_ips(service, family_of(source))


def from_pod(cluster: Cluster, node: Node, source: Address, device: str) -> bool | None:
    """Whether the proxy takes the packet for pod traffic; None when it has no means to tell (no detector)."""
    config = cluster.topology.cluster
    match config.proxy.detect_local:
        case "ClusterCIDR":
            return _within(source, config.pod_cidrs)
        case "NodeCIDR":
            return _within(source, node.pod_cidrs)
        case "BridgeInterface":
            return device == config.proxy.bridge_interface
        case "InterfaceNamePrefix":
            return device != "" and device.startswith(config.proxy.interface_name_prefix)
        case "none":
            return None
        case never:
            assert_never(never)


def _within(source: Address, networks: tuple[Network, ...]) -> bool | None:
    of_family = [network for network in networks if network.version == source.version]
    return any(source in network for network in of_family) if of_family else None


def _serves_node_ports(cluster: Cluster, node: Node, address: Address) -> bool:
    """Whether NodePorts are served at this local address of the node."""
    proxy = cluster.topology.cluster.proxy
    given = proxy.node_port_addresses
    if address.is_loopback and (_nftables(cluster) or address.version == 6 or not proxy.localhost_node_ports):
        return False
    if given == "primary" or (given is None and _nftables(cluster)):
        return address == _primary(node, address.version)
    networks = [network for network in given or () if network.version == address.version]
    if not networks or any(network.prefixlen == 0 for network in networks):
        return True
    # Only addresses that an interface has are looked up, and of 127.0.0.0/8 that is the first.
    return any(address in network for network in networks) and (not address.is_loopback or str(address) == "127.0.0.1")


def serves_health_checks(cluster: Cluster, node: Node, address: Address) -> bool:
    """Whether health checks of Services are answered at this local address: where nodePortAddresses says, localhost or not."""
    given = cluster.topology.cluster.proxy.node_port_addresses
    if given == "primary" or (given is None and _nftables(cluster)):
        return address == _primary(node, address.version)
    networks = [network for network in given or () if network.version == address.version]
    if not networks or any(network.prefixlen == 0 for network in networks):
        return True
    return any(address in network for network in networks) and (not address.is_loopback or str(address) == "127.0.0.1")


def _localnet(cluster: Cluster) -> bool:
    """Whether the proxy lets packets of 127.0.0.0/8 be routed, for the sake of NodePorts on localhost."""
    proxy = cluster.topology.cluster.proxy
    given = proxy.node_port_addresses
    networks = () if given is None or given == "primary" else tuple(network for network in given if network.version == 4)
    looped = any(network.prefixlen == 0 or network.is_loopback for network in networks) if networks else given != "primary"
    return not _nftables(cluster) and proxy.localhost_node_ports and looped


def _nftables(cluster: Cluster) -> bool:
    return cluster.topology.cluster.proxy.mode == "nftables"


def _primary(node: Node, version: int) -> Address | None:
    return next((address for address in node.addresses if address.version == version), None)


def local_addresses(cluster: Cluster, node: Node) -> tuple[Address, ...]:
    """The node's own addresses, without 127.0.0.0/8."""
    return claims.own_addresses(cluster, node).listed


def is_local(cluster: Cluster, node: Node, address: Address) -> bool:
    return address in claims.own_addresses(cluster, node).all or address.is_loopback


def device_of_pods(cluster: Cluster) -> str:
    """The interface through which a node's IP stack sees the packets of its pods (for `routed`, the beginning of its name)."""
    return ipam.NODE_BRIDGE if cluster.topology.cluster.fabric == "bridge" else "veth"
