"""The table of known differences between proxy modes: the row of the behaviour table, who is apart, whether it concerns a flow.

A predicate decides from the Cluster and the flow alone. It shares no code with the planners, and none with the oracle: an
explanation made from the oracle's own answer would explain the oracle's mistakes, too. It may be wider than the difference (a
flow that it holds for need not differ), never narrower.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from netlab.endpoints import Family, endpoints_of, external_ips, family_of, is_proxied, load_balancer_ips
from netlab.memory import last_kept
from netlab.model import Address, Cluster, Flow, Key, Node, Protocol, Service, ServicePort

FAMILIES: tuple[Family, ...] = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True)
class Difference:
    """`row` of the behaviour table. `apart`: the modes that do it in one way, while all others do it in the other."""

    row: int
    text: str
    apart: frozenset[str]
    concerns: Callable[[Cluster, Flow], bool]
    anywhere: bool = False
    """Whether it may concern a flow whose destination is nothing of a Service's and no node's."""


def known(cluster: Cluster, flow: Flow) -> tuple[Difference, ...]:
    """The differences that concern the flow, in order of the table."""
    among = KNOWN if _is_of_services(cluster, flow) else ANYWHERE
    return tuple([difference for difference in among if difference.concerns(cluster, flow)])


# ---------------------------------------------------------------- predicates


def node_port_elsewhere(cluster: Cluster, flow: Flow) -> bool:
    """Row 14: a NodePort, or a health check, at an address of a node that is not the primary one."""
    node = _node_with(cluster, flow.destination)
    own = _node_addresses(node, flow) if node is not None else []
    return bool(own) and flow.destination != own[0] and _is_node_port(cluster, flow)


def own_packet_to_node_port(cluster: Cluster, flow: Flow) -> bool:
    """Row 14: a node sends to the number of a NodePort at an address of its own, where it may not be served."""
    own = flow.destination.is_loopback or _node_with(cluster, flow.destination) is not None
    return own and _sent_by_node(cluster, flow) and _is_node_port(cluster, flow)


def node_port_on_localhost(cluster: Cluster, flow: Flow) -> bool:
    """Row 15: a NodePort at 127.0.0.0/8, or anything else that goes there from elsewhere (kubernetes/kubernetes#90259)."""
    return flow.destination.is_loopback and (_is_node_port(cluster, flow) or not flow.source.is_loopback)


def blocked_without_endpoints(cluster: Cluster, flow: Flow) -> bool:
    """Row 19: a load balancer's address with source ranges that leave the source out, and no endpoint."""
    return any(
        flow.destination in load_balancer_ips(service, family_of(flow.destination))
        and service.source_ranges
        and not any(flow.source in network for network in service.source_ranges if network.version == flow.source.version)
        and not _has_endpoints(cluster, service, port, flow)
        for service, port in _ports(cluster, flow)
    )


def undeclared_port(cluster: Cluster, flow: Flow) -> bool:
    """Row 20: a known clusterIP, and no port of it."""
    owners = [service for service in _askable(cluster, flow) if flow.destination in service.cluster_ips]
    return bool(owners) and not any((p.port, p.protocol) == (flow.port, flow.protocol) for one in owners for p in one.ports)


def unallocated(cluster: Cluster, flow: Flow) -> bool:
    """Row 21: an address of the service CIDR that no Service has."""
    inside = any(flow.destination in cidr for cidr in cluster.topology.cluster.service_cidrs)
    return inside and not any(flow.destination in service.cluster_ips for service in _askable(cluster, flow))


def own_packet_without_endpoints(cluster: Cluster, flow: Flow) -> bool:
    """Row 27: the node itself sends to an external address of a Service that has no endpoint."""
    if not _sent_by_node(cluster, flow):
        return False
    family = family_of(flow.destination)
    return any(
        flow.destination in (*external_ips(service, family), *load_balancer_ips(service, family))
        and not _has_endpoints(cluster, service, port, flow)
        for service, port in _ports(cluster, flow)
    )


def hairpin_elsewhere(cluster: Cluster, flow: Flow) -> bool:
    """Row 37: the sender is an endpoint of what it asks, but lives on another node than the one that rewrites, or on none."""
    asked = [
        (s, p) for s in _askable(cluster, flow) for p in s.ports if p.protocol == flow.protocol and _asked(cluster, s, p, flow)
    ]
    return any(
        one.address == flow.source and (one.node is None or flow.sender.kind != "pod")
        for service, port in asked
        for one in endpoints_of(cluster, service, port, family_of(flow.destination))
    )


def half_seen(cluster: Cluster, flow: Flow) -> bool:
    """Row 38: TCP without nf_conntrack_tcp_be_liberal, where the answer may take another way."""
    return flow.protocol is Protocol.TCP and not cluster.topology.cluster.proxy.conntrack_tcp_be_liberal


def shared(cluster: Cluster, flow: Flow) -> bool:
    """Row 16: an address and port that several Services have, or one of them twice: as clusterIP, as externalIP, as NodePort."""
    family = family_of(flow.destination)
    own = _node_with(cluster, flow.destination) is not None
    asked = 0
    for service in _askable(cluster, flow):
        kinds = (service.cluster_ips, external_ips(service, family), load_balancer_ips(service, family))
        for port in service.ports:
            if port.protocol == flow.protocol:
                asked += sum(flow.destination in kind for kind in kinds) if port.port == flow.port else 0
                asked += own and port.node_port == flow.port
    return asked > 1


def refused_where_not_served(cluster: Cluster, flow: Flow) -> bool:
    """Row 27: a NodePort's number at an address that nodePortAddresses leave out, which iptables' refusal does not ask for."""
    return cluster.topology.cluster.proxy.node_port_addresses is not None and _is_node_port(cluster, flow)


def relayed(cluster: Cluster, flow: Flow) -> bool:
    """Not in the table, which is of later versions: a flow to a Service, or to a node, where a relay may have the port."""
    return _is_node_port(cluster, flow) or any(
        flow.destination
        in (*service.cluster_ips, *service.external_ips, *load_balancer_ips(service, family_of(flow.destination)))
        for service in _askable(cluster, flow)
    )


def own_packet_outside_ranges(cluster: Cluster, flow: Flow) -> bool:
    """Row 18: the node itself sends to a load balancer's address with source ranges that leave the source out."""
    return _sent_by_node(cluster, flow) and any(
        flow.destination in load_balancer_ips(service, family_of(flow.destination)) and service.source_ranges
        for service, _ in _ports(cluster, flow)
    )


def undeclared_external(cluster: Cluster, flow: Flow) -> bool:
    """Row 20, of externalIPs and load balancers' addresses: in mode ipvs they are addresses of every node, too."""
    family = family_of(flow.destination)
    owners = [s for s in _askable(cluster, flow) if flow.destination in (*external_ips(s, family), *load_balancer_ips(s, family))]
    return bool(owners) and not any((p.port, p.protocol) == (flow.port, flow.protocol) for one in owners for p in one.ports)


def local_policy_from_inside(cluster: Cluster, flow: Flow) -> bool:
    """Row 25: a pod, or the node itself, asks a Service with externalTrafficPolicy Local from outside its clusterIP."""
    inside = _sent_by_node(cluster, flow) or flow.sender.kind == "pod"
    return inside and any(s.external_traffic_policy == "Local" for s, _ in _asked_externally(cluster, flow))


def local_policy_without_endpoint(cluster: Cluster, flow: Flow) -> bool:
    """Row 28: a Local policy, and a node that has no endpoint of the Service."""
    asked = [(s, p) for s, p in _asked_externally(cluster, flow) if s.external_traffic_policy == "Local"]
    asked += [
        (s, p) for s, p in _ports(cluster, flow) if flow.destination in s.cluster_ips and s.internal_traffic_policy == "Local"
    ]
    return any(
        {one.node for one in endpoints_of(cluster, service, port, family_of(flow.destination)) if one.ready or one.serving}
        < set(cluster.nodes)
        for service, port in asked
    )


def sent_from_localhost(cluster: Cluster, flow: Flow) -> bool:
    """Row 35: what has 127.0.0.0/8 as source passes ipvs' rules unmarked, and may not leave the node so."""
    return flow.source.is_loopback and not flow.destination.is_loopback


def undetected(cluster: Cluster, flow: Flow) -> bool:
    """Row 36: nothing tells pods from others, and a node sends from the very address that it asks."""
    return cluster.topology.cluster.proxy.detect_local == "none" and flow.source == flow.destination


NFTABLES = frozenset({"nftables"})
IPVS = frozenset({"ipvs"})
NFTABLES_AND_IPVS = frozenset({"nftables", "ipvs"})
USERSPACE = frozenset({"userspace"})
IPTABLES = frozenset({"iptables"})

KNOWN: tuple[Difference, ...] = (
    Difference(0, "userspace ends connections at a proxy on the node: pods see the node's address, endpoints take turns, and "
               "policies, source ranges, hints and terminating endpoints are not known to it", USERSPACE, relayed),
    Difference(14, "nftables serves NodePorts at the node's primary address only, unless told otherwise; others at all",
               NFTABLES, node_port_elsewhere),
    Difference(14, "ipvs masquerades what a node sends to a NodePort's number at an address of its own, served there or not",
               IPVS, own_packet_to_node_port),
    Difference(15, "iptables serves NodePorts at localhost and guards it; nftables and ipvs neither",
               NFTABLES_AND_IPVS, node_port_on_localhost),
    Difference(16, "an address and port that several Services share: iptables asks one after the other until one has an "
               "endpoint; nftables asks the first, and the source ranges of whichever has any", IPTABLES, shared),
    Difference(16, "an address and port that several Services share: in ipvs the first has the virtual server, and what is "
               "masqueraded and which source ranges count is not told apart", IPVS, shared),
    Difference(18, "ipvs asks source ranges of what comes in; what the node itself sends from another address passes",
               IPVS, own_packet_outside_ranges),
    Difference(19, "of a Service without endpoints, nftables and ipvs drop what the source ranges block; iptables rejects it",
               NFTABLES_AND_IPVS, blocked_without_endpoints),
    Difference(20, "nftables and ipvs reject undeclared ports of a clusterIP; iptables has no rule, the routes decide",
               NFTABLES_AND_IPVS, undeclared_port),
    Difference(20, "ipvs rejects undeclared ports of externalIPs and load balancers' addresses, which every node has as its own",
               IPVS, undeclared_external),
    Difference(21, "nftables drops unallocated addresses of the service CIDR; iptables and ipvs have no rule, the routes decide",
               NFTABLES, unallocated),
    Difference(25, "ipvs has no short cut past externalTrafficPolicy Local: pods and the node get its own endpoints, source kept",
               IPVS, local_policy_from_inside),
    Difference(27, "what a node itself sends to an external address without endpoints meets no rule in iptables",
               IPTABLES, own_packet_without_endpoints),
    Difference(27, "iptables refuses a NodePort that has no endpoint at every local address, others where they would serve it",
               IPTABLES, refused_where_not_served),
    Difference(28, "a Local policy without an endpoint on the node: ipvs takes all endpoints, or rejects; others drop",
               IPVS, local_policy_without_endpoint),
    Difference(35, "ipvs masquerades nothing that a node sends from 127.0.0.0/8", IPVS, sent_from_localhost, True),
    Difference(36, "without a detector ipvs masquerades what a node sends from a Service's own address", IPVS, undetected, True),
    Difference(37, "nftables and ipvs masquerade hairpin connections of the node's own endpoints only, iptables all",
               NFTABLES_AND_IPVS, hairpin_elsewhere),
    Difference(38, "iptables drops what conntrack calls invalid, unless nf_conntrack_tcp_be_liberal is on",
               IPTABLES, half_seen, True),
)  # fmt: skip
"""In order of the behaviour table's rows."""
ANYWHERE = tuple(difference for difference in KNOWN if difference.anywhere)


# ---------------------------------------------------------------- what predicates ask


@dataclass(frozen=True, slots=True)
class _Index:
    """The Services that a proxy handles by what may lead to them, in the cluster's order; made once for a matrix of flows."""

    by_address: dict[Address, list[Service]]
    by_number: dict[int, list[Service]]
    """By port, by NodePort and by healthCheckNodePort."""
    position: dict[Key, int]
    node_ports: set[int]
    """NodePorts and healthCheckNodePorts."""


@last_kept
def _index(services: Mapping[Key, Service]) -> _Index:
    index = _Index({}, {}, {}, set())
    for service in filter(is_proxied, services.values()):
        index.position[service.meta.key] = len(index.position)
        outside = (one for family in FAMILIES for one in (*external_ips(service, family), *load_balancer_ips(service, family)))
        for address in dict.fromkeys((*service.cluster_ips, *outside)):
            index.by_address.setdefault(address, []).append(service)
        numbers = (number for port in service.ports for number in (port.port, port.node_port))
        index.node_ports.update(port.node_port for port in service.ports if port.node_port)
        if service.health_check_node_port:
            index.node_ports.add(service.health_check_node_port)
        for number in dict.fromkeys((*numbers, service.health_check_node_port)):
            if number:
                index.by_number.setdefault(number, []).append(service)
    return index


def _askable(cluster: Cluster, flow: Flow) -> list[Service]:
    """The Services that have the flow's destination as an address; if it is a node's, those too that have its port."""
    index = _index(cluster.services)
    found = index.by_address.get(flow.destination, [])
    if _node_with(cluster, flow.destination) is None:
        return found
    both = {service.meta.key: service for service in (*found, *index.by_number.get(flow.port, ()))}
    return sorted(both.values(), key=lambda service: index.position[service.meta.key])


def _is_of_services(cluster: Cluster, flow: Flow) -> bool:
    """Whether the flow goes to an address of a Service or a node, to localhost, into the service CIDR, or to some NodePort."""
    to, index = flow.destination, _index(cluster.services)
    return (
        to in index.by_address
        or flow.port in index.node_ports
        or to in _nodes_by_address(cluster.nodes)
        or to.is_loopback
        or any(to in cidr for cidr in cluster.topology.cluster.service_cidrs)
    )


def _ports(cluster: Cluster, flow: Flow) -> Iterator[tuple[Service, ServicePort]]:
    """The Service ports that have the flow's protocol and port as their own."""
    for service in _index(cluster.services).by_number.get(flow.port, ()):
        for port in service.ports:
            if (port.port, port.protocol) == (flow.port, flow.protocol):
                yield service, port


def _asked(cluster: Cluster, service: Service, port: ServicePort, flow: Flow) -> bool:
    family = family_of(flow.destination)
    addresses = (*service.cluster_ips, *external_ips(service, family), *load_balancer_ips(service, family))
    by_address = flow.destination in addresses and port.port == flow.port
    return by_address or (port.node_port == flow.port and _node_with(cluster, flow.destination) is not None)


def _asked_externally(cluster: Cluster, flow: Flow) -> Iterator[tuple[Service, ServicePort]]:
    """The Service ports that the flow asks at an external address or as a NodePort."""
    for service in _askable(cluster, flow):
        for port in service.ports:
            mine = port.protocol == flow.protocol and _asked(cluster, service, port, flow)
            if mine and flow.destination not in service.cluster_ips:
                yield service, port


def _has_endpoints(cluster: Cluster, service: Service, port: ServicePort, flow: Flow) -> bool:
    known = endpoints_of(cluster, service, port, family_of(flow.destination))
    return any(one.ready or (one.serving and one.terminating) for one in known)


def _is_node_port(cluster: Cluster, flow: Flow) -> bool:
    return any(
        (port.node_port, port.protocol) == (flow.port, flow.protocol)
        or (service.health_check_node_port == flow.port and flow.protocol is Protocol.TCP)
        for service in _index(cluster.services).by_number.get(flow.port, ())
        for port in service.ports
    )


def _node_with(cluster: Cluster, address: Address) -> Node | None:
    """The node that has the address: on a LAN, or on its pod bridge."""
    return _nodes_by_address(cluster.nodes).get(address)


@last_kept
def _nodes_by_address(nodes: Mapping[str, Node]) -> dict[Address, Node]:
    found: dict[Address, Node] = {}
    for node in nodes.values():
        for address in (*node.addresses, *(cidr[1] for cidr in node.pod_cidrs if cidr.num_addresses > 2)):
            found.setdefault(address, node)
    return found


def _node_addresses(node: Node, flow: Flow) -> list[Address]:
    return [address for address in node.addresses if address.version == flow.destination.version]


def _sent_by_node(cluster: Cluster, flow: Flow) -> bool:
    return flow.sender.kind == "node" or _node_with(cluster, flow.source) is not None
