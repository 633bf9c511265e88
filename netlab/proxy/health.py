"""Health checks of a node's Service proxy: healthCheckNodePort of each Service that has one, and the proxy's own on 10256.

Decides who listens where and what is said. Refuses to know HTTP: the responder answers. The same in every mode, but that the
userspace proxier of v1.25 and before has no healthCheckNodePort (userspace.NewProxier is given no health server).

Source: kubernetes pkg/proxy/healthcheck/{service_health,proxy_health}.go, v1.36. A load balancer asks each node and sends only to
those that answer 200; so the count is of this node's ready endpoints, by address, and of no terminating ones, though
they may still be served.
"""

from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from netlab import endpoints
from netlab.memory import last_kept
from netlab.model import Address, Cluster, Key, Node, Protocol, Service, ServiceType
from netlab.ops import Health, Listener
from netlab.proxy.settings import settings

PROXY_PORT = 10256
GOING = "ToBeDeletedByClusterAutoscaler"


def plan(cluster: Cluster) -> Iterator[Listener]:
    """The health checks of every node."""
    some = _checked(cluster.services) if cluster.topology.cluster.proxy.mode != "userspace" else []
    checked = [service for service in some if endpoints.is_proxied(service)]
    for node in cluster.nodes.values():
        netns = f"node/{node.meta.name}"
        own = Health(eligible=not _going(node))
        yield Listener(netns, netns, Protocol.TCP, PROXY_PORT, "kube-proxy", _everywhere(node), own)
        addresses = _addresses(cluster, node)
        for service in checked if addresses else ():
            assert service.health_check_node_port is not None
            said = Health(service.meta.key, _local_endpoints(cluster, service, node))
            port = service.health_check_node_port
            yield Listener(netns, str(service.ref), Protocol.TCP, port, "kube-proxy", addresses, said)


@last_kept
def _checked(services: Mapping[Key, Service]) -> list[Service]:
    return sorted(filter(_has_check, services.values()), key=lambda service: service.meta.key)


def _has_check(service: Service) -> bool:
    local = service.type is ServiceType.LOAD_BALANCER and service.external_traffic_policy == "Local"
    return local and bool(service.health_check_node_port) and bool(service.cluster_ips)


def _local_endpoints(cluster: Cluster, service: Service, node: Node) -> int:
    """Ready addresses on this node, over all ports, in the Service's first family."""
    family: endpoints.Family = "IPv4" if service.cluster_ips[0].version == 4 else "IPv6"
    known = (one for port in service.ports for one in endpoints.endpoints_of(cluster, service, port, family))
    return len({one.address for one in known if one.node == node.meta.name and one.ready and not one.terminating})


def _addresses(cluster: Cluster, node: Node) -> tuple[Address, ...]:
    """All of the node's, or those that serve NodePorts."""
    primary = cluster.topology.cluster.proxy.mode == "nftables"
    found: list[Address] = []
    for family in ("ip", "ip6") if any(address.version == 6 for address in node.addresses) else ("ip",):
        served = settings(cluster, node, "ip" if family == "ip" else "ip6", primary).node_port_addresses
        anywhere: Address = IPv4Address(0) if family == "ip" else IPv6Address(0)
        found += [anywhere] if served is None else served
    return tuple(found)


def _everywhere(node: Node) -> tuple[Address, ...]:
    return (IPv4Address(0), IPv6Address(0)) if any(address.version == 6 for address in node.addresses) else ()


def _going(node: Node) -> bool:
    """The node is being deleted, or is about to be by the autoscaler: load balancers must leave it."""
    spec = node.manifest.get("spec") or {}
    return node.meta.deleted is not None or any(taint.get("key") == GOING for taint in spec.get("taints") or ())
