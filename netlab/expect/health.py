"""Which packets to a node are health checks of its Service proxy, for which it listens itself."""

from netlab.endpoints import cluster_ip, is_proxied
from netlab.expect.policy import Packet, serves_health_checks
from netlab.model import Cluster, Node, Protocol, ServiceType

PROXY_PORT = 10256


def checks_health(cluster: Cluster, node: Node, packet: Packet) -> bool:
    """A healthCheckNodePort is open only for a LoadBalancer with externalTrafficPolicy Local, on every node, endpoints or not.

    Mode userspace has none (docs/mode-userspace.md).
    """
    if packet.protocol is not Protocol.TCP:
        return False
    if packet.port == PROXY_PORT:
        return True
    if cluster.topology.cluster.proxy.mode == "userspace":
        return False
    return serves_health_checks(cluster, node, packet.destination) and any(
        service.health_check_node_port == packet.port
        and service.type is ServiceType.LOAD_BALANCER
        and service.external_traffic_policy == "Local"
        and is_proxied(service)
        and (cluster_ip(service, "IPv4") or cluster_ip(service, "IPv6")) is not None
        for service in cluster.services.values()
    )
