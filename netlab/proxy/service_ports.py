"""What the proxy modes share about Services: their frontends, and which endpoints each policy chooses on a node.

Decides the same as kube-proxy's ServicePort and CategorizeEndpoints (kubernetes pkg/proxy/serviceport.go, topology.go, v1.36).
Refuses to know any rule dialect; and the oracle must not import it, or both would make the same mistake.

Two values come out. A Frontend is the same on every node. Chosen is what one node makes of the endpoints; on many nodes it is
equal, which is why modes compute (and memoise) a service's rules from this pair alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from netlab import endpoints
from netlab.endpoints import ServiceEndpoint
from netlab.model import Address, Cluster, EndpointSlice, Key, Network, Node, Protocol, Ref, Service, ServicePort, ServiceType
from netlab.ruleset import Family


class Target(NamedTuple):
    """One endpoint as a rule needs it."""

    address: Address
    port: int

    @property
    def text(self) -> str:
        """`ip:port`, IPv6 in brackets: part of hashed names, so the spelling matters."""
        return f"{self.address}:{self.port}" if self.address.version == 4 else f"[{self.address}]:{self.port}"


@dataclass(frozen=True, slots=True)
class Frontend:
    """One port of one Service in one family: everything about it that does not depend on the node or on endpoints.

    `source_ranges` is empty when nothing is filtered. `affinity_s` is None without sessionAffinity.
    """

    owner: Ref
    service: Key
    port_name: str
    protocol: Protocol
    cluster_ip: Address
    port: int
    node_port: int | None
    external_ips: tuple[Address, ...]
    load_balancer_ips: tuple[Address, ...]
    source_ranges: tuple[Network, ...]
    health_check_node_port: int | None
    internal_local: bool
    external_local: bool
    affinity_s: int | None

    @property
    def name(self) -> str:
        """`namespace/name:port`, or `namespace/name` when the port has no name: kube-proxy's ServicePortName."""
        return f"{self.service.namespace}/{self.service.name}" + (f":{self.port_name}" if self.port_name else "")

    @property
    def external(self) -> bool:
        """It can be reached by something other than its ClusterIP."""
        return self.node_port is not None or bool(self.load_balancer_ips) or bool(self.external_ips)

    @property
    def uses_cluster(self) -> bool:
        """Some traffic uses Cluster policy: even with both policies Local, the short cuts of external traffic do."""
        return not self.internal_local or self.external

    @property
    def uses_local(self) -> bool:
        return self.internal_local or (self.external_local and self.external)


@dataclass(frozen=True, slots=True)
class Chosen:
    """One node's endpoints of a Frontend, by policy.

    reachable: the union of both, in order of address. anywhere: some usable endpoint exists on some node, so that "none here"
    means drop and not reject.
    """

    cluster: tuple[Target, ...] = ()
    local: tuple[Target, ...] = ()
    reachable: tuple[Target, ...] = ()
    anywhere: bool = False


@dataclass(frozen=True, slots=True)
class PortEndpoints:
    """A Frontend and the endpoints of all nodes."""

    front: Frontend
    endpoints: tuple[ServiceEndpoint, ...]


PortsByFamily = Mapping[Family, tuple[PortEndpoints, ...]]


def families(cluster: Cluster) -> tuple[Family, ...]:
    """The families that the cluster has Service addresses in; IPv4 always."""
    return ("ip", "ip6") if any(cidr.version == 6 for cidr in cluster.topology.cluster.service_cidrs) else ("ip",)


def ports_of(
    cluster: Cluster, service: Service, family: Family, slices: Mapping[Key, tuple[EndpointSlice, ...]]
) -> tuple[PortEndpoints, ...]:
    """The ports of one Service in this family, in its order; `slices` holds at least its own slices."""
    ip_family: endpoints.Family = "IPv4" if family == "ip" else "IPv6"
    address = endpoints.cluster_ip(service, ip_family)
    if address is None:
        return ()
    return tuple(
        PortEndpoints(
            _frontend(service, port, address, ip_family), endpoints.endpoints_of(cluster, service, port, ip_family, slices)
        )
        for port in service.ports
    )


def choose(port: PortEndpoints, node: Node) -> tuple[Chosen, tuple[Target, ...]]:
    """The endpoints that this node uses, by policy, and those of them that live on it.

    Ready ones; where there is none, those that still serve while terminating. The second part stays out of Chosen because it
    differs from node to node even where the choice does not.
    """
    return choose_at(port, node.meta.name, node.zone)


def choose_at(port: PortEndpoints, name: str, zone: str) -> tuple[Chosen, tuple[Target, ...]]:
    """The same, for a node of this name in this zone."""
    front, known = port.front, port.endpoints
    if not known:
        return Chosen(), ()
    ready = [endpoint for endpoint in known if endpoint.ready]
    leaving = [endpoint for endpoint in known if not endpoint.ready and endpoint.serving and endpoint.terminating]
    cluster: list[ServiceEndpoint] = []
    if front.uses_cluster:
        cluster = _near(ready, name, zone) or leaving
    local: list[ServiceEndpoint] = []
    if front.uses_local:
        local = [e for e in ready if e.node == name] or [e for e in leaving if e.node == name]
    reachable = cluster
    if not cluster:
        reachable = local
    elif local:
        used = {id(endpoint) for endpoint in (*cluster, *local)}
        reachable = [endpoint for endpoint in known if id(endpoint) in used]
    anywhere = bool(cluster) or (front.uses_local and bool(ready or leaving))
    here = [endpoint for endpoint in reachable if endpoint.node == name]
    of_cluster = _targets(cluster)
    return Chosen(of_cluster, _targets(local), of_cluster if reachable is cluster else _targets(reachable), anywhere), _targets(
        here
    )


def _near(ready: list[ServiceEndpoint], name: str, zone: str) -> list[ServiceEndpoint]:
    """Topology hints: they count only if every ready endpoint has one and one of them names this node (or its zone)."""
    if all(endpoint.node_hints for endpoint in ready):
        here = [endpoint for endpoint in ready if name in endpoint.node_hints]
        if here:
            return here
    if all(endpoint.zone_hints for endpoint in ready):
        here = [endpoint for endpoint in ready if zone in endpoint.zone_hints]
        if here:
            return here
    return ready


def _targets(chosen: list[ServiceEndpoint]) -> tuple[Target, ...]:
    return tuple([Target(endpoint.address, endpoint.port) for endpoint in chosen]) if chosen else ()


def _frontend(service: Service, port: ServicePort, cluster_ip: Address, family: endpoints.Family) -> Frontend:
    # A Service that has no external access cannot have a Local external policy (pkg/api/v1/service ExternalPolicyLocal).
    opened = service.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER) or bool(service.external_ips)
    external_local = opened and service.external_traffic_policy == "Local"
    ranges = tuple(network for network in service.source_ranges if network.version == cluster_ip.version)
    checked = external_local and service.type is ServiceType.LOAD_BALANCER
    return Frontend(
        owner=service.ref,
        service=service.meta.key,
        port_name=port.name,
        protocol=port.protocol,
        cluster_ip=cluster_ip,
        port=port.port,
        node_port=port.node_port or None,
        external_ips=tuple(dict.fromkeys(endpoints.external_ips(service, family))),
        load_balancer_ips=tuple(dict.fromkeys(endpoints.load_balancer_ips(service, family))),
        source_ranges=() if any(network.prefixlen == 0 for network in ranges) else ranges,
        health_check_node_port=service.health_check_node_port or None if checked else None,
        internal_local=service.internal_traffic_policy == "Local",
        external_local=external_local,
        affinity_s=service.affinity_timeout_s if service.session_affinity == "ClientIP" else None,
    )
